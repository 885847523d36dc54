"""What the weights of a fit say: filters of pairs of units and of populations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.network import GLMTransformer


@torch.no_grad()
def unit_filters(network: GLMTransformer, session: str) -> np.ndarray:
    """What a spike of the sender adds to the log-rate of the receiver: float32 [sender, receiver, lag].

    Lag k is k + 1 bins. The diagonal holds the coupling of a unit to itself and its history.
    """
    head = network.head(session)
    kernels = network.coupling_kernels(head)
    history = network.history_kernels(head)
    lags = max(len(kernels), len(history))
    sent = head.send[:, head.area]  # [sender, receiver, K]: what each sends to the receiver's population
    received = head.receive[:, head.area].transpose(0, 1)
    pairs = kernels[:, head.area][:, :, head.area]
    filters = torch.zeros(len(head.area), len(head.area), lags, dtype=kernels.dtype, device=kernels.device)
    filters[:, :, : len(kernels)] = torch.einsum("lnmk,nmk->nml", pairs, sent * received)
    if "history" in network.terms:
        own = torch.arange(len(head.area), device=kernels.device)
        filters[own, own, : len(history)] += history.T
    return filters.float().cpu().numpy()


@torch.no_grad()
def area_filters(network: GLMTransformer, session: str) -> np.ndarray:
    """Filters of each coupling factor, float32 [sender, receiver, factor, lag], in the order of `network.areas`."""
    kernels = network.coupling_kernels(network.head(session))
    return kernels.permute(1, 2, 3, 0).float().cpu().numpy()
