"""Trials of an IBL session: where they lie, in which form, and the conditions of the task."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.alf import AlfSession, folders_with
from pipeline_lib.sources.location import require_columns
from pipeline_lib.sources.trials import condition_text, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.sources.ibl import Options

TRIALS = "_ibl_trials.table.pqt"
INTERVALS = "_ibl_trials.intervals.npy"
"""Older sessions have no table of trials, but an array a column."""


def task_folder(alf: AlfSession) -> str:
    """Where trials and wheel lie: `alf`, or a folder such as `alf/task_00`, as sessions of several tasks have it.

    InputError where several tasks have trials, and none lie in `alf`.
    """
    found = folders_with(alf.names, (TRIALS, INTERVALS)) or ["alf"]
    if len(found) > 1 and found[0] != "alf":
        raise InputError(alf.folder, "trials", ", ".join(found), "the trials of one task (remove the other folders)")
    return found[0]


def read_trials(alf: AlfSession, task: str, options: "Options") -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials with every column of the table (events in s, contrasts, choice, feedback), and how many were left out."""
    name = next((name for name in (f"{task}/{TRIALS}", f"{task}/{INTERVALS}") if alf.has(name)), None)
    if name is None:
        return no_trials(), {}
    table, path = alf.table(name) if name.endswith(TRIALS) else _arrays_of_trials(alf, name), alf.path(name)
    require_columns(table, path, ("intervals_0", "intervals_1"))
    if options.condition or "condition" in table:
        condition = condition_text(table, options.condition, path, "trials")
    else:
        require_columns(table, path, ("contrastLeft", "contrastRight", "choice"))
        condition = task_conditions(table)
    in_time = np.ones(len(table), dtype=bool)
    if options.reaction_time is not None:
        require_columns(table, path, ("stimOn_times", "firstMovement_times"))
        in_time = (table["firstMovement_times"] - table["stimOn_times"]).between(*options.reaction_time).to_numpy()
    rest = table.drop(columns=["intervals_0", "intervals_1"])
    start, stop = (table[name].to_numpy(dtype=float) for name in ("intervals_0", "intervals_1"))
    texts = np.array(condition, dtype=object)
    trials, counts = trial_table(start[in_time], stop[in_time], texts[in_time], rest[in_time])
    return trials, counts | {"trials_before": len(table), "trials_reaction_time": int((~in_time).sum())}


def _arrays_of_trials(alf: AlfSession, intervals: str) -> "pd.DataFrame":
    """The table of trials of a session that has an array a column; those of several values a trial are left out."""
    import pandas as pd

    bounds = alf.array(intervals)
    if bounds.ndim != 2 or bounds.shape[1] != 2:
        raise InputError(alf.path(intervals), "array", f"shape {bounds.shape}", "start and stop of every trial")
    columns, start = {"intervals_0": bounds[:, 0], "intervals_1": bounds[:, 1]}, intervals.removesuffix("intervals.npy")
    for name in (name for name in alf.names if name.startswith(start)):
        values = alf.array(name, len(bounds)) if name.endswith(".npy") else bounds
        if values.ndim == 1:
            columns[name.removeprefix(start).removesuffix(".npy")] = values
    return pd.DataFrame(columns)


def task_conditions(table: "pd.DataFrame") -> list[str]:
    """Side and contrast of the stimulus and the side the mouse reported, such as `left 25% chose right`.

    The contrast of the side without a stimulus is NaN. A choice is 1 for left, -1 for right, 0 for none.
    """
    left, right = (table[name].to_numpy(dtype=float) for name in ("contrastLeft", "contrastRight"))
    side = np.where(np.isfinite(left), "left", np.where(np.isfinite(right), "right", "no"))
    contrast = np.nan_to_num(np.where(np.isfinite(left), left, right))
    reported = table["choice"].to_numpy(dtype=float)
    choice = np.where(reported == 1, "chose left", np.where(reported == -1, "chose right", "no choice"))
    rows = zip(side, contrast, choice, strict=True)
    return [f"{where} {100 * strength:g}% {answer}" for where, strength, answer in rows]
