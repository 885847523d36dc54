"""The stand-in for visual cortex: what it says drives its units does, and survives being written and read."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.recording import Recording
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.store import read_simulation, write_simulation
from pipeline_lib.sources.simulate.video import Settings, run, wander
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


def test_hubs_do_not_raise_rates_on_average() -> None:
    """What they add is taken off; they themselves hear nobody."""
    short = SETTINGS | {"duration": 60.0}
    rates = [simulate("video", short | {"strength": strength}, 3, "s").truth.arrays["rates"][0] for strength in (0, 2)]
    targets = simulate("video", short, 3, "s").truth.arrays["coupling"][:2].any(0)
    assert np.array_equal(rates[0][:, :2], rates[1][:, :2])
    change = np.log(rates[1]).mean(0) - np.log(rates[0]).mean(0)
    assert np.abs(change[targets]).max() < 0.3 and np.abs(change[2:][~targets[2:]]).max() == 0


def test_every_spike_of_a_hub_counts() -> None:
    settings = Settings(units=2, hubs=1, targets=1, rate_limit=1000.0)
    drive = np.array([[np.log(900.0), 0.0], [0.0, 0.0], [0.0, 0.0]])
    filters = np.zeros((2, 2, 2))
    filters[0, 1] = [0.3, 0.1]
    counts, rates = run(settings, drive, filters, np.random.default_rng(0))
    assert counts[0, 0] > 1
    assert np.allclose(np.log(rates[1:, 1]), counts[0, 0] * np.array([0.3, 0.1]) + [0, counts[1, 0] * 0.3])


def test_wandering_is_stationary_from_the_first_step() -> None:
    random = np.random.default_rng(0)
    paths = np.stack([wander(40, 20.0, random) for _ in range(3000)])
    assert np.allclose(paths[:, [0, 20, 39]].var(axis=0), 1, atol=0.1)
    assert abs(np.corrcoef(paths[:, 0], paths[:, 20])[0, 1] - np.exp(-1)) < 0.06


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
