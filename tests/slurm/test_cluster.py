"""The whole workflow on a real SLURM: what a cluster does to jobs on a bad day changes no byte of the results."""

import os
import re
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Demo, Small, Submitted
from tests.workflow.project import SMALL

METRICS = "results/metrics.parquet"
"""What is asked for on bad days; the demo runs whole."""
SECRET = "a-secret-that-no-file-may-hold"
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, run on this machine without a cluster."""
    project = Small(tmp_path_factory.mktemp("local"))
    result = project.snakemake(METRICS)
    assert result.returncode == 0, result.stderr[-3000:]
    return project


def test_the_demo_gives_the_same_bytes_as_here(cluster: Cluster, tmp_path: Path) -> None:
    here, project = Demo(tmp_path / "here"), Demo(tmp_path / "there")
    result = here.snakemake()
    assert result.returncode == 0, result.stderr[-3000:]
    submit(project, *project.splits)  # the fits of all sessions are then ready at the same time
    most, waited = 0, False
    with running(project) as process:
        while process.poll() is None:
            gpu_jobs = [job for job in cluster.jobs() if job["partition"] == "gpu"]
            most = max(most, sum(job["state"] == "RUNNING" for job in gpu_jobs))
            waited |= any(job["state"] == "PENDING" for job in gpu_jobs) and most == 2
            time.sleep(0.2)
    assert process.returncode == 0, output(project)
    assert project.made() == here.made()
    assert most == 2, "two GPUs, so two of the three GLMs at a time"
    assert waited, "the third waits for a GPU"
    devices = {log.read_text() for log in (project.folder / "results/logs/slurm").rglob("*.log")}
    assert not any("error" in text.lower() for text in devices)
    assert "Nothing to be done" in submit(project)


def test_the_doctor_reads_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    said = Small(tmp_path).verb("doctor")
    assert said.returncode == 0, said.stdout
    assert "partitions cpu, gpu" in said.stdout
    assert "accounting is off" in said.stdout


def test_credentials_are_in_no_job_script_and_no_log(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM hands the environment on to jobs; it keeps that for itself, apart from the script."""
    for name in ("ALYX_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SNAKEMAKE_STORAGE_S3_SECRET_KEY"):
        monkeypatch.setenv(name, SECRET)
    project = Small(tmp_path)
    submit(project, "results/simulated/pair/simulation.json", "--verbose", "--printshellcmds")
    scripts = [file.read_text() for file in (cluster.folder / "state").rglob("script")]
    assert any("--target-jobs 'simulate:simulation=pair'" in script for script in scripts)
    hidden = [word for script in scripts for word in re.findall(r"base64//(\S+)", script)]
    assert hidden, "Snakemake writes some arguments in base 64"
    written = [file for file in (*tmp_path.rglob("*"), *cluster.folder.glob("*.log")) if file.is_file()]
    for text in (*map(str.encode, scripts), *map(b64decode, hidden), *map(Path.read_bytes, written)):
        assert SECRET.encode() not in text


def test_a_cancelled_job_and_a_killed_payload_come_again(cluster: Cluster, local: Small, tmp_path: Path) -> None:
    project = Small(tmp_path)
    with running(project, METRICS) as process:
        job = wait_for(lambda: next((j for j in cluster.jobs() if j["state"] == "RUNNING"), None), process)
        subprocess.run(["scancel", job["id"]], check=True)
        payload = wait_for(lambda: payload_of(project, "fit"), process)
        payload.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, output(project)
    assert project.made() == local.made()


def test_a_killed_snakemake_leaves_jobs_that_the_next_run_lives_with(
    cluster: Cluster, local: Small, tmp_path: Path
) -> None:
    project = Small(tmp_path)
    with running(project, METRICS) as process:
        wait_for(lambda: payload_of(project, "fit"), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert project.snakemake("--unlock").returncode == 0
    submit(project, METRICS)
    assert project.made() == local.made()


def test_a_fit_that_meets_its_time_limit_goes_on_in_the_next_job(cluster: Cluster, tmp_path: Path) -> None:
    """A minute is the shortest limit SLURM knows; the fit takes one and a half."""
    project = Small(tmp_path)
    alone = project.config | {"models": ["slow"], "cohorts": SMALL["cohorts"]}
    project.write_config(alone)
    fit = project.folder / "results/fits/pair/slow/seed0"
    log = project.folder / "results/logs/fit/pair/slow/seed0.log"
    first = []
    with running(project, METRICS, "--set-resources", "fit:runtime=attempt") as process:
        while process.poll() is None:
            text = log.read_text() if log.exists() else ""
            first += [line for line in text.splitlines() if line.startswith("first step") and line not in first]
            time.sleep(0.5)
    assert process.returncode == 0, output(project)
    assert first[0] == "first step 0"
    assert len(first) == 2, first
    assert int(first[1].split()[-1]) > 100, "the second job goes on from the checkpoint of the first"
    undisturbed = Small(tmp_path / "local")
    undisturbed.write_config(alone | {"models": {"slow": {"pause": 0.0}}})
    assert undisturbed.snakemake(METRICS).returncode == 0
    name = "results/fits/pair/slow/seed0/model.safetensors"
    assert (fit / "model.safetensors").read_bytes() == (undisturbed.folder / name).read_bytes()


def test_jobs_plan_from_the_session_sheet_as_it_was_when_the_run_began(cluster: Cluster, tmp_path: Path) -> None:
    """They read the workflow anew; SLURM hands them the environment, which names them the copy."""
    project = Small(tmp_path)
    sheet = project.folder / "config/sessions.tsv"
    with running(project, "results/recordings/pair/recording.json") as process:
        wait_for(cluster.jobs, process)
        sheet.write_text("session\tsource\tlocation\nother\tallen\tsimulated:pair\n")
        assert process.wait(600) == 0, output(project)
    assert (project.folder / "results/recordings/pair/recording.json").is_file()


@contextmanager
def running(project: Submitted, *arguments: str) -> Iterator[subprocess.Popen]:
    """Snakemake with the slurm profile, in the background; what it says goes to a file."""
    with (project.folder / "snakemake.out").open("a") as out:
        process = subprocess.Popen(
            project.submit(*arguments), cwd=project.folder, env=project.environment, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def submit(project: Submitted, *arguments: str) -> str:
    with running(project, *arguments) as process:
        assert process.wait(1200) == 0, output(project)
    return output(project)


def output(project: Submitted) -> str:
    return (project.folder / "snakemake.out").read_text()[-5000:]


def wait_for(find: Callable, process: subprocess.Popen):
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, "the run ended before the moment"
        found = find()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError


def payload_of(project: Submitted, verb: str) -> psutil.Process | None:
    """The process that does the work of a job of this project."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-m", "pipeline_lib", verb] and process.info["cwd"] == str(project.folder):
            return process
    return None
