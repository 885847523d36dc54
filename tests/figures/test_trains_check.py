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
    for _, density in table[table["panel"] == "interval"].groupby("name"):
        width = np.diff(np.log10(trains_check.INTERVAL_EDGES))
        assert (density["value"] * width).sum() == pytest.approx(1)


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


def test_bins_hold_what_they_hold(table: pd.DataFrame) -> None:
    bins = table[table["panel"] == "bin"]
    assert bins.groupby("name")["value"].sum().to_numpy() == pytest.approx(100)
    empty = bins[bins["of"] == 0].set_index("name")["value"]
    assert empty["1"] > empty["5"] > empty["20"]
