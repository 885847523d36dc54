"""Signals between their samples: what nobody measured is not known, however smooth a line would be."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.signal_units import unit_of

if TYPE_CHECKING:
    from pipeline_lib.trains.store import Trains

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
    before = time[(after - 1).clip(0)]
    span = time[after.clip(max=len(time) - 1)] - before
    gap = (span > LONGEST_GAP) & (at != before)
    if gap.any():
        gap &= span > SLOW * np.quantile(np.diff(time), 0.1)
    return gap | (at < time[0]) | (at > time[-1])


def interpolated(at: np.ndarray, time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A signal, `values` [R, K] at `time` [R], at the times `at` [...]: float64 [..., K], on the line between its
    samples; NaN where it is `unmeasured`, and next to a NaN of its own.

    >>> time, values = np.array([0.0, 0.5, 1.0]), np.array([[0.0], [1.0], [3.0]])
    >>> interpolated(np.array([0.25, 1.0, 1.5]), time, values).tolist()
    [[0.5], [3.0], [nan]]
    """
    if not len(time):
        return np.full((*at.shape, values.shape[1]), np.nan)
    between = np.stack([np.interp(at, time, column) for column in values.T], axis=-1)
    between[unmeasured(at, time)] = np.nan
    return between


def read_signals(trains: "Trains", names: Sequence[str], times: np.ndarray, nearest: Sequence[bool]) -> np.ndarray:
    """Signals at `times` (any shape, s): float32 [..., names], NaN where they are unknown.

    `names` are "signal/column". Between samples by linear interpolation; where `nearest` the last sample before, for
    labels. Raises InputError where the session has no such signal.
    """
    values = np.full((*times.shape, len(names)), np.nan, np.float32)
    for place, (name, step) in enumerate(zip(names, nearest, strict=True)):
        time, value = _column(trains, name)
        if step and len(time):
            before = (np.searchsorted(time, times, side="right") - 1).clip(0)
            values[..., place] = np.where(unmeasured(times, time), np.nan, value[before])
        else:
            values[..., place] = interpolated(times, time, value[:, None])[..., 0]
    return values


def signal_unit(trains: "Trains", name: str) -> str:
    """The unit of `signal/column`, "" where none is known."""
    signal, _, column = name.partition("/")
    table = trains.tables.get(f"signals/{signal}")
    return "" if table is None else unit_of(table, column)


def _column(trains: "Trains", name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (s, ascending) and values of the signal `signal/column`, without those that are not numbers.

    Raises
    ------
    InputError : the session has no such signal.
    """
    signal, _, dimension = name.partition("/")
    known = [f"{key}/{each}" for key, table in trains.signals.items() for each in table.columns if each != "time"]
    if name not in known:
        accepted = suggest(name, known) if known else "a session with signals"
        raise InputError(f"session {trains.session}, signals", name, "no such signal", accepted)
    table = trains.signals[signal]
    time, value = table["time"].to_numpy(dtype=float), table[dimension].to_numpy(dtype=float)
    order = np.argsort(time, kind="stable")
    order = order[np.isfinite(value[order])]
    return time[order], value[order]
