"""How well fitted couplings recover the true ones of a simulation.

Pairs are ordered (sender, receiver); a unit's coupling to itself is its history and not scored; a pair that the model
did not fit (NaN: a held-out sender, say) is left out and counted.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CouplingMatrices:
    """Couplings between all units, as a fit or a simulation holds them.

    `strength` (sender, receiver), signed, in log-rate per spike summed over lags (of a simulation without filters, in
    its own unit); `filters` (sender, receiver, lag) in log-rate per spike, or None, lag k reaching k + 1 bins of
    `bin_size` ms back. NaN where nothing was fitted.
    """

    strength: np.ndarray
    filters: np.ndarray | None
    bin_size: float


@dataclass(frozen=True)
class Recovery:
    """Scores of a fit against the truth; NaN where the truth does not define one (no synapse, say)."""

    auc: float
    """Chance that a synapse is fitted stronger (in absolute value) than a pair without; ties count a half."""
    filter_auc: float
    """The same by the norm of the fitted filter, in which lags of opposite sign do not cancel."""
    sign_accuracy: float
    """Share of synapses whose fitted strength has the right sign."""
    strength_correlation: float
    """Pearson correlation of fitted and true strengths over all pairs."""
    filter_correlation: float
    """Mean over synapses of the correlation of fitted and true filters."""
    false_share: float
    """Share of the fitted coupling (squared, summed over lags and pairs) that lies on pairs without a synapse."""
    pairs: int
    """Pairs scored."""
    synapses: int
    """Synapses among them."""
    not_fitted: int
    """Pairs left out because the model did not fit them."""


def recovery(
    fitted: CouplingMatrices,
    true: CouplingMatrices,
    synapse: np.ndarray | None = None,
    among: np.ndarray | None = None,
) -> Recovery:
    """Compare fitted with true couplings.

    Parameters
    ----------
    fitted, true : the same units in the same order; bin sizes may differ.
    synapse : (sender, receiver) bool, which pairs count as connected; None: all whose true strength is not 0.
    among : (sender, receiver) bool, only these pairs are scored; None: all.
    """
    connected = true.strength != 0 if synapse is None else synapse.astype(bool)
    candidates = ~np.eye(len(connected), dtype=bool) & np.isfinite(true.strength)
    if among is not None:
        candidates &= among
    scored = candidates & np.isfinite(fitted.strength)
    estimate, truth, positive = fitted.strength[scored], true.strength[scored], connected[scored]
    energy = fitted.strength**2 if fitted.filters is None else (fitted.filters.astype(np.float64) ** 2).sum(axis=2)
    energy = energy[scored]
    whole = energy.sum()
    return Recovery(
        auc=auc(np.abs(estimate), positive),
        filter_auc=auc(energy, positive),
        sign_accuracy=_mean(np.sign(estimate[positive]) == np.sign(truth[positive])),
        strength_correlation=float(correlation(estimate, truth)),
        filter_correlation=_filter_correlation(fitted, true, scored & connected),
        false_share=float(energy[~positive].sum() / whole) if whole > 0 else float("nan"),
        pairs=int(scored.sum()),
        synapses=int(positive.sum()),
        not_fitted=int((candidates & ~scored).sum()),
    )


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney) of `score` for `positive`, ties counted a half; NaN with one class."""
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[group]
    hits = int(positive.sum())
    misses = len(positive) - hits
    if not hits or not misses:
        return float("nan")
    return float((rank[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN where either is constant."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape[-1] < 2:
        return np.full(first.shape[:-1], np.nan)
    # Asked of the values themselves: less a rounded mean, equal ones need not be 0.
    varies = (np.ptp(first, axis=-1) > 0) & (np.ptp(second, axis=-1) > 0)
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (first * second).sum(axis=-1) / np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.where(varies, each, np.nan)


def _filter_correlation(fitted: CouplingMatrices, true: CouplingMatrices, pairs: np.ndarray) -> float:
    """Mean correlation over `pairs` of the filters, compared at the lags of the coarser of the two.

    Both are taken at the same lag times up to the end of the longer one; beyond its own end a filter is 0.
    """
    if fitted.filters is None or true.filters is None:
        return float("nan")
    step = max(fitted.bin_size, true.bin_size)
    sides = ((fitted.filters[pairs], fitted.bin_size), (true.filters[pairs], true.bin_size))
    longest = max(filters.shape[1] * bin_size for filters, bin_size in sides)
    lags = np.arange(1, round(longest / step) + 1) * step
    each = correlation(*(_resample(filters, bin_size, lags) for filters, bin_size in sides))
    return _mean(each[np.isfinite(each)])


def _resample(filters: np.ndarray, bin_size: float, lags: np.ndarray) -> np.ndarray:
    """Filters (pairs, lag) in bins of `bin_size` ms, linearly interpolated at `lags` ms; 0 beyond their end."""
    own = np.arange(1, filters.shape[1] + 1) * bin_size
    weights = np.stack([np.interp(lags, own, column, right=0.0) for column in np.eye(len(own))])
    return filters.astype(np.float64) @ weights


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
