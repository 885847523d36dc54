"""The part of a file that has arrived: beside its target, owned by one process, resumable by the next."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline_lib.files import lock, sync, write_json


@dataclass(frozen=True)
class Origin:
    """Which version of which remote file a part belongs to."""

    url: str
    tag: str
    size: int | None


class Part:
    """The open part of the file `target`; `waited` if another process held it before.

    Use `owned_part`. What is written goes to the end, unbuffered: it is there whenever the process is killed.
    """

    def __init__(self, target: Path, path: Path, handle: BinaryIO, waited: bool) -> None:
        self.target, self.path, self.waited = target, path, waited
        self.received = 0
        self._handle = handle
        self._origin = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return os.fstat(self._handle.fileno()).st_size

    def origin(self) -> Origin | None:
        """What the bytes here are a part of; None where that is not known for sure."""
        try:
            return Origin(**json.loads(self._origin.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, origin: Origin) -> None:
        """Start from nothing, as a part of `origin`."""
        self.clear()
        write_json(self._origin, asdict(origin))

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end; `received` counts those of this process."""
        view = memoryview(chunk)
        while view:
            written = self._handle.write(view)
            self.received += written
            view = view[written:]

    def clear(self) -> None:
        """Forget everything."""
        self._origin.unlink(missing_ok=True)
        self._handle.truncate(0)

    def publish(self) -> None:
        """Give the part the name of its target, on the disk for good."""
        os.fsync(self._handle.fileno())
        os.replace(self.path, self.target)
        self._origin.unlink(missing_ok=True)
        sync(self.target.parent)

    def discard(self) -> None:
        """Remove the part."""
        self._origin.unlink(missing_ok=True)
        self.path.unlink()


@contextlib.contextmanager
def owned_part(target: Path) -> Iterator[Part]:
    """The part of `target`, held by this process alone; waits, and says so, while another one holds it.

    The lock is on the part itself, which the rename takes away: no lock file stays behind. The kernel frees the lock of
    a process that ends in any way.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path, waited = target.with_name(f".{target.name}.part"), False
    while True:
        handle = path.open("ab", buffering=0)
        try:
            waited |= lock(handle, f"waiting: another process is fetching {target}")
            # While this process waited, the holder may have renamed or removed the file that was opened here.
            if _same(handle, path):
                yield Part(target, path, handle, waited)
                return
            waited = True
        finally:
            handle.close()


def _same(handle: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
