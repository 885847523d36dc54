"""When each unit was observed, and how often it fired in that time."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.clock import to_ticks
from pipeline_lib.intervals import common, merged

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording


def unit_intervals(unit: np.ndarray, intervals: np.ndarray, units: Iterable[int]) -> "pd.DataFrame":
    """A recording's table of when `units` were observed: columns unit, start, stop, unit after unit.

    A unit of them without an interval was never observed. It gets an empty one, since a unit without a row always was.

    Parameters
    ----------
    unit : whose each interval is (intervals,).
    intervals : start and stop (intervals, 2), s.

    Examples
    --------
    >>> unit_intervals(np.array([0, 2]), np.array([[0.0, 4.0], [6.0, 9.0]]), units=range(3)).to_numpy().tolist()
    [[0.0, 0.0, 4.0], [1.0, 0.0, 0.0], [2.0, 6.0, 9.0]]
    """
    import pandas as pd

    never = np.setdiff1d(np.fromiter(units, np.int64), unit)
    start, stop = np.concatenate([intervals, np.zeros((len(never), 2))]).T
    table = pd.DataFrame({"unit": np.concatenate([unit, never]), "start": start, "stop": stop})
    return table.sort_values("unit", kind="stable", ignore_index=True)


def spike_ranges(times: np.ndarray, unit: np.ndarray, units: int) -> "pd.DataFrame":
    """A recording's table of when each of `units` was observed, of spikes at `times` (s) of the rows `unit`.

    That is from its first spike to its last; a unit without two was never observed.
    """
    first, last = np.full(units, np.inf), np.full(units, -np.inf)
    np.minimum.at(first, unit, times)
    np.maximum.at(last, unit, times)
    some = np.flatnonzero(np.isfinite(first))
    return unit_intervals(some, np.stack([first[some], last[some]], axis=1), range(units))


def presence(observed: np.ndarray, own: "pd.DataFrame | None", units: int) -> list[np.ndarray]:
    """When each unit was observed, (intervals, 2) s, a unit each: in its `own` intervals (a recording's table of them),
    where it has any, as far as the session is `observed`; else whenever the session is.
    """
    present = [merged(observed)] * units
    if own is not None:
        whose, spans = own["unit"].to_numpy(), own[["start", "stop"]].to_numpy()
        for unit in np.unique(whose):
            present[unit] = common(observed, spans[whose == unit])
    return present


def while_present(times: np.ndarray, unit: np.ndarray, present: list[np.ndarray]) -> np.ndarray:
    """Which spikes, at `times` (s) of the rows `unit`, are of units then `present`, as bool (spikes,).

    The ends of an interval belong to it: a session ends with its last spike.
    """
    ends = [intervals.max() for intervals in present if len(intervals)]
    with np.errstate(invalid="ignore"):  # times that are no numbers are refused when the recording is validated
        ticks = to_ticks(times)
        length = int(max(to_ticks(max(ends, default=0.0)), ticks.max(initial=0))) + 2
    # Units are laid end to end on one line of ticks, so that one search places every spike.
    edges = [row * length + to_ticks(intervals) + np.array([0, 1]) for row, intervals in enumerate(present)]
    spots = unit.astype(np.int64) * length + ticks
    return np.searchsorted(np.concatenate(edges).ravel(), spots, side="right") % 2 == 1


def observed_rates(recording: "Recording") -> np.ndarray:
    """Mean rates (units,), Hz: spikes of each unit while it was observed, by how long that was; 0 if it never was."""
    present = presence(recording.observed, recording.unit_intervals, len(recording.units))
    seconds = np.array([np.diff(intervals).sum() for intervals in present])
    counted = recording.spike_units[while_present(recording.spike_times, recording.spike_units, present)]
    spikes = np.bincount(counted, minlength=len(present))
    return np.divide(spikes, seconds, out=np.zeros(len(present)), where=seconds > 0)
