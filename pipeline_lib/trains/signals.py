"""Signals between their samples: what nobody measured is not known, however smooth a line would be."""

import numpy as np

LONGEST_GAP = 1.0
"""Seconds between two samples beyond which nothing is known between them, unless the signal is as slow throughout."""
SLOW = 3.0
"""How many of a signal's usual intervals make a gap, where these are long."""


def unmeasured(at: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Whether a signal sampled at `time` [R] (s, rising) says nothing of the times `at` (s, any shape): before its
    first and after its last sample, and in gaps.

    >>> unmeasured(np.array([-1.0, 0.2, 5.0, 9.3, 11.0]), np.array([0.0, 0.5, 1.0, 9.0, 9.5])).tolist()
    [True, False, True, False, True]
    """
    if not len(time):
        return np.ones(np.shape(at), dtype=bool)
    after = np.searchsorted(time, at, side="right")
    span = time[after.clip(max=len(time) - 1)] - time[(after - 1).clip(0)]
    gap = span > LONGEST_GAP
    if gap.any():
        gap &= span > SLOW * np.quantile(np.diff(time), 0.1)
    return gap | (at < time[0]) | (at > time[-1])
