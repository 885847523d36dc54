"""Counts of which most are 0, and their products with matrices: sums of a few rows instead.

In a bin of some milliseconds one unit in twenty spikes. Sums of the rows of these units take a sixth of the time of a
product with all of them on a processor, in the gradient of the matrix as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

SHARE = 1 / 8
"""Of entries that are not 0, at most: from about a fifth on the product itself is faster."""


@dataclass(frozen=True)
class Spikes:
    """Scaled counts [T, B, N], time first, as their entries that are not 0 in order of time, window and unit.

    Attributes
    ----------
    starts : where the entries of each bin of each window begin, and where the last end, int64 [T B + 1].
    columns : their units, int64.
    values : what they are.
    windows, units : B and N.
    """

    starts: np.ndarray
    columns: np.ndarray
    values: Tensor
    windows: int
    units: int

    @classmethod
    def of(cls, counts: Tensor, scale: float, dtype: torch.dtype) -> Spikes | None:
        """`scale` times `counts` [T, B, N], integers; None where a product with all of them is faster."""
        if counts.device.type != "cpu" or not counts.numel():
            return None
        bins, windows, units = counts.shape
        flat = counts.numpy().reshape(-1)
        found = np.flatnonzero(flat != 0)
        if len(found) > SHARE * len(flat):
            return None
        rows, columns = np.divmod(found, units)
        values = torch.from_numpy(flat[found]).to(dtype).mul_(scale)
        return cls(_ends(np.bincount(rows, minlength=bins * windows)), columns, values, windows, units)

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""
        return len(self), self.windows, self.units

    def __len__(self) -> int:
        return (len(self.starts) - 1) // self.windows

    def __getitem__(self, bins: slice) -> Spikes:
        """Of bins that follow on each other."""
        first, stop, _ = bins.indices(len(self))
        starts = self.starts[first * self.windows : stop * self.windows + 1]
        inside = slice(starts[0], starts[-1])
        return Spikes(starts - starts[0], self.columns[inside], self.values[inside], self.windows, self.units)

    @cached_property
    def reversed(self) -> Spikes:
        """The last bin first."""
        begins = self.starts[:: self.windows]
        sizes = np.diff(begins)[::-1]
        moved = begins[-2::-1] - _ends(sizes)[:-1]
        order = np.arange(len(self.columns)) + np.repeat(moved, sizes)
        starts = _ends(np.diff(self.starts).reshape(-1, self.windows)[::-1].reshape(-1))
        return Spikes(starts, self.columns[order], self.values[torch.from_numpy(order)], self.windows, self.units)

    def times(self, matrix: Tensor) -> Tensor:
        """The product with `matrix` [N, M]: [T B, M]."""
        return _sums(matrix, self.columns, self.values, self.starts)

    def transposed_times(self, matrix: Tensor) -> Tensor:
        """The product of the transpose with `matrix` [T B, M]: [N, M]."""
        return _sums(matrix, *self._by_unit)

    @cached_property
    def _by_unit(self) -> tuple[np.ndarray, Tensor, np.ndarray]:
        """Rows and values of the entries in order of the units, and where those of each unit begin and end."""
        order = np.argsort(self.columns.astype(np.min_scalar_type(self.units)), kind="stable")  # small: a radix sort
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))[order]
        return rows, self.values[torch.from_numpy(order)], _ends(np.bincount(self.columns, minlength=self.units))


def _ends(sizes: np.ndarray) -> np.ndarray:
    """0, and where runs of these sizes end."""
    return np.concatenate([[0], np.cumsum(sizes)])


def _sums(matrix: Tensor, rows: np.ndarray, weights: Tensor, starts: np.ndarray) -> Tensor:
    """Weighted sums of `rows` of a matrix, from each start to the next."""
    made: Tensor = torch.embedding_bag(
        matrix,
        torch.from_numpy(rows),
        torch.from_numpy(starts),
        mode=0,
        per_sample_weights=weights,
        include_last_offset=True,
    )[0]
    return made
