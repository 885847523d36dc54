"""Tables that lie beside the spikes: trials, when anything was observed, and signals, in files of a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError
from pipeline_lib.signal_units import keep_units
from pipeline_lib.sources.columns import load_columns, numbers, stored_units, table_of, vector
from pipeline_lib.sources.given_units import SignalUnits, give_units
from pipeline_lib.sources.options import Names, as_tuple
from pipeline_lib.sources.signals import signal_table
from pipeline_lib.sources.trials import condition_text, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Companions(SignalUnits):
    """Which tables there are, and what their columns are called."""

    duration: Annotated[float, Gt(0)] | None = None
    """End of the session, s; by default its last spike, trial or observation."""
    trials: str | None = None
    """A table of trials; `start`, `stop` name its columns."""
    start: str = "start"
    stop: str = "stop"
    condition: Names | None = None
    """Column of the trials that is their condition, or several to join; by default `condition` where there is one."""
    observed: str | None = None
    """A table of `start` and `stop`: when anything was recorded at all; by default the whole session."""
    unit_presence: Literal["spike_range", "always"] = "always"
    """When a unit was there: always, or from its first to its last spike (`spike_range`), for units that drift away or
    are first held later. Outside of it a unit is masked, not silent; one without two spikes was never there."""
    signals: dict[str, str] = field(default_factory=dict)
    """Tables of a column `time` and one a dimension, name -> file."""

    def seconds(self, times: Any) -> np.ndarray:
        """Times of the files in seconds, which they are in unless a source says otherwise."""
        return np.asarray(times, dtype=np.float64)


def read_companions(
    options: Companions,
    trials: Path | None,
    observed: Path | None,
    signals: Mapping[str, Path],
    where: Path,
    events: Names = (),
) -> "tuple[pd.DataFrame, np.ndarray, dict[str, pd.DataFrame], dict[str, int]]":
    """Trials, observed intervals (intervals, 2) in s, signals by name, and by name how much of them was left out.

    Parameters
    ----------
    trials, observed, signals : their files, None (or no name) where there are none.
    where : the session, for errors about no single file.
    events : further columns of the trials that are times.

    Raises
    ------
    InputError : a missing column, one that is not of numbers, times out of order, a trial that ends before it
        starts, a unit of no signal.
    """
    table, counts = _read_trials(trials, options, events)
    intervals, found = _read_observed(observed, options), {}
    for name, path in signals.items():
        found[name], left_out = _read_signal(name, path, options)
        counts |= left_out
    give_units(found, options, where)
    return table, intervals, found, counts


def _read_trials(path: Path | None, options: Companions, events: Names) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials in order of their start with all columns of the file, and how many were left out for want of times."""
    if path is None:
        return no_trials(), {}
    text = as_tuple(options.condition) or ("condition",)
    table = table_of(path, load_columns(path, text, used=(options.start, options.stop, *as_tuple(events))))
    start, stop = (_times(path, table, name, options) for name in (options.start, options.stop))
    if (back := stop < start).any():
        row = int(np.argmax(back))
        found = f"{stop[row]} s, with a start at {start[row]} s"
        raise InputError(path, f"column {options.stop}, row {row}", found, "a stop not before its start")
    for name in as_tuple(events):
        table[name] = _times(path, table, name, options)
    condition = condition_text(table, options.condition, path, "trials")
    rest = table.drop(columns=[options.start, options.stop])
    return trial_table(start, stop, condition, rest)


def _read_observed(path: Path | None, options: Companions) -> np.ndarray:
    """The observed intervals (intervals, 2) in s; none without a file."""
    if path is None:
        return np.empty((0, 2))
    table = table_of(path, load_columns(path, used=("start", "stop")))
    return np.stack([_times(path, table, name, options) for name in ("start", "stop")], axis=1)


def _read_signal(name: str, path: Path, options: Companions) -> "tuple[pd.DataFrame, dict[str, int]]":
    """A signal: the column `time`, and every other column as a dimension, with the units that a Parquet file says."""
    table = table_of(path, load_columns(path, used=("time",)))
    time = _times(path, table, "time", options)
    dimensions = [str(column) for column in table if column != "time"]
    if not dimensions:
        raise InputError(path, "columns", "time alone", "time and at least one dimension")
    for each in dimensions:
        if table[each].dtype.kind not in "iufb":
            raise InputError(path, f"signal {name}, column {each}", f"{table[each].dtype}", "numbers")
    signal, left_out = signal_table(name, time, table[dimensions].to_numpy(), path, f"signal {name}", dimensions)
    keep_units(signal, {column: unit for column, unit in stored_units(path).items() if column in dimensions})
    return signal, left_out


def _times(path: Path, columns: Any, name: str, options: Companions) -> np.ndarray:
    """A column of times, in s."""
    return options.seconds(numbers(path, name, vector(path, columns, name)))
