"""The table behind the session overview: what was recorded, what was left out, and only while it was observed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures import (
    session_overview,
)
from pipeline_lib.recording import Recording
from pipeline_lib.sources.presence import observed_rates
from tests.figures.made_up_results import Results


def test_session_overview_counts_what_is_there(trials: Results) -> None:
    table = session_overview.data(trials.recording)
    recording = Recording.read(trials.recording)
    rates = table[table["panel"] == "rate"].set_index("unit")["value"]
    assert rates[7] == pytest.approx((recording.spike_units == 7).sum() / recording.duration)
    course = table[table["panel"] == "course"]
    width = recording.duration / len(course)
    spikes = (course["value"] * width * len(recording.units)).sum()
    assert spikes == pytest.approx(len(recording.spike_times), abs=1.5), "the course integrates to all spikes"
    raster = table[table["panel"] == "raster"]
    first, last = raster["time"].min(), raster["time"].max()
    inside = (recording.spike_times >= first) & (recording.spike_times <= last)
    assert len(raster) == inside.sum() and 9 < last - first <= 10
    counts = table[table["panel"] == "count"].set_index("region")
    assert counts.loc["units", ["value", "of"]].tolist() == [40, 55]
    assert (table["panel"] == "trial").sum() == 60


def titles(figure: Figure) -> list[str]:
    """Titles of panels, without their letters."""
    return [axes.get_title(loc="left") for axes in figure.findobj(Axes)]


def test_what_the_selection_left_out_is_shown_beside_what_it_kept(trials: Results, tmp_path: Path) -> None:
    table = session_overview.data(trials.recording)
    rates = table[table["panel"] == "rate before"]
    assert rates["of"].sum() == 50 and rates["kept"].sum() == 40, "units of CA1, where none was kept, do not count"
    slow = rates["value"] < 0.4
    assert rates["kept"][slow].sum() == 0 and rates["of"][slow].sum() == 10
    presence = table[(table["panel"] == "presence before") & (table["of"] > 0)]
    assert presence["value"].tolist() == pytest.approx([40, 97], abs=2.1)
    assert presence[["kept", "of"]].to_numpy().tolist() == [[0, 10], [40, 40]]
    violations = table[table["panel"] == "violations before"]
    assert violations["of"].sum() == 40, "a unit without intervals has no share of short ones"
    assert "Present in the session (%)" in [axes.get_xlabel() for axes in session_overview.draw(table).findobj(Axes)]

    # Grey rows of the raster: the ten of VISp below those that were kept of it, in the seconds that are shown.
    left_out, raster = table[table["panel"] == "left out"], table[table["panel"] == "raster"]
    rows, spikes = left_out[left_out["time"].isna()], left_out[left_out["time"].notna()]
    kept = table[(table["panel"] == "rate") & (table["region"] == "VISp")]["row"]
    assert set(rows["region"]) == {"VISp"} and rows["row"].nunique() == 10 and rows["row"].min() == kept.max() + 1
    assert sorted([*table[table["panel"] == "rate"]["row"], *rows["row"]]) == list(range(50))
    assert set(spikes["time"] % 2) == {0.25} and len(spikes) == 5 * 10 and set(spikes["row"]) == set(rows["row"])
    assert raster["time"].min() - 0.1 <= spikes["time"].min() and spikes["time"].max() <= raster["time"].max() + 0.1
    assert "Spikes; grey: units left out" in titles(session_overview.draw(table))

    recording = Recording.read(trials.recording)
    assert recording.candidates is not None and recording.candidates["kept"].sum() == 40
    fast = recording.candidates.assign(rate=recording.candidates["rate"] + 500 * ~recording.candidates["kept"])
    replace(recording, candidates=fast).write(tmp_path / "fast")
    faster = session_overview.data(tmp_path / "fast").query("panel == 'left out' and time.isna()")
    assert sorted(faster["row"]) == sorted(rows["row"]), "below those that were kept, however fast"
    recording.candidates = None
    recording.write(tmp_path / "all_kept")
    alone = session_overview.data(tmp_path / "all_kept")
    assert not alone["panel"].str.contains("before|left out").any()
    figure = session_overview.draw(alone)
    assert len(figure.axes) == 4 and "Spikes" in titles(figure)


def test_a_session_observed_in_pieces_has_a_course_and_a_gap_where_it_is_long(trials: Results, tmp_path: Path) -> None:
    """0.3 s of every 1.3 s: no bin of the course is wholly observed, and only those of the long gap are left out."""
    recording = Recording.read(trials.recording)
    starts = 0.5 + 1.3 * np.arange(60)
    starts = starts[(starts < 20) | (starts > 60)]
    recording.observed = np.column_stack([starts, starts + 0.3])
    inside = np.searchsorted(recording.observed.ravel(), recording.spike_times, side="right") % 2 == 1
    recording.spike_times, recording.spike_units = recording.spike_times[inside], recording.spike_units[inside]
    recording.duration = 320.0
    longer = np.concatenate([recording.observed + shift for shift in (0, 80, 160, 240)])
    recording.observed = longer[longer[:, 0] < 319]
    recording.write(tmp_path / "pieces")
    course = session_overview.data(tmp_path / "pieces").query("panel == 'course'").set_index("time")["value"]
    assert course.loc[22:58].isna().all() and course.loc[0:19].notna().all() and course.loc[64:77].notna().all()


def test_a_unit_that_comes_and_goes_is_averaged_over_its_own_time(trials: Results, tmp_path: Path) -> None:
    """Spikes that a unit is said to have fired while it was not observed count nowhere."""
    recording = Recording.read(trials.recording)
    recording.unit_intervals = pd.DataFrame({"unit": [3, 3, 5], "start": [0.0, 15, 0], "stop": [10.0, 20, 0]})
    recording.write(tmp_path / "recording")
    table = session_overview.data(tmp_path / "recording")
    times, unit = recording.spike_times, recording.spike_units
    present = (times < 10) | ((times >= 15) & (times < 20))
    assert (~present & (unit == 3)).any() and (unit == 5).any()
    seen = (unit != 5) & ((unit != 3) | present)
    rates = table[table["panel"] == "rate"].set_index("unit")["value"]
    assert rates[3] == pytest.approx((seen & (unit == 3)).sum() / 15)
    assert np.isnan(rates[5]) and rates.notna().sum() == 39
    course = table[table["panel"] == "course"]
    width = recording.duration / len(course)
    for place in range(len(course)):  # among them those in which the unit goes, at 10 and 20 s
        start, stop = place * width, (place + 1) * width
        own = sum(max(0.0, min(stop, b) - max(start, a)) for a, b in ((0.0, 10.0), (15.0, 20.0)))
        spikes = (seen & (times >= start) & (times < stop)).sum()
        assert course["value"].iloc[place] == pytest.approx(spikes / (38 * width + own))
    hidden = table[table["panel"] == "hidden"]
    raster = table[table["panel"] == "raster"]["time"]
    assert set(hidden["unit"]) == {3, 5}
    for unit_hidden in (3, 5):
        span = hidden[hidden["unit"] == unit_hidden]
        assert span["time"].item() <= raster.min() and span["value"].item() == pytest.approx(10, abs=0.1)
    silent = session_overview.draw(table).axes[1]
    assert all(np.isfinite(path.get_paths()[0].vertices).all() for path in silent.collections), "medians are numbers"


def test_what_a_session_has_outside_its_observed_time_counts_nowhere(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    recording.observed = np.array([[0.0, 30.0], [50.0, recording.duration]])
    recording.write(tmp_path / "gap")
    table = session_overview.data(tmp_path / "gap")
    found = table[table["panel"] == "rate"].set_index("unit")["value"]
    np.testing.assert_allclose(found, observed_rates(recording), rtol=1e-12)
    course = table[table["panel"] == "course"].set_index("time")["value"]
    usual = len(recording.spike_times) / recording.duration / len(recording.units)
    assert course.loc[31:49].isna().all() and course.max() < 3 * usual


def test_a_bin_that_was_hardly_observed_has_no_rate_and_a_unit_only_rows_where_it_is_hidden(
    trials: Results, tmp_path: Path
) -> None:
    recording = Recording.read(trials.recording)
    width = recording.duration / session_overview.COURSE_BINS
    recording.observed = np.array([[0.0, 45.2 * width], [75.2 * width, recording.duration]])
    end = recording.duration
    recording.unit_intervals = pd.DataFrame({"unit": [3, 4, 6], "start": [0.0, 44.0, 49.8], "stop": [44.0, end, end]})
    recording.write(tmp_path / "recording")
    table = session_overview.data(tmp_path / "recording")
    known = table.loc[table["panel"] == "course", "value"].notna().to_numpy()
    assert known[44] and not known[45] and not known[74] and known[75], "a fifth of a bin is too little, four are not"

    recording.observed = np.array([[0.0, recording.duration]])
    recording.write(tmp_path / "whole")
    table = session_overview.data(tmp_path / "whole")
    middle = table.loc[table["panel"] == "raster", "time"]
    hidden = table[table["panel"] == "hidden"].set_index("unit")
    ends = hidden["time"] + hidden["value"]
    assert hidden.loc[3, "time"] == 44.0 and ends[3] == pytest.approx(middle.max(), abs=0.05)
    assert hidden.loc[4, "time"] == pytest.approx(middle.min(), abs=0.05) and ends[4] == pytest.approx(44.0)
    assert ends[6] == pytest.approx(middle.max(), abs=0.05), "not beyond what is shown"


def test_a_session_without_trials_counts_none(continuous: Results, tmp_path: Path) -> None:
    recording = Recording.read(continuous.recording)
    recording.trials, recording.truth = recording.trials.iloc[:0], None
    recording.provenance.counts.pop("trials_before")
    recording.write(tmp_path / "recording")
    counts = session_overview.data(tmp_path / "recording").query("panel == 'count'")
    assert counts["region"].tolist() == ["units", "spikes"]
