"""Training on a cohort whose windows do not fit into memory: they are binned batch by batch, ahead of the step.

The batches are those of resident windows, bit by bit, so that memory decides nothing but time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.training.batches import Batch, Batches, Order, Windows

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData

Inputs = Callable[["FitData", str, "pd.DataFrame"], dict[str, np.ndarray]]
DEPTH = 2
"""Batches that are made ahead of the one in use."""


class Streamed(Windows):
    """Windows that are binned from the session's events whenever they are asked for, and take no memory.

    Parameters
    ----------
    data, session, samples, device : as for `Windows`.
    inputs : makes the further arrays of any rows of `samples`.
    """

    def __init__(self, data: FitData, session: str, samples: pd.DataFrame, device: str, inputs: Inputs) -> None:
        self._describe(data, session, samples, device)
        self._data, self._samples, self._device, self._inputs = data, samples, device, inputs

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The windows `rows`, cut to the longest of them."""
        samples = self._samples.iloc[rows]
        inputs = self._inputs(self._data, self.session, samples)
        batch = Windows(self._data, self.session, samples, self._device, inputs).batch(slice(None))
        return replace(batch, ragged=self.ragged)  # kernels for windows of equal length may round otherwise


class Ahead(Batches):
    """Batches made by another thread while the ones before are in use.

    The next batches to be asked for are taken to follow at the same distance as the last two.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._coming: dict[int, Future[Batch]] = {}
        self._last = -1
        self._thread = ThreadPoolExecutor(max_workers=1)

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`; waits for it where it is not made yet."""
        step, self._last = max(number - self._last, 1), number
        wanted = range(number, number + step * (DEPTH + 1), step)
        submit, make = self._thread.submit, self.batches.__getitem__
        self._coming = {each: self._coming.get(each) or submit(make, each) for each in wanted}
        return self._coming[number].result()


def cohort_windows(data: FitData, part: str, device: str, inputs: Inputs, budget: int) -> dict[str, Windows]:
    """The windows of a part by session: resident where all that training needs fits into `budget` bytes."""
    samples = {session: data.samples(session, part) for session in data.sessions}
    if window_bytes(data) > budget:
        return {session: Streamed(data, session, rows, device, inputs) for session, rows in samples.items()}
    return {
        session: Windows(data, session, rows, device, inputs(data, session, rows)) for session, rows in samples.items()
    }


def window_bytes(data: FitData) -> int:
    """What the windows of training and validation take at most: a byte a bin and unit for counts and for masks."""
    total = 0
    for session in data.sessions:
        parts = [data.samples(session, part)["bins"] for part in ("train", "validation")]
        bins = sum(len(bins) * (data.split.history_bins + int(bins.max())) for bins in parts if len(bins))
        total += 2 * bins * data.trains[session].n_units
    return total


def shuffled(windows: dict[str, Windows], size: int, seed: int) -> Batches:
    """`Order`, made ahead of time where windows are streamed."""
    order = Order(windows, size, seed)
    return Ahead(order) if any(isinstance(each, Streamed) for each in windows.values()) else order
