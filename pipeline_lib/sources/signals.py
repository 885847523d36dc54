"""Signals recorded beside the spikes: running speed, pupil, wheel."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.signal_units import keep_units

if TYPE_CHECKING:
    import pandas as pd

    Signals = tuple[dict[str, pd.DataFrame], dict[str, int]]
    """Signals by name, and by name how many samples were left out."""


def known_signal(
    name: str,
    time: np.ndarray,
    values: np.ndarray,
    where: Path,
    field: str,
    columns: Sequence[str] = (),
    units: Sequence[str] = (),
) -> "Signals":
    """A signal as a table by its name (none where no sample is finite), and how many samples were left out because a
    value or time is not finite.

    A sample is one measurement, whole or none: an x without its y is no place, and a blink spoils all that was
    fitted. What comes and goes by itself is a signal of its own.

    Parameters
    ----------
    time : (samples,) s, non-decreasing where finite.
    values : (samples,) or (samples, dimensions).
    columns : names of the dimensions; by default `name`, or `name_0`, `name_1`, ... of several.
    units : of the dimensions, "" where there is none; by default none is known.

    Raises
    ------
    InputError : lengths differ, or times are out of order.
    """
    import pandas as pd

    if values.ndim not in (1, 2) or time.shape != values.shape[:1]:
        found = f"{time.shape} times, {values.shape} values"
        raise InputError(where, field, found, "one time a sample, (samples,) or (samples, dimensions) values")
    matrix = (values if values.ndim == 2 else values[:, None]).astype(np.float64)
    dimensions = matrix.shape[1]
    names = list(columns) or ([name] if dimensions == 1 else [f"{name}_{k}" for k in range(dimensions)])
    whole = np.isfinite(time) & np.isfinite(matrix).all(axis=1)
    left_out = {f"{name}_samples_left_out": int((~whole).sum())}
    if not whole.any():
        return {}, left_out
    time, matrix = time[whole].astype(np.float64), matrix[whole]
    back = np.diff(time) < 0
    if back.any():
        row = int(np.argmax(back)) + 1
        raise InputError(where, f"{field}, sample {row}", f"{time[row]} s after {time[row - 1]} s", "sorted times")
    table = pd.DataFrame({"time": time} | dict(zip(names, matrix.T, strict=True)))
    keep_units(table, dict(zip(names, units, strict=True)) if units else {})
    return {name: table}, left_out


def signal_table(
    name: str, time: np.ndarray, values: np.ndarray, where: Path, field: str, columns: Sequence[str] = ()
) -> "tuple[pd.DataFrame, dict[str, int]]":
    """The table of `known_signal` alone, of a signal that was asked for: InputError where no sample is finite."""
    signals, left_out = known_signal(name, time, values, where, field, columns)
    if not signals:
        accepted = "one at least, finite in every column (others go into signals of their own)"
        raise InputError(where, field, "no finite sample", accepted)
    return signals[name], left_out


def together(several: "Iterable[Signals]") -> "Signals":
    """Signals that were read one after the other, as one."""
    signals: dict[str, pd.DataFrame] = {}
    counts: dict[str, int] = {}
    for more, left_out in several:
        signals |= more
        counts |= left_out
    return signals, counts
