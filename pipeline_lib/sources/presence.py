"""When each unit was observed, and how often it fired in that time."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.clock import to_ticks
from pipeline_lib.sources.intervals import complement, merged

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


def observed_rates(recording: "Recording") -> np.ndarray:
    """Mean rates (units,), Hz: spikes of each unit while it was observed, by how long that was; 0 if it never was.

    A unit is observed in its own intervals, where it has any, as far as the session is; else whenever the session is.
    Their ends belong to them: a session ends with its last spike.
    """
    count, end = len(recording.units), float(recording.observed.max(initial=0.0))
    present = [merged(recording.observed)] * count
    if recording.unit_intervals is not None:
        whose, *bounds = (recording.unit_intervals[name].to_numpy() for name in ("unit", "start", "stop"))
        spans, outside = np.stack(bounds, axis=1), complement(recording.observed, 0.0, end)
        for unit in np.unique(whose):
            absent = np.concatenate([outside, complement(spans[whose == unit], 0.0, end)])
            present[unit] = complement(absent, 0.0, end)
    seconds = np.array([np.diff(intervals).sum() for intervals in present])
    with np.errstate(invalid="ignore"):  # times that are no numbers are refused when the recording is validated
        ticks = to_ticks(recording.spike_times)
        length = int(max(to_ticks(end), ticks.max(initial=0))) + 2
    # Units are laid end to end on one line of ticks, so that one search places every spike.
    edges = [unit * length + to_ticks(intervals) + np.array([0, 1]) for unit, intervals in enumerate(present)]
    spots = recording.spike_units.astype(np.int64) * length + ticks
    inside = np.searchsorted(np.concatenate(edges).ravel(), spots, side="right") % 2 == 1
    spikes = np.bincount(recording.spike_units[inside], minlength=count)
    return np.divide(spikes, seconds, out=np.zeros(count), where=seconds > 0)
