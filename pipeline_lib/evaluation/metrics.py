"""Scores of predicted spike counts and rates, by the formulas of the Neural Latents Benchmark (Pei et al. 2021).

Bits per spike compare a model with a null model that knows only the mean of each unit: the mean of the very data that
is scored (`null=None`, the benchmark's choice, which flatters the null) or that of the training data (honest, but not
the number that papers print). Pooled over units they weigh units by their spikes; their mean over units does not.

All rates are expected counts per bin. Functions of `PoissonSums` or `SquareSums` give one value a row, so that row 0
may be the data and the other rows its bootstrap.
"""

import numpy as np
from scipy.special import gammaln

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.sums import (
    RATE_FLOOR,
    PoissonSums,
    SquareSums,
    as_arrays,
    observed,
    poisson_sums,
    square_sums,
)

ROUNDING = 1e-9
"""Nats. A null model's deviance below this is one of 0."""


def negative_log_likelihood(counts: np.ndarray, rates: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Sum over observed bins of r - y ln r + ln y!, in nats.

    Arrays (samples, bins, units) as in `poisson_sums`, which says what is raised; so is a count that is not whole.

    >>> round(negative_log_likelihood(np.array([[[0], [2]]]), np.array([[[0.5], [0.5]]])), 4)  # 1 - 2 ln 0.5 + ln 2!
    3.0794
    """
    counts, rates, mask = as_arrays(counts, rates, mask)
    sums = poisson_sums(counts, rates, mask)
    known = counts[observed(counts, mask)]
    broken = known % 1 != 0
    if broken.any():
        raise InputError("data", "counts", known[broken][0], "whole numbers of spikes")
    return float((sums.expected - sums.log_expected).sum() + gammaln(known.astype(np.float64) + 1).sum())


def bits_per_spike(sums: PoissonSums, null: np.ndarray | None = None) -> np.ndarray:
    """(NLL of the null - NLL of the model) / (spikes ln 2), all units pooled; one value a row, NaN without spikes.

    `null` (units,) is the rate of the null model; None: the mean of the scored data itself, row by row.

    >>> counts = np.array([[[0], [2]]])  # one sample of two bins of one unit
    >>> bits_per_spike(poisson_sums(counts, np.array([[[0.2], [1.8]]])).total()).round(3)
    array([0.848])
    >>> bits_per_spike(poisson_sums(counts, np.ones((1, 2, 1))).total()).round(3)  # the null itself
    array([0.])
    """
    spikes = sums.spikes.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spikes > 0, _gain(sums, null).sum(axis=1) / (spikes * np.log(2)), np.nan)


def unit_bits_per_spike(sums: PoissonSums, null: np.ndarray | None = None) -> np.ndarray:
    """Bits per spike of every unit (rows, units); NaN for a unit without spikes, for which it is not defined.

    >>> counts, rates = np.array([[[0, 0], [2, 0]]]), np.array([[[0.2, 0.1], [1.8, 0.1]]])
    >>> unit_bits_per_spike(poisson_sums(counts, rates).total()).round(3)  # the second unit never spikes
    array([[0.848,   nan]])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums.spikes > 0, _gain(sums, null) / (sums.spikes * np.log(2)), np.nan)


def poisson_d2(sums: PoissonSums, null: np.ndarray | None = None) -> np.ndarray:
    """Share of the null model's Poisson deviance that the model explains, units pooled; one value a row.

    Deviance = 2 sum(y ln(y / r) - y + r); 1 is perfect, 0 no better than the null (see `bits_per_spike`). NaN without
    spikes, and where the null explains everything, as it does a single bin.

    >>> counts = np.array([[[0], [2]]])
    >>> poisson_d2(poisson_sums(counts, counts.astype(float)).total()).round(3)
    array([1.])
    >>> poisson_d2(poisson_sums(counts, np.ones((1, 2, 1))).total()).round(3)
    array([0.])
    """
    rate = null_rates(sums, null)
    model = sums.log_spikes - sums.log_expected - sums.spikes + sums.expected
    baseline = sums.log_spikes - sums.spikes * np.log(rate) - sums.spikes + rate * sums.bins
    unexplained = baseline.sum(axis=1)
    defined = (sums.spikes.sum(axis=1) > 0) & (unexplained > ROUNDING)
    return 1 - np.divide(model.sum(axis=1), unexplained, out=np.full(len(unexplained), np.nan), where=defined)


