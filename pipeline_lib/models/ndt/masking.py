"""What is hidden from the network in a training step, and what it is scored on.

Modes: `timestep` hides bins of all units and `element` single counts (Ye & Pandarinath 2021); `neuron` hides units,
`causal` the last bins, `intra_region` some units of a region while all other regions are hidden too, and
`inter_region` a whole region (Zhang et al. 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.training.noise import uniform
from pipeline_lib.training.schedule import ramp

if TYPE_CHECKING:
    from pipeline_lib.models.ndt.settings import Config
    from pipeline_lib.training.batches import Batch


def mask_batch(batch: Batch, mode: str, config: Config, width: int, region: Tensor) -> tuple[Tensor, Tensor]:
    """Counts that the network is shown, and which entries it is scored on.

    Held-out units, forward bins and what was not observed are always shown as zeros; held-out units and forward bins
    are always scored where they are known, which is in training.

    Parameters
    ----------
    batch : windows.
    mode : how to mask.
    config : shares.
    width : of a mask, bins.
    region : code of each unit's region, int64 [N].

    Returns
    -------
    inputs : [B, L, N], of the type of the counts.
    scored : bool [B, L, N].
    """
    hidden, target = choose(batch, mode, config.mask_ratio, width, region)
    inputs = batch.counts * batch.visible
    if mode in ("timestep", "element"):
        inputs = corrupt(inputs, hidden, config)
    else:
        inputs = inputs.masked_fill(hidden, 0)
    scored = batch.observed & (target | ~batch.visible)
    scored[:, : batch.history] = False
    return inputs, scored


def show_all(batch: Batch) -> tuple[Tensor, Tensor]:
    """As `mask_batch`, where nothing is masked and everything scored."""
    scored = batch.observed.clone()
    scored[:, : batch.history] = False
    return batch.counts * batch.visible, scored


def draw_width(config: Config, step: int) -> int:
    """Bins in a mask: 1, or with a probability that is ramped up during training uniform on 1 ... `mask_span`."""
    wide = config.mask_span > 1 and torch.rand(()).item() < ramp(step, *config.span_ramp)
    return int(torch.randint(1, config.mask_span + 1, ()).item()) if wide else 1


def choose(batch: Batch, mode: str, ratio: float, width: int, region: Tensor) -> tuple[Tensor, Tensor]:
    """Entries to hide and, among them, entries to score: two bool tensors that broadcast to [B, L, N]."""
    windows, bins, units = batch.counts.shape
    device = batch.counts.device
    if mode in ("timestep", "element"):
        chosen = uniform((windows, bins, units if mode == "element" else 1), device) < ratio / width
        chosen = widen(chosen, width)
        return chosen, chosen
    if mode == "causal":
        last = (batch.bins - batch.history) * (1 - ratio) + batch.history
        chosen = (torch.arange(bins, device=device) >= last[:, None])[:, :, None]
        return chosen, chosen
    neurons = uniform((windows, 1, units), device) < ratio
    if mode == "neuron":
        return neurons, neurons
    inside = region == region[(uniform((windows, 1), device) * units).long()][:, None]
    if mode == "inter_region":
        return inside, inside
    return neurons | ~inside, neurons & inside


def widen(chosen: Tensor, width: int) -> Tensor:
    """Each chosen bin of [B, T, K] becomes `width` consecutive ones, centred on it (one more before if even)."""
    if width == 1:
        return chosen
    series = functional.pad(chosen.transpose(1, 2).float(), (width - 1 - (width - 1) // 2, (width - 1) // 2))
    return functional.max_pool1d(series, width, stride=1).transpose(1, 2) > 0


def corrupt(counts: Tensor, hidden: Tensor, config: Config) -> Tensor:
    """Of the hidden entries make a share zero, replace a share by random counts and leave the others as they are.

    A random count is that of the same unit at another place of the batch. In the public code it is uniform below the
    largest count of the batch, which `compat` reproduces; so is the drawing of an entry's fate for each unit.
    """
    if config.mask_token_ratio == 1 and not config.compat:
        return counts.masked_fill(hidden, 0)
    hidden = hidden.expand(counts.shape)
    fate_shape = counts.shape if config.compat else (*counts.shape[:2], 1)
    zero = hidden & (torch.rand(fate_shape, device=counts.device) < config.mask_token_ratio)
    random = hidden & ~zero & (torch.rand(fate_shape, device=counts.device) < config.mask_random_ratio)
    if config.compat:
        other = torch.randint(max(int(counts.max()), 1), counts.shape, device=counts.device).to(counts.dtype)
    else:
        places = counts.shape[0] * counts.shape[1]
        shift = torch.randint(places, counts.shape[2:], device=counts.device)
        source = (torch.arange(places, device=counts.device)[:, None] + shift) % places
        other = counts.reshape(places, -1).gather(0, source).view(counts.shape)
    return torch.where(random, other, counts.masked_fill(zero, 0))
