"""Spikes as tokens: every spike of a window one token, a unit and a bin, in order of bin and then of unit.

A count of c is c tokens, so that windows of counts and sequences of tokens are the same thing written in two ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline_lib.trains.store import Trains


@dataclass(frozen=True)
class Tokens:
    """Sequences of M windows, S the tokens of the longest (at least 1).

    Attributes
    ----------
    unit, bin : int64 [M, S]; 0 where there is no token.
    real : bool [M, S], where there is one: the first `count` of a row.
    count : tokens of each window, int64 [M].
    cut : how many tokens a limit has cut off, all windows together.
    """

    unit: Tensor
    bin: Tensor
    real: Tensor
    count: Tensor
    cut: int = 0

    def following(self, no_bin: int, no_unit: int) -> tuple[Tensor, Tensor]:
        """Bin and unit of the token after the start and after each token [M, 1 + S]; `no_bin`, `no_unit`: the end."""
        bins, units = self.bin.masked_fill(~self.real, no_bin), self.unit.masked_fill(~self.real, no_unit)
        end = torch.ones_like(self.count)[:, None]
        return torch.cat([bins, no_bin * end], 1), torch.cat([units, no_unit * end], 1)

    @property
    def goes_on(self) -> Tensor:
        """Whether a token follows the start and each token, bool [M, 1 + S]."""
        return torch.cat([self.real, torch.zeros_like(self.real[:, :1])], 1)


def pack(
    window: Tensor, bin: Tensor, unit: Tensor, windows: int, limit: int | None = None, latest: bool = False
) -> Tokens:
    """Sequences of events that are sorted by window, bin and unit.

    Parameters
    ----------
    window, bin, unit : int64 [spikes].
    windows : how many windows there are, silent ones included.
    limit : tokens of a window, at most: the first of them, or the `latest`; what is cut off is counted.
    """
    count = torch.bincount(window, minlength=windows)
    slot = torch.arange(len(window), device=window.device) - (count.cumsum(0) - count)[window]
    cut = 0
    if limit is not None:
        spare = (count - limit).clamp(min=0)
        if latest:
            slot = slot - spare[window]
        kept = (slot >= 0) & (slot < limit)
        window, bin, unit, slot = window[kept], bin[kept], unit[kept], slot[kept]
        count, cut = count - spare, int(spare.sum())
    longest = max(int(count.max()) if windows else 0, 1)
    place = window * longest + slot
    table = torch.zeros(2, windows * longest, dtype=torch.int64, device=window.device)
    table[0, place], table[1, place] = unit, bin
    units, bins = table.view(2, windows, longest)
    real = torch.arange(longest, device=window.device) < count[:, None]
    return Tokens(units, bins, real, count, cut)


def tokens_of_counts(counts: Tensor, limit: int | None = None, latest: bool = False) -> Tokens:
    """Sequences of windows of counts [M, bins, units]; `limit` and `latest` as for `pack`."""
    window, bin, unit = counts.nonzero(as_tuple=True)
    times = counts[window, bin, unit]
    if len(times) and int(times.max()) > 1:
        window, bin, unit = (index.repeat_interleave(times.long()) for index in (window, bin, unit))
    return pack(window, bin, unit, len(counts), limit, latest)


def tokens_of_trains(
    trains: Trains, start_ticks: np.ndarray, bins: int, bin_ticks: int, limit: int | None = None
) -> Tokens:
    """Sequences of the windows of a session, straight from its integer events.

    Parameters
    ----------
    start_ticks : int64 [M], sorted; windows may overlap.
    bins, bin_ticks : of a window, and ticks of 10 us in a bin.
    limit : as for `pack`.
    """
    starts = np.asarray(start_ticks, dtype=np.int64)
    bounds = np.searchsorted(trains.ticks, np.stack([starts, starts + bins * bin_ticks]).astype(trains.ticks.dtype))
    count = bounds[1] - bounds[0]
    total, ends = int(count.sum()), np.cumsum(count)
    whole = total and np.array_equal(bounds[0, 1:], bounds[1, :-1])
    event: slice | np.ndarray = slice(int(bounds[0, 0]), int(bounds[1, -1])) if whole else np.arange(total)
    if isinstance(event, np.ndarray):
        event += np.repeat(bounds[0] - (ends - count), count)
    # One number a spike, (window, bin, unit): sorting it sorts the units within a bin, and by bins it is sorted.
    key = trains.ticks[event] - np.repeat(starts - np.arange(len(starts)) * (bins * bin_ticks), count)
    key //= bin_ticks
    units = np.int64(trains.n_units)
    key *= units
    key += trains.unit[event]
    key.sort(kind="stable")
    cell, unit = np.divmod(key, units)
    window = np.repeat(np.arange(len(starts)), count)
    cell -= window * bins
    return pack(torch.from_numpy(window), torch.from_numpy(cell), torch.from_numpy(unit), len(starts), limit)
