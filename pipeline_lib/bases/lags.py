"""Raised cosines over the lags of a filter, in bins, as Xin & Kass (2025) lay them out."""

import numpy as np

ZERO = 1e-10
"""Added within logarithms, as published."""


def raised_cosines(number: int, last_peak: float, stretch: float) -> np.ndarray:
    """Raised cosines on a logarithmic axis of lags (Pillow et al. 2008).

    Parameters
    ----------
    number : functions, at least 2.
    last_peak : lag of the last function's peak, bins; the first function peaks at 0.
    stretch : how linear the axis is: lag x is seen as log(x + stretch * last_peak).

    Returns
    -------
    float64 [lags, number]; row k weighs the count k + 1 bins ago. The last function ends with the last row.
    """
    shift = stretch * last_peak
    first, last = np.log(shift + ZERO), np.log(last_peak + shift + ZERO)
    spacing = (last - first) / (number - 1)
    lags = int(np.exp(last + 2 * spacing) - ZERO - shift)
    axis = np.log(np.arange(lags) + shift + ZERO)
    distance = (axis[:, None] - np.linspace(first, last, number)) * np.pi / (2 * spacing)
    return (1 + np.cos(np.clip(distance, -np.pi, np.pi))) / 2
