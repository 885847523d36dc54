"""Read-out and negative log-likelihood as one operation.

The rates of a batch are often the largest array of a step (bins x windows x units). They are made in blocks that fit
the cache, and the gradient of a block is taken at once, so that they are never stored.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.lfads.cell import blocks
from pipeline_lib.models.lfads.products import product, rounded
from pipeline_lib.training.members import over_members


def poisson_loss(
    factors: Tensor, weight: Tensor, bias: Tensor, counts: Tensor, scored: Tensor, worth: Tensor, half: bool = False
) -> Tensor:
    """Sum of the Poisson negative log-likelihoods, nats (log y! included), of counts with log-rates from a read-out.

    Parameters
    ----------
    factors : [T, B, F].
    weight, bias : of the read-out, [N, F] and [N].
    counts : [T, B, N], integers.
    scored : entries to sum over, bool [T, B, N].
    worth : the weight of an entry in the sum, [T, B, N].
    half : products in bfloat16.
    """
    loss: Tensor = over_members(_PoissonLoss.apply, factors, weight, bias, counts, scored, worth, half)
    return loss


class _PoissonLoss(torch.autograd.Function):
    """Members of an ensemble, where there are any, are the first axis of all tensors, and have a loss each."""

    @staticmethod
    def forward(
        ctx: Any,
        factors: Tensor,
        weight: Tensor,
        bias: Tensor,
        counts: Tensor,
        scored: Tensor,
        worth: Tensor,
        half: bool,
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad[:3])
        factors_, counts, scored, worth = (each.flatten(-3, -2) for each in (factors, counts, scored, worth))
        total = torch.zeros(factors.shape[:-3], dtype=torch.float64, device=factors.device)
        d_factors = torch.empty_like(factors_) if wanted else None
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for first, stop in blocks(factors_.shape[-2], 4 * bias.numel(), factors.device):
            rows = ..., slice(first, stop), slice(None)
            f = rounded(factors_[rows], half)
            # Types are converted before they are mixed: an operation on two types is several times slower.
            w = scored[rows].view(torch.uint8).to(bias.dtype).mul_(worth[rows])
            y = counts[rows].to(bias.dtype).mul_(w)
            logs = product(f, weight.mT, half).to(bias.dtype).add_(bias.unsqueeze(-2))
            slope = logs.exp().mul_(w)
            total += slope.sum((-2, -1)) - torch.linalg.vecdot(y.flatten(-2), logs.flatten(-2))
            if d_factors is not None:
                slope -= y
                small = rounded(slope, half)
                d_factors[rows] = product(small, weight, half)
                d_weight += product(small.mT, f, half)
                d_bias += slope.sum(-2)
        total += log_factorials(counts, scored, worth)
        if d_factors is not None:
            ctx.save_for_backward(d_factors.view(factors.shape), d_weight, d_bias)
        return total.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        grads = ctx.saved_tensors
        scales = [outer.view(-1, *[1] * (grad.ndim - 1)) if outer.ndim else outer for grad in grads]
        return *(scale * grad for scale, grad in zip(scales, grads, strict=True)), None, None, None, None


def log_factorials(counts: Tensor, scored: Tensor, worth: Tensor) -> Tensor:
    """Weighted sum of log y! over the entries [K, N] that are scored; of members [M, K, N] the sum of each."""
    if counts.device.type != "cpu":
        return (torch.lgamma(counts.to(worth.dtype) + 1) * scored * worth).sum((-2, -1))
    if counts.ndim == 3:
        return torch.stack([log_factorials(*each) for each in zip(counts, scored, worth, strict=True)])
    # Few counts are above 1. A GPU would wait to learn which.
    several = torch.from_numpy(np.flatnonzero(counts.numpy() > 1))  # torch's own is several times slower
    row, column = several // counts.shape[1], several % counts.shape[1]
    counts, scored, worth = (each[row, column] for each in (counts, scored, worth))
    return (torch.lgamma(counts.to(worth.dtype) + 1) * scored * worth).sum()


def gaussian_loss(mean: Tensor, log_variance: Tensor, counts: Tensor, scored: Tensor, worth: Tensor) -> Tensor:
    """Sum of the Gaussian negative log-likelihoods, nats; arguments as above, `log_variance` [N]."""
    square = (counts - mean).square() * torch.exp(-log_variance)
    return (0.5 * (square + log_variance + math.log(2 * math.pi)) * scored * worth).sum()
