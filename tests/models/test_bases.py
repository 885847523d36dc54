"""Bases: the numbers of the specification, partition of unity, causality, padding, composition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline as ScipySpline

from pipeline_lib.bases import (
    BSpline,
    Convolve,
    CyclicBSpline,
    Evaluate,
    Exponential,
    RaisedCosineLinear,
    RaisedCosineLog,
    RawHistory,
    basis_by_name,
    kernel_rank,
)
from pipeline_lib.bases.lags import raised_cosines
from pipeline_lib.errors import InputError

GRID = np.linspace(0, 1, 201)


def test_the_degenerate_basis_of_the_nemos_how_to_page():
    kernel = RaisedCosineLog(3).kernel(3)
    np.testing.assert_allclose(kernel, [[1, 0.5, 0], [0, 0, 0.26285591], [0, 0, 0]], atol=1e-8)
    assert kernel_rank(kernel) == 2


def test_raised_cosines_follow_their_formula():
    n, width, c = 6, 2.0, 50.0
    stretched = np.log(c * GRID + 1) / np.log(c + 1)
    peaks = np.linspace(0, 1 - width / (n + width - 1), n)
    expected = np.zeros((len(GRID), n))
    for i, peak in enumerate(peaks):
        distance = np.clip(np.pi * (stretched - peak) / ((peaks[1] - peaks[0]) * width), -np.pi, np.pi)
        expected[:, i] = 0.5 * (1 + np.cos(distance))
    np.testing.assert_allclose(RaisedCosineLog(n).evaluate(GRID), expected, atol=1e-14)
    assert RaisedCosineLog(n).evaluate(np.array([1.0])).max() < 1e-15  # decays to zero at the end of the window
    assert RaisedCosineLog(n, decay_to_zero=False).evaluate(np.array([1.0]))[0, -1] == 1  # or peaks there


@pytest.mark.parametrize(
    ("last_peak", "number", "stretch", "lags"), [(5, 3, 0.5, 19), (7, 3, 0.5, 27), (1.5, 2, 1, 10)]
)
def test_raised_cosines_over_lags_are_those_of_the_paper(last_peak, number, stretch, lags):
    """Xin & Kass's formula, lag by lag (specs/glm_transformer.md, section 1)."""
    found = raised_cosines(number, last_peak, stretch)
    assert found.shape == (lags, number)
    shift = stretch * last_peak
    low, high = np.log(shift + 1e-10), np.log(last_peak + shift + 1e-10)
    between = (high - low) / (number - 1)
    for lag in range(lags):
        for place in range(number):
            turned = (np.log(lag + shift + 1e-10) - low - place * between) * np.pi / (2 * between)
            assert found[lag, place] == pytest.approx((1 + np.cos(np.clip(turned, -np.pi, np.pi))) / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("basis", "total"),
    [
        (RaisedCosineLinear(7), 2),
        (RaisedCosineLinear(7, width=1.5), 1.5),
        (BSpline(6), 1),
        (CyclicBSpline(6, order=3), 1),
    ],
)
def test_inner_sum_is_constant(basis, total):
    inner = GRID if isinstance(basis, (BSpline, CyclicBSpline)) else GRID[(GRID > 0.34) & (GRID < 0.66)]
    np.testing.assert_allclose(basis.evaluate(inner).sum(1), total, atol=1e-12)


@pytest.mark.parametrize(("n", "order"), [(4, 4), (9, 4), (5, 2), (3, 1)])
def test_splines_are_scipys(n, order):
    inner = np.linspace(0, 1, n - order + 2)
    knots = np.concatenate([np.zeros(order - 1), inner, np.ones(order - 1)])
    inside = GRID[:-1]
    expected = ScipySpline.design_matrix(inside, knots, order - 1).toarray() if order > 1 else None
    found = BSpline(n, order).evaluate(inside)
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.shape == (200, n) and (found >= 0).all()


def test_cyclic_splines_close_smoothly():
    basis, step = CyclicBSpline(7), 1e-6
    ends = basis.evaluate(np.array([0, step, 1 - step, 1.0]))
    np.testing.assert_allclose(ends[0], ends[3], atol=1e-9)
    np.testing.assert_allclose((ends[1] - ends[0]) / step, (ends[3] - ends[2]) / step, atol=1e-4)
    # Every spline is another one, turned by a seventh of the circle.
    values = basis.evaluate(np.arange(70) / 70)
    np.testing.assert_allclose(np.roll(values[:, 2], 10), values[:, 3], atol=1e-9)


def test_orthogonal_exponentials_span_the_same_filters():
    plain, orthogonal = Exponential(4).kernel(50), Exponential(4, orthogonal=True).kernel(50)
    np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(4), atol=1e-12)
    assert kernel_rank(np.concatenate([plain, orthogonal], axis=1)) == 4
    upper = orthogonal.T @ plain  # Gram-Schmidt: each is made of itself and of slower ones, and keeps its sign
    np.testing.assert_allclose(upper, np.triu(upper), atol=1e-12)
    assert (np.diag(upper) > 0).all()
    np.testing.assert_allclose(plain[[0, -1]], [np.ones(4), np.exp(-np.geomspace(1, 100, 4))], rtol=1e-12)


def test_raw_history_is_one_hot_at_every_lag():
    for n in range(2, 60):
        np.testing.assert_array_equal(RawHistory(n).evaluate(np.linspace(0, 1, n)), np.eye(n))


