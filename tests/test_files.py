"""Files that appear whole, what killed writers leave, and locks that a file system may not have."""

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from pipeline_lib.files import WRITING, atomic_file, exclusive, whole_directory
from pipeline_lib.sources.part import owned_part
from tests.sources.conftest import refuses


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("hold", [exclusive, owned_part])
def test_a_file_system_without_locks_is_named(
    hold: Callable[[Path], Any], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Lustre answers where it is mounted without them."""

    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with refuses(str(tmp_path), "lock", os.strerror(code), "flock"), hold(tmp_path / "held"):
        pass


KILLED = """
import os, signal, sys
from pipeline_lib.files import atomic_file
with atomic_file(sys.argv[1]) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "figure [1].pdf"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode < 0
    (left,) = tmp_path.iterdir()
    running = left.with_name(left.name.replace(left.name.split(".")[-3], str(os.getppid())))
    running.write_text("half")
    with atomic_file(path) as part:
        part.write_text("whole")
    assert {each.name for each in tmp_path.iterdir()} == {path.name, running.name} and path.read_text() == "whole"


class FullDisk(LocalStore):
    """A store whose first chunk cannot be written, and all others late."""

    async def set(self, key: str, value: Buffer) -> None:
        if key.endswith("c/0"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "c/" in key:
            await asyncio.sleep(0.05)
        await super().set(key, value)


def test_what_zarr_still_writes_when_a_chunk_fails_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), whole_directory(tmp_path) as writing:
        zarr.create_array(FullDisk(writing / "counts"), shape=(4,), chunks=(1,), dtype="u1")[:] = 1
    time.sleep(0.1)
    assert not (tmp_path / WRITING).exists()
