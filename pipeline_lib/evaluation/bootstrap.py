"""Bootstrap over samples: what the score would have been had other trials been drawn."""

import numpy as np

LEVELS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


def resampling_weights(samples: int, resamples: int, seed: int) -> np.ndarray:
    """How often each sample is counted (1 + resamples, samples): row 0 once each, the others drawn with replacement.

    Of a single sample no others are drawn: each would be that sample again, and the interval seem to be exact.
    """
    resamples = resamples if samples > 1 else 0
    drawn = np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / max(samples, 1)), size=resamples)
    return np.concatenate([np.ones((1, samples)), drawn]).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of bootstrap `values` (resamples,); NaN where fewer than two are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) < 2:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, LEVELS)
    return float(low), float(high)
