"""Scores against their formulas written out bin by bin, closed forms, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import gammaln
from sklearn.metrics import d2_tweedie_score, r2_score

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation import sums as sums_module
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.metrics import (
    bits_per_spike,
    given_psth_r2,
    latent_r2,
    negative_log_likelihood,
    poisson_d2,
    psth_r2,
    r2,
    smoothed_psths,
    unit_bits_per_spike,
)
from pipeline_lib.evaluation.sums import poisson_sums, square_sums


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 0.2, (9, 14, 6))
    counts = rng.poisson(rates).astype(float)
    counts[:, :, 4] = 0  # a silent unit
    counts[rng.random(counts.shape) < 0.1] = np.nan
    counts[3, 8:] = np.nan  # a shorter trial
    estimate = rates * rng.uniform(0.5, 1.5, rates.shape)
    estimate[0, 0, 0] = 0.0
    return counts, estimate, rates


def nll_by_hand(counts: np.ndarray, rates: np.ndarray) -> float:
    """Sum over observed bins of r - y ln r + ln Gamma(y + 1), one bin at a time."""
    total = 0.0
    for y, r in zip(counts.ravel().tolist(), rates.ravel().tolist(), strict=True):
        if not math.isnan(y):
            r = r or 1e-9
            total += r - y * math.log(r) + math.lgamma(y + 1)
    return total


def bits_by_hand(counts: np.ndarray, rates: np.ndarray, null: np.ndarray | None = None) -> float:
    null = np.nanmean(counts, axis=(0, 1)) if null is None else null
    null_rates = np.broadcast_to(null, counts.shape)
    return (nll_by_hand(counts, null_rates) - nll_by_hand(counts, rates)) / (np.nansum(counts) * math.log(2))


def test_negative_log_likelihood_is_the_formula(data) -> None:
    counts, estimate, _ = data
    assert negative_log_likelihood(counts, estimate) == pytest.approx(nll_by_hand(counts, estimate), rel=1e-12)
    valid = ~np.isnan(counts)
    r, y = np.where(estimate == 0, 1e-9, estimate)[valid], counts[valid]
    assert negative_log_likelihood(counts, estimate) == pytest.approx((r - y * np.log(r) + gammaln(y + 1)).sum())


@pytest.mark.parametrize("null", [None, np.array([0.3, 0.1, 0.2, 0.05, 0.0, 0.4])])
def test_bits_per_spike_is_the_benchmarks_formula(data, null) -> None:
    counts, estimate, _ = data
    found = bits_per_spike(poisson_sums(counts, estimate).total(), null)
    assert found == pytest.approx(bits_by_hand(counts, estimate, null), abs=1e-10)


def test_unit_bits_per_spike_are_those_of_each_unit_alone_and_undefined_without_spikes(data) -> None:
    counts, estimate, _ = data
    found = unit_bits_per_spike(poisson_sums(counts, estimate).total())[0]
    for unit in (0, 1, 2, 3, 5):
        one = slice(unit, unit + 1)
        assert found[unit] == pytest.approx(bits_by_hand(counts[..., one], estimate[..., one]), abs=1e-10)
    assert np.isnan(found[4])


def test_poisson_d2_is_the_share_of_deviance_explained(data) -> None:
    counts, estimate, _ = data
    valid = ~np.isnan(counts)
    null = np.broadcast_to(np.nanmean(counts, axis=(0, 1)), counts.shape)

    def deviance(rates: np.ndarray) -> float:
        y, r = counts[valid], np.where(rates == 0, 1e-9, rates)[valid]
        return 2 * sum(a * math.log(a / b) - a + b if a else b for a, b in zip(y, r, strict=True))

    found = poisson_d2(poisson_sums(counts, estimate).total())
    assert found == pytest.approx(1 - deviance(estimate) / deviance(null), abs=1e-10)


def test_poisson_d2_of_one_unit_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    rates = rng.gamma(2.0, 0.3, (20, 30, 1))
    counts = rng.poisson(rates)
    found = poisson_d2(poisson_sums(counts, rates).total())
    assert found == pytest.approx(d2_tweedie_score(counts.ravel(), rates.ravel(), power=1), abs=1e-10)


def test_the_null_itself_scores_zero_and_a_perfect_model_of_deterministic_spikes_one(data) -> None:
    counts, _, _ = data
    mean = np.broadcast_to(np.nanmean(counts, axis=(0, 1)), counts.shape)
    sums = poisson_sums(counts, mean).total()
    assert bits_per_spike(sums) == pytest.approx(0, abs=1e-9)
    assert poisson_d2(sums) == pytest.approx(0, abs=1e-9)
    assert bits_per_spike(sums, np.nanmean(counts, axis=(0, 1))) == pytest.approx(0, abs=1e-9)
    exact = poisson_sums(counts, np.nan_to_num(counts)).total()
    assert poisson_d2(exact) == pytest.approx(1, abs=1e-6)


def test_true_rates_gain_the_information_they_carry() -> None:
    """Rates a or b with equal chance: the gain is the relative entropy of them to their mean, per spike."""
    rng = np.random.default_rng(2)
    low, high = 0.05, 0.35
    rates = np.where(rng.random((400, 200, 5)) < 0.5, low, high)
    counts = rng.poisson(rates)
    mean = (low + high) / 2
    expected = (low * math.log2(low / mean) + high * math.log2(high / mean)) / 2 / mean
    found = bits_per_spike(poisson_sums(counts, rates).total(), np.full(5, mean))
    assert found == pytest.approx(expected, abs=4 * 0.9 / math.sqrt(counts.sum()))
    wrong = bits_per_spike(poisson_sums(counts, np.full_like(rates, 1.3 * mean)).total(), np.full(5, mean))
    assert wrong == pytest.approx((math.log(1.3) - 0.3) / math.log(2), abs=0.01)


def test_a_mask_equals_nan_and_unobserved_rates_do_not_matter(data) -> None:
    counts, estimate, _ = data
    mask = ~np.isnan(counts)
    whole = np.where(mask, counts, 7).astype(np.uint8)
    spoiled = np.where(mask, estimate, np.nan)
    spoiled[~mask & (np.arange(14)[:, None] % 2 == 0)] = -3
    first, second = poisson_sums(counts, estimate), poisson_sums(whole, spoiled, mask)
    for name in ("spikes", "bins", "expected", "log_expected", "log_spikes"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_inputs_are_left_as_they_were(data) -> None:
    counts, estimate, rates = data
    kept = counts.copy(), estimate.copy(), rates.copy()
    poisson_sums(counts, estimate)
    square_sums(rates, estimate)
    negative_log_likelihood(counts, estimate)
    psth_r2(counts, estimate, np.arange(9) % 2, 1.0)
    for before, after in zip(kept, (counts, estimate, rates), strict=True):
        assert np.array_equal(before, after, equal_nan=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_a_rate_that_is_no_expectation_is_refused_where_a_bin_was_observed(data, bad: float) -> None:
    counts, estimate, _ = data
    counts[2, 3, 1] = 1
    estimate[2, 3, 1] = bad
    with pytest.raises(InputError, match="rates"):
        poisson_sums(counts, estimate)


def test_an_estimate_that_is_no_number_is_refused_where_the_truth_is_known(data) -> None:
    _, estimate, rates = data
    estimate[2, 3, 1] = np.nan
    with pytest.raises(InputError, match="finite wherever the truth is known"):
        square_sums(rates, estimate)
    rates[2, 3, 1] = np.nan
    assert square_sums(rates, estimate).bins.sum() == rates.size - 1


def test_arrays_of_different_shape_are_refused(data) -> None:
    counts, estimate, _ = data
    with pytest.raises(InputError, match="shape"):
        poisson_sums(counts, estimate[:, :, :1])


def test_the_order_of_trials_and_units_changes_no_score(data) -> None:
    counts, estimate, _ = data
    rng = np.random.default_rng(3)
    trials, units = rng.permutation(9), rng.permutation(6)
    first = poisson_sums(counts, estimate).total()
    second = poisson_sums(counts[trials][:, :, units], estimate[trials][:, :, units]).total()
    assert bits_per_spike(first) == pytest.approx(bits_per_spike(second), rel=1e-12)
    assert poisson_d2(first) == pytest.approx(poisson_d2(second), rel=1e-12)
    assert np.allclose(unit_bits_per_spike(first)[0, units], unit_bits_per_spike(second)[0], equal_nan=True)


def test_blocks_of_any_size_give_the_same_sums(data, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, estimate, rates = data
    whole = poisson_sums(counts, estimate), square_sums(rates, estimate)
    monkeypatch.setattr(sums_module, "BLOCK", 2 * 14 * 6)
    pieces = poisson_sums(counts, estimate), square_sums(rates, estimate)
    assert np.array_equal(whole[0].log_expected, pieces[0].log_expected)
    assert np.array_equal(whole[1].error, pieces[1].error)


def test_weights_count_samples_as_repeating_them_does(data) -> None:
    counts, estimate, rates = data
    drawn = np.array([0, 0, 3, 5, 5, 5, 7, 8, 1])
    weights = np.bincount(drawn, minlength=9)[None].astype(float)
    by_weight = bits_per_spike(poisson_sums(counts, estimate).weighted(weights))
    assert by_weight == pytest.approx(bits_per_spike(poisson_sums(counts[drawn], estimate[drawn]).total()))
    squared = [((rates - other)[drawn] ** 2).sum(axis=(0, 1)) for other in (estimate, rates.mean(axis=(0, 1)))]
    assert r2(square_sums(rates, estimate).weighted(weights)) == pytest.approx(np.mean(1 - squared[0] / squared[1]))


def test_r2_of_a_mean_lies_in_its_own_interval() -> None:
    """Compared with the mean of each resample it would be below 0 in nearly all of them."""
    random = np.random.default_rng(0)
    rates = random.normal(5, 1, (40, 10, 20)) + random.normal(0, 1, (40, 1, 20))
    estimate = np.broadcast_to(rates.mean(axis=(0, 1)) + 0.01, rates.shape)
    values = r2(square_sums(rates, estimate).weighted(resampling_weights(40, 500, seed=0)))
    low, high = interval(values[1:], 40)
    assert low < values[0] < high


def test_r2_is_scikit_learns(data) -> None:
    _, estimate, rates = data
    rates[:, :, 2] = 0.3  # constant truth: 0 for a wrong estimate, 1 for an exact one
    rates[:, :, 3] = estimate[:, :, 3] = 0.2
    found = r2(square_sums(rates, estimate).total())
    assert found == pytest.approx(r2_score(rates.reshape(-1, 6), estimate.reshape(-1, 6)), abs=1e-10)


def test_what_rounding_makes_of_a_constant_truth_is_no_signal() -> None:
    """As where means over bins are differences of sums."""
    constant = 0.3 + np.random.default_rng(0).uniform(-1e-15, 1e-15, (9, 14, 1))
    assert r2(square_sums(constant, np.full_like(constant, 0.31)).total()).tolist() == [0.0]
    slow = 1e8 + np.arange(126.0).reshape(9, 14, 1)
    assert r2(square_sums(slow, slow + 1).total()) == pytest.approx(1 - 12 / (126**2 - 1))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_r2_does_not_depend_on_the_unit_of_measurement(data, scale: float) -> None:
    _, estimate, rates = data
    one, other = (r2(square_sums(k * rates, k * estimate).total()) for k in (1.0, scale))
    assert other == pytest.approx(one, abs=1e-9)


def test_r2_leaves_out_unknown_bins(data) -> None:
    _, estimate, rates = data
    known = np.random.default_rng(4).random((9, 14)) < 0.7
    masked = r2(square_sums(np.where(known[..., None], rates, np.nan), estimate).total())
    assert masked == pytest.approx(r2_score(rates[known], estimate[known]), abs=1e-10)
    assert r2(square_sums(rates, estimate, known[..., None]).total()) == pytest.approx(masked, abs=1e-12)


def test_latents_are_scored_up_to_an_affine_map_and_noise_gains_nothing() -> None:
    rng = np.random.default_rng(5)
    true = rng.standard_normal((40, 30, 3)).cumsum(axis=1)
    mixed = true @ rng.standard_normal((3, 8)) + rng.standard_normal(8)
    assert latent_r2(mixed, true) == pytest.approx(1, abs=1e-9)
    noisy = true + rng.standard_normal(true.shape) * true.std(axis=(0, 1))
    assert latent_r2(noisy, true) == pytest.approx(0.5, abs=0.05)
    noise = np.concatenate([rng.standard_normal((40, 30, 50)), np.ones((40, 30, 1))], axis=2)
    guessed = np.empty_like(true)
    for half in (0, 1):
        fitted, scored = (noise[k::2].reshape(-1, 51) for k in (half, 1 - half))
        weights = np.linalg.pinv(fitted) @ true[half::2].reshape(-1, 3)
        guessed[1 - half :: 2] = (scored @ weights).reshape(-1, 30, 3)
    assert latent_r2(noise[:, :, :50], true) < 0
    assert latent_r2(noise[:, :, :50], true) == pytest.approx(
        r2_score(true.reshape(-1, 3), guessed.reshape(-1, 3)), abs=1e-9
    )
    spoiled = np.where((np.arange(40) == 3)[:, None, None], 1e6, mixed)
    mask = np.broadcast_to((np.arange(40) != 3)[:, None], (40, 30))
    assert latent_r2(spoiled, true, mask) == pytest.approx(1, abs=1e-9)
    assert np.isnan(latent_r2(mixed[:1], true[:1]))
    partly = true.copy()
    partly[5, :10, 1] = np.nan  # a bin of which one dimension is not known is no bin to compare
    assert latent_r2(mixed, partly) == pytest.approx(1, abs=1e-9)


def test_psth_r2_compares_condition_means_over_the_units_that_spike() -> None:
    rng = np.random.default_rng(6)
    condition = np.array(["b", "a", "a", "b", "a", "b"])
    counts, rates = rng.poisson(2.0, (6, 10, 4)).astype(float), rng.gamma(2.0, 1.0, (6, 10, 4))
    counts[:, :, 3] = 0
    counts[2, 6:] = np.nan
    stacked = [
        np.concatenate([np.nanmean(values[condition == name], axis=0) for name in "ab"])
        for values in (counts, np.where(np.isnan(counts), np.nan, rates))
    ]
    value, units = psth_r2(counts, rates, condition, 0.0)
    assert units == 3
    assert value == pytest.approx(r2_score(stacked[0][:, :3], stacked[1][:, :3]), abs=1e-10)


def test_psth_r2_of_all_trials_is_the_benchmarks() -> None:
    """True PSTHs of all trials, smoothed in time; predicted ones of the scored trials; conditions stacked."""
    rng = np.random.default_rng(7)
    condition, scored = rng.integers(4, size=40).astype(str), rng.random(40) < 0.3
    scored &= condition != "2"  # a condition without a scored trial is skipped
    counts, rates = rng.poisson(1.0, (40, 25, 5)), rng.gamma(2.0, 0.5, (40, 25, 5))
    counts[:, :, 3:] = 0  # units that never spike count, too
    rates[:, :, 4] = 0
    names, psths = smoothed_psths(counts, condition, 2.5)
    found, units = given_psth_r2(names, psths, rates[scored], condition[scored], np.ones((scored.sum(), 25, 5), bool))
    true, predicted = [], []
    for name in "013":
        mean = counts[condition == name].mean(axis=0)
        smooth = np.empty(mean.shape)
        for at in range(25):
            weights = [math.exp(-((k - at) ** 2) / (2 * 2.5**2)) if abs(k - at) <= 7.5 else 0.0 for k in range(25)]
            smooth[at] = np.array(weights) @ mean / sum(weights)
        true.append(smooth)
        predicted.append(rates[scored & (condition == name)].mean(axis=0))
    assert units == 5
    assert found == pytest.approx(r2_score(np.concatenate(true), np.concatenate(predicted)), abs=1e-10)


def test_without_a_sample_of_any_condition_given_psths_have_no_score() -> None:
    seen = np.ones((2, 3, 4), bool)
    value, units = given_psth_r2(np.array(["a"]), np.ones((1, 3, 4)), np.ones((2, 3, 4)), np.array(["", ""]), seen)
    assert np.isnan(value) and units == 0


def test_a_smoothed_psth_reaches_three_standard_deviations_and_no_further() -> None:
    pulse = np.zeros((1, 21, 1))
    pulse[0, 10] = 1
    smooth = smoothed_psths(pulse, np.array(["a"]), 2.0)[1][0, :, 0]
    assert np.flatnonzero(smooth).tolist() == list(range(4, 17))


def test_without_spikes_or_without_anything_to_explain_no_score_is_defined() -> None:
    """Not minus infinity, nor minus a million: one silent session would decide the mean of a cohort."""
    silent = poisson_sums(np.zeros((3, 4, 2)), np.full((3, 4, 2), 0.1)).total()
    for null in (None, np.full(2, 0.2)):
        assert np.isnan(bits_per_spike(silent, null)) and np.isnan(poisson_d2(silent, null))
    one_bin = poisson_sums(np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 2.0)).total()
    assert np.isnan(poisson_d2(one_bin)) and poisson_d2(one_bin, np.array([2.0])) == pytest.approx(0)


def test_a_mean_that_explains_all_but_rounding_leaves_nothing_to_explain() -> None:
    for bins in range(1, 60):
        counts = np.full((3, bins, 2), 7)
        assert np.isnan(poisson_d2(poisson_sums(counts, np.full(counts.shape, 6.0)).total())).all()


def test_a_unit_that_was_never_observed_has_no_r2() -> None:
    true = np.random.default_rng(0).normal(size=(2, 5, 3))
    estimate = true + 0.5
    whole = r2(square_sums(true[:, :, :2], estimate[:, :, :2]).total())
    true[:, :, 2] = np.nan
    assert r2(square_sums(true, estimate).total()) == pytest.approx(whole)


def test_a_bin_that_no_scored_trial_observed_is_left_out_of_given_psths() -> None:
    names, psths = np.array(["a"]), np.array([[[1.0], [3.0], [8.0]]])
    rates, mask = np.array([[[1.0], [2.0], [5.0]]]), np.array([[[True], [True], [False]]])
    whole = given_psth_r2(names, psths[:, :2], rates[:, :2], names, mask[:, :2])
    assert given_psth_r2(names, psths, rates, names, mask) == whole == (0.5, 1)


def test_units_that_never_spike_have_no_psth_to_score() -> None:
    value, units = psth_r2(np.zeros((4, 5, 2)), np.ones((4, 5, 2)), np.zeros(4), 0.0)
    assert np.isnan(value) and units == 0


def test_smoothing_a_psth_keeps_a_flat_one_and_averages_a_rough_one() -> None:
    flat = np.ones((4, 20, 2))
    ramp = np.broadcast_to(np.linspace(1, 2, 20)[None, :, None], (4, 20, 2))
    assert psth_r2(flat, flat, np.zeros(4), 3.0) == (1.0, 2)
    rough = ramp + np.where(np.arange(20) % 2, 0.5, -0.5)[None, :, None]
    assert psth_r2(rough, ramp, np.zeros(4), 0.0)[0] < 0.5
    assert psth_r2(rough, ramp, np.zeros(4), 1.5)[0] > 0.9


@settings(max_examples=60)
@given(
    counts=arrays.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 5)),
    rates=arrays.arrays(np.float64, (3, 4, 2), elements=st.floats(0, 3)),
)
def test_any_counts_and_rates_give_the_benchmarks_number(counts: np.ndarray, rates: np.ndarray) -> None:
    found = bits_per_spike(poisson_sums(counts, rates).total())[0]
    if counts.sum() == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(bits_by_hand(counts.astype(float), rates), rel=1e-9, abs=1e-10)
