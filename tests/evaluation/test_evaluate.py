"""The table of scores, from files to file: simulated sessions, true split, made-up predictions with known scores."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.metrics import r2_score

from pipeline_lib.clock import to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import COLUMNS, Scoring, collect, evaluate
from pipeline_lib.evaluation.parts import train_means
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.mean_rate import mean_counts
from pipeline_lib.recording import Recording
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains, convert
from tests.evaluation.made_up_fit import name_fit

UNITS, BINS, FORWARD = 15, 50, 10
KEYS = ["cohort", "session", "model", "seed", "split", "units", "metric", "null", "aggregation"]


class Cohort:
    """One session on disk, and what is needed to score predictions of it."""

    def __init__(self, directory: Path, made: Recording, windows: WindowSettings, splits: SplitSettings) -> None:
        self.directory, self.made, name = directory, made, made.session
        self.recording, self.trains = directory / "recordings" / name, directory / "trains" / name
        made.write(self.recording)
        convert(self.recording, self.trains)
        self.split_path = directory / "split.parquet"
        make_split([Trains.open(self.trains)], windows, splits, "cohort").write(self.split_path)
        self.split = Split.read(self.split_path)
        scored = self.split.samples[self.split.samples["split"] != "train"]
        self.sample, self.bins = scored.index.to_numpy(), scored["bins"].to_numpy()

    def counts(self, sample: np.ndarray) -> np.ndarray:
        """Counts (sample, bin, unit), spike by spike."""
        rows, ticks = self.split.samples.loc[sample], to_ticks(self.made.spike_times)
        counts = np.zeros((len(rows), rows["bins"].max(), len(self.made.units)))
        for index, (start, bins) in enumerate(zip(rows["start_tick"], rows["bins"], strict=True)):
            for tick, unit in zip(ticks, self.made.spike_units, strict=True):
                place = (tick - start) // self.split.bin_ticks
                if 0 <= place < bins:
                    counts[index, place, unit] += 1
        return counts

    def score(self, rates: np.ndarray, name: str = "model", resamples: int = 200, **arrays: np.ndarray) -> pd.DataFrame:
        fit, out = name_fit(self.directory / name, name, seed=3), self.directory / f"{name}.parquet"
        group = zarr.open_group(str(fit / "predictions.zarr"), mode="w", attributes={"sees": "everything"})
        session = group.create_group(self.made.session)
        session.create_array("rates", data=rates.astype(np.float32))
        session.create_array("sample", data=self.sample.astype(np.int64))
        if "filters" in arrays:
            couplings = session.create_group("couplings", attributes={"bin_size": self.split.bin_size})
            couplings.create_array("filters", data=arrays["filters"].astype(np.float32))
            couplings.create_array("strength", data=arrays["filters"].sum(axis=2).astype(np.float32))
        if "latents" in arrays:
            session.create_array("latents", data=arrays["latents"])
        evaluate(fit, Scoring([self.trains], self.split_path, [self.recording], resamples), out)
        return pd.read_parquet(out)


@pytest.fixture(scope="module")
def lorenz(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    settings = {"conditions": 4, "repeats": 30, "units": UNITS, "base_rate": 12.0}
    windows = WindowSettings(bin_size=20.0, after=1.0)
    splits = SplitSettings(heldout_units=4, forward=FORWARD * 0.02, seed=2)
    return Cohort(tmp_path_factory.mktemp("lorenz"), simulate("lorenz", settings, 0, "attractor"), windows, splits)


@pytest.fixture(scope="module")
def oracle(lorenz: Cohort) -> np.ndarray:
    """Expected counts of the scored samples (sample, bin, unit), by the trial number of each."""
    trial = lorenz.split.samples.loc[lorenz.sample, "trial"]
    return lorenz.made.truth.arrays["rates"][trial] * 0.02


def value(table: pd.DataFrame, metric: str, units: str, split: str = "test", **which: str) -> float:
    chosen = (table["metric"] == metric) & (table["units"] == units) & (table["split"] == split)
    for column, wanted in which.items():
        chosen &= table[column] == wanted
    assert chosen.sum() == 1, table[chosen]
    return float(table.loc[chosen, "value"].iloc[0])


def gain_by_hand(counts: np.ndarray, rates: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Log likelihood of `rates` above that of `null`, per unit, nats."""
    return ((counts * np.log(rates) - rates) - (counts * np.log(null) - null)).sum(axis=(0, 1))


