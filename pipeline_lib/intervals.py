"""Arithmetic of time intervals: (intervals, 2), start and stop, seconds or ticks."""

import numpy as np


def merged(intervals: np.ndarray) -> np.ndarray:
    """The same time as sorted intervals that neither overlap nor touch; empty ones are dropped."""
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    if len(intervals) == 0:
        return intervals
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.concatenate([[True], intervals[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([intervals[first, 0], reach[last]], axis=1)


def complement(intervals: np.ndarray, end: float) -> np.ndarray:
    """What `intervals` leave free of [0, end], as float64."""
    taken = merged(np.clip(intervals, 0.0, end))
    edges = np.concatenate([[0.0], taken.ravel(), [end]]).reshape(-1, 2)
    return edges[edges[:, 1] > edges[:, 0]]


def common(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The time, from 0 on, that lies in both, as float64."""
    end = max(one.max(initial=0), other.max(initial=0))
    return complement(np.concatenate([complement(one, end), complement(other, end)]), end)


def overlap_any(starts: np.ndarray, stops: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Which of the spans [start, stop) (spans,) share time with any of `intervals`, as bool (spans,)."""
    blocks = merged(intervals)
    following = np.searchsorted(blocks[:, 1], starts, side="right")
    begins = np.append(blocks[:, 0], np.inf)[following]
    return begins < stops
