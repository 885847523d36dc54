"""Checks of spike times as a file holds them, before they are selected and put in order of time."""

from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError


def check_spike_times(times: np.ndarray, where: Path, field: str, ends: np.ndarray | None, sort: bool) -> None:
    """Raise InputError at the first row of `times` (spikes,) in s that is not a time, is negative or out of order.

    Order is asked for within the runs that stop before `ends` (the units of a unit-major file), or over all rows with
    `ends=None`; not at all with `sort`, the option that says rows may come in any order.
    """
    bad = ~np.isfinite(times)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(where, f"{field}, row {row}", f"{times[row]}", "a finite time")
    if len(times) and times.min() < 0:
        row = int(np.argmax(times < 0))
        raise InputError(where, f"{field}, row {row}", f"{times[row]} s", "times from 0 s on")
    if sort or len(times) < 2:
        return
    back = np.diff(times) < 0
    if ends is not None:
        inner = ends[(ends > 0) & (ends < len(times))]
        back[inner - 1] = False
    if back.any():
        row = int(np.argmax(back)) + 1
        found = f"{times[row]} s after {times[row - 1]} s"
        raise InputError(where, f"{field}, row {row}", found, "sorted times (the option `sort: true` sorts them)")
