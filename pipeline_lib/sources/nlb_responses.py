"""Mean responses that the target files of the Neural Latents Benchmark hold, for `nlb_psth_r2` (Pei et al. 2021)::

    psth                       true responses [condition, bin, unit], counts a bin, of train and eval trials together;
                               NaN in bins without any
    {train,eval}_cond_idx      trials of each condition, counted within the part: a list of whole numbers a condition
    {train,eval}_jitter        bins by which each trial was cut too late; none: 0

They know the eval trials, so they are kept apart from trials and units, in what only evaluations read. Files of the
tools' first versions, with a PSTH a trial and no conditions, have none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError

if TYPE_CHECKING:
    from pipeline_lib.recording import Truth

PSTH, CONDITIONS, JITTER = "psth", "cond_idx", "jitter"


def responses(
    location: Path,
    arrays: Mapping[str, np.ndarray],
    parts: np.ndarray,
    unit_ids: Sequence[str],
    start: np.ndarray,
    bin_size: float,
) -> "Truth | None":
    """The responses in the files of a dataset; None where they hold none.

    Parameters
    ----------
    arrays : datasets by name, as they are in the files.
    parts : "train" or "eval" of each trial. start : s, of each trial.
    unit_ids : of all units. bin_size : ms.

    Raises
    ------
    InputError : arrays that do not fit together, or a trial in two conditions.
    """
    from pipeline_lib.recording import Truth

    given = [part for part in dict.fromkeys(parts.tolist()) if f"{part}_{CONDITIONS}" in arrays]
    if PSTH not in arrays or not given:
        return None
    psth = np.asarray(arrays[PSTH], dtype=np.float64)
    unknown = np.isnan(psth)
    whole = psth.ndim == 3 and psth.shape[2] == len(unit_ids) and not np.isinf(psth).any()
    if not whole or (unknown.any(axis=2) != unknown.all(axis=2)).any():
        accepted = f"means [condition, bin, {len(unit_ids)} units], NaN in bins without any"
        raise InputError(location, PSTH, f"shape {psth.shape}, {int(unknown.sum())} NaN", accepted)
    condition, jitter = np.full(len(parts), -1, dtype=np.int64), np.zeros(len(parts), dtype=np.int64)
    for part in given:
        rows = np.flatnonzero(parts == part)
        condition[rows] = _conditions(location, f"{part}_{CONDITIONS}", arrays, len(psth), len(rows))
        name = f"{part}_{JITTER}"
        if name in arrays:
            own = np.asarray(arrays[name], dtype=np.float64)
            if own.shape != rows.shape or (own != np.round(own)).any():
                raise InputError(location, name, f"shape {own.shape}", f"whole bins of {len(rows)} trials")
            jitter[rows] = own
    attributes = {"bin_size": bin_size, "trial_start": start.tolist(), "unit_id": list(unit_ids)}
    return Truth({"psth": psth, "psth_condition": condition, "psth_jitter": jitter}, attributes)


def _conditions(location: Path, name: str, arrays: Mapping[str, np.ndarray], count: int, trials: int) -> np.ndarray:
    """The condition of each trial of a part [trials], -1 for none."""
    lists = [np.atleast_1d(own).astype(np.float64) for own in arrays[name]]
    if len(lists) != count:
        raise InputError(location, name, f"{len(lists)} conditions", f"{count}, as {PSTH} has")
    members = np.concatenate([np.empty(0), *lists])
    if not np.isin(members, np.arange(trials)).all():
        raise InputError(location, name, "a number that is no trial", f"trials of this part, 0 to {trials - 1}")
    if len(np.unique(members)) < len(members):
        raise InputError(location, name, "a trial twice", "each trial in one condition at most")
    condition = np.full(trials, -1, dtype=np.int64)
    condition[members.astype(np.int64)] = np.repeat(np.arange(count), [own.size for own in lists])
    return condition
