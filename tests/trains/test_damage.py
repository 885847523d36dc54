"""A damaged store is an error that names the file, never silent zeros."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.stimulus import Stimulus
from pipeline_lib.trains.store import Trains, convert


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in (directory / "trains.zarr").rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_verify_names_any_damaged_file(converted, damage):
    for file in _files(converted):
        whole = file.read_bytes()
        _damage(file, whole, damage)
        with pytest.raises(InputError) as error:
            Trains.open(converted, verify=True)
        assert str(file) in str(error.value)
        file.write_bytes(whole)
    Trains.open(converted, verify=True)


def _damage(file: Path, whole: bytes, damage: str) -> None:
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    file.unlink()
    if damage != "missing":
        file.write_bytes(whole[:middle] if damage == "truncated" else whole[:middle] + flipped + whole[middle + 1 :])


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_what_is_read_is_checked_without_verify(converted, damage):
    """Never silent zeros: a damaged shard fails at open, a damaged table when it is decoded."""
    for name in ("events/delta/c/0", "events/unit/c/0", "observed/c/0/0", "unit_intervals/c/0/0", "units/depth/c/0"):
        file = converted / "trains.zarr" / name
        whole = file.read_bytes()
        _damage(file, whole, damage)
        with pytest.raises(InputError) as error:
            print(Trains.open(converted).units)
        assert str(file) in str(error.value)
        file.write_bytes(whole)


def test_damaged_frames_are_no_others(recording, tmp_path):
    """Their chunks have no checksum: they are compared with the manifest before they are read."""
    recording.stimulus = Stimulus(np.ones((2, 4, 4), np.uint8), np.array([0.0, 1.0]), np.array([0, 1], np.int32))
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    assert np.array_equal(Trains.open(tmp_path / "trains").stimulus.frames, recording.stimulus.frames)
    (file,) = (tmp_path / "trains/trains.zarr/stimulus/frame").glob("c/0")
    file.write_bytes(file.read_bytes() + b"1")
    with pytest.raises(InputError, match="stimulus/frame/c/0"):
        print(Trains.open(tmp_path / "trains").stimulus)


def test_plain_zarr_sees_a_flipped_bit_too(converted):
    file = converted / "trains.zarr" / "events" / "unit" / "c" / "0"
    _damage(file, file.read_bytes(), "truncated")
    with pytest.raises(Exception):  # noqa: B017  whatever zarr raises, but not zeros
        zarr.open_group(str(converted / "trains.zarr"), mode="r")["events/unit"][:]


@pytest.mark.parametrize("name", ["session", "spikes", "units", "duration_ticks", "content_hash", "files"])
def test_a_manifest_that_is_not_the_one_that_was_written(converted, name):
    manifest = converted / "manifest.json"
    content = json.loads(manifest.read_text())
    for damaged in ({key: content[key] for key in content if key != name}, content | {name: None}):
        manifest.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=rf"manifest\.json: {name}"):
            Trains.open(converted)
    manifest.write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json"):
        Trains.open(converted)


def test_a_store_of_another_version(converted):
    manifest = converted / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(InputError, match="convert the session again"):
        Trains.open(converted)
    manifest.unlink()
    with pytest.raises(InputError, match="was it converted"):
        Trains.open(converted)
