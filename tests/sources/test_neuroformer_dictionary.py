"""The public Neuroformer's dictionary becomes a recording with the same counts, frames and behaviours."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import read_source
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.store import Trains

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.3, (5, 400))
SPEED = RNG.standard_normal(80)


def saved(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "session.npz", **arrays)
    return tmp_path / "session.npz"


def test_counts_behaviours_and_frames_come_back(tmp_path: Path) -> None:
    frames = RNG.standard_normal((80, 3, 4))
    path = saved(tmp_path, spikes=COUNTS, speed=SPEED, stimulus=frames)
    made = read_source("neuroformer_dictionary", "one", path, {"bin_size": 10, "region": "VISp"})
    trains = Trains.from_recording(made)
    assert COUNTS.max() > 2
    assert np.array_equal(bin_windows(trains, np.array([0]), 400, 1000)[0].T, COUNTS)
    assert np.allclose(made.signals["speed"]["value"], SPEED)
    assert made.signals["speed"]["time"].iloc[1] == 0.05 and made.duration == 4.0
    assert trains.stimulus is not None and trains.stimulus.frames.dtype == np.uint8
    assert np.corrcoef(trains.stimulus.frames.ravel(), frames.ravel())[0, 1] > 0.999


def test_each_rate_is_that_of_its_option(tmp_path: Path) -> None:
    arrays = {"spikes": COUNTS, "speed": SPEED, "frames": np.zeros((4, 2, 3)), "intervals": np.array([0.2, 1.0])}
    rates = {"bin_size": 20, "frame_rate": 10, "behaviour_rate": 40, "interval": 0.125}
    made = read_source("neuroformer_dictionary", "one", saved(tmp_path, **arrays), rates)
    assert made.duration == 8.0
    assert np.array_equal(bin_windows(Trains.from_recording(made), np.array([0]), 400, 2000)[0].T, COUNTS)
    assert made.stimulus is not None and np.allclose(made.stimulus.onset, [0, 0.1, 0.2, 0.3])
    assert np.allclose(made.signals["speed"]["time"], np.arange(80) / 40)
    assert np.allclose(made.observed, [[0.075, 0.2], [0.875, 1.0]])


def test_trials_lie_end_to_end(tmp_path: Path) -> None:
    path = saved(tmp_path, **{"spikes/left": COUNTS[:, :100], "spikes/right": COUNTS[:, 100:250]})
    made = read_source("neuroformer_dictionary", "one", path)
    assert made.trials["condition"].tolist() == ["left", "right"]
    assert np.allclose(made.trials[["start", "stop"]], [[0, 1], [1, 2.5]])
    counts = bin_windows(Trains.from_recording(made), np.array([0]), 250, 1000)[0]
    assert np.array_equal(counts.T, COUNTS[:, :250])


def test_only_the_intervals_were_observed(tmp_path: Path) -> None:
    path = saved(tmp_path, spikes=COUNTS, intervals=np.array([0.05, 0.10, 0.5, 3.0]))
    made = read_source("neuroformer_dictionary", "one", path)
    assert np.allclose(made.observed, [[0, 0.10], [0.45, 0.5], [2.95, 3.0]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"speed": SPEED}, "spikes"),
        ({"spikes": COUNTS - 1}, "whole counts"),
        ({"spikes": COUNTS + 0.5}, "whole counts"),
        ({"spikes": COUNTS, "frames": SPEED[None]}, "frames"),
        ({"spikes": np.array([["a", "b"]])}, "spikes: found <U1.*numbers"),
        ({"spikes": COUNTS + 0j}, "spikes: found complex128"),
        ({"spikes": COUNTS, "frames": np.array([[["a"]]])}, "frames: found <U1"),
        ({"spikes": COUNTS, "mouse": np.array(["left", "right"])}, "mouse: found <U5"),
        ({"spikes": COUNTS, "intervals": np.array([np.nan, 1.0])}, "intervals, row 1: found nan"),
        ({"spikes": np.array([{"a": 1}], dtype=object)}, "readable file"),
    ],
)
def test_what_is_no_dictionary_is_named(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source("neuroformer_dictionary", "one", saved(tmp_path, **arrays))
