"""Readouts against scikit-learn, formulas written out, and what must not change them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from pipeline_lib.evaluation import decoding
from pipeline_lib.evaluation.decoding import (
    ALPHAS,
    PIECES,
    balanced_accuracy,
    decode_classes,
    fit_ridge,
    signal_in_bins,
    speed_correlation,
    window_features,
)


@pytest.mark.parametrize(("rows", "noise"), [(203, 0.01), (203, 0.3), (203, 3.0), (57, 30.0)])
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_ridge_is_the_benchmarks_grid_search(rows: int, noise: float, drift: float) -> None:
    """Where the means drift from fold to fold, each readout needs the bias of its own folds."""
    rng = np.random.default_rng(rows)
    inputs = rng.gamma(1.0, 0.1, (rows, 12)) * np.linspace(0.1, 2, 12) + drift * np.linspace(0, 1, rows)[:, None]
    targets = inputs @ rng.standard_normal((12, 2)) + noise * rng.standard_normal((rows, 2)) + [3.0, -1.0]
    other = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=KFold(5), scoring="r2").fit(inputs, targets)
    found = fit_ridge(inputs, targets)
    assert found.alpha == other.best_params_["alpha"]
    unseen = rng.gamma(1.0, 0.1, (40, 12))
    np.testing.assert_allclose(found.predict(unseen), other.predict(unseen), atol=1e-10)
    true = unseen @ rng.standard_normal((12, 2))
    assert r2_score(true, found.predict(unseen)) == pytest.approx(other.score(unseen, true), abs=1e-10)


def test_ridge_with_more_inputs_than_rows_is_defined() -> None:
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.standard_normal((30, 50)), np.ones((30, 2))], axis=1)
    found = fit_ridge(inputs, inputs[:, :1] * 2)
    assert np.isfinite(found.predict(inputs)).all() and found.alpha in ALPHAS


def test_signals_are_read_at_the_centres_of_bins() -> None:
    time = np.array([1.0, 1.5, 2.0, 3.0, 3.5])
    values = np.stack([2 * time, np.array([0.0, 1.0, np.nan, 1.0, 0.0])], axis=1)
    found = signal_in_bins(time, values, np.array([100_000, 300_000]), 5, 10_000)
    assert found.shape == (2, 5, 2)
    np.testing.assert_allclose(found[0, :, 0], 2 * (1.05 + 0.1 * np.arange(5)))
    np.testing.assert_allclose(found[0, :, 1], 0.1 + 0.2 * np.arange(5))
    np.testing.assert_allclose(found[1, :, 1], 0.9 - 0.2 * np.arange(5))
    late = signal_in_bins(time, values, np.array([310_000]), 5, 10_000, lag=-0.1)
    np.testing.assert_allclose(late[0, :, 0], found[1, :, 0])
    assert np.isnan(signal_in_bins(time, values, np.array([50_000]), 5, 10_000)).all()  # before the signal
    assert np.isnan(signal_in_bins(time, values, np.array([350_000]), 5, 10_000)).all()  # after it
    assert np.isnan(signal_in_bins(time, values, np.array([160_000]), 1, 10_000)[0, 0, 1])  # beside its gap


def test_the_penalties_reach_from_a_ten_thousandth_to_one_as_the_benchmarks() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 30)) * 0.1
    assert fit_ridge(inputs, inputs @ rng.normal(size=(30, 2))).alpha == pytest.approx(1e-4)
    assert fit_ridge(inputs, rng.normal(size=(40, 2))).alpha == pytest.approx(1)


def test_a_value_at_the_centre_of_a_bin_is_taken_whatever_is_beside_it() -> None:
    """Although tenths of a second are no sums of powers of two, on either side."""
    time = np.cumsum(np.full(500, 0.02)) - 0.01
    values = np.where(np.arange(500) % 2, np.nan, np.arange(500.0))[:, None]
    found = signal_in_bins(time, values, np.array([0]), 500, 2000)[0, :, 0]
    assert np.array_equal(found[::2], values[::2, 0]) and np.isnan(found[1::2]).all()


def test_features_of_a_choice_are_means_over_parts_of_the_window() -> None:
    rates = np.random.default_rng(0).random((2, 10, 3))
    rates[1, 7:] = np.nan
    found = window_features(rates, np.array([10, 7])).reshape(2, PIECES, 3)
    edges = {0: [0, 3, 5, 8, 10], 1: [0, 2, 4, 6, 7]}
    for window, places in edges.items():
        for piece, (first, last) in enumerate(pairwise(places)):
            np.testing.assert_allclose(found[window, piece], rates[window, first:last].mean(axis=0))


def test_classes_are_decoded_as_a_weighted_logistic_regression_does() -> None:
    rng = np.random.default_rng(1)
    names = np.array(["left", "none", "right"])
    label = rng.choice(3, 240, p=[0.6, 0.1, 0.3])
    inputs = rng.standard_normal((240, 20)) * 3 + 1
    inputs[:, :3] += 3.5 * np.eye(3)[label]
    train, test = slice(0, 160), slice(160, None)
    decoded = decode_classes(inputs[train], names[label[train]], inputs[test])
    score = balanced_accuracy(names[label[test]], decoded, np.ones((1, 80)))[0]
    standard = (inputs - inputs[train].mean(axis=0)) / inputs[train].std(axis=0)
    best = max(
        LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=5000)
        .fit(standard[train], label[train])
        .score(standard[test], label[test])
        for strength in (1, 10, 100)
    )
    assert score > 0.6 and (decoded == names[label[test]]).mean() > best - 0.08
    shuffled = decode_classes(inputs[train], names[rng.permutation(label[train])], inputs[test])
    chance = balanced_accuracy(names[label[test]], shuffled, np.ones((1, 80)))[0]
    assert chance < 0.55


def test_the_penalty_matches_scikit_learns_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STRENGTHS", np.array([2.0]))
    rng = np.random.default_rng(2)
    scale = np.logspace(-2, 2, 6)  # the penalty is of inputs of variance 1
    inputs, label = rng.standard_normal((90, 6)) * scale, rng.integers(3, size=90)
    unseen = rng.standard_normal((200, 6)) * scale
    other = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-8, max_iter=5000)
    other.fit((inputs - inputs.mean(axis=0)) / inputs.std(axis=0), label)
    expected = other.predict((unseen - inputs.mean(axis=0)) / inputs.std(axis=0))
    found = decode_classes(inputs, label, unseen)
    assert (found == expected).mean() > 0.99
    silent = np.concatenate([inputs, np.full((90, 1), 7.0)], axis=1)  # says nothing: it never changes
    assert np.array_equal(
        decode_classes(silent, label, np.concatenate([unseen, np.full((200, 1), 7.0)], axis=1)), found
    )


def test_more_inputs_than_rows_are_decoded_as_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many axes as there are rows, of inputs less their mean: where these vary, not where they lie."""
    monkeypatch.setattr(decoding, "STRENGTHS", np.array([5.0]))
    rng = np.random.default_rng(6)
    inputs, label = rng.standard_normal((30, 60)) + 5 * rng.standard_normal(60), np.resize([0, 1, 2], 30)
    unseen = rng.standard_normal((300, 60)) + inputs.mean(axis=0)
    other = LogisticRegression(C=1 / 5, class_weight="balanced", tol=1e-8, max_iter=5000)
    other = make_pipeline(StandardScaler(), other).fit(inputs, label)
    assert (decode_classes(inputs, label, unseen) == other.predict(unseen)).mean() > 0.99


