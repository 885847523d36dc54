"""`kill -9` at any moment, and one more run, end with the bytes of an undisturbed run."""

import subprocess
import sys

import pytest

from tests.workflow.project import Project

STAGES = [
    pytest.param("results/recordings/pair/.writing", id="recording", marks=pytest.mark.slow),
    pytest.param("results/trains/pair/.writing", id="conversion"),
    pytest.param("results/fits/pair/glm/seed0/.resume", id="training"),
    pytest.param("results/fits/pair/glm/seed0/.writing", id="publishing a fit", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("moment", STAGES)
def test_killed_and_run_again_gives_the_same_bytes(finished: Project, project: Project, moment: str) -> None:
    project.kill_when((project.folder / moment).exists)
    assert project.snakemake("--unlock").returncode == 0
    result = project.snakemake()
    assert result.returncode == 0, result.stderr[-3000:]
    assert project.made() == finished.made()


def test_an_orphan_and_a_new_copy_do_not_both_write(copy_of_finished: Project) -> None:
    """After `kill -9` of Snakemake alone its jobs live on; the next run starts the same job a second time."""
    fit = copy_of_finished.folder / "results/fits/pair/glm/seed0"
    before = (fit / "model.safetensors").read_bytes()
    (fit / "manifest.json").unlink()
    code = (
        "import sys, time; from pathlib import Path; from pipeline_lib.files import exclusive\n"
        f"with exclusive(Path({str(fit)!r}) / '.lock'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    orphan = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=copy_of_finished.environment
    )
    assert orphan.stdout.readline() == b"held\n"
    waiting = subprocess.Popen(
        copy_of_finished.command("fits"),
        cwd=copy_of_finished.folder,
        env=copy_of_finished.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(12)
    assert not (fit / "manifest.json").exists()
    orphan.communicate()
    assert waiting.wait(120) == 0
    assert (fit / "model.safetensors").read_bytes() == before
