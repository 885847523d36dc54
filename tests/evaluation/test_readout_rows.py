"""What readouts are fitted to and scored on, by hand: trials with a value, bins with a signal, groups of their own."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV

from pipeline_lib.__main__ import main
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.decoding import decode_classes, window_features
from pipeline_lib.evaluation.parts import Fitted
from pipeline_lib.evaluation.readouts import decoding_rows, few_shot_rows
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains
from tests.small_cohort import SPLITS, TRIALS, UNITS, WINDOWS, recording, write_cohort

BINS, SHOWN, RESAMPLES = 50, 45, 30


def test_a_split_is_not_made_where_a_time_that_will_be_scored_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """It is the first job that has the trials of a session that is fetched: fits wait for it, and are not made."""
    made = recording()
    made.trials["rt"], made.trials["side"] = 0.5, "left"
    stores, _ = write_cohort(tmp_path, made=[made])

    def split(column: str) -> int:
        windows, splits = (json.dumps(asdict(each)) for each in (WINDOWS, SPLITS))
        asked = ["--windows", windows, "--splits", splits, "--decoding", f"pace: {{timing: {column}}}"]
        out = tmp_path / f"{column}.parquet"
        return main(["split", "--trains", str(stores[0]), "--cohort", "c", *asked, "--out", str(out)])

    assert [split("rt"), split("side")] == [0, 2]
    assert "decoding.pace.timing: found 'left'; accepted: a time in every trial" in capsys.readouterr().err
    assert (tmp_path / "rt.parquet").is_file() and not (tmp_path / "side.parquet").exists()


class Session:
    """A session whose trials lack some values, and made-up rates and latents of every window."""

    def __init__(self) -> None:
        rng, made = np.random.default_rng(5), recording()
        self.side = rng.choice(["left", "right"], TRIALS)
        self.kind = np.resize(["a", "b"], TRIALS).astype(object)
        self.time = rng.random(TRIALS)
        made.trials["side"] = np.where(rng.random(TRIALS) < 0.3, None, self.side)
        made.trials["kind"] = np.where(rng.random(TRIALS) < 0.35, None, self.kind)
        made.trials["pair"] = np.where(self.kind == "a", "bc", "c")
        made.trials["first"] = np.where(self.kind == "a", "a", "ab")  # together both would be "abc"
        made.trials["time"] = np.where(rng.random(TRIALS) < 0.2, np.nan, self.time)
        seconds = np.arange(0, made.duration, 0.01)
        hand = pd.DataFrame({"time": seconds, "x": np.sin(3 * seconds), "y": np.cos(5 * seconds)})
        hand.loc[rng.random(len(hand)) < 0.02, "y"] = np.nan
        made.signals = {"hand": hand}
        self.made, self.trains = made, Trains.from_recording(made)
        self.split = make_split([self.trains], WINDOWS, SPLITS, "cohort")
        self.samples = self.split.samples
        self.rates = rng.gamma(2.0, 0.2, (len(self.samples), BINS, UNITS))
        self.rates[:, :, 0] += (self.side[self.samples["trial"]] == "left")[:, None] * 0.1
        self.latents = rng.standard_normal((len(self.samples), BINS, 3))

    def of(self, part: str) -> np.ndarray:
        return (self.samples["split"] == part).to_numpy()

    def fitted(self, *parts: str, **changed: np.ndarray) -> Fitted:
        rows = np.isin(self.samples["split"], parts)
        arrays = {"rates": self.rates, "latents": None} | changed
        own = {name: None if array is None else array[rows] for name, array in arrays.items()}
        return Fitted(own["rates"], self.samples.index[rows].to_numpy(), own["latents"], None, {})

    def rows(self, targets: dict[str, Target], trains: Trains | None = None, **changed: np.ndarray) -> list[dict]:
        fits = self.fitted("train", **changed), self.fitted("validation", "test", **changed)
        return list(decoding_rows(targets, trains or self.trains, self.split, *fits, RESAMPLES))

    def column(self, name: str) -> np.ndarray:
        return self.made.trials[name].to_numpy(dtype=object)[self.samples["trial"]]

    def hand(self) -> np.ndarray:
        """The signal at the centre of every bin [S, T, 2], NaN next to a NaN of its own."""
        at = self.samples["start_tick"].to_numpy()[:, None] / 1e5 + (np.arange(BINS) + 0.5) * 0.02
        table = self.made.signals["hand"]
        return np.stack([table[name].to_numpy()[np.rint(at * 100).astype(int)] for name in "xy"], axis=2)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def same(found: dict[str, Any], scores: np.ndarray, windows: int) -> None:
    """Score and interval of a row are those of `scores` (of the data, and of its resamples)."""
    expected = [scores[0], *interval(scores[1:], windows)]
    assert [found[name] for name in ("value", "ci_low", "ci_high")] == pytest.approx(expected, abs=1e-9)


def test_a_choice_is_read_out_of_trials_with_a_choice_and_of_the_bins_before_those_to_forecast(
    session: Session,
) -> None:
    rates = session.rates.copy()
    rates[:, SHOWN:] += 10 * (session.side[session.samples["trial"]] == "left")[:, None, None]
    (found,) = session.rows({"side": Target(choice="side")}, rates=rates)
    side, known = session.column("side"), pd.notna(session.column("side"))
    features = window_features(rates, np.full(len(rates), SHOWN))
    train, test = session.of("train") & known, session.of("test") & known
    decoded = decode_classes(features[train], side[train].astype(str), features[test])
    weights = resampling_weights(session.of("test").sum(), RESAMPLES, seed=0)[:, known[session.of("test")]]
    true = side[test].astype(str)
    scores = [balanced_accuracy_score(true, decoded, sample_weight=each) for each in weights]
    assert 0.2 < scores[0] < 1 and known.mean() < 0.9
    same(found, np.array(scores), test.sum())
    assert (found["n"], found["null"]) == (test.sum(), "chance 1/2")


def test_a_signal_is_read_out_group_by_group_where_all_of_it_is_known(session: Session) -> None:
    hand, kind = session.hand(), session.column("kind")
    known = np.isfinite(hand).all(axis=2) & (np.arange(BINS) < SHOWN) & pd.notna(kind)[:, None]
    (found,) = session.rows({"hand": Target(signal="hand", within=("kind",))})
    weights = resampling_weights(session.of("test").sum(), RESAMPLES, seed=0)
    scores, windows = [], 0
    for name in ("a", "b"):
        train, test = (known & (session.of(part) & (kind == name))[:, None] for part in ("train", "test"))
        readout = GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}).fit(session.rates[train], hand[train])
        error, square = np.zeros(hand.shape), np.zeros(hand.shape)
        error[test] = (hand[test] - readout.predict(session.rates[test])) ** 2
        square[test] = (hand[test] - hand[test].mean(axis=0)) ** 2
        error, square = (weights @ each[session.of("test")].sum(axis=1) for each in (error, square))
        scores.append((1 - error / square).mean(axis=1))
        windows += int(test.any(axis=1).sum())
    same(found, np.mean(scores, axis=0), windows)
    assert (found["n"], found["aggregation"]) == (2, "mean over dimensions and groups")


@pytest.mark.parametrize("bins", [0, 3])
def test_a_group_that_training_hardly_knows_leaves_no_score(session: Session, bins: int) -> None:
    """The mean over the others would be of another task, and five folds take five bins at least."""
    kind, trial = session.column("kind"), session.samples["trial"].to_numpy()
    train = np.flatnonzero(session.of("train") & (kind == "b"))
    trials, hand = session.trains.trials.copy(), session.trains.signals["hand"].copy()
    trials.loc[trial[train[1:]], "kind"] = None
    first = int(trial[train[0]] * 150 + 1)  # its first bin is centred there
    hand.loc[first : first + 149, "y"] = np.nan
    hand.loc[first : first + 2 * bins - 1 : 2, "y"] = 1.0
    assert (kind[session.of("test")] == "b").any()
    changed = {"trials": trials, "signals/hand": hand}
    trains = replace(session.trains, tables=session.trains.tables | changed)
    (found,) = session.rows({"hand": Target(signal="hand", within=("kind",))}, trains=trains)
    assert np.isnan(found["value"]) and found["n"] == 0


def test_a_time_is_related_to_speed_group_by_group_of_trials_that_have_one(session: Session) -> None:
    """Bins in which any unit was observed count, and values of two columns make no third."""
    gone = np.column_stack([np.zeros(TRIALS), np.arange(TRIALS) * 150_000, np.arange(TRIALS) * 150_000 + 100_000])
    trains = replace(session.trains, unit_intervals=gone[::2].astype(np.int64))
    speed = np.linalg.norm(np.diff(session.rates[:, :SHOWN], axis=1), axis=2).mean(axis=1)
    time = session.column("time").astype(float)
    for within in (("kind",), ("kind", "pair"), ("first", "pair")):
        (found,) = session.rows({"time": Target(timing="time", within=within)}, trains=trains)
        groups = session.column(within[0])
        usable = session.of("test") & pd.notna(groups) & np.isfinite(time)
        each = [usable & (groups == name) for name in set(groups[usable])]
        expected = np.mean([pearsonr(speed[own], time[own])[0] for own in each])
        assert found["value"] == pytest.approx(expected, abs=1e-9) and found["n"] == usable.sum()
        assert len(each) == 2


def test_a_target_is_read_out_as_if_it_were_the_only_one(session: Session) -> None:
    """Whatever another learns from; latents as well as rates."""
    targets = {
        "hand": Target(signal="hand"),
        "more": Target(signal="hand", learn_validation=True),
        "side": Target(choice="side"),
    }
    alone = [row for name in targets for row in session.rows({name: targets[name]}, latents=session.latents)]
    together = session.rows(targets, latents=session.latents)
    pd.testing.assert_frame_equal(pd.DataFrame(together), pd.DataFrame(alone))
    values = pd.DataFrame(alone).set_index(["metric", "units"])["value"]
    for units in ("all", "latents"):
        assert values["decoding_hand_r2", units] != values["decoding_more_r2", units]


def test_few_windows_show_neither_rates_of_heldout_units_nor_bins_to_forecast(session: Session) -> None:
    def table(**changed: np.ndarray) -> pd.DataFrame:
        fitted = session.fitted("validation", "test", **changed)
        nulls = {"evaluated mean": None, "train mean": np.linspace(0.1, 0.5, UNITS)}
        return pd.DataFrame(few_shot_rows([2, 8], session.trains, session.split, fitted, nulls, RESAMPLES))

    first, other = table(), session.rates.copy()
    for where in (np.s_[:, :, session.split.heldout["small0"]], np.s_[:, SHOWN:]):
        other[where] = np.random.default_rng(0).gamma(2.0, 0.2, other[where].shape)
    pd.testing.assert_frame_equal(table(rates=other), first)
    assert (first["ci_low"] < first["value"]).all() and (first["value"] < first["ci_high"]).all()
    pd.testing.assert_frame_equal(table(rates=other, latents=session.latents), table(latents=session.latents))
    assert not table(latents=session.latents)["value"].equals(first["value"])


def by_hand(x: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Log-rates of `unseen` [S, T, F] by the Poisson regression of y [R] on x [R, F], ridge 10, its bias free."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logs = x @ w[1:] + w[0]
        error = np.exp(logs) - y
        gradient = np.r_[error.sum(), x.T @ error + 10 * w[1:]]
        return (np.exp(logs) - y * logs).sum() + 5 * (w[1:] ** 2).sum(), gradient

    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, tol=1e-10).x
    return unseen @ w[1:] + w[0]


def test_few_windows_teach_each_heldout_unit_by_the_bins_in_which_it_was_observed(session: Session) -> None:
    """Drawn at random five times; no bin is expected to hold more spikes than any that was shown did."""
    heldout, split = session.split.heldout["small0"], session.split
    own = np.arange(0, TRIALS * 150_000, 100_000)
    gone = np.column_stack([np.full(len(own), heldout[0]), own, own + 60_000])
    trains = replace(session.trains, unit_intervals=gone.astype(np.int64))
    latents = session.latents * [1.0, 1.0, 4.0] + [0.0, 0.0, 7.0]
    latents[session.of("test"), ::5, :2] *= 6  # beyond what any window shows
    null = np.linspace(0.1, 0.5, UNITS)
    fitted = session.fitted("validation", "test", latents=latents)
    table = pd.DataFrame(few_shot_rows([3], trains, split, fitted, {"evaluated mean": None, "given": null}, 0))
    found = table[(table["metric"] == "few_shot_3_bits_per_spike") & (table["aggregation"] == "pooled")]

    at = {part: split.samples["start_tick"].to_numpy()[session.of(part)] for part in ("validation", "test")}
    counts = {part: bin_windows(trains, start, BINS, 2000)[:, :SHOWN, heldout] for part, start in at.items()}
    known = {part: observed_windows(trains, start, BINS, 2000)[:, :SHOWN, heldout] for part, start in at.items()}
    shown, unseen = (latents[session.of(part), :SHOWN] for part in ("validation", "test"))
    centre, scale = shown.mean(axis=(0, 1)), shown.std(axis=(0, 1))
    random, y, scored = np.random.default_rng(0), counts["test"], known["test"]
    mean = np.array([y[..., unit][scored[..., unit]].mean() for unit in range(len(heldout))])
    gains, capped = {"evaluated mean": [], "given": []}, 0
    for _ in range(5):
        rows = random.permutation(len(shown))[:3]
        most = np.log(max((counts["validation"] * known["validation"])[rows].max(), 1))
        logs = np.zeros(y.shape)
        for unit in range(len(heldout)):
            mask = known["validation"][rows, :, unit]
            learned = ((shown[rows] - centre) / scale)[mask], counts["validation"][rows, :, unit][mask]
            logs[..., unit] = by_hand(*learned, (unseen - centre) / scale)
        capped += (logs > most).sum()
        for name, each in (("evaluated mean", mean), ("given", null[heldout])):
            rate = np.exp(np.minimum(logs, most))
            gain = (y * np.log(rate) - rate) - (y * np.log(each) - each)
            gains[name].append(gain[scored].sum() / y[scored].sum() / np.log(2))
    assert capped > 0 and len(found) == 2
    for name, value in zip(found["null"], found["value"], strict=True):
        assert value == pytest.approx(np.mean(gains[name]), abs=1e-3)
