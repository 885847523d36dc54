"""What a simulation's truth says about the bins of a window."""

import numpy as np

from pipeline_lib.clock import bin_ticks, to_ticks
from pipeline_lib.recording import Truth


def window_means(truth: Truth, name: str, start_ticks: np.ndarray, bins: int, ticks: int) -> np.ndarray:
    """Mean of the true array `name` (trial, bin, k), rates or latents, over every bin of some windows.

    The truth is constant within its own bins, so that the mean over a bin of any size and place is exact.

    Parameters
    ----------
    start_ticks : (windows,) first tick of each, session clock.
    bins, ticks : bins in a window, ticks in a bin.

    Returns
    -------
    (windows, bins, k) float64; NaN in a bin that is not wholly inside a simulated trial.
    """
    values, own = truth.arrays[name], bin_ticks(truth.attributes["bin_size"])
    trial_starts = to_ticks(truth.attributes["trial_start"])
    integral = np.zeros((values.shape[0], values.shape[1] + 1, values.shape[2]))
    np.cumsum(values, axis=1, out=integral[:, 1:])

    left = start_ticks[:, None] + np.arange(bins) * ticks
    trial = np.searchsorted(trial_starts, left, side="right") - 1
    inside = left - trial_starts[trial]
    known = (trial >= 0) & (inside + ticks <= values.shape[1] * own)
    trial, inside = np.where(known, trial, 0), np.where(known, inside, 0)
    area = _integral_to(integral, trial, inside + ticks, own) - _integral_to(integral, trial, inside, own)
    return np.where(known[:, :, None], area * (own / ticks), np.nan)


def _integral_to(integral: np.ndarray, trial: np.ndarray, tick: np.ndarray, own: int) -> np.ndarray:
    """Integral (windows, bins, k), in the truth's bins, from the start of `trial` to `tick` after it."""
    whole = np.minimum(tick // own, integral.shape[1] - 2)
    part = (tick / own - whole)[:, :, None]
    return (1 - part) * integral[trial, whole] + part * integral[trial, whole + 1]
