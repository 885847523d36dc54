"""Is this machine fit for a run? `python -m pipeline_lib doctor` looks and says what to do about what is not.

Every check looks at one thing and gives one finding; none changes anything, and none imports torch.
"""

import getpass
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline_lib.errors import InputError
from pipeline_lib.files import lock
from pipeline_lib.resources import BASE_MEGABYTES
from pipeline_lib.room import REMEDY, NoRoomError, free, require_room

FREE_GIGABYTES = 20
MEMORY_GIGABYTES = 8
PARTITIONS = Path("workflow/profiles/slurm/partitions.yaml")
LOGINS = {
    "ALYX_LOGIN": ("ALYX_PASSWORD", "ALYX_TOKEN"),
    "AWS_ACCESS_KEY_ID": ("AWS_SECRET_ACCESS_KEY",),
    "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": ("SNAKEMAKE_STORAGE_S3_SECRET_KEY",),
}
"""Environment variables that say who, and those of which one must say the secret."""
SCHEDULERS = ("sbatch", "squeue", "scancel", "srun", "sinfo")


@dataclass(frozen=True)
class Finding:
    """What a check found. "good"; "note": worth knowing; "bad": a run will fail or stall. `remedy`: what to do."""

    about: str
    level: Literal["good", "note", "bad"]
    found: str
    remedy: str = ""


def examine(results: Path | str = "results", data: Path | str = "data") -> list[Finding]:
    """Every check, in the order in which a person would ask.

    Parameters
    ----------
    results, data : folders of the configuration; they need not exist yet.
    """
    folders = {"results": Path(results), "data": Path(data)}
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _user,
        _packages,
        _processors,
        _memory,
        *(lambda name=name, path=path: [_disk(name, path)] for name, path in folders.items()),
        _gpus,
        _scheduler,
        lambda: [credentials(os.environ)],
    ]
    return [finding for check in checks for finding in check()]


