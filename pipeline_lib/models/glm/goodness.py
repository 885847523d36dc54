"""How well rates explain counts: pseudo-R2, time rescaling, what is left in the residuals. numpy only.

Arrays are (bins, units): the scored bins of a session end to end, expected counts beside counts.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from pipeline_lib.errors import InputError

FLOOR = 1e-12
"""Expected counts are at least this, so that a spike in a silent bin costs much, not everything."""


@dataclass
class KolmogorovSmirnov:
    """Of one unit: `statistic`, largest distance from uniform; `p`; `band`, the distance that 5 % exceed by chance."""

    statistic: float
    p: float
    band: float
    spikes: int


def explained(counts: np.ndarray, rates: np.ndarray) -> pd.DataFrame:
    """How much better `rates` (bins, units) are than each unit's mean count, a row a unit, for Poisson `counts`.

    Returns
    -------
    log_likelihood (nats a bin, constants included), mcfadden 1 - LL/LL0, cohen 1 - D/D0 (deviances; also called D2),
    bits_per_spike. NaN for a unit without spikes.

    Raises
    ------
    InputError : shapes differ.

    Examples
    --------
    >>> rates = np.exp(np.sin(np.linspace(0, 60, 2000)))[:, None] * 0.2
    >>> counts = np.random.default_rng(0).poisson(rates)
    >>> explained(counts, rates)["bits_per_spike"].round(2).tolist()
    [0.32]
    """
    counts, rates = _checked(counts, rates)
    log_probability = stats.poisson.logpmf
    likelihood = log_probability(counts, np.maximum(rates, FLOOR)).sum(0)
    of_null = log_probability(counts, np.maximum(counts.mean(0), FLOOR)).sum(0)
    best = np.where(counts > 0, log_probability(counts, np.maximum(counts, FLOOR)), 0.0).sum(0)
    spikes = counts.sum(0)
    seen = spikes > 0

    def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.divide(above, below, out=np.full(len(spikes), np.nan), where=seen & (below != 0))

    return pd.DataFrame(
        {
            "log_likelihood": likelihood / len(counts),
            "mcfadden": 1 - ratio(likelihood, of_null),
            "cohen": 1 - ratio(best - likelihood, best - of_null),
            "bits_per_spike": ratio(likelihood - of_null, spikes * np.log(2)),
        }
    )


def time_rescaling(counts: np.ndarray, rates: np.ndarray, seed: int = 0) -> list[KolmogorovSmirnov]:
    """Are the intervals between spikes, in the time that the rates imply, exponential? One answer a unit.

    The discrete-time test of Haslinger, Pipa & Brown (2010), which corrects the bias of bins that are not infinitely
    short; the place of a spike in its bin is random, from `seed`. A bin with several spikes counts as one event.
    `rates` are of Poisson counts; the probabilities p of a Bernoulli fit are to be given as -log(1 - p).

    >>> rates = np.exp(np.sin(np.linspace(0, 60, 2000)))[:, None] * 0.2
    >>> counts = np.random.default_rng(0).poisson(rates)
    >>> [time_rescaling(counts, each)[0].p > 0.05 for each in (rates, np.full_like(rates, counts.mean()))]
    [True, False]
    """
    counts, rates = _checked(counts, rates)
    random = np.random.default_rng(seed)
    results = []
    for unit in range(counts.shape[1]):
        events = np.flatnonzero(counts[:, unit])
        elapsed = np.concatenate([[0.0], np.cumsum(rates[:, unit])])
        hazard = rates[events, unit]
        # Where in its bin the event falls, given that one falls in it.
        within = -np.log1p(random.random(len(events)) * np.expm1(-hazard))
        times = elapsed[events] + within
        # An event ends an interval somewhere in its bin; the next interval starts after that bin.
        intervals = times[1:] - elapsed[events[:-1] + 1]
        if len(intervals) < 2:
            results.append(KolmogorovSmirnov(np.nan, np.nan, np.nan, len(events)))
            continue
        test = stats.kstest(-np.expm1(-intervals), "uniform")
        band = 1.358 / np.sqrt(len(intervals))
        results.append(KolmogorovSmirnov(float(test.statistic), float(test.pvalue), float(band), len(events)))
    return results


def residual_autocorrelation(
    counts: np.ndarray, rates: np.ndarray, lags: int, segments: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelation of Pearson residuals (count - rate) / rate^1/2 (lags, units), and the size 5 % exceed by chance.

    Row k is lag k + 1; pairs of bins in different `segments` (k, 2), rows of `counts`, are left out.

    InputError where no segment is longer than `lags`.

    >>> rates = np.exp(np.sin(np.linspace(0, 60, 2000)))[:, None] * 0.2
    >>> counts = np.random.default_rng(0).poisson(rates)
    >>> for each in (rates, np.full_like(rates, counts.mean())):
    ...     found, band = residual_autocorrelation(counts, each, lags=1)
    ...     print(found.round(2), band.round(2))
    [[0.03]] [0.04]
    [[0.17]] [0.04]
    """
    counts, rates = _checked(counts, rates)
    segments = np.array([[0, len(counts)]]) if segments is None else np.asarray(segments)
    residual = (counts - rates) / np.sqrt(np.maximum(rates, FLOOR))
    residual -= residual.mean(0)
    variance = (residual**2).mean(0)
    correlation, band = np.zeros((lags, counts.shape[1])), np.zeros(lags)
    stretches = [residual[start:stop] for start, stop in segments]
    for lag in range(1, lags + 1):
        pairs = sum(max(len(stretch) - lag, 0) for stretch in stretches)
        if pairs == 0:
            raise InputError("goodness of fit", "lags", lags, f"fewer than the longest segment's bins, {lag}")
        products = sum((stretch[lag:] * stretch[:-lag]).sum(0) for stretch in stretches)
        correlation[lag - 1], band[lag - 1] = products / pairs / np.maximum(variance, FLOOR), 1.96 / np.sqrt(pairs)
    return correlation, band


def _checked(counts: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, rates = np.asarray(counts, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if counts.shape != rates.shape or counts.ndim != 2:
        raise InputError("goodness of fit", "rates", f"shape {rates.shape}", f"that of counts, {counts.shape}")
    if not np.isfinite(rates).all():
        raise InputError("goodness of fit", "rates", "not finite", "finite expected counts")
    return counts, rates
