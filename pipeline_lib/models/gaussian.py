"""Gaussian smoothing over time that stays inside a window and knows what was not observed."""

import numpy as np

REACH = 4.0
"""Standard deviations after which the kernel ends."""
BLOCK = 256
"""Bins smoothed by one matrix product; longer windows are cut, so that their kernel stays narrow."""


def kernel_sums(values: np.ndarray, sd: float, history: int = 0) -> np.ndarray:
    """Sums weighted by a Gaussian that is 1 at the bin itself.

    Parameters
    ----------
    values : [S, history + T, N].
    sd : standard deviation, bins; 0 does not smooth.
    history : bins before the window, which are summed over but not returned.

    Returns
    -------
    [S, T, N] of the values' type.
    """
    length = values.shape[1]
    reach = int(REACH * sd)
    sums = np.empty((len(values), length - history, values.shape[2]), values.dtype)
    for start in range(history, length, BLOCK):
        stop = min(start + BLOCK, length)
        near = slice(max(start - reach, 0), min(stop + reach, length))
        distance = np.arange(near.start, near.stop) - np.arange(start, stop)[:, None]
        weights = np.exp(-0.5 * (distance / max(sd, 1e-9)) ** 2)
        weights[np.abs(distance) > reach] = 0
        np.matmul(weights.astype(values.dtype), values[:, near], out=sums[:, start - history : stop - history])
    return sums


def smooth(counts: np.ndarray, mask: np.ndarray, sd: float, history: int = 0) -> np.ndarray:
    """Gaussian-weighted mean over the observed bins of each window.

    Parameters
    ----------
    counts, mask : [S, history + T, N], counts 0 where the mask is False.
    sd, history : as in `kernel_sums`.

    Returns
    -------
    float32 [S, T, N], spikes a bin; NaN where no bin in reach was observed.
    """
    spikes = kernel_sums(counts.astype(np.float32), sd, history)
    # Where everything is observed (nearly always), one window and one unit stand for all.
    seen = mask[:1, :, :1] if mask.all() else mask
    observed = kernel_sums(seen.astype(np.float32), sd, history)
    with np.errstate(invalid="ignore"):
        return np.divide(spikes, observed, out=spikes)
