"""What a score needs to know of the data, summed over the bins of each sample.

Every score of this package is a function of a few sums a sample and unit. A bootstrap over samples is then one product
with a matrix of weights instead of a thousand passes over the data, and a session of any size is read once, in blocks.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from pipeline_lib.errors import InputError

RATE_FLOOR = 1e-9
"""Stands for a rate of exactly 0, as in the Neural Latents Benchmark."""
CONSTANT = 1e-9
"""Of the mean. A truth that varies less (standard deviation) is a constant, whose rounding is no signal."""
BLOCK = 2**21
"""Values handled at once, so that float64 copies stay small whatever the size of the session."""

S = TypeVar("S", bound="Sums")


@dataclasses.dataclass(frozen=True)
class Sums:
    """A dataclass of float64 arrays, all (samples, units)."""

    def __add__(self: S, other: S) -> S:
        """The sums of both, sample by sample."""
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))

    def weighted(self: S, weights: np.ndarray) -> S:
        """Sums over samples (resamples, units), each sample counted `weights` (resamples, samples) times."""
        return self._map(lambda values: weights @ values)

    def total(self: S) -> S:
        """Sums over all samples, (1, units)."""
        return self._map(lambda values: values.sum(axis=0, keepdims=True))

    def units(self: S, rows: np.ndarray) -> S:
        """The sums of these units only, in this order."""
        return self._map(lambda values: values[:, rows])

    def _map(self: S, change: Callable[[np.ndarray], np.ndarray]) -> S:
        return type(self)(*(change(getattr(self, field.name)) for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class PoissonSums(Sums):
    """Over the valid bins of a sample and unit, with y spikes and r expected in a bin."""

    spikes: np.ndarray
    """Sum of y."""
    bins: np.ndarray
    """Number of valid bins."""
    expected: np.ndarray
    """Sum of r."""
    log_expected: np.ndarray
    """Sum of y ln r."""
    log_spikes: np.ndarray
    """Sum of y ln y (0 for y = 0)."""


@dataclasses.dataclass(frozen=True)
class SquareSums(Sums):
    """Over the valid bins of a sample and unit, with true value x, its mean m over all samples, and an estimate."""

    bins: np.ndarray
    """Number of valid bins."""
    error: np.ndarray
    """Sum of (x - estimate)^2."""
    square: np.ndarray
    """Sum of (x - m)^2; 0 where x is constant."""


def poisson_sums(counts: np.ndarray, rates: np.ndarray, mask: np.ndarray | None = None) -> PoissonSums:
    """Sums behind every Poisson score. The inputs, whatever numpy takes for an array, are not changed.

    Parameters
    ----------
    counts : (samples, bins, units), spikes a bin; NaN = not observed.
    rates : the same shape, expected spikes a bin (no spikes/s); may be anything where nothing was observed.
    mask : the same shape, bool; False = not observed.

    Raises
    ------
    InputError : shapes differ or have no three axes, or where a bin was observed a count is negative, or a rate is
        negative, NaN or infinite.

    Examples
    --------
    >>> sums = poisson_sums([[[0], [2]]], [[[0.5], [0.5]]])  # one sample of two bins of one unit
    >>> sums.spikes.tolist(), sums.expected.tolist()
    ([[2.0]], [[1.0]])
    """
    counts, rates, mask = as_arrays(counts, rates, mask)
    parts = []
    for rows in blocks(counts.shape):
        valid = observed(counts[rows], None if mask is None else mask[rows])
        y = np.where(valid, counts[rows], 0).astype(np.float64)
        r = np.where(valid, rates[rows], 0).astype(np.float64)
        if (y < 0).any():
            raise InputError("data", "counts", y[y < 0][0], "spikes a bin, none negative")
        bad = ~np.isfinite(r) | (r < 0)
        if bad.any():
            accepted = "expected counts, finite and not negative, wherever a bin was observed"
            raise InputError("predictions", "rates", r[bad][0], accepted)
        log_rate = np.log(np.where(r == 0, RATE_FLOOR, r))
        r[valid & (r == 0)] = RATE_FLOOR
        y_log_y = y * np.log(np.maximum(y, 1))
        parts.append([values.sum(axis=1, dtype=np.float64) for values in (y, valid, r, y * log_rate, y_log_y)])
    return PoissonSums(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def as_arrays(
    counts: np.ndarray, rates: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The arguments of `poisson_sums` as numpy's arrays; InputError where they are not of one shape of three axes."""
    counts, rates = np.asarray(counts), np.asarray(rates)
    mask = None if mask is None else np.asarray(mask, dtype=bool)
    if not counts.shape == rates.shape == (counts.shape if mask is None else mask.shape):
        found = f"shapes {counts.shape} and {rates.shape}" + ("" if mask is None else f", mask {mask.shape}")
        raise InputError("predictions", "rates", found, "counts, rates and mask of one shape")
    if counts.ndim != 3:
        accepted = "(samples, bins, units); of a recording that is not cut into windows, one sample: counts[None]"
        raise InputError("predictions", "rates", f"shape {counts.shape}", accepted)
    return counts, rates, mask


def square_sums(true: np.ndarray, estimate: np.ndarray, mask: np.ndarray | None = None) -> SquareSums:
    """Sums behind R2; shapes and masks as in `poisson_sums`, a NaN of `true` is not observed.

    Raises
    ------
    InputError : an estimate is NaN or infinite where the truth is known.
    """
    valid = observed(true, mask)
    counted = np.maximum(valid.sum(axis=(0, 1)), 1)
    centre = np.where(valid, true, 0).sum(axis=(0, 1), dtype=np.float64) / counted
    parts = []
    for rows in blocks(true.shape):
        known = valid[rows]
        x = np.where(known, true[rows] - centre, 0)
        error = np.where(known, true[rows] - estimate[rows].astype(np.float64), 0)
        if not np.isfinite(error).all():
            raise InputError(
                "predictions", "rates", error[~np.isfinite(error)][0], "finite wherever the truth is known"
            )
        parts.append([values.sum(axis=1, dtype=np.float64) for values in (known, error**2, x**2)])
    bins, errors, squares = (np.concatenate(column) for column in zip(*parts, strict=True))
    squares[:, squares.sum(axis=0) <= (CONSTANT * centre) ** 2 * counted] = 0
    return SquareSums(bins, errors, squares)


def observed(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Which of `values` count: bool of its shape, False for NaN and where the mask is False."""
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    return known if mask is None else known & mask


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the first axis that hold about `BLOCK` values each; one empty slice for an empty axis."""
    step = max(1, BLOCK // max(1, int(np.prod(shape[1:]))))
    for first in range(0, max(shape[0], 1), step):
        yield slice(first, first + step)
