"""The trials table of a recording, from the columns a source has."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.options import Names, as_tuple

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""The condition of every trial where the source has none."""


def trial_table(
    start: np.ndarray, stop: np.ndarray, condition: Sequence[str] | np.ndarray, columns: "pd.DataFrame"
) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials in order of their start, with how many there were and how many were left out for want of a start or stop.

    `start` and `stop` (trials,) in s. `columns` are carried along (event columns in s, the source's own); text columns
    hold "" where the source has nothing.
    """
    import pandas as pd

    named = {"start": np.asarray(start, dtype=np.float64), "stop": np.asarray(stop, dtype=np.float64)}
    others = columns.drop(columns=[name for name in ("start", "stop", "condition") if name in columns])
    times = pd.DataFrame(named | {"condition": np.asarray(condition, dtype=object)})
    trials = pd.concat([times, others.reset_index(drop=True)], axis=1)
    for name in trials.columns:
        if trials[name].dtype.kind == "O":
            trials[name] = pd.Series(column_text(trials[name], missing=""), dtype="str")  # text, also without a row
    known = np.isfinite(trials["start"]) & np.isfinite(trials["stop"])
    kept = trials[known].sort_values("start", kind="stable").reset_index(drop=True)
    return kept, {"trials_before": len(trials), "trials_without_times": int((~known).sum())}


def no_trials() -> "pd.DataFrame":
    """The trials table of a session without trials."""
    import pandas as pd

    return trial_table(np.empty(0), np.empty(0), [], pd.DataFrame())[0]


def condition_text(table: "pd.DataFrame", given: Names | None, where: Path, field: str) -> list[str]:
    """One text a row: the value of a single column, `name=value ...` of several.

    Without columns that are `given` it is `condition`; ALL where there is none either.

    Raises
    ------
    InputError : the table has no such column.
    """
    columns = as_tuple(given) or tuple(table.columns.intersection(["condition"]))
    for name in columns:
        if name not in table.columns:
            raise InputError(where, f"{field}, condition", f"no column {name!r}", ", ".join(map(str, table.columns)))
    if not columns:
        return [ALL] * len(table)
    texts = [column_text(table[name], missing="none") for name in columns]
    if len(columns) == 1:
        return texts[0]
    rows = zip(*texts, strict=True)
    return [" ".join(f"{name}={text}" for name, text in zip(columns, row, strict=True)) for row in rows]


def column_text(column: "pd.Series", missing: str) -> list[str]:
    """The values of a column as text: whole floats without a fraction, what is missing as `missing`."""
    known = column.notna()
    return [_text(value) if there else missing for value, there in zip(column, known, strict=True)]


def _text(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
