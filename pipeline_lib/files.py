"""Files that appear whole or not at all, and directories that only one process writes."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline_lib.errors import InputError

WRITING = ".writing"
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""How the system says that a disk has no room, or none within one's quota, which no figure about the disk tells."""


def listed(paths: Iterable[Path | str] | Path | str) -> list[Path]:
    """Several paths; one may stand for a list of one, which would else be taken for a list of its letters.

    >>> listed("trains/day1"), listed(["a", Path("b")])
    ([PosixPath('trains/day1')], [PosixPath('a'), PosixPath('b')])
    """
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` on success and is removed on failure.

    What writers of the same file left that were killed on this machine is removed, too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: several writers (numpy, matplotlib) choose the format by it.
    begin, end = f".{path.stem}.{os.uname().nodename}.", f".part{path.suffix}"
    part = path.with_name(f"{begin}{os.getpid()}{end}")
    try:
        yield part
        sync(part)
        os.replace(part, path)
        for other in path.parent.glob(f"{glob.escape(begin)}*{glob.escape(end)}"):
            writer = other.name[len(begin) : -len(end)]
            if writer.isdigit() and not _runs(int(writer)):
                other.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def exclusive(path: Path | str) -> Iterator[None]:
    """Hold the lock file `path`; wait, and say so, while another process holds it.

    The kernel frees the lock when its process ends in any way, `kill -9` included. The file itself is left in place:
    removing it would let two processes hold locks of the same name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        lock(handle, f"waiting: another process is writing {path.parent}")
        yield


def lock(handle: IO[Any], busy: str) -> bool:
    """Lock an open file for this process; say `busy` and wait while another process holds it. Whether it waited.

    Raises
    ------
    InputError : the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(busy, file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return True
    except OSError as error:
        accepted = "a file system with locks (NFS with its lock service; Lustre mounted with the option flock)"
        raise InputError(handle.name, "lock", error.strerror, accepted) from None
    return False


@contextlib.contextmanager
def whole_directory(path: Path | str, final: str = "manifest.json", optional: Iterable[str] = ()) -> Iterator[Path]:
    """Write several files as one result: yield an empty directory; on success its entries move into `path`.

    `final` is the file that declares the result complete (the one Snakemake waits for). It is taken away first and
    moved in last, so that a directory which has it is whole, whenever the process was killed. `optional` names the
    entries that only some results have: those of an earlier result go. The caller must hold the lock of `path` (see
    `exclusive`) where two processes may write it.

    Raises
    ------
    RuntimeError : `final` was not written.
    """
    path = Path(path)
    writing = path / WRITING
    if writing.exists():
        shutil.rmtree(writing)
    writing.mkdir(parents=True)
    try:
        yield writing
        if not (writing / final).is_file():
            raise RuntimeError(f"{writing / final} was not written")
        for file in sorted(writing.rglob("*")):
            if file.is_file():
                sync(file)
        (path / final).unlink(missing_ok=True)
        for name in optional:
            _remove(path / name)
        entries = sorted(writing.iterdir(), key=lambda entry: entry.name == final)
        for entry in entries:
            _remove(path / entry.name)
            os.replace(entry, path / entry.name)
    except BaseException:
        _let_zarr_end()
        raise
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _let_zarr_end() -> None:
    """Wait for zarr's other threads: they write on after one of them has failed, into folders that they make again."""
    if "zarr" not in sys.modules:
        return
    import asyncio

    from zarr.core import sync

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    sync.sync(end())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Ask the disk to hold `path` before anything is renamed to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as JSON, whole or not at all, with sorted keys: the same content gives the same bytes."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str, accepted: str) -> dict[str, Any]:
    """The entries of a JSON file. InputError, with `accepted` as what to do, where it is no such file."""
    try:
        return dict(json.loads(Path(path).read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(path, "content", str(error), accepted) from None


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_tree(path: Path | str) -> str:
    """SHA-256 over the relative names and bytes of every file under `path`, in sorted order."""
    path, digest = Path(path), hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