def as_text(findings: list[Finding]) -> str:
    """A line a finding, what to do below it."""
    sign = {"good": "ok  ", "note": "note", "bad": "BAD "}
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{sign[finding.level]}  {finding.about:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':4}  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.platform == "win32":
        return [Finding("python", "bad", f"{version} on Windows", "use WSL 2: locks and signals are POSIX ones")]
    return [Finding("python", "good", f"{version}, {sys.executable}")]


def _user() -> list[Finding]:
    """Snakemake asks for both, and ends in a traceback: in a container a user may be a number alone."""
    try:
        getpass.getuser()
        Path.home()
    except (KeyError, OSError, RuntimeError):
        found = f"no name or no home folder of user {os.getuid()}, which Snakemake asks for"
        return [Finding("user", "bad", found, "export USER=me HOME=/a/folder/that/may/be/written")]
    return []


def _packages() -> list[Finding]:
    """Versions of what results depend on, against what this package asks for."""
    from packaging.requirements import Requirement

    findings, versions = [], []
    for text in importlib.metadata.requires("trainyard") or []:
        requirement = Requirement(text)
        if requirement.marker is not None:
            continue
        version = _installed(requirement.name)
        if version is None:
            findings.append(Finding("packages", "bad", f"{requirement.name} is not installed", "make setup"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found = f"{requirement.name} {version}, {requirement.specifier} is needed"
            findings.append(Finding("packages", "bad", found, "make setup"))
        if requirement.name in ("snakemake", "torch", "zarr", "pandas"):
            versions.append(f"{requirement.name} {version}")
    return findings or [Finding("packages", "good", ", ".join(sorted(versions)))]


def _installed(package: str) -> str | None:
    """The version of an installed package, None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processors() -> list[Finding]:
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "active":
        return [Finding("cores", "bad", "OMP_WAIT_POLICY=ACTIVE", "unset it: spinning threads slow fits fifty-fold")]
    return [Finding("cores", "good", str(_cores()))]


def _memory() -> list[Finding]:
    import psutil

    gigabytes = psutil.virtual_memory().total / 1e9
    if gigabytes < MEMORY_GIGABYTES:
        remedy = "fit one model at a time: --cores 1"
        return [Finding("memory", "note", f"{gigabytes:.0f} GB, {MEMORY_GIGABYTES} GB are comfortable", remedy)]
    if gigabytes * 1000 < BASE_MEGABYTES * _cores():
        found = f"{gigabytes:.0f} GB for {_cores()} cores: that many jobs at a time may need more"
        return [Finding("memory", "note", found, f"--resources mem_mb={gigabytes * 1000:.0f} downloads=2")]
    return [Finding("memory", "good", f"{gigabytes:.0f} GB")]


def _disk(name: str, path: Path) -> Finding:
    """Room, locks and the right to write, where results or downloads will lie."""
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    about = f"disk ({name})"
    if not os.access(existing, os.W_OK):
        return Finding(about, "bad", f"{existing} may not be written", f"set `{name}` in the configuration")
    try:
        require_room(existing)
        with tempfile.TemporaryFile(dir=existing) as probe:
            lock(probe, busy="")
    except NoRoomError:
        return Finding(about, "bad", f"full: {free(existing)}", REMEDY)
    except InputError as error:
        remedy = f"set `{name}` in the configuration to {error.accepted}"
        return Finding(about, "bad", f"no locks at {existing}, which keep two jobs from writing one result", remedy)
    left = shutil.disk_usage(existing).free / 1e9
    if left < FREE_GIGABYTES:
        found = f"{left:.0f} GB free at {existing}; an Allen session is 2-3 GB to fetch"
        return Finding(about, "note", found, f"set `{name}` in the configuration to a larger disk")
    return Finding(about, "good", f"{left:.0f} GB free at {existing}")


def _gpus() -> list[Finding]:
    from pipeline_lib.training.gpu import VISIBLE, candidates

    names = candidates()
    if not names:
        hidden = os.environ.get(VISIBLE) is not None
        found = f"none: {VISIBLE} is {os.environ[VISIBLE]!r}" if hidden else "none; every model also runs without"
        return [Finding("gpu", "note", found)]
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    findings = [Finding("gpu", "good", f"{len(names)}: {'; '.join((listed or '').splitlines()) or ', '.join(names)}")]
    if "+cpu" in (_installed("torch") or ""):
        remedy = "install torch for CUDA: uv pip install torch --torch-backend auto"
        findings.append(Finding("torch", "bad", "there is a GPU, and torch was built without CUDA", remedy))
    return findings


def _scheduler() -> list[Finding]:
    """SLURM and whatever of the profile `slurm` would stall on it."""
    missing = [program for program in SCHEDULERS if shutil.which(program) is None]
    if missing:
        if len(missing) == len(SCHEDULERS):
            return [Finding("slurm", "note", "none here; runs are local")]
        return [Finding("slurm", "bad", f"no {', '.join(missing)} on the path", "load the cluster's SLURM module")]
    findings = []
    partitions = _output("sinfo", "--noheader", "--format=%R %G")
    if partitions is None:
        findings.append(Finding("slurm", "bad", "the controller does not answer sinfo", "ask the cluster's support"))
    else:
        findings.append(_partitions([line.split()[0] for line in partitions.splitlines()]))
        if not any("gpu" in line.split(maxsplit=1)[-1] for line in partitions.splitlines()):
            remedy = "set-resources: fit:gpu=0 in the profile"
            findings.append(Finding("slurm", "note", "no partition has GPUs", remedy))
    accounting = _output("scontrol", "show", "config")
    if accounting is not None and "accounting_storage/none" in accounting:
        remedy = "keep slurm-status-command: squeue in the profile: sacct would wait for ever"
        findings.append(Finding("slurm", "note", "accounting is off", remedy))
    if _installed("snakemake-executor-plugin-slurm") is None:
        remedy = "pip install -e '.[slurm]' -c constraints.txt"
        findings.append(Finding("slurm", "bad", "Snakemake's executor is missing", remedy))
    return findings


def _partitions(there: Sequence[str]) -> Finding:
    """Partitions of the cluster, and whether the profile knows them: a job for one that is not there is refused."""
    import yaml

    listed = ", ".join(dict.fromkeys(there))
    try:
        named = set(yaml.safe_load(PARTITIONS.read_text())["partitions"])
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return Finding("slurm", "good", f"partitions {listed}", f"name them in {PARTITIONS}")
    if unknown := sorted(named - set(there)):
        return Finding("slurm", "bad", f"no partition {', '.join(unknown)}; there are {listed}", f"edit {PARTITIONS}")
    return Finding("slurm", "good", f"partitions {listed}")


def credentials(environment: Mapping[str, str]) -> Finding:
    """Which logins are set, never what they are."""
    for name, secrets in LOGINS.items():
        if environment.get(name) and not any(map(environment.get, secrets)):
            found, either = f"{name} alone", " or ".join(secrets)
            return Finding("logins", "note", found, f"set {either} beside it, or neither: public data need no account")
    given = [name for name in (*LOGINS, "ALYX_TOKEN", "AWS_PROFILE") if environment.get(name)]
    return Finding("logins", "good", ", ".join(given) + " set" if given else "none; public recordings need none")


def _output(*command: str) -> str | None:
    """What a program says within ten seconds; None where it is absent, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
