"""Trials of Allen sessions: presentations of stimuli or the task, and the times that make some of them invalid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.intervals import overlap_any
from pipeline_lib.sources.hdf import HdfFile
from pipeline_lib.sources.options import as_tuple
from pipeline_lib.sources.presentations import merge_short
from pipeline_lib.sources.trials import column_text, condition_text, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.sources.allen import Options

PRESENTATIONS = "_presentations"
REQUIRED_PRESENTATIONS = ("start_time", "stop_time", "stimulus_name")
NOT_PARAMETERS = (
    *("stimulus_block", "stimulus_index", "stimulus_condition_id", "stimulus_presentation_id", "duration"),
    *("start_frame", "end_frame", "flashes_since_change", "trials_id", "rewarded", "is_image_novel"),
)
NOTHING = "N/A"
"""What the files write in a column of texts for a parameter that a presentation does not have."""
TASK = "intervals/trials"
OUTCOMES = ("aborted", "auto_rewarded", "hit", "miss", "false_alarm", "correct_reject")
"""Columns of the task's trials of which one is true."""


@dataclass(frozen=True)
class Invalid:
    """A time when something of the session cannot be used: `tags` name what ("all_probes", "stimulus", a probe)."""

    start: float
    stop: float
    tags: tuple[str, ...]


def read_invalid_times(file: HdfFile) -> list[Invalid]:
    """The rows of the table of invalid times; none where the file has no such table.

    Raises
    ------
    InputError : times that are not finite, negative or out of order, or not a list of tags a row.
    """
    path = "intervals/invalid_times"
    if file.find(path) is None:
        return []
    tags = file.values(f"{path}/tags")
    ends = file.ends(f"{path}/tags_index", len(tags))
    times = file.table(path, ("start_time", "stop_time"))
    start, stop = (times[name].to_numpy(dtype=np.float64) for name in ("start_time", "stop_time"))
    bad = ~(np.isfinite(start) & np.isfinite(stop) & (start >= 0) & (start <= stop))
    if len(start) != len(ends) or bad.any():
        found = f"{len(start)} times, {len(ends)} rows of tags, {bad.sum()} bad"
        accepted = "one start, stop and list of tags a row, finite and in order"
        raise InputError(file.path, path, found, accepted)
    rows = np.split(tags, ends[:-1])
    return [Invalid(*row[:2], tuple(map(str, row[2]))) for row in zip(start, stop, rows, strict=True)]


def spans_of(invalid: Sequence[Invalid], tag: str) -> np.ndarray:
    """The times (intervals, 2), s, at which what `tag` names cannot be used."""
    spans = [(interval.start, interval.stop) for interval in invalid if tag in interval.tags]
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def read_presentations(
    file: HdfFile, options: "Options", invalid: Sequence[Invalid]
) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Presentations as trials, in order of time; text parameters a stimulus does not have are "", numbers are NaN.

    Raises
    ------
    InputError : a stimulus of the options that is not in the file.
    """
    import pandas as pd

    tables = {
        name.removesuffix(PRESENTATIONS): name for name in file.names("intervals") if name.endswith(PRESENTATIONS)
    }
    for name in as_tuple(options.stimulus):
        if name not in tables:
            raise InputError(file.path, "option stimulus", repr(name), ", ".join(tables) or "no file without stimuli")
    chosen = as_tuple(options.stimulus) or tuple(tables)
    if not chosen:
        return no_trials(), {}
    conditions: list[str] = []
    presentations = []
    for stimulus in chosen:
        path = f"intervals/{tables[stimulus]}"
        table = file.table(path, REQUIRED_PRESENTATIONS).drop(columns="id", errors="ignore").replace(NOTHING, np.nan)
        if options.merge_below is not None:
            table = merge_short(table.sort_values("start_time", kind="stable", ignore_index=True), options.merge_below)
        if options.condition is None:
            conditions += stimulus_conditions(table)
        else:
            conditions += condition_text(table, options.condition, file.path, path)
        presentations.append(table)
    together = pd.concat(presentations, ignore_index=True)
    return _valid_trials(together, conditions, presentations, invalid)


def read_task(file: HdfFile, options: "Options", invalid: Sequence[Invalid]) -> "tuple[pd.DataFrame, dict[str, int]]":
    """The trials of the change-detection task; the default condition is the outcome.

    `change_time`, `response_time` and `reward_time` are events to align to.

    Raises
    ------
    InputError : a file without that task, or without columns of outcomes where they are the condition.
    """
    if file.find(TASK) is None:
        raise InputError(file.path, "option trials", f"no {TASK}", "trials: presentations (nobody did a task here)")
    table = file.table(TASK, ("start_time", "stop_time")).drop(columns="id", errors="ignore")
    if options.condition:
        conditions = condition_text(table, options.condition, file.path, TASK)
    else:
        outcomes = [name for name in OUTCOMES if name in table]
        if not outcomes:
            raise InputError(file.path, TASK, "no column of outcomes", ", ".join(OUTCOMES))
        happened = table[outcomes].to_numpy(dtype=bool)
        conditions = np.where(happened.any(axis=1), np.array(outcomes)[happened.argmax(axis=1)], "other").tolist()
    return _valid_trials(table, conditions, [table], invalid)


def _valid_trials(
    together: "pd.DataFrame", conditions: list[str], tables: Sequence["pd.DataFrame"], invalid: Sequence[Invalid]
) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials outside the invalid times of the stimulus; a column that is text in one of `tables` is text in all."""
    for name in together.columns:
        if any(name in table and table[name].dtype.kind == "O" for table in tables):
            together[name] = column_text(together[name], missing="")
    start, stop = together.pop("start_time").to_numpy(), together.pop("stop_time").to_numpy()
    hit = overlap_any(start, stop, spans_of(invalid, "stimulus"))
    condition = np.array(conditions, dtype=object)
    trials, counts = trial_table(start[~hit], stop[~hit], condition[~hit], together[~hit])
    return trials, counts | {"trials_before": len(hit), "trials_invalid": int(hit.sum())}


def read_shown(file: HdfFile) -> "pd.DataFrame":
    """Every presentation of a frame: columns start_time (s), stimulus_name and frame; no row where there are none."""
    import pandas as pd

    columns = ["start_time", "stimulus_name", "frame"]
    names = [name for name in file.names("intervals") if name.endswith(PRESENTATIONS)]
    tables = [file.table(f"intervals/{name}", REQUIRED_PRESENTATIONS) for name in names]
    framed = [table[columns] for table in tables if "frame" in table]
    return pd.concat(framed, ignore_index=True) if framed else pd.DataFrame(columns=columns)


def stimulus_conditions(table: "pd.DataFrame") -> list[str]:
    """The name of the stimulus and its parameters that vary: `drifting_gratings orientation=45 temporal_frequency=2`.

    A parameter that is missing is left out, so a blank sweep has the bare name. A column whose values are times within
    their presentations holds an event, not a parameter.
    """
    texts = column_text(table["stimulus_name"], missing="")
    for name, column in table.items():
        if name in (*REQUIRED_PRESENTATIONS, *NOT_PARAMETERS) or column.nunique(dropna=False) < 2:
            continue
        if column.dtype.kind == "f" and (column.isna() | column.between(table["start_time"], table["stop_time"])).all():
            continue
        values = column_text(column, missing="")
        texts = [f"{text} {name}={value}" if value else text for text, value in zip(texts, values, strict=True)]
    return texts
