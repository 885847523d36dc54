"""What a signal says between its samples, asked by every part that reads one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.decoding import signal_in_bins
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.inputs import signal_values
from pipeline_lib.models.neuroformer.signals import read_signals
from pipeline_lib.trains.loader import Loader
from pipeline_lib.trains.signals import interpolated, unmeasured
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

GAP = (30.0, 40.0)


def test_a_slow_signal_has_no_gaps_but_its_own() -> None:
    rng = np.random.default_rng(0)
    time = np.sort(np.concatenate([np.arange(0, 300, 10.0), np.arange(400, 600, 10.0)]) + rng.uniform(0, 1, 50))
    at = np.concatenate([np.linspace(time[0], time[-1], 1000), time])
    assert np.array_equal(unmeasured(at, time), (at > time[29]) & (at < time[30]))


def test_a_second_without_samples_is_a_gap_of_a_fast_one() -> None:
    time = np.concatenate([np.arange(0, 10, 0.01), np.arange(11.5, 20, 0.01)])
    at = np.linspace(-1, 21, 2000)
    known = ((at >= 0) & (at < time[999])) | ((at >= 11.5) & (at <= time[-1]))
    assert np.array_equal(unmeasured(at, time), ~known)
    assert unmeasured(at, np.empty(0)).all()


def test_an_interval_is_a_gap_above_a_second_and_three_usual_ones() -> None:
    def known(intervals: list[float], at: float) -> bool:
        return not unmeasured(np.array([at]), np.cumsum([0.0, *intervals]))[0]

    assert known([0.25] * 3 + [1.0], 1.0) and not known([0.25] * 3 + [1.125], 1.0)
    assert known([2.0] * 9 + [6.0], 20.0) and not known([2.0] * 9 + [6.5], 20.0)
    # Slow throughout, but for the tenth of the intervals that are shortest.
    assert known([2.0] * 5 + [10.0] * 95, 105.0) and not known([2.0] * 15 + [10.0] * 85, 105.0)


def test_between_samples_a_signal_is_the_line_and_elsewhere_unknown() -> None:
    """Every time by itself, by the two samples around it; of two samples at one time, the later one counts there."""
    rng = np.random.default_rng(1)
    time = np.cumsum(rng.choice([0.0, 0.25, 0.5, 4.0], 60, p=[0.1, 0.5, 0.3, 0.1]))
    values = rng.standard_normal((60, 2))
    values[20, 1] = np.nan
    at = np.concatenate([rng.uniform(-1, time[-1] + 1, 300), time]).reshape(2, -1)
    found = interpolated(at, time, values)
    for place in np.ndindex(at.shape):
        x, expected = at[place], np.full(2, np.nan)
        if time[0] <= x <= time[-1]:
            left = np.flatnonzero(time <= x)[-1]
            right = min(left + 1, 59)
            if x == time[left]:
                expected = values[left]
            elif time[right] - time[left] <= 1:
                expected = np.array([np.interp(x, time[left : right + 1], each) for each in values[left : right + 1].T])
        np.testing.assert_allclose(found[place], expected, rtol=1e-12, atol=1e-15)
    assert np.isnan(found[..., 0]).any() and np.isnan(found[..., 1]).sum() > np.isnan(found[..., 0]).sum()
    nothing = interpolated(at, np.empty(0), np.empty((0, 2)))
    assert nothing.shape == (*at.shape, 2) and np.isnan(nothing).all()


def test_a_label_is_that_of_the_last_sample_and_a_number_lies_between_two() -> None:
    label = pd.DataFrame({"time": [1.0, 0.0, 0.5, 0.75], "x": [3.0, 1.0, 2.0, np.nan]})
    trains = SimpleNamespace(session="one", signals={"state": label, "silent": label[:0]})
    at = np.array([[-0.1, 0.0, 0.4, 0.5], [0.9, 0.99, 1.0, 1.1]])
    found = read_signals(trains, ["state/x", "state/x", "silent/x", "silent/x"], at, [True, False] * 2)
    assert found.dtype == np.float32 and found.shape == (2, 4, 4) and np.isnan(found[..., 2:]).all()
    np.testing.assert_array_equal(found[..., 0], [[np.nan, 1, 1, 2], [2, 2, 3, np.nan]])
    np.testing.assert_allclose(found[..., 1], [[np.nan, 1, 1.8, 2], [2.8, 2.98, 3, np.nan]], rtol=1e-6)


def test_a_signal_that_is_not_there_is_named_beside_those_that_are() -> None:
    trains = SimpleNamespace(session="one", signals={"state": pd.DataFrame({"time": [0.0], "moving": [1.0]})})
    for missing in ("state/moves", "state/time"):
        with pytest.raises(InputError, match=f"{missing}: found no such signal; accepted: .*state/moving"):
            read_signals(trains, [missing], np.zeros(1), [False])
    with pytest.raises(InputError, match="accepted: a session with signals"):
        read_signals(SimpleNamespace(session="one", signals={}), ["state/moving"], np.zeros(1), [False])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """A session whose running speed was not recorded for 10 s."""
    made = recording("gap")
    time = np.arange(0, made.duration, 0.05)
    time = time[(time <= GAP[0]) | (time >= GAP[1])]
    made.signals = {"running": pd.DataFrame({"time": time, "speed": np.sin(time)})}
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("gap"), replace(WINDOWS, history=0.0), SPLITS, [made]))


def test_every_part_knows_and_invents_the_same(data: FitData) -> None:
    samples, trains = data.samples("gap", "train"), data.trains["gap"]
    ticks = samples["start_tick"].to_numpy()[:, None] + np.arange(50) * data.split.bin_ticks
    middle = (ticks + data.split.bin_ticks / 2) / 1e5
    table = trains.signals["running"]
    found = [
        signal_values(data, "gap", "running", ticks.reshape(-1)).reshape(ticks.shape),
        read_signals(trains, ["running/speed"], middle, [False])[..., 0],
        signal_in_bins(table["time"].to_numpy(), table[["speed"]].to_numpy(), ticks[:, 0], 50, data.split.bin_ticks)[
            ..., 0
        ],
    ]
    for batch in Loader([trains], data.split, "train", batch_size=1000, shuffle=False, signals=["running"]):
        found.append(np.asarray(batch.signals["running"])[..., 0])
    hidden = (middle > GAP[0]) & (middle < GAP[1])
    assert hidden.any() and not hidden.all() and len(found) == 4
    for values in found:
        assert np.array_equal(np.isnan(values), hidden)
        np.testing.assert_allclose(values[~hidden], np.sin(middle[~hidden]), atol=1e-3)
