"""Counts in bins, from time-sorted integer events.

Bin k of a window that starts at tick s holds the ticks [s + k * width, s + (k + 1) * width): integer division of the
ticks since the start, so that a window equals the same slice of the whole session and five 1-ms bins sum to a 5-ms
bin. All windows of a batch are binned by a few numpy calls over blocks of events that stay in the processor's cache.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pipeline_lib.trains.store import Trains

_BLOCK = 2**15
"""Events binned at a time: few enough for the cache, many enough to hide the cost of a numpy call."""
_FEW = 2**16
"""Events below which indexed additions are faster: a sparse array saves a tenth of the time and takes 30 us to make."""
_WIDEST_SPAN = 2**30
"""Ticks of windows binned at a time, and cells of their counts, so that sums of either fit in 32 bits."""


def bin_windows(
    trains: "Trains", start_ticks: "ArrayLike", bins: int, bin_ticks: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Spike counts [window, bin, unit] of the windows that start at `start_ticks` [window].

    Windows may overlap, start before 0 or end after the session; what lies outside the session counts 0 (and is
    False in `observed_windows`). The type is uint8 unless some unit has more than 255 spikes within `bin_ticks` ticks
    anywhere in the session, then it is wider: counts never wrap. `out`, of that shape and type, is filled instead of
    a new array where it is given: the first touch of fresh memory costs more than the binning. ValueError where it is
    of another shape or type, InputError where ticks are no whole numbers, as seconds are none.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> counts = bin_windows(trains, np.array([0, 100_000]), bins=200, bin_ticks=500)  # two windows of 1 s
    >>> counts.shape, counts.dtype, bool(counts[0].sum() == (trains.ticks < 100_000).sum())
    ((2, 200, 4), dtype('uint8'), True)
    """
    starts = _ticks(start_ticks)
    shape, dtype = (len(starts), bins, trains.n_units), trains.count_type(bin_ticks)
    counts = np.empty(shape, dtype) if out is None else out
    if counts.shape != shape or counts.dtype != dtype or not counts.flags.c_contiguous:
        raise ValueError(f"out: {counts.dtype} {counts.shape}, but contiguous {dtype} {shape} is needed")
    count_events(counts, trains.ticks, trains.unit, starts, bin_ticks)
    return counts


def _ticks(start_ticks: "ArrayLike") -> np.ndarray:
    """Int64 [window]. Fractions are refused, not cut off: they are seconds, in which all windows would begin at 0."""
    starts = np.asarray(start_ticks)
    if starts.ndim != 1 or (starts.size and starts.dtype.kind not in "iu"):
        accepted = "a whole number for each window, in ticks of 10 microseconds (seconds times 100,000, rounded)"
        raise InputError("windows", "start_ticks", f"{starts.dtype} of shape {starts.shape}", accepted)
    return starts.astype(np.int64, copy=False)