def null_rates(sums: PoissonSums, null: np.ndarray | None = None) -> np.ndarray:
    """Rates of the null model, broadcastable to (rows, units), counts per bin, floored as the model's rates are.

    >>> null_rates(poisson_sums(np.array([[[0], [2]]]), np.ones((1, 2, 1))).total())
    array([[1.]])
    """
    rate = sums.spikes / np.maximum(sums.bins, 1) if null is None else np.asarray(null, dtype=np.float64)
    return np.where(rate == 0, RATE_FLOOR, rate)


def _gain(sums: PoissonSums, null: np.ndarray | None) -> np.ndarray:
    """Log likelihood of the model above that of the null (rows, units), nats; the factorials cancel."""
    rate = null_rates(sums, null)
    return (rate * sums.bins - sums.spikes * np.log(rate)) - (sums.expected - sums.log_expected)


def mean_over_units(each: np.ndarray) -> np.ndarray:
    """Mean of the scores of units (rows, units), one value a row, over those that have one; NaN where none has.

    >>> mean_over_units(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
    array([ 2., nan])
    """
    counted = np.isfinite(each).sum(axis=1)
    return np.where(counted > 0, np.nansum(each, axis=1) / np.maximum(counted, 1), np.nan)


def r2(sums: SquareSums) -> np.ndarray:
    """Coefficient of determination, uniform average over units; one value a row.

    As scikit-learn: a unit whose truth is constant scores 1 if the estimate is exact and 0 if not. The mean that an
    estimate is compared with is that of all samples in every row: of a resample's own it would gain from the resampling
    and shift the interval, and a model that knows the mean alone would fall out of its own.

    >>> true = np.array([[[1.0], [2.0], [3.0]]])  # (samples, bins, units)
    >>> r2(square_sums(true, np.array([[[1.0], [2.0], [2.5]]])).total())
    array([0.875])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(sums.square > 0, 1 - sums.error / sums.square, np.where(sums.error > 0, 0.0, 1.0))
    each = np.where(sums.bins > 0, each, np.nan)
    return mean_over_units(each)


def latent_r2(estimate: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> float:
    """How well an affine map of the estimated latents gives the true ones; uniform average over true dimensions.

    Latents are defined up to such a map only. It is fitted by least squares to every second sample and scored on the
    others, and the other way round, so that a model gains nothing from having many latents.

    Parameters
    ----------
    estimate : (samples, bins, dimensions).
    true : (samples, bins, true dimensions); NaN = unknown.
    mask : (samples, bins) bool; False = not scored.

    NaN where every second sample is unknown, so that there is nothing to fit to.

    Raises
    ------
    InputError : samples and bins of the two are not the same.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true = rng.normal(size=(6, 20, 2))
    >>> round(latent_r2(true @ np.array([[2.0, 1.0], [0.0, -1.0]]) + 5, true), 3)  # the same, in other coordinates
    1.0
    """
    estimate, true = np.asarray(estimate), np.asarray(true)
    if estimate.ndim != 3 or true.ndim != 3 or estimate.shape[:2] != true.shape[:2]:
        found = f"shapes {estimate.shape} and {true.shape}"
        raise InputError("predictions", "latents", found, "(samples, bins, dimensions), samples and bins of the truth")
    mapped = np.full(true.shape, np.nan)
    known = np.isfinite(true).all(axis=2) & np.isfinite(estimate).all(axis=2)
    if mask is not None:
        known &= mask
    inputs = np.concatenate([estimate, np.ones((*estimate.shape[:2], 1))], axis=2).astype(np.float64)
    odd = (np.arange(len(true)) % 2 == 1)[:, None]
    for fitted in (known & odd, known & ~odd):
        scored = known & ~fitted
        if not fitted.any():
            return float("nan")
        weights = np.linalg.lstsq(inputs[fitted], true[fitted], rcond=None)[0]
        mapped[scored] = inputs[scored] @ weights
    return float(r2(square_sums(np.where(known[..., None], true, np.nan), mapped).total())[0])


def psth_r2(
    counts: np.ndarray, rates: np.ndarray, condition: np.ndarray, smoothing: float, mask: np.ndarray | None = None
) -> tuple[float, int]:
    """R2 of the predicted PSTHs, conditions stacked, averaged over the units that spike; and how many those are.

    The PSTH of a condition is the mean over its samples, bin by bin, of the counts, then smoothed in time; the
    predicted one is the mean of the predicted rates. A bin that no sample of the condition observed is left out.

    Parameters
    ----------
    counts, rates, mask : (samples, bins, units) as in `poisson_sums`, InputError where they are not.
    condition : (samples,); InputError where it is of another length.
    smoothing : standard deviation in bins of the Gaussian (cut at 3) that smooths the measured PSTH; 0 = none.

    Examples
    --------
    >>> rates = np.where(np.arange(10)[None, :, None] < 5, 1.0, 3.0) * np.ones((4, 1, 1))  # a step in time
    >>> score, units = psth_r2(rates, 0.5 * rates + 1, np.array(["a", "a", "b", "b"]), smoothing=0)
    >>> round(score, 3), units
    (0.75, 1)
    """
    counts, rates, mask = as_arrays(counts, rates, mask)
    condition = np.asarray(condition)
    if condition.shape != counts.shape[:1]:
        found = f"shape {condition.shape} of {len(counts)} samples"
        raise InputError("data", "condition", found, "the condition of each sample")
    names, psths = smoothed_psths(counts, condition, smoothing, mask)
    true, predicted = _condition_means(names, psths, rates, condition, observed(counts, mask))
    spiking = np.nansum(true, axis=(0, 1)) > 0
    if not spiking.any():
        return float("nan"), 0
    return float(r2(square_sums(true[:, :, spiking], predicted[:, :, spiking]).total())[0]), int(spiking.sum())


def smoothed_psths(
    counts: np.ndarray, condition: np.ndarray, smoothing: float, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Names of the conditions (conditions,) and their PSTHs (conditions, bins, units), as in `psth_r2`.

    >>> counts = np.array([[[0], [2]], [[2], [4]], [[6], [6]]])
    >>> names, psths = smoothed_psths(counts, np.array(["left", "left", "right"]), smoothing=0)
    >>> names.tolist(), psths[:, :, 0].tolist()
    (['left', 'right'], [[1.0, 3.0], [6.0, 6.0]])
    """
    valid = observed(counts, mask)
    names, member = np.unique(condition, return_inverse=True)
    kernel, psths = _smoother(counts.shape[1], smoothing), []
    for index in range(len(names)):
        rows = member == index
        known = valid[rows].sum(axis=0, dtype=np.float64)
        spikes = np.where(valid[rows], counts[rows], 0).sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            psths.append(np.where(known > 0, (kernel @ spikes) / (kernel @ known), np.nan))
    return names, np.stack(psths)


