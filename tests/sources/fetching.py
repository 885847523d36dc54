"""What the tests of fetching share."""

from pathlib import Path

from pipeline_lib.sources.transport import Network

QUICK = Network(connect=1.0, stall=1.0, attempts=4, backoff=0.01, longest_wait=0.05)


def remove_locks(folder: Path) -> None:
    """Remove the lock files below `folder`, so that `changed` shows who takes one."""
    for path in folder.rglob(".*lock"):
        path.unlink()


def changed(folder: Path) -> dict[Path, int]:
    """When each file and folder below `folder` was last changed, ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