def test_scores_of_the_true_rates_are_those_counted_by_hand(lorenz: Cohort, oracle: np.ndarray) -> None:
    table = lorenz.score(oracle, "oracle")
    assert list(table.columns) == COLUMNS and not table.duplicated(KEYS).any()
    assert (table["sees"] == "everything").all() and (table["seed"] == 3).all()
    train = lorenz.split.part("attractor", "train").index.to_numpy()
    train_mean = lorenz.counts(train).mean(axis=(0, 1))
    heldout = lorenz.split.heldout["attractor"]
    groups = {"heldout": heldout, "heldin": np.setdiff1d(np.arange(UNITS), heldout)}
    for split in ("validation", "test"):
        here = (lorenz.split.samples.loc[lorenz.sample, "split"] == split).to_numpy()
        counts = lorenz.counts(lorenz.sample[here])
        early, late = slice(0, BINS - FORWARD), slice(BINS - FORWARD, BINS)
        for units, members in groups.items():
            y, r = counts[:, early][:, :, members], oracle[here][:, early][:, :, members].astype(np.float32)
            for name, null in (("evaluated mean", y.mean(axis=(0, 1))), ("train mean", train_mean[members])):
                gain = gain_by_hand(y, r, null)
                pooled = value(table, "bits_per_spike", units, split, null=name, aggregation="pooled")
                assert pooled == pytest.approx(gain.sum() / y.sum() / np.log(2), abs=1e-6)
                mean = value(table, "bits_per_spike", units, split, null=name, aggregation="mean over units")
                assert mean == pytest.approx((gain / y.sum(axis=(0, 1)) / np.log(2)).mean(), abs=1e-6)
            assert value(table, "rate_r2", units, split) == pytest.approx(1, abs=1e-6)
            n = table[(table["units"] == units) & (table["split"] == split)].groupby(["metric", "aggregation"])["n"]
            numbers = {"pooled": here.sum(), "mean over units": len(members)}
            assert all(set(own) == {numbers[over]} for (_, over), own in n)
        y, r = counts[:, late], oracle[here][:, late]
        forward = value(table, "forward_bits_per_spike", "all", split, null="evaluated mean", aggregation="pooled")
        gain = gain_by_hand(y, r, y.mean(axis=(0, 1)))
        assert forward == pytest.approx(gain.sum() / y.sum() / np.log(2), abs=1e-6)


def test_true_rates_beat_every_other_prediction(lorenz: Cohort, oracle: np.ndarray) -> None:
    def test_score(rates: np.ndarray, name: str) -> pd.Series:
        table = lorenz.score(rates, name)
        row = (table["metric"] == "bits_per_spike") & (table["units"] == "heldin") & (table["split"] == "test")
        row &= (table["null"] == "train mean") & (table["aggregation"] == "pooled")
        return table[row].iloc[0]

    best, blurred = test_score(oracle, "best"), test_score(np.sqrt(oracle * oracle.mean(axis=(0, 1))), "blurred")
    shuffled = test_score(np.roll(oracle, 7, axis=0), "shuffled")
    assert best["value"] > blurred["value"] > shuffled["value"]
    assert best["ci_low"] < best["value"] < best["ci_high"] and best["ci_low"] > 0.1
    assert best["n"] == (lorenz.split.samples["split"] == "test").sum()


def test_the_mean_of_the_training_part_scores_zero_against_itself(lorenz: Cohort) -> None:
    train = lorenz.split.part("attractor", "train").index.to_numpy()
    rates = np.broadcast_to(lorenz.counts(train).mean(axis=(0, 1)), (len(lorenz.sample), BINS, UNITS))
    table = lorenz.score(rates, "mean")
    against = table[(table["null"] == "train mean")]
    assert len(against) and np.allclose(against["value"], 0, atol=1e-6)
    # The evaluated mean knows the scored data, so that it cannot be beaten by a constant.
    known = table[table["null"] == "evaluated mean"]
    assert (known["value"] <= 1e-9).all() and (known["ci_low"] < known["value"]).all()
    # Against one null for all resamples the intervals lie around the value, not to one side of it.
    place = (known["value"] - known["ci_low"]) / (known["ci_high"] - known["ci_low"])
    assert place.between(0.2, 0.8).all()


