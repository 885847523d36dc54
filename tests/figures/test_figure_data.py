"""The table behind each figure, against values worked out another way."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from matplotlib.axes import Axes
from sklearn.metrics import roc_auc_score

from pipeline_lib.errors import InputError
from pipeline_lib.figures import (
    NothingToDrawError,
    coupling,
    psth,
    raster_rates,
    score_table,
    session_overview,
    training_curves,
    trains_check,
)
from pipeline_lib.figures.excerpts import coarsen, example_units
from pipeline_lib.figures.units import hidden_runs, unit_order
from pipeline_lib.recording import Recording
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import convert
from tests.figures.made_up_results import Results, write_results


def predictions(results: Results, model: str) -> tuple[np.ndarray, np.ndarray]:
    fit = next(fit for fit in results.fits if fit.parent.name == model)
    group = zarr.open_group(str(fit / "predictions.zarr"), mode="r")[results.session]
    return group["rates"][:], group["sample"][:]


@pytest.mark.parametrize("mode", ["trials", "continuous"])
def test_raster_holds_the_spikes_and_rates_of_the_median_test_window(mode: str, request) -> None:
    results: Results = request.getfixturevalue(mode)
    table = raster_rates.data(results.trains, results.split, results.fits)
    recording, split = Recording.read(results.recording), Split.read(results.split)
    test = split.part(results.session, "test")
    times = recording.spike_times
    starts = test["start_tick"].to_numpy() / 1e5
    length = test["bins"].iloc[0] * 0.005
    counts = [((times >= start - 5e-6) & (times < start + length - 5e-6)).sum() for start in starts]
    window = table[table["kind"] == "window"].iloc[0]
    clock = table.loc[table["kind"] == "clock", "value"].item()
    chosen = int(np.argmin(np.abs(starts - clock)))
    assert starts[chosen] == pytest.approx(clock) and window["value"] == pytest.approx(length)
    assert counts[chosen] == sorted(counts)[len(counts) // 2]

    spikes = table[table["kind"] == "spike"]
    inside = (times >= starts[chosen] - 5e-6) & (times < starts[chosen] + length - 5e-6)
    shown = np.isin(recording.spike_units, spikes["unit"].unique()) & inside
    assert len(spikes) == shown.sum()
    found = spikes.sort_values(["unit", "time"])["time"].to_numpy() + starts[chosen]
    expected = pd.DataFrame({"unit": recording.spike_units[shown], "time": times[shown]})
    assert np.allclose(found, expected.sort_values(["unit", "time"])["time"], atol=6e-6), "10-us ticks"

    rates, sample = predictions(results, "glm")
    row = rates[list(sample).index(test.index[chosen])]
    for kind in ("rate", "trace"):
        glm = table[(table["kind"] == kind) & (table["model"] == "glm")]
        for unit, cells in glm.groupby("unit"):
            bins = -(-len(row) // len(cells))
            means = [row[start : start + bins, int(unit)].mean() / 0.005 for start in range(0, len(row), bins)]
            assert np.allclose(cells.sort_values("time")["value"], means, rtol=1e-5)
    assert list(table.loc[table["kind"] == "rate", "model"].unique()) == ["mean_rate", "psth", "smoothing", "glm"]


def test_true_rates_stand_before_those_of_the_models(trials: Results, tmp_path: Path) -> None:
    of_models = raster_rates.data(trials.trains, trials.split, trials.fits)
    table = raster_rates.data(trials.trains, trials.split, trials.fits, trials.recording)
    own = table["model"] == "truth"
    pd.testing.assert_frame_equal(table[~own].reset_index(drop=True), of_models)
    clock = table.loc[table["kind"] == "clock", "value"].item()
    recording = Recording.read(trials.recording)
    assert recording.truth is not None
    trial = int(np.flatnonzero(np.isclose(recording.truth.attributes["trial_start"], clock))[0])
    rates = recording.truth.arrays["rates"][trial]  # 200 bins of 5 ms, as the window has
    for kind, bins in (("rate", 2), ("trace", 1)):
        for unit, cells in table[own & (table["kind"] == kind)].groupby("unit"):
            means = rates[:, int(unit)].reshape(-1, bins).mean(axis=1)
            np.testing.assert_allclose(cells.sort_values("time")["value"], means, rtol=1e-5)
    titles_of_maps = [axes.get_title() or axes.get_title(loc="left") for axes in raster_rates.draw(table).findobj(Axes)]
    assert titles_of_maps[1] == "True rates"

    recording.truth = None
    recording.write(tmp_path / "unknown")
    without = raster_rates.data(trials.trains, trials.split, trials.fits, tmp_path / "unknown")
    pd.testing.assert_frame_equal(without, of_models)


def test_raster_shows_at_least_one_heldout_unit_and_a_limited_number(continuous: Results) -> None:
    table = raster_rates.data(continuous.trains, continuous.split, continuous.fits)
    heldout = Split.read(continuous.split).heldout[continuous.session]
    traced = table[table["kind"] == "trace"].drop_duplicates("unit")
    assert set(traced.loc[traced["heldout"] == 1, "unit"]) == set(traced["unit"]) & set(heldout) != set()
    rates = table[table["kind"] == "rate"]
    assert rates["unit"].nunique() <= raster_rates.SHOWN_UNITS < 90
    assert rates.groupby("model")["time"].nunique().max() <= raster_rates.SHOWN_BINS
    order = rates.drop_duplicates("row").sort_values("row")
    assert order["region"].is_monotonic_increasing, "grouped by region"


def test_example_units_come_from_every_region_held_in_and_held_out() -> None:
    regions = np.array(["a"] * 4 + ["b"] * 4)
    rates = np.array([9.0, 8.0, 7.0, 6.0, 0.4, 0.3, 0.2, 0.1])
    heldout = np.array([0, 1, 0, 0, 1, 1, 1, 0], dtype=bool)
    chosen = example_units(rates, regions, heldout, np.arange(8), 4)
    assert list(chosen) == [0, 7, 1, 4], "held-in a and b, held-out a and b: the fastest of each, slow as b is"
    assert set(example_units(rates, regions, np.zeros(8, bool), np.arange(8), 3)) == {0, 4, 1}


def test_coarsen_means_are_those_of_the_runs() -> None:
    values = np.arange(22.0).reshape(11, 2)
    means, centres = coarsen(values, 4)
    assert np.allclose(means[:, 0], [values[0:3, 0].mean(), values[3:6, 0].mean(), values[6:9, 0].mean(), 19.0])
    assert np.allclose(centres, [1.5, 4.5, 7.5, 10.0])
    values[4, 0] = np.nan
    assert np.isnan(coarsen(values, 4)[0][1, 0]), "never an average over what is missing"


def test_unit_order_keeps_the_fastest_of_every_region() -> None:
    regions, rates = np.array(["b"] * 90 + ["a"] * 9 + ["c"]), np.arange(100.0)
    order = unit_order(regions, rates, limit=20)
    assert list(regions[order]) == ["a"] + ["b"] * 18 + ["c"]
    assert list(order[:3]) == [98, 89, 88]


def test_hidden_runs_are_where_a_unit_was_not_observed() -> None:
    seen = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=bool)
    runs = hidden_runs(seen, np.array([7, 8, 9]))
    assert runs.to_numpy().tolist() == [[8, 0, 2], [8, 3, 4], [9, 1, 3]]


def test_psth_is_the_mean_over_test_trials_of_a_condition(trials: Results) -> None:
    table = psth.data(trials.trains, trials.split, trials.fits)
    recording, split = Recording.read(trials.recording), Split.read(trials.split)
    test = split.part(trials.session, "test")
    rates, sample = predictions(trials, "smoothing")
    for condition, rows in table.groupby("condition"):
        of_condition = test[test["condition"] == condition]
        unit = int(rows["unit"].iloc[0])
        spikes = recording.spike_times[recording.spike_units == unit]
        edges = np.arange(0, 1.0 + 1e-9, 0.04)
        counts = [np.histogram(spikes - tick / 1e5, edges)[0] / 0.04 for tick in of_condition["start_tick"]]
        measured = rows[(rows["source"] == "measured") & (rows["unit"] == unit)]
        assert measured["trials"].iloc[0] == len(counts)
        assert np.allclose(measured["value"], np.mean(counts, axis=0))
        error = np.std(counts, axis=0, ddof=1) / np.sqrt(len(counts))
        assert np.allclose(measured["error"], error)
        chosen = rates[np.isin(sample, of_condition.index), :, unit].mean(axis=0).reshape(25, 8).mean(axis=1)
        smoothed = rows[(rows["source"] == "smoothing") & (rows["unit"] == unit)]
        assert np.allclose(smoothed["value"], chosen / 0.005, rtol=1e-5)


def test_tables_behind_rows_of_units_name_them_as_their_source_does(trials: Results) -> None:
    names = pd.read_parquet(trials.recording / "units.parquet")["unit_id"]
    raster = raster_rates.data(trials.trains, trials.split, trials.fits)
    couplings = coupling.data(trials.recording, trials.fits).rename(columns={"receiver": "unit"})
    for table in (raster, couplings):
        own = table.query("kind == 'unit'")
        assert len(own) and own["unit_id"].tolist() == names[own["unit"].astype(int)].tolist()
    responses = psth.data(trials.trains, trials.split, trials.fits)
    assert responses["unit_id"].tolist() == names[responses["unit"]].tolist()
    assert set(raster["unit"].dropna()) == set(raster.query("kind == 'unit'")["unit"])
    for table in (session_overview.data(trials.recording), trains_check.data(trials.recording, trials.trains)):
        known = table["unit"].notna()
        assert table.loc[known, "unit_id"].tolist() == names[table.loc[known, "unit"].astype(int)].tolist()
        assert known.any() and table.loc[~known & (table["panel"] != "left out"), "unit_id"].isna().all()


def test_units_that_the_selection_left_out_are_named(trials: Results) -> None:
    table = session_overview.data(trials.recording).query("panel == 'left out'")
    candidates = pd.read_parquet(trials.recording / "candidates.parquet").query("not kept and region == 'VISp'")
    assert set(table["unit_id"]) == set(candidates["unit_id"]) and table["unit"].isna().all()
    spikes = table.dropna(subset=["time"]).groupby("unit_id")["row"].nunique()
    assert len(spikes) == len(candidates) and (spikes == 1).all(), "the name of a row's own unit"


def test_psth_leaves_out_what_is_beyond_a_window_or_was_not_observed(trials: Results, tmp_path: Path) -> None:
    whole = psth.data(trials.trains, trials.split, trials.fits)
    condition, unit = str(whole["condition"].iloc[0]), int(whole["unit"].iloc[0])
    split = Split.read(trials.split)
    own = split.part(trials.session, "test").query("condition == @condition")
    split.samples.loc[own.index[:2], "bins"] = 100  # two trials end after half a second
    split.write(tmp_path / "split.parquet")
    recording = Recording.read(trials.recording)
    third = own["start_tick"].iloc[2] / 1e5  # of the third, the unit was not observed from 0.2 s on
    seen = {"unit": [unit] * 2, "start": [0.0, third + 1], "stop": [third + 0.2, recording.duration]}
    recording.unit_intervals = pd.DataFrame(seen)
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    table = psth.data(tmp_path / "trains", tmp_path / "split.parquet", trials.fits)
    rates, sample = predictions(trials, "glm")
    spikes = recording.spike_times[recording.spike_units == unit]
    for time, left in ((0.1, own), (0.42, own.drop(own.index[2])), (0.86, own.drop(own.index[:3]))):
        line = table[(table["condition"] == condition) & (table["unit"] == unit)]
        line = line[np.isclose(line["time"], time)].set_index("source")["value"]
        start = np.round(left["start_tick"].to_numpy() / 1e5 + time - 0.02, 5)
        counted = [((spikes >= begin - 1e-6) & (spikes < begin + 0.04 - 1e-6)).sum() for begin in start]
        assert line["measured"] == pytest.approx(np.mean(counted) / 0.04)
        bins = slice(round((time - 0.02) / 0.005), round((time + 0.02) / 0.005))
        expected = rates[np.isin(sample, left.index), bins, unit].mean() / 0.005
        assert line["glm"] == pytest.approx(expected, rel=1e-5)


def test_psth_shows_the_commonest_conditions(trials: Results, tmp_path: Path) -> None:
    split = Split.read(trials.split)
    test = split.part(trials.session, "test").index
    split.samples.loc[test, "condition"] = ["a", "b", "c", "c", "d", "d", "e", "e", "e", *"f" * (len(test) - 9)]
    split.write(tmp_path / "split.parquet")
    table = psth.data(trials.trains, tmp_path / "split.parquet", trials.fits)
    assert set(table["condition"]) == {"c", "d", "e", "f"}


def test_psth_of_continuous_windows_has_nothing_to_draw(continuous: Results) -> None:
    with pytest.raises(NothingToDrawError, match="no trials"):
        psth.data(continuous.trains, continuous.split, continuous.fits)


def test_coupling_matches_fit_truth_and_auc(trials: Results) -> None:
    table = coupling.data(trials.recording, trials.fits)
    truth = Recording.read(trials.recording).truth.arrays
    fit = next(fit for fit in trials.fits if fit.parent.name == "glm" and fit.name == "seed0")
    strength = zarr.open_group(str(fit / "predictions.zarr"), mode="r")[f"{trials.session}/couplings/strength"][:]

    cells = table[table["kind"] == "strength"].set_index("source")
    assert (cells["sender"] != cells["receiver"]).all()
    fitted = cells.loc["glm"]
    assert np.allclose(fitted["value"], strength[fitted["sender"].astype(int), fitted["receiver"].astype(int)])
    heldout = Split.read(trials.split).heldout[trials.session]
    assert not np.isin(fitted["sender"].astype(int), heldout).any(), "held-out senders were not fitted"
    true = cells.loc["truth"]
    expected = truth["coupling_filters"].sum(axis=2)[true["sender"].astype(int), true["receiver"].astype(int)]
    assert np.allclose(true["value"], expected, atol=1e-6)

    pairs = ~np.eye(len(strength), dtype=bool) & np.isfinite(strength)
    auc = table.loc[table["kind"] == "auc"].set_index("source")["value"]["glm"]
    assert auc == pytest.approx(roc_auc_score(truth["coupling"][pairs] != 0, np.abs(strength[pairs])))


def test_connections_are_the_synapses_where_a_simulator_names_them(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    synapse = np.random.default_rng(5).random((40, 40)) < 0.1
    recording.truth.arrays["synapse"] = synapse.astype(np.float32)
    recording.write(tmp_path / "recording")
    table = coupling.data(tmp_path / "recording", trials.fits)
    fit = next(fit for fit in trials.fits if fit.parent.name == "glm" and fit.name == "seed0")
    strength = zarr.open_group(str(fit / "predictions.zarr"), mode="r")[f"{trials.session}/couplings/strength"][:]
    pairs = ~np.eye(40, dtype=bool) & np.isfinite(strength)
    found = table.loc[table["kind"] == "auc", "value"].item()
    assert found == pytest.approx(roc_auc_score(synapse[pairs], np.abs(strength[pairs]))) and found < 0.7


def test_coupling_filters_are_those_of_the_strongest_true_pairs(trials: Results) -> None:
    table = coupling.data(trials.recording, trials.fits)
    truth = Recording.read(trials.recording).truth.arrays["coupling_filters"]
    heldout = Split.read(trials.split).heldout[trials.session]
    filters = table[(table["kind"] == "filter") & (table["source"] == "truth")]
    pairs = filters.drop_duplicates(["sender", "receiver"])
    assert len(pairs) == 6 and not pairs["sender"].isin(heldout).any()
    ordered = np.sort(np.delete(truth.sum(axis=2), heldout, axis=0).ravel())
    found = [truth[s, r].sum() for s, r in zip(pairs["sender"], pairs["receiver"], strict=True)]
    assert np.allclose(found, [*ordered[::-1][:3], *ordered[:3]])
    first = filters[(filters["sender"] == pairs["sender"].iloc[0]) & (filters["receiver"] == pairs["receiver"].iloc[0])]
    assert list(first["lag"]) == [5.0 * (k + 1) for k in range(20)], "lag k is k + 1 bins ago"


def test_a_finer_truth_is_scaled_to_the_bins_of_the_fit(trials: Results, tmp_path: Path) -> None:
    recording = Recording.read(trials.recording)
    filters = recording.truth.arrays["coupling_filters"]
    recording.truth.arrays["coupling_filters"] = np.repeat(filters, 5, axis=2)  # the same function in 1-ms bins
    recording.truth.attributes["bin_size"] = 1.0
    recording.write(tmp_path / "recording")
    tables = (coupling.data(folder, trials.fits) for folder in (tmp_path / "recording", trials.recording))
    fine, coarse = (table[table["kind"] != "filter"].reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(fine, coarse, rtol=1e-5)


def test_coupling_of_many_units_stays_a_small_table(tmp_path: Path, trials: Results) -> None:
    recording = Recording.read(trials.recording)
    n = 600
    recording.units = pd.DataFrame({"unit_id": [str(k) for k in range(n)], "region": "VISp", "population": "VISp"})
    recording.truth = None
    recording.write(tmp_path / "recording")
    fit = tmp_path / "fits" / "demo" / "glm" / "seed0"
    root = zarr.create_group(str(fit / "predictions.zarr"), attributes={"bin_size": 5.0})
    strength = np.random.default_rng(0).normal(0, 0.1, (n, n)).astype(np.float32)
    senders, receivers = [17, 101, 333], [23, 404, 555]
    strength[senders] *= 50
    strength[:, receivers] *= 50
    group = root.create_group("demo").create_group("couplings", attributes={"bin_size": 5.0})
    group.create_array("strength", data=strength)
    group.create_array("filters", data=strength[..., None] * np.ones(10, np.float32) / 10)
    table = coupling.data(tmp_path / "recording", [fit])
    assert {*senders, *receivers} <= set(table["receiver"].dropna()), "the strongest units are shown"
    assert len(table.to_csv(index=False, float_format="%.6g")) < 2_000_000


def test_without_a_coupled_model_there_is_nothing_to_draw(trials: Results) -> None:
    uncoupled = [fit for fit in trials.fits if fit.parent.name != "glm"]
    with pytest.raises(NothingToDrawError, match="has couplings"):
        coupling.data(trials.recording, uncoupled)


def test_score_table_takes_pooled_bits_per_spike_of_the_test_part(trials: Results) -> None:
    everything = pd.read_parquet(trials.metrics)
    table = score_table.data(trials.metrics)
    assert len(table) == 2 * 5, "five fits, held-in and held-out units"
    assert table["value"].max() < 1, "rows of other aggregations (9), nulls (8) and metrics are left out"
    row = table[(table["model"] == "glm") & (table["seed"] == 1) & (table["units"] == "heldout")].iloc[0]
    chosen = everything[
        (everything[["model", "units"]] == ["glm", "heldout"]).all(axis=1)
        & (everything["seed"] == 1)
        & (everything["metric"] == "bits_per_spike")
        & (everything["aggregation"] == "pooled")
        & (everything["null"] == "evaluated mean")
    ]
    assert row["value"] == chosen["value"].item() and row["ci_low"] == chosen["ci_low"].item()


def test_scores_of_the_validation_part_rank_nothing(trials: Results, tmp_path: Path) -> None:
    table = pd.read_parquet(trials.metrics)
    other = table.assign(split="validation", value=5.0)
    pd.concat([table, other, table.assign(units="all")]).to_parquet(tmp_path / "metrics.parquet")
    pd.testing.assert_frame_equal(score_table.data(tmp_path / "metrics.parquet"), score_table.data(trials.metrics))


def test_score_table_of_silent_units_has_nothing_to_draw(trials: Results, tmp_path: Path) -> None:
    pd.read_parquet(trials.metrics).assign(value=np.nan).to_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(NothingToDrawError):
        score_table.data(tmp_path / "metrics.parquet")


def test_training_curves_keep_ends_and_skip_fits_without_a_curve(trials: Results) -> None:
    table = training_curves.data(trials.fits)
    assert set(table["model"]) == {"glm"} and set(table["seed"]) == {0, 1}
    history = pd.read_csv(trials.directory / "fits/demo/glm/seed0/history.csv")
    curve = table[(table["seed"] == 0) & (table["part"] == "validation")]
    assert curve["step"].iloc[-1] == history["step"].iloc[-1]
    assert np.allclose(curve["loss"], history.set_index("step")["validation_loss"][curve["step"]])
    with pytest.raises(NothingToDrawError):
        training_curves.data([fit for fit in trials.fits if fit.parent.name == "psth"])


def test_long_training_curves_are_thinned_and_end_where_they_ended(tmp_path: Path) -> None:
    fits = []
    for seed in range(2):
        fit = tmp_path / "demo" / "glm" / f"seed{seed}"
        fit.mkdir(parents=True)
        pd.DataFrame({"step": np.arange(5002), "loss": 1.0}).to_csv(fit / "history.csv", index=False)
        fits.append(fit)
    steps = training_curves.data(fits).groupby("seed")["step"]
    assert steps.min().tolist() == [0, 0] and steps.max().tolist() == [5001, 5001]
    assert (steps.size() <= training_curves.SHOWN_STEPS + 1).all() and (steps.size() > 300).all()


def test_predictions_of_another_split_are_refused(trials: Results, tmp_path: Path) -> None:
    fit = tmp_path / "fits" / "demo" / "glm" / "seed0"
    root = zarr.create_group(str(fit / "predictions.zarr"), attributes={"bin_size": 5.0})
    group = root.create_group("demo")
    group.create_array("rates", data=np.ones((1, 200, 40), np.float32))
    group.create_array("sample", data=np.array([10_000]))
    with pytest.raises(InputError, match="predictions of this split"):
        raster_rates.data(trials.trains, trials.split, [fit])


def test_the_recording_may_be_of_another_selection_of_columns(tmp_path: Path) -> None:
    """A recording without counts before selection still has an overview."""
    results = write_results(tmp_path)
    description = results.recording / "recording.json"
    about = json.loads(description.read_text())
    about["counts"] = {}
    description.write_text(json.dumps(about))
    counts = session_overview.data(results.recording)
    counts = counts[counts["panel"] == "count"]
    assert len(counts) == 3 and (counts["value"] == counts["of"]).all()
