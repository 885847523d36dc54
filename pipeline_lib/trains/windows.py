"""Samples: windows of a session, cut around trials or from continuous time."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib import clock
from pipeline_lib.errors import InputError
from pipeline_lib.intervals import overlap_any
from pipeline_lib.trains.settings import WindowSettings

if TYPE_CHECKING:
    from pipeline_lib.trains.store import Trains

COLUMNS = ("session", "start_tick", "bins", "trial", "condition")


def windows(trains: "Trains", settings: WindowSettings) -> pd.DataFrame:
    """The windows of a session, in time order of continuous windows and in table order of trials.

    Returns
    -------
    Columns `session`, `start_tick` (int64), `bins` (int32), `trial` (int32, row of the trials table, -1 in continuous
    mode), `condition` (text, empty in continuous mode). Continuous windows lie wholly inside an observation interval.
    Left out are trials whose event is NaN, that hold no whole bin, or that lie wholly outside those intervals.

    Raises
    ------
    InputError : the trials table has no such column or condition, or no window is left.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.store import Trains
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> windows(trains, WindowSettings(bin_size=20, mode="continuous", length=2.0))[["start_tick", "bins"]]
       start_tick  bins
    0           0   100
    1      200000   100
    """
    if settings.mode == "trials" and not len(trains.trials):
        accepted = "`mode: continuous`, or a recording with trials"
        raise InputError(f"session {trains.session}", "windows.mode", "trials, of which there are none", accepted)
    make = _continuous_windows if settings.mode == "continuous" else _trial_windows
    frame = make(trains, settings)
    if not len(frame):
        accepted = "windows inside the observation intervals (a shorter window, another event or other conditions)"
        found = "no window" if settings.mode == "continuous" else f"no window in any of {_events(trains, settings)}"
        raise InputError(f"session {trains.session}", "windows", found, accepted)
    return frame


def _events(trains: "Trains", settings: WindowSettings) -> str:
    """How many trials there are, and when their events: those of a column in other units lie beyond the recording."""
    times = trains.trials[settings.align].to_numpy(dtype=float)
    times, end = times[np.isfinite(times)], trains.observed.max(initial=0) / clock.TICKS_PER_SECOND
    when = f"{times.min():g} to {times.max():g} s, recorded until {end:g} s" if len(times) else "never"
    return f"{len(trains.trials)} trials ({settings.align}: {when})"


def _continuous_windows(trains: "Trains", settings: WindowSettings) -> pd.DataFrame:
    bins = clock.duration_bins(settings.length, settings.bin_size, "windows.length")
    length = bins * settings.bin_ticks
    begin, stop = trains.observed.T
    count = (stop - begin) // length
    first = np.cumsum(count) - count
    starts = np.repeat(begin - first * length, count) + np.arange(count.sum()) * length
    return _frame(trains.session, starts, bins, -1, "")


def _trial_windows(trains: "Trains", settings: WindowSettings) -> pd.DataFrame:
    trials = trains.trials
    where = f"session {trains.session}, trials"
    if settings.align not in trials.columns:
        raise InputError(where, "windows.align", settings.align, f"one of {', '.join(trials.columns)}")
    events = trials[settings.align]
    if not pd.api.types.is_numeric_dtype(events):
        raise InputError(where, "windows.align", settings.align, "a column of times in seconds")
    condition = trials["condition"].astype(str)
    chosen = np.isfinite(events.to_numpy(dtype=float))
    if settings.conditions is not None:
        known = set(condition)
        unknown = [name for name in settings.conditions if name not in known]
        if unknown:
            raise InputError(where, "windows.conditions", unknown[0], f"some of {', '.join(sorted(known)[:20])}")
        chosen &= condition.isin(settings.conditions).to_numpy()
    row = np.flatnonzero(chosen)
    starts = clock.to_ticks(events.to_numpy(dtype=float)[row]) - clock.to_ticks(settings.before)
    if settings.after is None:
        bins = (clock.to_ticks(trials["stop"].to_numpy(dtype=float)[row]) - starts) // settings.bin_ticks
    else:
        bins = np.full(
            len(row), clock.duration_bins(settings.before + settings.after, settings.bin_size, "windows.after")
        )
    kept = (bins > 0) & overlap_any(starts, starts + bins * settings.bin_ticks, trains.observed)
    return _frame(trains.session, starts[kept], bins[kept], row[kept], condition.to_numpy()[row[kept]])


def _frame(
    session: str, starts: np.ndarray, bins: np.ndarray | int, trial: np.ndarray | int, condition: object
) -> pd.DataFrame:
    if np.max(bins, initial=0) > np.iinfo(np.int32).max:
        raise InputError(f"session {session}", "windows", f"{np.max(bins)} bins", "shorter windows")
    columns = {"session": session, "start_tick": starts, "bins": bins, "trial": trial, "condition": condition}
    types = {"session": "str", "start_tick": "int64", "bins": "int32", "trial": "int32", "condition": "str"}
    return pd.DataFrame(columns, columns=list(COLUMNS)).astype(types)
