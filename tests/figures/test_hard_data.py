"""Data that figures seldom meet: no spikes, no couplings, windows outside trials, many models, hours of recording."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures import (
    NothingToDrawError,
    coupling,
    coupling_filters,
    glm_features,
    model_comparison,
    psth,
    raster_rates,
    score_scaling,
    score_table,
    session_overview,
)
from pipeline_lib.figures.palette import model_colours
from pipeline_lib.figures.raw_voltage import data as voltage_data
from pipeline_lib.figures.raw_voltage import draw as draw_voltage
from pipeline_lib.figures.style import LETTERS, notice, save
from pipeline_lib.figures.units import Block, name_regions
from pipeline_lib.recording import Recording
from pipeline_lib.sources.voltage import Snippet
from pipeline_lib.trains.splits import Split
from tests.figures.made_up_results import Results, made_up_metrics
from tests.figures.test_figure_drawing import assert_readable, words


def coupled_fit(directory: Path, strength: np.ndarray) -> Path:
    """A fit of the session "demo" with these couplings [sender, receiver], spread over two lags."""
    fit = directory / "fits" / "demo" / "glm" / "seed0"
    root = zarr.create_group(str(fit / "predictions.zarr"), attributes={"bin_size": 5.0})
    group = root.create_group("demo").create_group("couplings", attributes={"bin_size": 5.0})
    group.create_array("strength", data=strength.astype(np.float32))
    group.create_array("filters", data=np.repeat(strength[..., None] / 2, 2, axis=2).astype(np.float32))
    return fit


def test_where_truth_couples_nothing_the_filters_of_the_fit_are_shown(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    for name in ("coupling", "coupling_filters"):
        recording.truth.arrays[name] = np.zeros_like(recording.truth.arrays[name])
    recording.write(tmp_path / "recording")
    strength = np.zeros((40, 40))
    strength[3, 5], strength[8, 2] = 0.4, -0.3
    table = coupling.data(tmp_path / "recording", [coupled_fit(tmp_path, strength)])
    filters = table[table["kind"] == "filter"].drop_duplicates(["sender", "receiver"])
    assert filters[["sender", "receiver"]].to_numpy().tolist() == [[3, 5], [8, 2]]
    assert_readable(coupling.draw(table))
    nothing = coupling.data(tmp_path / "recording", [coupled_fit(tmp_path / "flat", np.zeros((40, 40)))])
    assert "filter" not in set(nothing["kind"])
    assert_readable(coupling.draw(nothing))


def test_a_session_without_a_fitted_pair_has_no_couplings_to_draw(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    recording.truth = None
    recording.write(tmp_path / "recording")
    with pytest.raises(NothingToDrawError, match="No pair of units"):
        coupling.data(tmp_path / "recording", [coupled_fit(tmp_path, np.full((40, 40), np.nan))])


def test_true_rates_are_found_where_windows_begin_before_their_trial(around_event: Results) -> None:
    results = around_event
    table = raster_rates.data(results.trains, results.split, results.fits, results.recording)
    clock = table.loc[table["kind"] == "clock", "value"].item()
    truth = Recording.read(results.recording).truth
    trial = int(np.flatnonzero(np.isclose(truth.attributes["trial_start"], clock))[0])
    own = table[(table["model"] == "truth") & (table["kind"] == "trace")]
    unit = int(own["unit"].iloc[0])
    line = own[own["unit"] == unit].sort_values("time")
    assert line.loc[line["time"] < 0, "value"].isna().all(), "nothing was simulated before the trial"
    np.testing.assert_allclose(line.loc[line["time"] > 0, "value"], truth.arrays["rates"][trial, :, unit], rtol=1e-5)


def test_true_rates_of_a_window_over_several_trials_are_those_of_each(continuous: Results) -> None:
    results = continuous
    table = raster_rates.data(results.trains, results.split, results.fits, results.recording)
    clock = table.loc[table["kind"] == "clock", "value"].item()
    starts = np.array(Recording.read(results.recording).truth.attributes["trial_start"])
    own = table[(table["model"] == "truth") & (table["kind"] == "trace")]
    time = clock + own.loc[own["unit"] == own["unit"].iloc[0], "time"].to_numpy()
    known = np.isfinite(own.loc[own["unit"] == own["unit"].iloc[0], "value"].to_numpy())
    inside = ((time[:, None] > starts + 0.02) & (time[:, None] < starts + 0.98)).any(axis=1)
    met = {int(np.searchsorted(starts, each)) for each in time[inside]}
    assert known[inside].all() and len(met) > 1


def test_a_window_without_spikes_is_drawn(trials: Results) -> None:
    table = raster_rates.data(trials.trains, trials.split, trials.fits)
    assert_readable(raster_rates.draw(table[table["kind"] != "spike"]))
    overview = session_overview.data(trials.recording)
    assert_readable(session_overview.draw(overview[overview["panel"] != "raster"]))


def test_average_responses_without_test_windows_say_so(trials: Results, tmp_path: Path) -> None:
    split = Split.read(trials.split)
    split.samples = split.samples[split.samples["split"] != "test"]
    split.write(tmp_path / "split.parquet")
    with pytest.raises(NothingToDrawError, match="no window in the test part"):
        psth.data(trials.trains, tmp_path / "split.parquet", trials.fits)


def test_a_csv_holds_times_late_in_a_long_recording(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    recording.spike_times = recording.spike_times + 20_000
    recording.observed, recording.duration = recording.observed + 20_000, recording.duration + 20_000
    times = recording.trials[["start", "stop"]] + 20_000
    recording.trials = recording.trials.assign(start=times["start"], stop=times["stop"])
    recording.truth = None
    recording.write(tmp_path / "recording")
    voltage = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    Snippet(voltage, 20_001.0, 30_000.0, "probe00", "ap").write(tmp_path / "snippet.npz")
    table = voltage_data(tmp_path / "recording", tmp_path / "snippet.npz")
    save(draw_voltage(table), table, tmp_path / "voltage")
    again = pd.read_csv(tmp_path / "voltage.csv")
    np.testing.assert_allclose(again["time"], table["time"], rtol=0, atol=6e-6)
    assert len(draw_voltage(again).axes) == 3, "every sample has a time of its own"


def test_a_legend_says_all_that_a_model_sees_in_its_cohorts() -> None:
    table = made_up_metrics("one", 0).query("aggregation == 'pooled' and null == 'evaluated mean'")
    table = table[table["metric"] == "bits_per_spike"]
    other = table.assign(cohort="other").replace({"sees": {"past of held-in units": "past of held-in units, frames"}})
    figure = score_table.draw(pd.concat([table, other]))
    shown = {text for text, _ in words(figure)}
    assert "GLM: sees past of held-in units; or past of held-in units, frames" in shown
    assert_readable(
        score_table.draw(table.assign(sees="held-in units, " + ", ".join(f"signal {k}" for k in range(30))))
    )


def test_of_many_sessions_one_far_below_the_null_is_an_arrow() -> None:
    metrics = pd.concat([made_up_metrics(f"session{k}", k) for k in range(12)])
    table = metrics.query("aggregation == 'pooled' and null == 'evaluated mean' and metric == 'bits_per_spike'")
    table = table.reset_index(drop=True)
    table.loc[(table["session"] == "session3") & (table["model"] == "psth"), "value"] = -40.0
    figure = score_table.draw(table)
    assert_readable(figure)
    floor = -1.5 * table.loc[table["units"] == "heldin", "value"].max()
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == "<" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in arrows] == [[pytest.approx(floor)]]
    assert figure.axes[0].get_xlim()[0] > 1.2 * floor


def test_scores_below_the_axis_of_a_scaling_curve_are_arrows(several: Results) -> None:
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    far = (table["session"] == "small") & (table["model"] == "glm") & (table["scored"] == "heldin")
    figure = score_scaling.draw(table.assign(value=table["value"].mask(far, -9.0)))
    for axes in figure.axes[:2]:
        marks = {line.get_marker(): line for line in axes.lines if line.get_marker() in "ov" and len(line.get_xdata())}
        assert marks["v"].get_ydata().min() > axes.get_ylim()[0] > -1
    assert not any(line.get_marker() == "v" and len(line.get_xdata()) for line in figure.axes[2].lines)


def test_many_models_are_compared_by_colours_with_a_scale(tmp_path: Path) -> None:
    one = pd.concat([made_up_metrics(f"s{k}", k) for k in range(3)]).query("model == 'glm'")
    metrics = pd.concat([one.assign(model=f"variant_of_a_model_{k}", value=one["value"] + k / 50) for k in range(14)])
    metrics.to_parquet(tmp_path / "metrics.parquet")
    figure = model_comparison.draw(model_comparison.data(tmp_path / "metrics.parquet"))
    assert_readable(figure)
    assert "Bits per spike" in {axes.get_ylabel() for axes in figure.axes[4:]}


def test_more_models_than_spare_colours_still_differ() -> None:
    colours = model_colours([f"variant{k}" for k in range(18)])
    assert len(set(colours.values())) == 18


def test_there_is_a_letter_for_every_panel() -> None:
    assert LETTERS[:2] == ("a", "b") and LETTERS[25:28] == ("z", "aa", "ab") and len(set(LETTERS)) == len(LETTERS)


def test_a_name_is_no_formula() -> None:
    assert not notice("Reward of $5 or of $10").texts[0].get_parse_math()


def test_long_names_below_a_matrix_are_shortened_not_left_out() -> None:
    from matplotlib.figure import Figure

    axes: Axes = Figure().subplots()
    name_regions(axes, [Block("Primary visual cortex, layer 2/3", 0, 10)], 40.0, axis="x")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Primary visual \u2026"]


def test_filters_of_units_with_long_names_are_told_apart() -> None:
    """As sorters call them: the first letters are those of all units, and two such names are wider than a panel."""
    names = [f"imec0.ap-cluster-{unit:04d}-good" for unit in range(9)]
    rows = [
        {"sender": sender, "receiver": receiver, "place": place, "own": place < 3, "lag": lag, "value": lag}
        for place, (sender, receiver) in enumerate([*((name, name) for name in names[:3]), *pairwise(names[:7])])
        for lag in (10.0, 20.0)
    ]
    figure = coupling_filters.draw(pd.DataFrame(rows).assign(model="glm", q=np.nan, low=np.nan, high=np.nan))
    assert_readable(figure)
    titles = {text for text, _ in words(figure)}
    assert {"\u20260000\u2026, own history", "\u20260001\u2026 \u2192 \u20260002\u2026"} <= titles


def test_inputs_of_one_unit_and_of_units_with_long_names() -> None:
    """A figure of few rows is lower than the name of its axis is long."""

    def drawn(groups: list[str]) -> Figure:
        rows = [{"row": row, "column": group, "group": group} for row, group in enumerate(groups)]
        table = pd.concat([pd.DataFrame(rows).assign(time=time, value=1.0 + time) for time in (0.0, 0.02)])
        return glm_features.draw(table)

    assert_readable(drawn(["baseline", *"00"]))
    figure = drawn(["baseline", *(f"imec0.ap-cluster-{unit:04d}-good" for unit in range(14)), "running.speed"])
    assert_readable(figure)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["baseline", "\u20260000\u2026"] and len(set(labels)) == 16