@pytest.mark.parametrize(("signal", "tail"), [(0.2, 0.0), (2.0, 0.0), (3.0, 2.5)])
def test_the_penalty_is_that_of_the_least_loss_where_it_was_not_fitted(
    signal: float, tail: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds dealt class by class, each standardised by the rest; losses of scikit-learn's fits, every class of a fold
    weighing as much as another. With a `tail`, a fold's few large inputs decide by what the rest is divided."""
    strengths = np.logspace(-1, 3, 5)
    monkeypatch.setattr(decoding, "STRENGTHS", strengths)
    rng = np.random.default_rng(1)
    label = np.sort(rng.choice(3, 60, p=[0.6, 0.1, 0.3]))  # sorted: contiguous folds would miss whole classes

    def inputs_of(label: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((len(label), 12))
        return (np.exp(tail * noise) if tail else noise) + signal * np.eye(3, 12)[label]

    inputs, unseen, fold = inputs_of(label), inputs_of(rng.integers(3, size=300)), np.arange(60) % 5

    def fitted(strength: float, rows: np.ndarray) -> Pipeline:
        regression = LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=5000)
        return make_pipeline(StandardScaler(), regression).fit(inputs[rows], label[rows])

    losses = np.zeros(len(strengths))
    for place, strength in enumerate(strengths):
        for number in range(5):
            own = fold == number
            logs = fitted(strength, ~own).predict_log_proba(inputs[own])[np.arange(own.sum()), label[own]]
            classes = [logs[label[own] == name].mean() for name in np.unique(label[own])]
            losses[place] -= own.sum() * np.mean(classes)
    expected = fitted(strengths[np.argmin(losses)], fold >= 0).predict(unseen)
    assert (decode_classes(inputs, label, unseen) == expected).mean() > 0.99


def test_the_classes_of_a_fold_weigh_alike_and_those_it_lacks_not_at_all() -> None:
    rng = np.random.default_rng(5)
    x, weights, member = rng.standard_normal((30, 4)), rng.standard_normal((5, 4)), rng.choice([0, 1, 3], 30)
    value, gradient = decoding._loss(weights, x, member, 4)
    likely = softmax(x @ weights[:-1] + weights[-1], axis=1)
    balanced = {"sample_weight": compute_sample_weight("balanced", member), "normalize": False}
    assert value == pytest.approx(log_loss(member, likely, labels=range(4), **balanced), rel=1e-10)

    def of(flat: np.ndarray) -> float:
        return decoding._loss(flat.reshape(weights.shape), x, member, 4)[0]

    np.testing.assert_allclose(gradient.ravel(), approx_fprime(weights.ravel(), of, 1e-7), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_training_holds_once_has_no_say_in_the_penalty(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fold that holds it no regression knows it: its loss there would only say when the fit was stopped."""
    strengths, learn, fitted = np.logspace(-1, 3, 9), decoding._logistic, []
    rng, label = np.random.default_rng(seed), np.r_[np.repeat([0, 1], 60), 2]
    inputs = rng.standard_normal((121, 20)) + 1.5 * np.eye(3, 20)[label]

    def recorded(x: np.ndarray, member: np.ndarray, classes: int, strength: float, start: np.ndarray | None) -> Any:
        fitted.append(strength)
        return learn(x, member, classes, strength, start)

    monkeypatch.setattr(decoding, "STRENGTHS", strengths)
    monkeypatch.setattr(decoding, "_logistic", recorded)
    decode_classes(inputs, label, inputs[:1])
    losses = np.zeros(len(strengths))
    for number in range(5):
        train, unseen = np.arange(121) % 5 != number, (np.arange(121) % 5 == number) & (label < 2)
        balanced = {"sample_weight": compute_sample_weight("balanced", label[unseen]), "normalize": False}
        for place, strength in enumerate(strengths):
            regression = LogisticRegression(C=1 / strength, class_weight="balanced", max_iter=5000)
            regression = make_pipeline(StandardScaler(), regression).fit(inputs[train], label[train])
            likely = regression.predict_proba(inputs[unseen])
            losses[place] += log_loss(label[unseen], likely, labels=regression.classes_, **balanced)
    assert fitted[-1] == strengths[np.argmin(losses)]


def test_a_rare_class_that_comes_at_regular_times_is_in_every_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dealt in the order of rows, all of it would be in one fold, and unknown to the regression judged there."""
    label, learn, known = np.zeros(50, int), decoding._logistic, []
    label[:25:5] = 1

    def recorded(x: np.ndarray, member: np.ndarray, *rest: Any) -> np.ndarray:
        known.append(np.bincount(member, minlength=2)[1])
        return learn(x, member, *rest)

    monkeypatch.setattr(decoding, "_logistic", recorded)
    decode_classes(np.random.default_rng(0).standard_normal((50, 3)), label, np.zeros((1, 3)))
    assert set(known[:-1]) == {4} and known[-1] == 5


def test_balanced_accuracy_is_scikit_learns_and_weights_count_samples() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(["a", "b", "c"], 50, p=[0.7, 0.2, 0.1])
    decoded = np.where(rng.random(50) < 0.6, labels, rng.choice(["a", "b"], 50))
    drawn = rng.integers(50, size=50)
    weights = np.stack([np.ones(50), np.bincount(drawn, minlength=50)])
    found = balanced_accuracy(labels, decoded, weights)
    assert found[0] == pytest.approx(balanced_accuracy_score(labels, decoded), abs=1e-12)
    assert found[1] == pytest.approx(balanced_accuracy_score(labels[drawn], decoded[drawn]), abs=1e-12)


def test_a_class_that_a_resample_does_not_draw_is_not_averaged_over() -> None:
    labels, decoded = np.array(["a", "a", "b", "b"]), np.array(["a", "b", "b", "b"])
    weights = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 2, 2]])
    assert balanced_accuracy(labels, decoded, weights).tolist() == [0.75, 0.5, 1.0]