def test_a_unit_that_training_never_saw_has_the_rate_that_the_mean_rate_gives_it(lorenz: Cohort) -> None:
    """A null of next to nothing would pay 30 bits for each of its spikes to any model that expects some."""
    trains, train = Trains.open(lorenz.trains), lorenz.split.part("attractor", "train")
    bins = np.column_stack([train["start_tick"], train["start_tick"] + train["bins"] * lorenz.split.bin_ticks])
    edges = np.concatenate([[0], bins[np.argsort(bins[:, 0])].ravel(), [trains.duration_ticks]]).reshape(-1, 2)
    outside = [[0, start, stop] for start, stop in edges if stop > start]
    others = [[unit, 0, trains.duration_ticks] for unit in range(1, UNITS)]
    late = replace(trains, unit_intervals=np.array(outside + others, dtype=np.int64))
    data = FitData({"attractor": late}, lorenz.split)
    expected = mean_counts(data.counts("attractor", "train"), data.mask("attractor", "train"))
    found = train_means(late, lorenz.split)
    assert not data.mask("attractor", "train")[:, :, 0].any() and expected[0] > 0.1
    np.testing.assert_allclose(found, expected)


def test_forward_bins_and_held_out_units_do_not_leak_into_other_scores(lorenz: Cohort, oracle: np.ndarray) -> None:
    """Nor into their intervals: the resamples of one model are those of any other."""
    heldout, latents = (
        lorenz.split.heldout["attractor"],
        np.random.default_rng(0).standard_normal((*oracle.shape[:2], 3)),
    )
    before = lorenz.score(oracle, "before", latents=latents)
    spoiled, later = oracle.copy(), latents.copy()
    for rates in (spoiled, later):
        rates[:, BINS - FORWARD :] *= 3
    spoiled[:, :, heldout] *= 3
    after = lorenz.score(spoiled, "after", latents=later)
    scores = [table[["value", "ci_low", "ci_high"]] for table in (before, after)]
    same = np.isclose(*scores, rtol=1e-12, equal_nan=True).all(axis=1)
    assert same[before["units"] == "heldin"].all() and same[before["metric"] == "latent_r2"].all()
    assert not same[before["units"].isin(["heldout", "all"]) & (before["metric"] != "latent_r2")].any()


def test_what_only_the_model_could_compute_is_in_the_table_as_it_said(lorenz: Cohort, oracle: np.ndarray) -> None:
    own = {"session": "attractor", "split": "test", "units": "all", "metric": "made_up", "value": 0.25, "n": 7}
    (lorenz.directory / "own" / "tables").mkdir(parents=True)
    rows = pd.DataFrame([own | {"ci_low": np.nan, "ci_high": np.nan, "null": "", "aggregation": "mean over tokens"}])
    rows.to_parquet(lorenz.directory / "own" / "tables" / "scores.parquet")
    table = lorenz.score(oracle, "own", resamples=0)
    (found,) = table[table["metric"] == "made_up"].to_dict("records")
    assert {name: found[name] for name in own} == own
    stamped = {"cohort": "cohort", "model": "own", "seed": 3, "sees": "everything"}
    assert {name: found[name] for name in stamped} == stamped and list(table.columns) == COLUMNS


def test_psth_of_the_condition_is_scored(lorenz: Cohort, oracle: np.ndarray) -> None:
    right = value(lorenz.score(oracle, "right"), "psth_r2", "heldin")
    trial = lorenz.split.samples.loc[lorenz.sample, "trial"].to_numpy()
    conditions = lorenz.made.trials["condition"].to_numpy()
    other = {name: np.flatnonzero(conditions != name)[0] for name in np.unique(conditions)}
    wrong = lorenz.made.truth.arrays["rates"][[other[conditions[each]] for each in trial]] * 0.02
    assert right > 0.4 and value(lorenz.score(wrong, "wrong"), "psth_r2", "heldin") < right - 0.3


