"""The stand-in for visual cortex: what it says drives its units does, and survives being written and read."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.recording import Recording
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.store import read_simulation, write_simulation
from pipeline_lib.trains.store import Trains, convert

SETTINGS = {"units": 16, "duration": 240.0, "hubs": 2, "targets": 5}


@pytest.fixture(scope="module")
def made() -> Recording:
    return simulate("video", SETTINGS, seed=3, session="film")


def binned(made: Recording, seconds: float) -> np.ndarray:
    bins = np.minimum((made.spike_times / seconds).astype(int), round(240 / seconds) - 1)
    counts = np.zeros((round(240 / seconds), 16))
    np.add.at(counts, (bins, made.spike_units), 1)
    return counts


def test_the_same_seed_gives_the_same_session(made: Recording) -> None:
    again, other = (simulate("video", SETTINGS, seed, "film") for seed in (3, 4))
    assert np.array_equal(again.spike_times, made.spike_times) and again.stimulus is not None
    assert np.array_equal(again.stimulus.frames, made.stimulus.frames)
    assert not np.array_equal(other.stimulus.frames, made.stimulus.frames)


def test_spikes_follow_their_rates(made: Recording) -> None:
    expected = made.truth.arrays["rates"][0].reshape(240, 100, 16).mean(1)
    counts = binned(made, 1.0)
    assert np.allclose(counts.mean(0), expected.mean(0), atol=4 * np.sqrt(expected.mean(0) / 240))
    deviance = (counts - expected) ** 2 / expected
    assert 0.9 < deviance.mean() < 1.1


def test_speed_drives_units_by_their_gains(made: Recording) -> None:
    speed = made.signals["running"]["speed"].to_numpy().reshape(240, 20).mean(1)
    found = [np.corrcoef(speed, unit)[0, 1] for unit in binned(made, 1.0).T]
    assert np.corrcoef(found, made.truth.arrays["speed_gains"])[0, 1] > 0.8
    assert set(made.signals["state"]["moving"]) == {0.0, 1.0}


def test_the_film_seen_from_the_eyes_drives_units_by_their_fields(made: Recording) -> None:
    """Spike-triggered average of the film, moved by the gaze, against the field; worse without the gaze."""
    film = made.stimulus.frames / 128.0 - 1
    gaze = np.rint(made.signals["gaze"][["y", "x"]].to_numpy()).astype(int)
    moved = np.stack([np.roll(frame, tuple(-step), (0, 1)) for frame, step in zip(film, gaze, strict=True)])
    counts = binned(made, 0.05)

    def match(seen: np.ndarray) -> float:
        average = np.tensordot(counts - counts.mean(0), seen, (0, 0)).reshape(16, -1)
        fields = made.truth.arrays["receptive_fields"].reshape(16, -1)
        return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(average, fields, strict=True)]))

    assert match(moved) > 0.5 and match(moved) > match(film) + 0.1


def test_hubs_raise_their_targets(made: Recording) -> None:
    counts, coupled = binned(made, 0.01), made.truth.arrays["coupling"]
    after = np.stack([counts[lag : -11 + lag] for lag in range(1, 11)]).sum(0)
    change = (counts[:-11, :2].T @ after) / counts[:-11, :2].sum(0)[:, None] / after.mean(0)
    hubs = coupled[:2, 2:] > 0
    assert hubs.sum() == 10 and not coupled[2:].any()
    assert change[:, 2:][hubs].mean() > change[:, 2:][~hubs].mean() * 1.15


def test_it_survives_being_written_and_read(made: Recording, tmp_path: Path) -> None:
    write_simulation("video", SETTINGS, 3, "film", "tables", tmp_path / "simulated")
    read = read_simulation("tables", "film", tmp_path / "simulated", {})
    read.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    trains = Trains.open(tmp_path / "trains")
    assert trains.stimulus is not None and np.array_equal(trains.stimulus.frames, made.stimulus.frames)
    assert set(trains.signals) == {"gaze", "running", "state"} and len(trains.ticks) == len(made.spike_times)
    assert np.array_equal(read.truth.arrays["receptive_fields"], made.truth.arrays["receptive_fields"])


def test_settings_that_make_no_sense() -> None:
    for settings, message in (({"frame_rate": 33.0}, "whole number"), ({"targets": 40}, "no hubs")):
        with pytest.raises(InputError, match=message):
            simulate("video", settings, 0, "film")
