"""Presentations of stimuli, and how short ones become trials of a useful length.

A film is stored as a presentation of 33 ms a frame, and a table of static gratings as a new one every 250 ms. Trials of
that length hold hardly a spike, so presentations that follow each other without a pause are put together.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FRAME = "frame"
COUNT = "presentations"
PAUSE = 0.5
"""Longest pause between two presentations that are put together, as a share of the first one's length."""


def merge_short(table: "pd.DataFrame", below: float) -> "pd.DataFrame":
    """Presentations (rows in order of time) with those shorter than `below` seconds put together.

    Rows follow each other if nothing but a pause of half a presentation lies between them and they are of one stimulus
    and one block. The frames of a film make one trial each time that the film starts anew; others make trials that are
    at least `below` long. A parameter that varies within a trial is missing from it. The column `presentations` counts
    what a trial was made of.
    """
    import pandas as pd

    if len(table) == 0:
        return table.assign(**{COUNT: np.zeros(0, dtype=np.int64)})
    start, stop = (table[name].to_numpy(dtype=float) for name in ("start_time", "stop_time"))
    trial = np.cumsum(_begins(table, start, stop, below)) - 1
    first, last = np.flatnonzero(np.diff(trial, prepend=-1)), np.flatnonzero(np.diff(trial, append=len(table)))
    merged = table.iloc[first].reset_index(drop=True)
    merged["stop_time"] = stop[last]
    merged[COUNT] = last - first + 1
    for name in table.columns.difference(["start_time", "stop_time", "stimulus_name"]):
        codes, _ = pd.factorize(table[name], use_na_sentinel=False)
        varies = np.maximum.reduceat(codes, first) != np.minimum.reduceat(codes, first)
        if varies.any():
            merged[name] = merged[name].mask(varies)
    return merged


def _begins(table: "pd.DataFrame", start: np.ndarray, stop: np.ndarray, below: float) -> np.ndarray:
    """Which presentations begin a trial, as bool (presentations,)."""
    import pandas as pd

    length = stop - start
    short = length < below
    begins = np.ones(len(table), dtype=bool)
    begins[1:] = ~(short[1:] & short[:-1]) | (start[1:] - stop[:-1] > PAUSE * length[:-1])
    for name in ("stimulus_name", "stimulus_block"):
        if name in table:
            codes, _ = pd.factorize(table[name], use_na_sentinel=False)
            begins[1:] |= np.diff(codes) != 0
    if FRAME in table and _is_film(table[FRAME].to_numpy(dtype=float)):
        begins[1:] |= np.diff(table[FRAME].to_numpy(dtype=float)) < 0
        return begins
    # Runs of short presentations are cut where a trial has become long enough; at most as many steps as trials.
    position = 0
    while position < len(table):
        end = position + 1 + int(np.argmax(np.append(begins[position + 1 :], True)))
        enough = position + int(np.searchsorted(stop[position:end], start[position] + below - 1e-9))
        if enough + 1 < end:
            begins[enough + 1] = True
        position = min(enough + 1, end)
    return begins


def _is_film(frames: np.ndarray) -> bool:
    """Whether frames come in order, one after the other, most of the time (scenes come at random)."""
    steps = np.diff(frames[np.isfinite(frames)])
    return len(steps) > 0 and float(np.mean(steps == 1)) > 0.9