def count_events(counts: np.ndarray, ticks: np.ndarray, unit: np.ndarray, starts: np.ndarray, bin_ticks: int) -> None:
    """Fill `counts` [window, bin, unit], C-contiguous and wide enough (see `count_type`), from sorted events."""
    if not len(ticks) or not counts.size:
        counts.fill(0)
        return
    bins, units = counts.shape[1:]
    duration = int(ticks[-1]) + 1
    widest = min(_WIDEST_SPAN, _WIDEST_SPAN // units * bin_ticks)
    span = min(max(_BLOCK * duration // len(ticks), 1), widest)
    window_step = max(1, span // (bins * bin_ticks))
    bin_step = min(bins, max(1, span // bin_ticks))
    narrow = ticks.dtype.itemsize == 4 and max(span, bin_ticks) < 2**32
    wide = np.dtype(np.uint32 if narrow else np.int64)
    width = wide.type(bin_ticks)
    edges = np.minimum(np.arange(0, bins + bin_step, bin_step), bins)
    bounds = (starts[:, None] + edges * bin_ticks).clip(0, duration)
    bounds = np.searchsorted(ticks, bounds.astype(ticks.dtype))
    # Only distances within a block matter, and those fit: unsigned 32-bit ticks may wrap, and nothing is cast.
    ticks = ticks.view(wide) if narrow else ticks.astype(wide, copy=False)
    add = _add_few if (bounds[:, -1] - bounds[:, 0]).sum() < _FEW else _Sparse(counts.dtype)
    for window in range(0, len(starts), window_step):
        windows = slice(window, window + window_step)
        group = starts[windows]
        # A spike's bin number in the block follows from its distance to where the first window would start if the
        # windows of the group lay end to end.
        origins = group - np.arange(len(group)) * (bins * bin_ticks)
        for piece, (first, last) in enumerate(pairwise(edges.tolist())):
            block = counts[windows, first:last].reshape(-1, units)
            within = bounds[windows, piece : piece + 2]
            slices = [slice(*pair) for pair in within.tolist()]
            origin = (origins + first * bin_ticks).astype(wide)
            if len(slices) > 1:
                origin = np.repeat(origin, within[:, 1] - within[:, 0])
            row = _joined(ticks, slices) - origin
            row //= width
            add(block, row, _joined(unit, slices))


def _add_few(block: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
    """Count events in the cells (row, column) of a `block`, whatever it holds; overwrites `row`."""
    block.fill(0)
    row *= row.dtype.type(block.shape[1])
    row += column
    np.add.at(block.reshape(-1), row.astype(np.intp), block.dtype.type(1))


class _Sparse:
    """The same, for many events and block after block."""

    def __init__(self, dtype: np.dtype) -> None:
        from scipy.sparse import coo_array  # takes a while to import, and not every user of a store bins

        self._new, self._ones = coo_array, np.ones(0, dtype)
        self._sparse: coo_array | None = None

    def __call__(self, block: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
        if self._sparse is None or self._sparse.shape != block.shape:
            self._sparse = self._new(block.shape, dtype=block.dtype)
        if len(row) > len(self._ones):
            self._ones = np.ones(len(row), block.dtype)
        # Set, not given to a new array: that would look for the largest of each, which costs a tenth of all.
        signed = np.dtype(f"i{row.itemsize}")
        self._sparse.coords, self._sparse.data = (row.view(signed), column.astype(signed)), self._ones[: len(row)]
        self._sparse.toarray(out=block)  # clears the block, which brings it into the cache, and adds the spikes


def _joined(array: np.ndarray, slices: list[slice]) -> np.ndarray:
    return array[slices[0]] if len(slices) == 1 else np.concatenate([array[part] for part in slices])


def count_type(ticks: np.ndarray, unit: np.ndarray, bin_ticks: int) -> np.dtype:
    """The narrowest unsigned type that holds the count of any unit in any bin of `bin_ticks` ticks, wherever it starts.

    A count above 255 takes 256 spikes within fewer than `bin_ticks` ticks. That is ruled out cheaply for all units
    together; only where it cannot be is every unit looked at by itself.
    """
    for dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
        most = np.iinfo(dtype).max
        if not _dense(ticks, most, bin_ticks).any():
            return dtype
        order = np.argsort(unit, kind="stable")
        own, own_ticks = unit[order], ticks[order]
        if not (_dense(own_ticks, most, bin_ticks) & (own[most:] == own[:-most])).any():
            return dtype
    return np.dtype(np.uint32)


def _dense(ticks: np.ndarray, most: int, bin_ticks: int) -> np.ndarray:
    """Where an event and the one `most` events later are less than `bin_ticks` apart."""
    return ticks[most:] - ticks[:-most] < bin_ticks


def observed_windows(trains: "Trains", start_ticks: "ArrayLike", bins: int, bin_ticks: int) -> np.ndarray:
    """What was recorded [window, bin, unit], bool: False where a bin is not wholly inside one of the session's
    observation intervals, or, for a unit that comes and goes, inside one of its own.

    The result may be a read-only view that repeats itself over bins or units. InputError as in `bin_windows`.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> starts = np.array([400_000, 450_000])  # the session ends at tick 500,000
    >>> observed_windows(trains, starts, bins=2, bin_ticks=50_000)[:, :, 0]
    array([[ True,  True],
           [ True, False]])
    """
    starts = _ticks(start_ticks)
    shape = (len(starts), bins, trains.n_units)
    observed = _inside(starts, starts + bins * bin_ticks, trains.observed)[:, None, None]
    if not observed.all():
        begin = starts[:, None] + np.arange(bins) * bin_ticks
        observed = _inside(begin, begin + bin_ticks, trains.observed)[:, :, None]
    if trains.unit_intervals is None:
        return np.broadcast_to(observed, shape)
    own = _unit_observed(starts, bins, bin_ticks, trains.unit_intervals, trains.n_units)
    return np.broadcast_to(observed & own, shape)


def _inside(begin: np.ndarray, stop: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Whether each [begin, stop) lies in one of the sorted, disjoint `intervals` (interval, 2)."""
    if not len(intervals):
        return np.zeros(begin.shape, bool)
    at = np.searchsorted(intervals[:, 0], begin, side="right") - 1
    return (at >= 0) & (stop <= intervals[at, 1])


def _unit_observed(starts: np.ndarray, bins: int, bin_ticks: int, intervals: np.ndarray, units: int) -> np.ndarray:
    """Whether each bin lies in one of its unit's intervals (interval, 3); [window, bin, unit] or [window, 1, unit]."""
    unit = intervals[:, 0]
    # First and one past the last of the bins of every window that lie in each interval.
    first = (-((starts[:, None] - intervals[:, 1]) // bin_ticks)).clip(0, bins)
    stop = ((intervals[:, 2] - starts[:, None]) // bin_ticks).clip(0, bins)
    whole = np.ones((len(starts), units), bool)
    whole[:, unit] = False
    window, row = np.nonzero((first == 0) & (stop == bins))
    whole[window, unit[row]] = True
    if whole.all():
        return whole[:, None, :]
    window, row = np.nonzero(first < stop)
    steps = np.zeros((len(starts), bins + 1, units), np.int8)
    np.add.at(steps, (window, first[window, row], unit[row]), 1)
    np.add.at(steps, (window, stop[window, row], unit[row]), -1)
    return whole[:, None, :] | (np.cumsum(steps[:, :-1], axis=1, dtype=np.int8) > 0)
