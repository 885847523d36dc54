"""Spikes as files hold them: times, which are checked before they are put in order, or counts in bins."""

from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError, refuse_rows


def check_spike_times(times: np.ndarray, where: Path, field: str, ends: np.ndarray | None, sort: bool) -> None:
    """Raise InputError at the first row of `times` (spikes,) in s that is not a time, is negative or out of order.

    Order is asked for within the runs that stop before `ends` (the units of a unit-major file), or over all rows with
    `ends=None`; not at all with `sort`, the option that says rows may come in any order.
    """
    refuse_rows(~np.isfinite(times), where, field, times, "a finite time")
    refuse_rows(times < 0, where, field, times, "times from 0 s on", " s")
    if sort or len(times) < 2:
        return
    back = np.diff(times) < 0
    if ends is not None:
        inner = ends[(ends > 0) & (ends < len(times))]
        back[inner - 1] = False
    if back.any():
        row = int(np.argmax(back)) + 1
        found = f"{times[row]} s after {times[row - 1]} s"
        raise InputError(where, f"{field}, row {row}", found, "sorted times (the option `sort: true` sorts them)")


def spikes_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every spike that `counts` of any shape hold, in the order of their cells.

    Returns
    -------
    cell : (axes, spikes) int64, the cell of each: of counts [bin, unit] its bin and its unit.
    within : (spikes,) float64, where in its bin each is put: n spikes lie at the middles of n equal parts of it, so
        that these bins, and any that they divide, give the counts back.

    Examples
    --------
    >>> (bin_, unit), within = spikes_of(np.array([[0, 2], [1, 0]]))
    >>> bin_.tolist(), unit.tolist(), within.tolist()
    ([0, 0, 1], [1, 1, 0], [0.25, 0.75, 0.5])
    """
    cells = np.nonzero(counts)
    many = counts[cells].astype(np.int64)
    number = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return np.repeat(np.stack(cells), many, axis=1), (number + 0.5) / np.repeat(many, many)
