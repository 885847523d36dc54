"""What the encoders are shown of a batch, and what the reconstruction learns from.

Coordinated dropout (Keshtkaran & Pandarinath 2019; Keshtkaran et al. 2022): a count is either an input or a target,
never both, so that no count can be explained by itself. Whole units can be hidden so, too (as the masking of neurons of
Zhang et al. 2024 does): the encoders then learn to tell units from other units, which is what co-smoothing asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.models.lfads.noise import chosen
from pipeline_lib.models.lfads.spikes import Spikes
from pipeline_lib.training.noise import vectorised

if TYPE_CHECKING:
    from pipeline_lib.models.lfads.settings import Config
    from pipeline_lib.training.batches import Batch

HIDDEN = "sample_validation"
"""The name among a batch's inputs of the entries that are kept for validation, bool [B, L, N]."""


@dataclass(frozen=True)
class Shown:
    """A batch, time first: L bins, B windows, N units of which H are held in.

    Attributes
    ----------
    counts : [L, B, N], as in the batch.
    inputs : counts of the held-in units for the encoders [L, B, H], float; the mean where nothing was observed, and of
        hidden units. `Spikes` where these were asked for and are few.
    scored : entries to learn from, bool [L, B, N].
    worth : how much each of them counts, [L, B, N], so that their sum estimates that over all observed entries.
    present : bool [L, B], bins that the encoders may see; None: all.
    """

    counts: Tensor
    inputs: Tensor | Spikes
    scored: Tensor
    worth: Tensor
    present: Tensor | None


def learned_from(batch: Batch) -> Tensor:
    """Entries of a batch that were observed and are not kept for sample validation, bool [B, L, N]."""
    kept = batch.inputs.get(HIDDEN)
    return batch.observed if kept is None else batch.observed & ~kept[:, : batch.counts.shape[1]]


def kept_counts(batch: Batch) -> Tensor:
    """Entries of a batch that are kept for sample validation and were observed, bool [B, L, N]."""
    kept = batch.inputs[HIDDEN][:, : batch.counts.shape[1]] & batch.observed
    kept[:, : batch.history] = False
    return kept


def conceal(
    batch: Batch,
    config: Config,
    heldin: Tensor | None,
    mean: Tensor,
    forward: int,
    segment: int,
    drop: bool,
    dtype: torch.dtype = torch.float32,
    sparse: bool = False,
) -> Shown:
    """Draw what is shown.

    Parameters
    ----------
    batch : windows.
    config : shares.
    heldin : rows of the held-in units; None: all units are.
    mean : mean counts [N].
    forward : bins at the end of each window that are never inputs.
    segment : bins at the start in which single counts are left alone.
    drop : apply coordinated dropout, and hide units.
    dtype : of the inputs.
    sparse : give the inputs as `Spikes` where that is faster.
    """
    counts, visible = (each.transpose(0, 1).contiguous() for each in (batch.counts, batch.visible))
    scored = batch.observed.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    present = None
    if batch.ragged or forward:
        present = torch.arange(len(counts), device=counts.device)[:, None] < batch.bins - forward
    scored[: batch.history] = False

    def of_heldin(x: Tensor) -> Tensor:
        return x if heldin is None else x[..., heldin]

    inside = of_heldin(visible)
    # A shortcut, but not one worth waiting for a GPU, nor one that members of an ensemble would take together: for them
    # it is False. (`all` is 40 times slower.)
    everything = counts.device.type == "cpu" and not vectorised() and bool(inside.view(torch.uint8).amin())
    shown, known, scale = inside, inside, 1.0
    hidden = batch.inputs.get(HIDDEN)
    if hidden is not None:
        hidden = hidden[:, : len(counts)].transpose(0, 1)
        scored &= ~hidden
        shown = shown & ~of_heldin(hidden)
        scale = 1 / (1 - config.sample_validation)
    single, whole = (config.coordinated_dropout, config.hide_units) if drop else (0.0, 0.0)
    share = single + (1 - single) * whole
    worth = torch.ones_like(mean)
    if share:
        keep = chosen(shown.shape, 1 - single, counts)
        learned = ~keep
        keep[:segment] = learned[:segment] = True
        if whole:
            stays = chosen(shown.shape[1:], 1 - whole, counts)
            known = known & stays
            learned |= ~stays
        if config.pass_rate:
            learned |= chosen(keep.shape, config.pass_rate, counts)
        # What is never an input is always a target. The rest is one as often as it is drawn, and so counts for more.
        target = learned if everything else learned | ~inside
        rare = 1 / (share + (1 - share) * config.pass_rate)
        rows = slice(None) if heldin is None else heldin
        scored[..., rows] &= target
        worth.fill_(rare) if heldin is None else worth.index_fill_(0, heldin, rare)
        if segment or not everything:
            worth = torch.ones_like(counts, dtype=mean.dtype)
            worth[segment:, :, rows] = torch.where(inside[segment:], rare, 1.0).to(mean.dtype)
        shown = shown & keep
        scale = scale / (1 - single)
    # As numbers of a byte, which is quick to multiply; torch 2.11 cannot take the view for several members at once.
    given = of_heldin(counts) * (shown.to(torch.uint8) if vectorised() else shown.view(torch.uint8))
    spikes = Spikes.of(given, scale, dtype) if sparse and everything and not (segment or whole) else None
    if spikes is not None:
        return Shown(counts, spikes, scored, worth.expand(counts.shape), present)
    inputs = given.to(dtype).mul_(scale)
    if single and segment:
        inputs[:segment] *= 1 - single
    if whole or not everything:
        inputs = torch.where(known, inputs, of_heldin(mean).to(dtype))
    return Shown(counts, inputs, scored, worth.expand(counts.shape), present)