def test_measured_responses_are_those_of_the_scored_trials_and_of_all(lorenz: Cohort, oracle: np.ndarray) -> None:
    """Smoothed with 20 and with 70 ms, the latter the benchmark's, which takes the training trials along."""
    trains, samples, window = Trains.open(lorenz.trains), lorenz.split.samples, BINS - FORWARD
    counts = bin_windows(trains, samples["start_tick"].to_numpy(), BINS, lorenz.split.bin_ticks).astype(float)
    heldin = np.setdiff1d(np.arange(UNITS), lorenz.split.heldout["attractor"])
    condition, test = samples["condition"].to_numpy(), (samples["split"] == "test").to_numpy()
    scored = samples["split"].loc[lorenz.sample].to_numpy() == "test"

    def responses(rows: np.ndarray, bins: int, spread: float) -> np.ndarray:
        distance = np.abs(np.arange(bins)[:, None] - np.arange(bins))
        weights = np.where(distance <= 3 * spread, np.exp(-0.5 * (distance / spread) ** 2), 0)
        means = [counts[rows & (condition == name), :bins].mean(axis=0) for name in np.unique(condition)]
        return np.concatenate([(weights @ each / weights.sum(1)[:, None])[:window, heldin] for each in means])

    of_test = condition[np.isin(samples.index, lorenz.sample[scored])]
    predicted = [oracle[scored][of_test == name].mean(axis=0)[:window, heldin] for name in np.unique(condition)]
    table = lorenz.score(oracle.astype(np.float32), "responses", resamples=0)
    for metric, true in (
        ("psth_r2", responses(test, window, 20 / 20)),
        ("nlb_psth_r2", responses(np.ones(len(samples), bool), BINS, 70 / 20)),
    ):
        expected = r2_score(true, np.concatenate(predicted).astype(np.float32))
        assert value(table, metric, "heldin") == pytest.approx(expected, abs=1e-6)


def test_latents_are_scored_when_a_model_gives_them(lorenz: Cohort, oracle: np.ndarray) -> None:
    trial = lorenz.split.samples.loc[lorenz.sample, "trial"]
    latents = lorenz.made.truth.arrays["latents"][trial] @ np.random.default_rng(0).standard_normal((3, 5)) + 1
    table = lorenz.score(oracle, "latent", latents=latents)
    assert value(table, "latent_r2", "all") == pytest.approx(1, abs=1e-9)
    assert "latent_r2" not in set(lorenz.score(oracle, "latentless")["metric"])


def test_the_same_fit_gives_the_same_bytes_and_no_resamples_no_intervals(lorenz: Cohort, oracle: np.ndarray) -> None:
    first = lorenz.score(oracle, "twice")
    content = (lorenz.directory / "twice.parquet").read_bytes()
    lorenz.score(oracle, "twice")
    assert (lorenz.directory / "twice.parquet").read_bytes() == content
    without = lorenz.score(oracle, "twice", resamples=0)
    assert without[["ci_low", "ci_high"]].isna().all(axis=None)
    assert np.allclose(without["value"], first["value"], rtol=1e-12)


def test_windows_of_different_length_are_scored_to_their_end(tmp_path: Path) -> None:
    made = simulate("lorenz", {"conditions": 1, "repeats": 60, "units": 3, "base_rate": 20.0}, 0, "ragged")
    made.trials["stop"] -= np.random.default_rng(0).integers(0, 25, 60) * 0.02
    windows, splits = WindowSettings(bin_size=20.0, after=None), SplitSettings(seed=1)
    cohort = Cohort(tmp_path, made, windows, splits)
    longest = cohort.bins.max()
    rates = made.truth.arrays["rates"][cohort.split.samples.loc[cohort.sample, "trial"]][:, :longest] * 0.02
    inside = np.arange(longest) < cohort.bins[:, None]
    assert not inside.all()
    table = cohort.score(np.where(inside[:, :, None], rates, np.nan))
    test = (cohort.split.samples.loc[cohort.sample, "split"] == "test").to_numpy()
    y, r, known = cohort.counts(cohort.sample)[test], rates[test], inside[test][:, :, None]
    null = (y * known).sum(axis=(0, 1)) / known.sum(axis=(0, 1))
    gain = (((y * np.log(r) - r) - (y * np.log(null) - null)) * known).sum()
    found = value(table, "bits_per_spike", "heldin", null="evaluated mean", aggregation="pooled")
    assert found == pytest.approx(gain / (y * known).sum() / np.log(2), abs=1e-6)
    assert value(table, "rate_r2", "heldin") == pytest.approx(1, abs=1e-6)


