"""The workflow from a folder of somebody's own: by `-s`, and as a module of another workflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.project import REPOSITORY

SNAKEFILE = REPOSITORY / "workflow/Snakefile"
MODULE = f"""
rule all:
    input: "mine.txt"

module trainyard:
    snakefile: {str(SNAKEFILE)!r}
    config: {{"sessions": "sheet.tsv", "data": ".", "models": [], "figures": []}}

use rule * from trainyard as trainyard_*

rule mine:
    input: rules.trainyard_data.input
    output: "mine.txt"
    shell: "touch {{output}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("time,unit\n" + "".join(f"{each / 4},{each % 2}\n" for each in range(800)))
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\na\ttables\ta.csv\n")
    return tmp_path


def planned(folder: Path, *arguments: str) -> set[str]:
    """The rules of the jobs that would run."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    stats = lines[lines.index("Job stats:") + 3 :]
    return {line.split()[0] for line in stats[: stats.index("")]} - {"total"}


def test_the_first_rule_of_a_workflow_with_this_one_as_a_module_is_its_target(folder: Path) -> None:
    (folder / "Snakefile").write_text(MODULE)
    assert planned(folder) == {"all", "mine", "trainyard_record", "trainyard_convert"}


def test_a_folder_without_the_repository(folder: Path) -> None:
    lines = ["sessions: sheet.tsv", "data: .", "models: [mean_rate]", "windows: {mode: continuous}"]
    (folder / "mine.yaml").write_text("\n".join(lines))
    rules = planned(folder, "-s", str(SNAKEFILE), "--configfile", "mine.yaml", "--until", "fit")
    assert rules == {"record", "convert", "split", "fit"}
