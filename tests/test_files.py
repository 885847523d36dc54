"""Files that appear whole, what killed writers leave, and locks that a file system may not have."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.files import atomic_file, exclusive
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