@given(
    counts=st.integers(0, 2**16).map(lambda seed: np.random.default_rng(seed).poisson(0.5, (25, 3))),
    window=st.integers(1, 9),
)
@settings(max_examples=25)
def test_a_row_sees_the_bins_before_it_and_no_other(counts, window):
    basis = RawHistory(window)
    features = Convolve(basis, window).compute(counts)
    assert np.isnan(features[:window]).all() and np.isfinite(features[window:]).all()
    for row in range(window, 25):
        for unit in range(3):
            expected = counts[row - 1 - np.arange(window), unit]
            np.testing.assert_array_equal(features[row, unit * window : (unit + 1) * window], expected)


def test_acausal_is_centred_and_anticausal_looks_ahead():
    counts = np.arange(7.0)[:, None]
    centred = Convolve(RawHistory(3), 3, causality="acausal").compute(counts)
    np.testing.assert_array_equal(centred[3], [4, 3, 2])
    assert np.isnan(centred[[0, 6]]).all() and np.isfinite(centred[1:6]).all()
    even = Convolve(RawHistory(2), 2, causality="acausal").compute(counts)
    np.testing.assert_array_equal(even[3], [4, 3])
    ahead = Convolve(RawHistory(3), 3, causality="anti-causal").compute(counts)
    np.testing.assert_array_equal(ahead[1], [4, 3, 2])
    assert np.isnan(ahead[4:]).all() and np.isfinite(ahead[:4]).all()


def test_epochs_are_not_crossed():
    counts = np.random.default_rng(0).poisson(1.0, (40, 2))
    features = Convolve(RaisedCosineLog(3), 6)
    epochs = np.array([[0, 18], [18, 21], [21, 40]])
    found = features.compute(counts, epochs=epochs)
    for start, stop in epochs:
        np.testing.assert_array_equal(found[start:stop], features.compute(counts[start:stop]))
    assert np.isnan(found[18:27]).all()  # the epoch of three bins is too short for any row
    short = Convolve(RawHistory(3), 3, causality="acausal")
    rows = short.compute(counts[:, :1], epochs=np.array([[0, 3], [3, 40]]))
    np.testing.assert_array_equal(rows[1], counts[[2, 1, 0], 0])  # as long as the window: a single row
    assert np.isnan(rows[[0, 2, 3]]).all()
    # Composed features hand the epochs on.
    others = Convolve(RaisedCosineLog(2), 4, "others")
    for both in (features + others, features * others):
        found = both.compute(counts, counts, epochs=epochs)
        for start, stop in epochs:
            np.testing.assert_array_equal(found[start:stop], both.compute(*2 * [counts[start:stop]]))


def test_outside_its_bounds_a_variable_is_not_a_number():
    values = Evaluate(BSpline(5), bounds=(0.0, 2.0)).compute(np.array([-0.1, 0.0, 2.0, 2.1, np.nan]))
    assert np.isnan(values[[0, 3, 4]]).all() and np.allclose(values[[1, 2]].sum(1), 1)


def test_composition_and_its_labels():
    random = np.random.default_rng(0)
    counts, speed, phase = random.poisson(1.0, (30, 2)), random.random(30), random.random(30)
    history = Convolve(RaisedCosineLog(3), 5, "history")
    joint = Evaluate(BSpline(4), (0, 1), "speed") * Evaluate(CyclicBSpline(5), (0, 1), "phase")
    features = history + joint
    columns = features.compute(counts, speed, phase)
    assert columns.shape == (30, 2 * 3 + 4 * 5) and features.n_inputs == 3
    one = Evaluate(BSpline(4), (0, 1)).compute(speed)[7]
    other = Evaluate(CyclicBSpline(5), (0, 1)).compute(phase)[7]
    np.testing.assert_allclose(columns[7, 6:], np.kron(one, other))
    parts = features.split_by_feature(np.arange(26.0 * 2).reshape(26, 2), counts, speed, phase)
    assert {name: part.shape for name, part in parts.items()} == {"history": (2, 3, 2), "speed * phase": (4, 5, 2)}
    assert parts["history"][1, 0, 1] == (1 * 3 + 0) * 2 + 1
    labels = features.labels(counts, speed, phase)
    assert labels[4] == "history[1, 1]" and labels[-1] == "speed * phase[3, 4]" and len(labels) == 26


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RaisedCosineLog(1),
        lambda: RaisedCosineLinear(5, width=1.2),
        lambda: BSpline(3),
        lambda: RawHistory(3).kernel(4),
        lambda: Exponential(2, rates=(1.0, 1.0)),
        lambda: Exponential(2, rates=(1.0, np.inf)),
        lambda: RaisedCosineLog(4, time_scaling=np.inf),
        lambda: Exponential(9, orthogonal=True).kernel(5),
        lambda: basis_by_name("wavelet", 3, 3),
        lambda: Convolve(RawHistory(3), 3, causality="future"),
        lambda: Evaluate(BSpline(5), bounds=(1.0, 1.0)),
        lambda: Convolve(RawHistory(3), 3) + Convolve(RawHistory(2), 2),
        lambda: Convolve(RawHistory(3), 3).compute(np.ones((9, 1)), np.ones(9)),
        lambda: (Convolve(RawHistory(1), 1, "a") + Convolve(RawHistory(1), 1, "b")).compute(
            np.ones((9, 1)), np.ones((8, 1))
        ),
        lambda: Convolve(RawHistory(3), 3).split_by_feature(np.ones(5), np.ones((9, 2))),
    ],
)
def test_mistakes_are_named(wrong):
    with pytest.raises(InputError):
        wrong()
