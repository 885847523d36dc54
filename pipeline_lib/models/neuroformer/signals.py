"""Signals and frames of a session on the bins of samples, as the arrays that batches carry. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.clock import to_seconds, to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.trains.signals import read_signals

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.stimulus import Stimulus
    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains


def bin_times(split: Split, samples: pd.DataFrame) -> np.ndarray:
    """Start of every bin of the samples, history included, s, [S, L]."""
    first = samples["start_tick"].to_numpy(dtype=np.int64) - split.history_bins * split.bin_ticks
    length = split.history_bins + int(samples["bins"].max() if len(samples) else 0)
    return to_seconds(first[:, None] + np.arange(length) * split.bin_ticks)


def classes_of(trains: Trains, name: str, times: np.ndarray) -> np.ndarray:
    """The distinct values of a label at `times`, sorted; InputError with fewer than two or more than 100."""
    found = read_signals(trains, [name], times, [True])
    values = np.unique(found[np.isfinite(found)])
    if not 2 <= len(values) <= 100:
        where = f"session {trains.session}, signals"
        raise InputError(where, name, f"{len(values)} different values", "2 to 100 classes (or regression)")
    return values


def as_classes(values: np.ndarray, classes: Mapping[int, np.ndarray]) -> np.ndarray:
    """Labels in the columns `classes` of `values` [..., names] as class numbers; NaN for one not seen in training."""
    result = values.copy()
    for place, known in classes.items():
        number = np.searchsorted(known, values[..., place]).clip(max=len(known) - 1)
        result[..., place] = np.where(known.astype(np.float32)[number] == values[..., place], number, np.nan)
    return result


def read_frames(stimulus: Stimulus, times: np.ndarray) -> np.ndarray:
    """The frame on the screen at `times` (any shape, s): uint8 [..., height, width]; grey before the first."""
    # In ticks: whether a frame begins with a bin must not hang on how its time was rounded.
    shown = np.searchsorted(to_ticks(stimulus.onset), to_ticks(times), side="right") - 1
    frames = stimulus.frames[stimulus.frame[shown.clip(0)]]
    frames[shown < 0] = 128
    return frames
