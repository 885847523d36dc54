"""The doctor on machines that are made sick on purpose: programs of a fake cluster, disks, logins, devices."""

import errno
import fcntl
import importlib.metadata
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib import doctor
from pipeline_lib.__main__ import main
from pipeline_lib.doctor import Finding, as_text, credentials, examine

SINFO = """#!/bin/sh
echo "long (null)"
echo "{name} {gres}"
"""


def about(findings: list[Finding], word: str) -> list[Finding]:
    return [finding for finding in findings if word in finding.about]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path with nothing on it but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_this_machine_can_run_the_workflow(tmp_path: Path) -> None:
    findings = examine(tmp_path / "results", tmp_path / "data")
    assert not [finding for finding in findings if finding.level == "bad" and finding.about != "slurm"]
    assert "pandas" in about(findings, "packages")[0].found


def test_more_cores_than_memory_for_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("Memory", "total")(64e9))
    for cores, level in ((32, "good"), (64, "note")):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        (memory,) = about(examine(), "memory")
        assert memory.level == level
    assert memory.found.startswith("64 GB for 64 cores")
    assert memory.remedy == "--resources mem_mb=64000 downloads=2"


def test_without_slurm_runs_are_local(programs: Path) -> None:
    assert [(f.level, f.found) for f in about(examine(), "slurm")] == [("note", "none here; runs are local")]


def test_half_a_slurm_is_named(programs: Path) -> None:
    program(programs, "sbatch")
    (finding,) = about(examine(), "slurm")
    assert finding.level == "bad"
    assert "squeue" in finding.found
    assert "sbatch" not in finding.found


@pytest.mark.parametrize(("gres", "warned"), [("gpu:2", False), ("(null)", True)])
def test_accounting_that_is_off_and_partitions(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gres: str, warned: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # no profile here
    for name in doctor.SCHEDULERS:
        program(programs, name)
    program(programs, "sinfo", SINFO.format(name="gpu-short", gres=gres))
    program(programs, "scontrol", "#!/bin/sh\necho 'AccountingStorageType = accounting_storage/none'\n")
    found = {finding.found: finding for finding in about(examine(), "slurm")}
    assert "partitions long, gpu-short" in found
    assert "squeue" in found["accounting is off"].remedy
    assert ("no partition has GPUs" in found) == warned


def test_partitions_of_the_profile_that_the_cluster_lacks(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in doctor.SCHEDULERS:
        program(programs, name)
    program(programs, "sinfo", SINFO.format(name="gpu-short", gres="gpu:2"))
    monkeypatch.chdir(tmp_path)
    doctor.PARTITIONS.parent.mkdir(parents=True)
    doctor.PARTITIONS.write_text("partitions: {long: {max_gpu: 0}, gpu: {max_gpu: 4}}\n")
    wrong = about(examine(), "slurm")[0]
    assert (wrong.level, wrong.found) == ("bad", "no partition gpu; there are long, gpu-short")
    assert str(doctor.PARTITIONS) in wrong.remedy
    doctor.PARTITIONS.write_text("partitions: {long: {}, gpu-short: {}}\n")
    assert about(examine(), "slurm")[0] == Finding("slurm", "good", "partitions long, gpu-short")


def test_a_controller_that_does_not_answer(programs: Path) -> None:
    for name in doctor.SCHEDULERS:
        program(programs, name)
    program(programs, "sinfo", "#!/bin/sh\nexit 1\n")
    (finding, *_) = about(examine(), "slurm")
    assert (finding.level, finding.found) == ("bad", "the controller does not answer sinfo")


def test_a_full_disk_and_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 3 * 10**9))
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "closed" and allowed(path, mode))
    (tmp_path / "closed").mkdir()
    findings = examine(tmp_path / "closed/results", tmp_path / "new/data")
    assert [finding.level for finding in about(findings, "disk")] == ["bad", "note"]
    assert "3 GB free" in about(findings, "data")[0].found


def test_a_user_who_is_a_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was started for one: Snakemake looks for a name and a home."""
    assert not about(examine(), "user")
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 9)
    (finding,) = about(examine(), "user")
    assert finding.level == "bad" and f"user {2**31 - 9}" in finding.found and "HOME=" in finding.remedy
    monkeypatch.setenv("USER", "me")
    assert about(examine(), "user"), "a home is asked for, too"
    monkeypatch.setenv("HOME", "/tmp")
    assert not about(examine(), "user")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    finding = about(examine(tmp_path / "results", tmp_path), "results")[0]
    assert finding.level == "bad" and "no locks" in finding.found and "Lustre" in finding.remedy
    assert not list(tmp_path.iterdir())


def test_a_gpu_under_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    gpu, torch = doctor._gpus()
    assert (gpu.level, torch.level) == ("good", "bad")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in doctor._gpus()[0].found


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """An environment that lacks a package."""

    def version(name: str, known: Callable[[str], str] = importlib.metadata.version) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_gpu_and_no_torch_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    without(monkeypatch, "torch")
    assert [finding.level for finding in doctor._gpus()] == ["good"]
    (missing,) = [finding for finding in about(examine(), "packages") if finding.level == "bad"]
    assert (missing.found, missing.remedy) == ("torch is not installed", "make setup")


def test_logins_are_named_never_shown() -> None:
    environment = {"ALYX_LOGIN": "someone", "ALYX_PASSWORD": "hidden-word"}
    text = as_text([credentials(environment)])
    assert "ALYX_LOGIN" in text
    assert "hidden-word" not in text
    assert "someone" not in text
    for name in doctor.LOGINS:
        alone = credentials({name: "someone"})
        assert (alone.level, alone.found) == ("note", f"{name} alone")
    assert credentials({}).level == credentials({"ALYX_LOGIN": "someone", "ALYX_TOKEN": "secret"}).level == "good"


def test_the_verb_says_what_to_do_and_fails_where_a_run_would(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    assert "runs are local" in capsys.readouterr().out
    program(programs, "sbatch")
    assert main(["doctor"]) == 1
    assert "-> load the cluster's SLURM module" in capsys.readouterr().out


def test_the_missing_executor_comes_from_this_repository(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the package alone, pip would take whatever is published under it."""
    for name in doctor.SCHEDULERS:
        program(programs, name)
    without(monkeypatch, "snakemake-executor-plugin-slurm")
    (finding,) = [each for each in about(examine(), "slurm") if "executor" in each.found]
    assert (finding.level, finding.remedy) == ("bad", "pip install -e '.[slurm]' -c constraints.txt")
