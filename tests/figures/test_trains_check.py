"""The check of spike trains finds what is wrong with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import trains_check
from pipeline_lib.recording import Recording
from pipeline_lib.trains.store import convert
from tests.figures.made_up_results import Results


@pytest.fixture(scope="module")
def table(trials: Results) -> pd.DataFrame:
    return trains_check.data(trials.recording, trials.trains)


def test_sums_agree_and_a_lost_spike_is_seen(table: pd.DataFrame, trials: Results, tmp_path: Path) -> None:
    sums = table[table["panel"] == "sum"]
    assert set(sums["name"]) == {"recording", "1", "5", "20"}
    assert (sums["of"] == sums["value"]).all() and sums["value"].sum() > 1000
    recording = Recording.read(trials.recording)
    lost = np.flatnonzero(recording.spike_units == 7)[3]
    recording.spike_times = np.delete(recording.spike_times, lost)
    recording.spike_units = np.delete(recording.spike_units, lost)
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    damaged = trains_check.data(trials.recording, tmp_path / "trains")
    wrong = damaged[(damaged["panel"] == "sum") & (damaged["of"] != damaged["value"])]
    assert wrong["unit"].tolist() == [7] and wrong["name"].tolist() == ["recording"]


def test_intervals_and_violations_are_counted_one_by_one(table: pd.DataFrame, trials: Results) -> None:
    recording = Recording.read(trials.recording)
    violations = table[table["panel"] == "violation"].set_index("unit")
    for unit in (0, 11, 39):
        times = np.round(recording.spike_times[recording.spike_units == unit], 5)
        short = np.diff(times) < 1.5e-3 - 1e-9
        assert violations.loc[unit, "value"] == pytest.approx(100 * short.mean())
        assert violations.loc[unit, "of"] == pytest.approx(len(times) / recording.duration)
    for region, density in table[table["panel"] == "interval"].groupby("name"):
        width = np.diff(np.log10(trains_check.INTERVAL_EDGES))
        assert (density["value"] * width).sum() == pytest.approx(1)
        own = [
            np.diff(recording.spike_times[recording.spike_units == unit])
            for unit in np.flatnonzero(recording.units["region"] == region)
        ]
        expected = np.histogram(np.concatenate(own), trains_check.INTERVAL_EDGES)[0]
        np.testing.assert_allclose(density["value"] * width * expected.sum(), expected, atol=8)  # ticks of 10 us


def test_the_course_is_relative_to_the_time_a_unit_was_observed(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    half = recording.duration / 2
    keep = (recording.spike_units != 3) | (recording.spike_times < half)
    recording.spike_times, recording.spike_units = recording.spike_times[keep], recording.spike_units[keep]
    recording.unit_intervals = pd.DataFrame({"unit": [3], "start": [0.0], "stop": [half]})
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    table = trains_check.data(tmp_path / "recording", tmp_path / "trains")
    course = table[(table["panel"] == "course") & (table["unit"] == 3)]
    late = course["time"] > half + recording.duration / 60
    assert course.loc[late, "value"].isna().all() and course.loc[~late, "value"].notna().sum() >= 29
    assert abs(np.log2((2 ** course["value"]).mean())) < 0.1, "1 on average while it was observed"


def test_a_unit_is_observed_only_while_its_session_is(trials: Results, tmp_path: Path) -> None:
    """A gap in the recording lies inside the unit's own interval; a stray spike in the gap is not counted."""
    recording = Recording.read(trials.recording)
    gap = np.array([19.8, 39.8])
    keep = ((recording.spike_times < gap[0]) | (recording.spike_times > gap[1])) | (recording.spike_units == 5)
    recording.spike_times, recording.spike_units = recording.spike_times[keep], recording.spike_units[keep]
    recording.observed = np.array([[0.0, gap[0]], [gap[1], recording.duration]])
    recording.unit_intervals = pd.DataFrame({"unit": [3, 5], "start": [0.0, 0.0], "stop": [recording.duration] * 2})
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    table = trains_check.data(tmp_path / "recording", tmp_path / "trains")
    rates = table[table["panel"] == "violation"].set_index("unit")["of"]
    times = {unit: recording.spike_times[recording.spike_units == unit] for unit in (3, 5)}
    for unit, own in times.items():
        outside = (own < gap[0]) | (own > gap[1])
        assert rates[unit] == pytest.approx(outside.sum() / (recording.duration - 20))
    course = table[(table["panel"] == "course") & table["unit"].isin([3, 5])]
    assert course.loc[course["time"].between(20.5, 39.1), "value"].isna().all()
    width = recording.duration / trains_check.COURSE_BINS
    own = course[course["unit"] == 5].set_index("time")["value"]
    assert own.iloc[[14, 15, 29, 30]].isna().tolist() == [False, True, True, False], "a tenth of bin 15 is too little"
    for time in own.index[[2, 14, 31]]:  # also the bins that the gap cuts
        counted = (np.abs(times[5] - time) < width / 2) & ((times[5] < gap[0]) | (times[5] > gap[1]))
        inside = width - max(0.0, min(time + width / 2, gap[1]) - max(time - width / 2, gap[0]))
        if inside > 0.2 * width:
            expected = np.log2(max(counted.sum() / inside / rates[5], 1 / 16))
            assert own[time] == pytest.approx(expected, abs=1e-6)


def test_bins_hold_what_they_hold(table: pd.DataFrame) -> None:
    bins = table[table["panel"] == "bin"]
    assert bins.groupby("name")["value"].sum().to_numpy() == pytest.approx(100)
    empty = bins[bins["of"] == 0].set_index("name")["value"]
    assert empty["1"] > empty["5"] > empty["20"]


def test_the_fullest_bins_are_counted_together(trials: Results, tmp_path: Path) -> None:
    """One unit that fires every 3 ms: six or seven spikes in each bin of 20 ms, one or two in each of 5 ms."""
    recording = Recording.read(trials.recording)
    recording.spike_times = np.arange(0.001, recording.duration, 0.003)
    recording.spike_units = np.zeros(len(recording.spike_times), dtype=np.int32)
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    table = trains_check.data(tmp_path / "recording", tmp_path / "trains")
    shares = table[table["panel"] == "bin"].set_index(["name", "of"])["value"]
    assert shares["20", trains_check.MOST_A_BIN] == pytest.approx(100 / 40) and shares["20", 0] == pytest.approx(97.5)
    assert shares["5", 1] + shares["5", 2] == pytest.approx(2.5) and shares["5", 2] > shares["5", 1]
