"""What is hidden from a network to see whether it knows it from the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.training.batches import Batch

Masked = Literal["leave_one_out", "intra_region", "inter_region"]
"""Each held-in unit is predicted from all others, from the others of its population, or from other populations."""


def hidden_in_turn(
    batch: Batch, mode: str, population: np.ndarray, heldin: list[int], bins: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a mode hides and scores in each pass of an evaluation, so that every target is predicted once.

    Yields pairs of bool tensors that broadcast to [B, L, N].

    Parameters
    ----------
    mode : see `Masked`; or `causal`, the last `bins` bins.
    population : of each unit [N].
    heldin : rows of the units that are hidden in turn.
    """
    import torch

    device, units = batch.counts.device, len(population)
    if mode == "causal":
        position = torch.arange(batch.counts.shape[1], device=device)
        last = (position >= batch.bins[:, None] - bins) & (position < batch.bins[:, None])
        yield last[:, :, None], last[:, :, None]
        return
    targets = [[unit] for unit in heldin] if mode in ("leave_one_out", "intra_region") else _members(population, heldin)
    for target in targets:
        scored = torch.zeros(units, dtype=torch.bool)
        scored[target] = True
        hidden = scored.clone()
        if mode == "intra_region":
            hidden |= torch.from_numpy(population != population[target[0]])
        if mode == "inter_region":
            hidden |= torch.from_numpy(population == population[target[0]])
        yield hidden.to(device), scored.to(device)


def _members(population: np.ndarray, heldin: list[int]) -> list[list[int]]:
    return [[unit for unit in heldin if population[unit] == name] for name in np.unique(population[heldin])]
