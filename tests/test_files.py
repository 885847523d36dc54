"""Locks that a file system may not have."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.files import exclusive
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
