"""Does any part of a split see what another part is scored on?"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.clock import to_seconds
from pipeline_lib.errors import InputError

if TYPE_CHECKING:
    from pipeline_lib.trains.splits import Split


def check_leakage(split: "Split") -> None:
    """Raise InputError at the first sample that reads a bin on which a sample of another part is scored.

    A sample reads its own bins and its history, [start - history, stop); it is scored on [start, stop). Reading and
    scored bins of samples in different parts must not meet.
    """
    for session, samples in split.samples.groupby("session", sort=False):
        begin = samples["start_tick"].to_numpy()
        stop = begin + samples["bins"].to_numpy() * split.bin_ticks
        read = begin - split.history_bins * split.bin_ticks
        part = samples["split"].to_numpy(dtype=object)
        for name in pd.unique(part):
            reader, other = part == name, part != name
            pair = _first_overlap(read[reader], stop[reader], begin[other], stop[other])
            if pair is None:
                continue
            one, two = samples.index[reader][pair[0]], samples.index[other][pair[1]]
            raise InputError(
                f"split of cohort {split.cohort}, session {session}",
                "leakage",
                f"sample {one} ({name}) reads {_seconds(read[reader][pair[0]], stop[reader][pair[0]])}, where sample "
                f"{two} ({part[other][pair[1]]}) is scored on {_seconds(begin[other][pair[1]], stop[other][pair[1]])}",
                "parts that do not meet: trials that do not overlap, a shorter windows.history, before or after, or "
                "splits.scheme: blocks",
            )


def _first_overlap(
    begin: np.ndarray, stop: np.ndarray, other_begin: np.ndarray, other_stop: np.ndarray
) -> tuple[int, int] | None:
    """Positions of some [begin, stop) and of an [other_begin, other_stop) that overlap; None where none do."""
    order = np.argsort(other_begin, kind="stable")
    # Among the others that begin before a window stops, the one that reaches furthest overlaps it if any does.
    reach = np.maximum.accumulate(other_stop[order]) if len(order) else other_stop
    before = np.searchsorted(other_begin[order], stop, side="left")
    overlaps = (before > 0) & (reach[before - 1] > begin) if len(order) else np.zeros(len(begin), bool)
    if not overlaps.any():
        return None
    first = int(np.argmax(overlaps))
    among = order[: before[first]]
    return first, int(among[np.argmax(other_stop[among])])


def _seconds(begin: int, stop: int) -> str:
    return f"{to_seconds(begin):.5f} to {to_seconds(stop):.5f} s"
