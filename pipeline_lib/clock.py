"""The integer clock: one tick is 10 microseconds.

Flooring floating-point seconds into bins puts 1-13 % of the spikes of millisecond- or 30-kHz-grid data into the wrong
bin. Here a time is rounded to a tick once, and every later step is integer arithmetic, so that a spike is in exactly
one bin and five 1-ms bins sum to a 5-ms bin.
"""

import math

import numpy as np

from pipeline_lib.errors import InputError

TICKS_PER_SECOND = 100_000
TICKS_PER_MS = 100
LONGEST = 1e9
"""Seconds (32 years), far beyond which float64 misses ticks and int64 ends."""


def to_ticks(seconds: np.ndarray | float) -> np.ndarray:
    """Seconds (any shape, float) to ticks (int64), by rounding to the nearest."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * TICKS_PER_SECOND).astype(np.int64)


def to_seconds(ticks: np.ndarray | int) -> np.ndarray:
    """Ticks (any shape, integer) to seconds (float64)."""
    return np.asarray(ticks, dtype=np.float64) / TICKS_PER_SECOND


def bin_ticks(bin_size: float) -> int:
    """Ticks in a bin of `bin_size` milliseconds.

    Raises
    ------
    InputError : the bin size is not a positive multiple of 0.01 ms.
    """
    ticks = round(bin_size * TICKS_PER_MS) if math.isfinite(bin_size * TICKS_PER_MS) else 0
    if ticks <= 0 or abs(ticks - bin_size * TICKS_PER_MS) > 1e-6:
        raise InputError("config", "bin_size", bin_size, "a positive multiple of 0.01 (milliseconds)")
    return ticks


def duration_bins(seconds: float, bin_size: float, name: str) -> int:
    """Bins of `bin_size` ms in a duration of `seconds`; `name` is the config key an error would point to.

    Raises
    ------
    InputError : the duration is not a whole number of bins, or longer than any recording.
    """
    if not abs(seconds) <= LONGEST:
        raise InputError("config", name, f"{seconds:g} s", f"at most {LONGEST:g} s")
    ticks, per_bin = int(to_ticks(seconds)), bin_ticks(bin_size)
    if ticks % per_bin:
        accepted = f"a whole number of {bin_size}-ms bins"
        raise InputError("config", name, f"{seconds} s", accepted)
    return ticks // per_bin
