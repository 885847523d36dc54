"""Room on the disks of a run: which one is full, how much is missing, and what to do."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline_lib.errors import Failure
from pipeline_lib.files import FULL
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan
from pipeline_lib.resources import size

NOTES = ".snakemake"
"""Where Snakemake keeps its own."""
PROBE = 2**20
"""Bytes that a disk must take. One with less is full for a run, whose logs it would still take."""
REMEDY = "make room there, and give the same command again: what is finished stays"


class NoRoomError(Failure):
    """A disk is full."""


def require_room(folder: Path | str) -> None:
    """Raise NoRoomError where the disk of `folder`, which need not exist yet, is full."""
    folder = _existing(Path(folder))
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        if error.errno in FULL:
            raise NoRoomError(f"{folder}: {os.strerror(error.errno)} ({free(folder)}): {REMEDY}") from None


def free(path: Path | str) -> str:
    """How much room the disk of `path` has, in words, with the folder that it is mounted at.

    >>> free("results")
    '... free at /...'
    """
    mount = _existing(Path(path))
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    usage = shutil.disk_usage(mount)
    return f"{_amount(usage.free)} of {_amount(usage.total)} free at {mount}"


def missing(plan: Plan, paths: Paths) -> int:
    """Bytes that recordings, trains and fits still to be made will about take, by the size of those that are there."""
    kinds: Iterable[list[str]] = (
        [*map(paths.recording, plan.sessions)],
        [*map(paths.trains, plan.sessions)],
        [paths.fit(*fit) for fit in plan.fits],
    )
    total = 0.0
    for files in kinds:
        made = [size(Path(file).parent) for file in files if Path(file).exists()]
        if made:
            total += sum(made) / len(made) * (len(files) - len(made))
    return int(total)


def complaints(plan: Plan, paths: Paths) -> list[str]:
    """A line for each disk of a run that is full, to be read where its logs are empty for that."""
    folders = plan.config.results, plan.config.data, NOTES
    disks = {_existing(Path(folder)).stat().st_dev: folder for folder in reversed(folders)}  # of one disk the first
    found = []
    for folder in disks.values():
        try:
            require_room(folder)
        except NoRoomError as error:
            more = missing(plan, paths) if folder == plan.config.results else 0
            about = f"; what is still to be made takes about {_amount(more)} more" if more else ""
            found.append(f"{error}{about}")
    return found


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())


def _amount(size: float) -> str:
    """Bytes as "0.3 MB" or "120.0 GB".

    >>> _amount(3.1e5), _amount(1.2e11)
    ('0.3 MB', '120.0 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
