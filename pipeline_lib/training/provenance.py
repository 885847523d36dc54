"""What a fit was made with: for run.json, the one output that holds times and machines."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pipeline_lib

PACKAGES = ("accelerate", "numpy", "pandas", "safetensors", "scipy", "torch", "zarr")


class Stopwatch:
    """Wall and CPU time from its making on."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def provenance(self, **more: Any) -> dict[str, Any]:
        """Code, versions, machine and cost as a dictionary for JSON; `more` is added."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
            "peak_memory_mb": round(_peak_memory_mb(), 1),
            "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
            "host": platform.node(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "packages": _versions(),
            "git": git_state(Path(pipeline_lib.__file__).parent),
            **more,
        }


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit of the repository that holds `directory`, and whether code differs from it; None outside one.

    It does where a tracked file has changed, and where git does not know a Python file: a model of one's own, say.
    """
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        changes = _git(directory, "status", "--porcelain", "-uno")
        changes = changes or _git(directory, "ls-files", "--others", "--exclude-standard", "--", ":(top)*.py")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(directory: Path, *arguments: str) -> str:
    """What git prints, run in `directory`."""
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _versions() -> dict[str, str]:
    versions = {"trainyard": pipeline_lib.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
