"""How a session is cut into samples and how the samples are split: settings only, no heavy import.

The Snakefile validates the configuration with these definitions before any job starts; `windows.py` and `splits.py`
act on them.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Literal, get_args

from pipeline_lib.clock import TICKS_PER_SECOND, bin_ticks, duration_bins
from pipeline_lib.errors import InputError, suggest

MEMORY_BUDGET = 4 * 2**30
"""Bytes of events, and as many of windows in training, that are resident at once unless the caller says otherwise."""
Mode = Literal["trials", "continuous"]
Scheme = Literal["auto", "trials", "blocks", "column", "file"]
UNREAD = {"trials": ("length",), "continuous": ("before", "after", "align", "conditions")}
"""Keys of windows without a meaning, by the mode."""


@dataclass(frozen=True)
class WindowSettings:
    """A sample is (session, start tick, bins); these settings say where samples lie.

    Durations in seconds, each a whole number of bins; `bin_size` in milliseconds.

    >>> WindowSettings(bin_size=5, history=0.1).history_bins
    20
    >>> WindowSettings(bin_size=5, length=0.501)
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: ...
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    bin_size: float = 5.0
    """Milliseconds in a bin; a multiple of 0.01."""
    mode: Mode = "trials"
    """`trials`: a window a trial, around the event `align`. `continuous`: back-to-back windows of `length`."""
    align: str = "start"
    """Column of the trials table (a time in s) that windows are aligned to."""
    before: float = 0.0
    """Seconds of a trial's window before the event."""
    after: float | None = 1.0
    """Seconds after the event; null: to the trial's stop, so that windows differ in length."""
    length: float = 1.0
    """Seconds of a window in continuous mode."""
    history: float = 0.0
    """Seconds before a window that a model may read; never scored."""
    conditions: tuple[str, ...] | None = None
    """Only the trials of these conditions; null: all."""

    def __post_init__(self) -> None:
        _require_one_of("windows.mode", self.mode, get_args(Mode))
        for name in ("before", "after", "length", "history"):
            seconds = getattr(self, name)
            if seconds is None or (name in UNREAD[self.mode] and seconds == self.__dataclass_fields__[name].default):
                continue
            if name in ("length", "history") and seconds < 0:
                raise InputError("config", f"windows.{name}", seconds, "seconds, not negative")
            duration_bins(seconds, self.bin_size, f"windows.{name}")
        if self.mode == "trials" and self.after is not None and self.before + self.after <= 0:
            raise InputError("config", "windows.after", self.after, f"more than -before ({-self.before} s)")
        if self.mode == "continuous" and self.length <= 0:
            raise InputError("config", "windows.length", self.length, "more than 0 s")

    @property
    def bin_ticks(self) -> int:
        """Ticks of 10 microseconds in a bin."""
        return bin_ticks(self.bin_size)

    @property
    def bins(self) -> int | None:
        """Bins of a window, without its history; None where they go to the trials' stops."""
        lengths = {"length": self.length} if self.mode == "continuous" else {"before": self.before, "after": self.after}
        known = [duration_bins(value, self.bin_size, key) for key, value in lengths.items() if value is not None]
        return sum(known) if len(known) == len(lengths) else None

    @property
    def history_bins(self) -> int:
        """Bins of history before a window."""
        return duration_bins(self.history, self.bin_size, "windows.history")


@dataclass(frozen=True)
class SplitSettings:
    """Which samples and units are for training, for selection (validation) and for the final score (test).

    >>> SplitSettings(fractions=(0.6, 0.2, 0.2), heldout_units=0.25).scheme
    'auto'
    >>> SplitSettings(fractions=(0.6, 0.2, 0.1))
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: ...
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    scheme: Scheme = "auto"
    """`trials`: whole trials at random, stratified by condition. `blocks`: contiguous stretches of time with a gap.
    `column`: as the trials' own column `split` says. `file`: the user's own. `auto`: trials in trials mode, else
    blocks."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Train, validation, test; they sum to 1."""
    block: float = 10.0
    """Seconds of a block (scheme `blocks`)."""
    gap: float | None = None
    """Seconds left out between blocks of different parts; null: the windows' history. Never shorter than that."""
    heldout_units: float | int | str = 0
    """Units that are predicted but never seen (co-smoothing): a fraction below 1 (of at least one unit), a count, or
    the column of the units table that is True for them."""
    forward: float = 0.0
    """Seconds at the end of every window that are predicted but never seen (forward prediction)."""
    file: str | None = None
    """Parquet or CSV with a column `split` and either `trial` (a row of the recording's trials, from 0) or `start` and
    `stop` (s, which hold a window whole); of several sessions, `session` too (scheme `file`)."""
    train_share: float = 1.0
    """Share of the training windows that is used; the others are left out. Validation and test stay as they are, and
    what a smaller share uses a larger one uses too: cohorts that differ in it alone make a scaling curve."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            values = value if isinstance(value, tuple) else (value,)
            if any(isinstance(each, float) and not math.isfinite(each) for each in values):
                raise InputError("config", f"splits.{name}", value, "finite numbers")
        _require_one_of("splits.scheme", self.scheme, get_args(Scheme))
        fractions = self.fractions
        if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise InputError(
                "config", "splits.fractions", list(fractions), "train, validation, test; sum 1, train above 0"
            )
        if self.block * TICKS_PER_SECOND < 1:
            raise InputError("config", "splits.block", self.block, f"at least {1 / TICKS_PER_SECOND:.5f} s")
        if self.gap is not None and self.gap < 0:
            raise InputError("config", "splits.gap", self.gap, "seconds, not negative")
        share = 0 if isinstance(self.heldout_units, str) else self.heldout_units
        if not isinstance(share, Real) or share < 0 or (share >= 1 and share != int(share)):
            accepted = "a fraction below 1, a whole number of units, or the column of the units that marks them"
            raise InputError("config", "splits.heldout_units", share, accepted)
        if self.forward < 0:
            raise InputError("config", "splits.forward", self.forward, "seconds, not negative")
        if self.seed < 0:
            raise InputError("config", "splits.seed", self.seed, "a whole number from 0 on")
        if not 0 < self.train_share <= 1:
            raise InputError("config", "splits.train_share", self.train_share, "a share above 0, at most 1")
        if (self.scheme == "file") != (self.file is not None):
            raise InputError("config", "splits.file", self.file, "a path, together with `scheme: file`")


def _require_one_of(field: str, name: str, known: tuple[str, ...]) -> None:
    """Raise InputError unless `name` is known: in Python no schema has looked at it before."""
    if name not in known:
        raise InputError("config", field, repr(name), suggest(name, known))
