"""Where windows lie: around events, in continuous time, and never outside what was observed."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.settings import WindowSettings
from pipeline_lib.trains.windows import COLUMNS, windows


@pytest.mark.parametrize("seconds", [3e13, 1e14, 1e300])
def test_a_duration_that_no_integer_counts_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match=r"windows\.after.*at most 1e\+09 s"):
        WindowSettings(bin_size=0.01, after=seconds)


def test_columns_and_types(trains):
    frame = windows(trains, WindowSettings(after=0.5))
    text = str(pd.Series(["s1"]).dtype)  # object before pandas 3
    assert tuple(frame.columns) == COLUMNS
    assert [str(frame[name].dtype) for name in COLUMNS] == [text, "int64", "int32", "int32", text]
    assert set(frame["session"]) == {"s1"}


def test_windows_around_an_event(trains):
    frame = windows(trains, WindowSettings(align="go", before=0.1, after=0.4))
    go = trains.trials["go"]
    assert set(frame["trial"]) <= set(np.flatnonzero(go.notna()))
    expected = np.rint((go.iloc[frame["trial"]].to_numpy() - 0.1) * 1e5)
    np.testing.assert_array_equal(frame["start_tick"], expected)
    assert set(frame["bins"]) == {100}
    np.testing.assert_array_equal(frame["condition"], trains.trials["condition"].iloc[frame["trial"]])


def test_ragged_windows_end_within_a_bin_of_the_stop(trains):
    frame = windows(trains, WindowSettings(after=None, before=0.1, bin_size=20))
    stop = frame["start_tick"] + frame["bins"] * 2000
    left = trains.trials["stop"].iloc[frame["trial"]].to_numpy() * 1e5 - stop
    assert frame["bins"].nunique() > 10
    assert (left > -1).all() and (left < 2000).all()


def test_a_trial_that_ends_with_a_bin_keeps_it(trains):
    trials = trains.trials.assign(stop=trains.trials["start"] + 0.5)
    trains.tables = {"units": trains.units, "trials": trials}
    assert set(windows(trains, WindowSettings(after=None, before=0.1, bin_size=20))["bins"]) == {30}


def test_a_trial_nobody_recorded_is_left_out(trains):
    start = trains.trials["start"].to_numpy()
    for after in (0.5, 1.0):  # the last trial of the gap ends with it or after it
        frame = windows(trains, WindowSettings(after=after))
        wholly_in_gap = np.flatnonzero((start >= 80) & (start + after <= 85))
        assert len(wholly_in_gap) == (4 if after == 0.5 else 3)
        assert set(frame["trial"]) == set(range(len(start))) - set(wholly_in_gap)


def test_a_trial_without_a_whole_bin_is_left_out(trains):
    frame = windows(trains, WindowSettings(after=None, bin_size=1000))
    length = (trains.trials["stop"] - trains.trials["start"]).to_numpy()
    gap = trains.trials["start"].between(80, 84).to_numpy()
    assert set(frame["trial"]) == set(np.flatnonzero((length >= 1) & ~gap)) and set(frame["bins"]) == {1}


def test_continuous_windows_are_wholly_observed_and_do_not_overlap(trains):
    settings = WindowSettings(mode="continuous", length=0.7, bin_size=10)
    frame = windows(trains, settings)
    starts = frame["start_tick"].to_numpy()
    trains.unit_intervals = None
    assert observed_windows(trains, starts, 70, 1000).all()
    assert (np.diff(starts) >= 70_000).all()
    # As many as fit: 80 s and 15 s in windows of 0.7 s.
    assert len(frame) == int(80 / 0.7) + int(15 / 0.7)
    assert (frame["trial"] == -1).all() and (frame["condition"] == "").all()


def test_only_some_conditions(trains):
    frame = windows(trains, WindowSettings(conditions=("left",)))
    assert set(frame["condition"]) == {"left"}
    with pytest.raises(InputError, match="left, right"):
        windows(trains, WindowSettings(conditions=("up",)))


@pytest.mark.parametrize("align", ["nothing", "note"])
def test_an_event_that_is_no_time(trains, align):
    with pytest.raises(InputError, match=align):
        windows(trains, WindowSettings(align=align))


def test_no_window_at_all(trains):
    with pytest.raises(InputError, match="no window;"):
        windows(trains, WindowSettings(mode="continuous", length=90.0))
    trains.tables = {"units": trains.units, "trials": pd.DataFrame({"start": [], "stop": [], "condition": []})}
    with pytest.raises(InputError, match=r"windows\.mode: .* none; accepted: `mode: continuous`"):
        windows(trains, WindowSettings())


def test_events_in_other_units_are_told_with_when_they_are(trains):
    """A column of a table in ms that nobody named as one of times lies beyond the recording."""
    ends = trains.observed.max() / 100_000
    trials = pd.DataFrame({"start": [1.0, 2.0, 3.0], "stop": [2.0, 3.0, 4.0], "condition": "a"})
    trains.tables = {"units": trains.units, "trials": trials.assign(go=[1200.0, 2250.5, np.nan], lost=np.nan)}
    with pytest.raises(InputError, match=rf"any of 3 trials \(go: 1200 to 2250.5 s, recorded until {ends:g} s\)"):
        windows(trains, WindowSettings(align="go"))
    with pytest.raises(InputError, match=r"any of 3 trials \(lost: never\)"):
        windows(trains, WindowSettings(align="lost"))


@pytest.mark.parametrize("bin_size", [np.nan, np.inf, -1.0, 0.0, 0.005, 1.001])
def test_a_bin_is_a_whole_number_of_ticks(bin_size):
    with pytest.raises(InputError, match="bin_size"):
        WindowSettings(bin_size=bin_size)


def test_only_what_the_mode_reads_must_be_whole_bins():
    """A bin of 30 ms does not divide the default second of the other mode."""
    assert WindowSettings(bin_size=30, before=0.3, after=0.6).bin_ticks == 3000
    assert WindowSettings(bin_size=30, mode="continuous", length=0.9).history_bins == 0
    for wrong in ({"length": 0.5}, {"after": 0.5}, {"history": 0.5}, {"mode": "continuous"}):
        with pytest.raises(InputError, match="whole number of 30-ms bins"):
            WindowSettings(**{"bin_size": 30, "before": 0.3, "after": 0.6} | wrong)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"after": np.inf}, "after"),
        ({"before": np.nan}, "before"),
        ({"history": -0.1}, "history"),
        ({"before": -1.0, "after": 1.0}, "after"),
        ({"mode": "continuous", "length": -1.0}, "length"),
        ({"mode": "continuous", "length": 0.0}, "length"),
    ],
)
def test_windows_without_a_length_are_refused(changes, field):
    with pytest.raises(InputError, match=rf"windows\.{field}: found"):
        WindowSettings(**changes)


def test_a_window_of_more_bins_than_can_be_counted(trains):
    with pytest.raises(InputError, match="20000000000 bins"):
        windows(trains, WindowSettings(after=1e8))