def test_couplings_and_rates_of_a_continuous_session_without_trials(tmp_path: Path) -> None:
    settings = {"units": 8, "duration": 120.0, "connected": 0.3, "keep_rates": True}
    made = simulate("glm", settings, 0, "network")
    windows = WindowSettings(bin_size=10.0, mode="continuous", length=2.0, history=0.1)
    cohort = Cohort(tmp_path, made, windows, SplitSettings(seed=1))
    start = cohort.split.samples.loc[cohort.sample, "start_tick"].to_numpy() // 500
    fine = made.truth.arrays["rates"][0][start[:, None] + np.arange(400)] * 0.005
    rates = fine.reshape(len(start), 200, 2, 8).sum(axis=2)  # truth in 5-ms bins, windows in 10-ms bins
    filters = made.truth.arrays["coupling_filters"].reshape(8, 8, 10, 2).sum(axis=3) / 2
    filters[:, 3] = np.nan
    table = cohort.score(rates, filters=filters)
    assert value(table, "rate_r2", "heldin") == pytest.approx(1, abs=1e-6)
    assert "psth_r2" not in set(table["metric"])
    scores = table[table["units"] == "coupling"]
    assert (scores["split"] == "train").all()
    every = scores[~scores["aggregation"].str.contains("between")].set_index("metric")
    assert every.loc["coupling_auc", "value"] == every.loc["coupling_sign_accuracy", "value"] == 1
    assert every.loc["coupling_filter_correlation", "value"] > 0.9
    assert every.loc["coupling_false_share", "value"] == 0
    assert every.loc["coupling_not_fitted", "value"] == 7 and every.loc["coupling_auc", "n"] == 49
    between = scores[scores["aggregation"].str.contains("between")].set_index("metric")
    assert between.loc["coupling_not_fitted", "value"] == 4 and between.loc["coupling_auc", "n"] == 28


def test_a_session_without_truth_is_scored_without_it(lorenz: Cohort, oracle: np.ndarray, tmp_path: Path) -> None:
    lorenz.score(oracle, "real")
    made = Recording.read(lorenz.recording)
    made.truth = None
    made.write(tmp_path / "attractor")
    out = tmp_path / "scores.parquet"
    fit = lorenz.directory / "real"
    evaluate(fit, Scoring([lorenz.trains], lorenz.split_path, [tmp_path / "attractor"], 0), out)
    assert set(pd.read_parquet(out)["metric"]) >= {"bits_per_spike", "poisson_d2", "psth_r2"}
    assert "rate_r2" not in set(pd.read_parquet(out)["metric"])


def test_predictions_that_do_not_belong_to_the_split_are_refused(lorenz: Cohort, oracle: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected counts"):
        lorenz.score(-oracle, "negative")
    assert not (lorenz.directory / "negative.parquet").exists()
    with pytest.raises(InputError, match="rates"):
        lorenz.score(oracle[:, :, :-1], "short")
    for bins in (slice(1, None), [*range(BINS), BINS - 1]):
        with pytest.raises(InputError, match=r"rates.*samples, bins, units"):  # of windows of another length
            lorenz.score(oracle[:, bins], "other")
    with pytest.raises(InputError, match=r"latents.*samples, bins"):
        lorenz.score(oracle, "late", latents=oracle[:, 1:])
    lorenz.score(oracle, "moved")
    store = zarr.open_group(str(lorenz.directory / "moved" / "predictions.zarr"), mode="a")
    store["attractor/sample"][0] = 10_000
    scoring = Scoring([lorenz.trains], lorenz.split_path, [lorenz.recording])
    with pytest.raises(InputError, match="another"):
        evaluate(lorenz.directory / "moved", scoring, lorenz.directory / "moved.parquet")
    with pytest.raises(InputError, match=r"manifest\.json: .*finished fit .*remove it"):
        evaluate(lorenz.directory / "absent", scoring, lorenz.directory / "absent.parquet")
    name_fit(lorenz.directory / "absent")
    with pytest.raises(InputError, match=r"predictions\.zarr: .*finished fit .*remove its folder"):
        evaluate(lorenz.directory / "absent", scoring, lorenz.directory / "absent.parquet")


def test_tables_are_collected_in_order(lorenz: Cohort, oracle: np.ndarray) -> None:
    for name in ("b_model", "a_model"):
        lorenz.score(oracle, name, resamples=0)
    paths = [lorenz.directory / f"{name}.parquet" for name in ("b_model", "a_model")]
    collect(paths, lorenz.directory / "all.parquet")
    table = pd.read_parquet(lorenz.directory / "all.parquet")
    assert list(table.columns) == COLUMNS and list(table["model"].unique()) == ["a_model", "b_model"]
    assert len(table) == sum(len(pd.read_parquet(path)) for path in paths)
    collect(paths[::-1], lorenz.directory / "again.parquet")
    assert (lorenz.directory / "again.parquet").read_bytes() == (lorenz.directory / "all.parquet").read_bytes()
    collect([], lorenz.directory / "none.parquet")
    none = pd.read_parquet(lorenz.directory / "none.parquet")
    assert none.empty and none.dtypes.to_dict() == table.dtypes.to_dict()


def test_nothing_here_imports_torch() -> None:
    code = "import sys, pipeline_lib.evaluation.evaluate; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
