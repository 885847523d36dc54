"""Disks that are full, or seem so: which one it is, how much is missing, and what to do."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from pipeline_lib import room
from pipeline_lib.__main__ import main
from pipeline_lib.doctor import examine
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan, load_config

CONFIG = {
    "sessions": "sessions.tsv",
    "models": ["mean_rate", "psth"],
    "windows": {"mode": "continuous", "length": 1.0, "bin_size": 10},
}
SHEET = "session\tsource\tlocation\toptions\na\ttables\ta.npz\t\nb\ttables\tb.npz\t\nc\ttables\tc.npz\t\n"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in "abc":
        Path(f"data/{name}.npz").touch()
    Path("sessions.tsv").write_text(SHEET)
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    return load_config(Path("config.yaml"))


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_disk_that_takes_nothing_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, full: bool
) -> None:
    """One with quotas says that it has room."""
    room.require_room(tmp_path / "not/there/yet")
    refuse(monkeypatch, number)
    if not full:
        room.require_room(tmp_path)
        return
    with pytest.raises(room.NoRoomError) as error:
        room.require_room(tmp_path / "not/there/yet")
    assert str(error.value).startswith(f"{tmp_path}: {os.strerror(number)} (") and "free at /" in str(error.value)
    (disk, *_) = [finding for finding in examine(tmp_path, tmp_path) if "disk" in finding.about]
    assert disk.level == "bad" and disk.found.startswith("full: ") and disk.remedy == room.REMEDY
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_reckoned_from_what_is_there(plan: Plan) -> None:
    paths = Paths()
    assert room.missing(plan, paths) == 0, "nothing is there to go by"
    made = {
        paths.recording("a"): 1000,
        paths.recording("b"): 3000,
        paths.trains("a"): 500,
        paths.fit(*plan.fits[0]): 70,
    }
    for file, size in made.items():
        Path(file).parent.mkdir(parents=True)
        Path(file).write_bytes(bytes(size))
    assert len(plan.fits) == 6
    assert room.missing(plan, paths) == 2000 + 2 * 500 + 5 * 70


def test_one_line_for_each_full_disk(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here results, downloads and what Snakemake keeps lie on one."""
    assert room.complaints(plan, Paths()) == []
    refuse(monkeypatch, errno.ENOSPC)
    monkeypatch.setattr(room, "missing", lambda plan, paths: 3_200_000_000)
    (line,) = room.complaints(plan, Paths())
    assert line.startswith(f"{Path.cwd()}: No space left on device") and line.endswith("takes about 3.2 GB more")


def test_what_hdf5_makes_of_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It raises anew where it closes the file."""

    def close(number: int) -> None:
        try:
            raise OSError(number, "cannot write\n, buf = 0x5")
        except OSError:
            raise RuntimeError("flush failed") from None

    for number, told in ((errno.ENOSPC, True), (errno.EIO, False)):
        monkeypatch.setattr("pipeline_lib.trains.store.convert", lambda *_, number=number, **__: close(number))
        arguments = ["convert", "--recording", str(tmp_path), "--out", str(tmp_path / "trains")]
        if not told:
            with pytest.raises(RuntimeError, match="flush failed"):
                main(arguments)
            continue
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / 'trains'}: No space left on device (")