def test_a_group_whose_rates_all_change_alike_has_no_say() -> None:
    steps = np.array([1.0, 2.0, 3.0, 1.0, 1.0])
    rates = steps[:, None, None] * np.arange(4.0)[:, None]
    timing, group = np.array([3.0, 2.0, 1.0, 1.0, 2.0]), np.array(["x", "x", "x", "y", "y"])
    assert speed_correlation(rates, np.ones((5, 4), dtype=bool), timing, group) == pytest.approx(-1)


def test_speed_correlation_is_the_formula() -> None:
    """Pearson's r of the mean length of the change from bin to bin, trial by trial, group by group."""
    rng = np.random.default_rng(4)
    rates, group = rng.random((30, 12, 5)), np.repeat(["x", "y", "z"], 10)
    known = np.arange(12) < rng.integers(4, 13, size=30)[:, None]
    known[::3, 2] = False  # a gap is no step
    timing = rng.random(30)
    timing[4] = np.nan
    correlations = []
    for name in ("x", "y", "z"):
        rows = [row for row in range(30) if group[row] == name and row != 4]
        speeds = []
        for row in rows:
            path, steps = rates[row], [k for k in range(11) if known[row, k] and known[row, k + 1]]
            lengths = [np.sqrt(((path[k + 1] - path[k]) ** 2).sum()) for k in steps]
            speeds.append(sum(lengths) / len(lengths))
        x, y = np.array(speeds) - np.mean(speeds), timing[rows] - timing[rows].mean()
        correlations.append((x @ y) / np.sqrt((x @ x) * (y @ y)))
    assert speed_correlation(rates, known, timing, group) == pytest.approx(np.mean(correlations), abs=1e-10)
    assert np.isnan(speed_correlation(rates, known, np.ones(30), group))
    constant = np.where(group == "x", 1.0, timing)  # a group of one time has no correlation, and spoils no other
    assert speed_correlation(rates, known, constant, group) == pytest.approx(np.mean(correlations[1:]), abs=1e-10)
    slow = np.linspace(0, 1, 30)[:, None, None] * np.arange(12)[:, None] * np.ones(5)
    assert speed_correlation(slow, known, -np.linspace(0, 1, 30), group) == pytest.approx(-1)
