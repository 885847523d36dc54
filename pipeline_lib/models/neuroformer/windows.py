"""Samples of a batch, cut into the windows that are written as sequences, each with its past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.models.neuroformer.tokens import Tokens, tokens_of_counts
from pipeline_lib.training.batches import Batch


@dataclass(frozen=True)
class Cut:
    """Where the windows of a batch lie: K windows of W bins a sample, M = B K windows in all, sample by sample.

    Attributes
    ----------
    start : first bin of each of the K windows in its sample, history included, int64 [K].
    width : bins of each window that lie inside its sample, int64 [M].
    """

    start: Tensor
    width: Tensor


@dataclass(frozen=True)
class Windows:
    """Tokens of M windows and of their past; units are rows of the held-in units.

    Attributes
    ----------
    now, past : tokens; bins count from the start of the window, and from the start of its past.
    cut : where the windows lie.
    counts : the counts behind `now` [M, bins, N].
    seen : bool [M, N], False for a unit that was not observed in the whole window; None: all were.
    """

    now: Tokens
    past: Tokens
    cut: Cut
    counts: Tensor
    seen: Tensor | None


def cut_batch(batch: Batch, bins: int, offset: int = 0) -> Cut:
    """Cut samples into windows of `bins` bins, from bin `offset` of each on; the last may be shorter."""
    length = batch.counts.shape[1]
    start = torch.arange(batch.history + offset, max(length, batch.history + offset + 1), bins)
    start = start.to(batch.bins.device)
    width = (batch.bins[:, None] - start).clamp(0, bins)
    return Cut(start, width.flatten())


def read_windows(batch: Batch, heldin: Tensor, cut: Cut, bins: int, past: int, limit: int | None = None) -> Windows:
    """The tokens of all windows of a batch.

    Parameters
    ----------
    heldin : rows of the units that are tokens.
    cut : see `cut_batch`.
    bins, past : bins of a window, and of its past.
    limit : tokens of a window and of its past, at most.
    """
    counts = batch.counts * batch.visible
    everyone = len(heldin) == counts.shape[2]
    pieces = slices(counts if everyone else counts[:, :, heldin], cut, bins, past)
    observed = batch.observed if everyone else batch.observed[:, :, heldin]
    seen = None
    if not bool(observed.all()):
        inside = torch.arange(bins, device=counts.device) < cut.width[:, None]
        seen = (slices(observed, cut, bins, 0) | ~inside[:, :, None]).all(1)
        pieces = torch.cat([pieces[:, :past], pieces[:, past:] * seen[:, None]], 1)
    now, before = tokens_of_counts(pieces[:, past:], limit), tokens_of_counts(pieces[:, :past], limit, latest=True)
    return Windows(now, before, cut, pieces[:, past:], seen)


def slices(values: Tensor, cut: Cut, bins: int, past: int) -> Tensor:
    """Values [B, L, ...] of every window and the `past` bins before it: [M, past + bins, ...], 0 past the end."""
    missing = max(0, int(cut.start[-1]) + bins - values.shape[1])
    if missing:
        values = functional.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))
    first = int(cut.start[0]) - past
    pieces = values[:, first : int(cut.start[-1]) + bins].unfold(1, past + bins, bins)  # [B, K, ..., past + bins]
    return pieces.movedim(-1, 2).flatten(0, 1)


def window_targets(values: Tensor, cut: Cut, bins: int, last: Sequence[bool]) -> Tensor:
    """Of values [B, L, C] (NaN: unknown) the mean over each window [M, C], or where `last` [C] the last value."""
    pieces = slices(values, cut, bins, 0)
    inside = torch.arange(bins, device=values.device) < cut.width[:, None]
    pieces = pieces.masked_fill(~inside[..., None], torch.nan)
    final = pieces[torch.arange(len(pieces), device=values.device), (cut.width - 1).clamp(min=0)]
    return torch.where(torch.tensor(last, device=values.device), final, pieces.nanmean(1))