def given_psth_r2(
    names: np.ndarray, psths: np.ndarray, rates: np.ndarray, condition: np.ndarray, mask: np.ndarray
) -> tuple[float, int]:
    """R2 of the predicted PSTHs against given ones, conditions stacked, averaged over units.

    The Neural Latents Benchmark's score, for which the given ones are made of all trials, training included, and
    smoothed; a condition without a sample is left out, and so is a bin that no sample of its condition observed. A unit
    that never spikes counts, too: 1 if no spike of it is predicted, else 0, as scikit-learn has it.

    Parameters
    ----------
    names, psths : as `smoothed_psths` gives them; NaN = unknown.
    rates, mask : (samples, bins, units). condition : (samples,).

    Returns
    -------
    The score, NaN where there is nothing to score, and how many units it is the mean of.

    Examples
    --------
    >>> names, psths = np.array(["left"]), np.array([[[1.0], [3.0]]])
    >>> rates = np.array([[[1.0], [2.0]], [[1.0], [4.0]]])
    >>> given_psth_r2(names, psths, rates, np.array(["left", "left"]), np.ones(rates.shape, dtype=bool))
    (1.0, 1)
    """
    sums = square_sums(*_condition_means(names, psths, rates, condition, mask)).total()
    return float(r2(sums)[0]), int((sums.bins > 0).sum())


def _condition_means(
    names: np.ndarray, psths: np.ndarray, rates: np.ndarray, condition: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Given and predicted PSTHs (conditions, bins, units) of conditions with samples; NaN where none was observed."""
    true, predicted = [np.empty((0, *psths.shape[1:]))], [np.empty((0, *psths.shape[1:]))]
    for name, psth in zip(names, psths, strict=True):
        rows = condition == name
        if not rows.any():
            continue
        known = mask[rows].sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            mean = np.where(mask[rows], rates[rows], 0).sum(axis=0, dtype=np.float64) / known
        predicted.append(mean[None])
        true.append(np.where(known > 0, psth, np.nan)[None])
    return np.concatenate(true), np.concatenate(predicted)


def _smoother(bins: int, spread: float) -> np.ndarray:
    """Weights (bins, bins) of a Gaussian of `spread` bins, cut at three times that."""
    if spread == 0:
        return np.eye(bins)
    distance = np.abs(np.arange(bins)[:, None] - np.arange(bins))
    return np.where(distance <= 3 * spread, np.exp(-(distance**2) / (2 * spread**2)), 0.0)
