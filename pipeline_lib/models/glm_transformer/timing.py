"""Does a spike here change the rate there within milliseconds? A test of couplings that common input does not pass.

Populations that a stimulus or the animal's state drives together look coupled, and trials at random for a null do not
help: the common drive is the trial's own. What sets a coupling apart is its timing. The background is read off tokens
of some 20 ms; what happens within a token, beyond a linear trend, only a coupling explains. So the null hypothesis is
that the sender's deviations from the trend of each token have no particular direction in time: interval jitter
(Amarasingham et al. 2012, J Neurophysiol 107:517) with a trend taken out, as a rotation test (Langsrud 2005, Stat
Comput 15:53). The score of a coupling is bilinear in the sender's counts and the receiver's residuals, so its mean and
variance over all rotations are known and nothing need be drawn.

No spike of a unit is counted for a coupling of the unit to itself: that is what its history is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.glm_transformer.filters import filter_back
from pipeline_lib.models.glm_transformer.inference import residuals

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.network import GLMTransformer
    from pipeline_lib.training.batches import Batch

TREND = 2
"""Numbers that describe the trend of a token: its mean and its slope."""


@torch.no_grad()
def timing_test(network: GLMTransformer, batches: Iterable[Batch]) -> np.ndarray:
    """How many standard deviations the score of each coupling lies above chance: float64 [sender, receiver].

    Standard normal where there is no coupling (`scipy.stats.norm.sf` is the p-value); NaN where nothing can be said,
    for tokens of less than four bins too. `batches` : windows of one session that the couplings were not fitted to.
    """
    areas, bins = len(network.areas), network.token_bins
    score = np.zeros((areas, areas))
    variance = np.zeros((areas, areas))
    if bins < TREND + 2:
        return np.full((areas, areas), np.nan)
    for batch in batches:
        head = network.head(batch.session)
        inputs = network.inputs(batch)
        sent = (inputs @ head.sending())[:, batch.history :].unflatten(2, (areas, areas, -1))
        kernels = network.coupling_kernels(head)
        for sender, residual, _ in residuals(network, batch):
            weights = head.member[:, :, None] * head.receive[:, sender, None]  # [N, receiver, K]
            wanted = filter_back(residual @ weights.flatten(1), kernels[:, sender].flatten(1)).unflatten(2, (areas, -1))
            for receiver in head.coupled[sender].nonzero().flatten().tolist():
                pairs = _within(sent[:, :, sender, receiver], wanted[:, :, receiver], bins)
                if sender == receiver:
                    pairs = pairs - _own(network, batch, inputs, residual, sender)
                score[sender, receiver] += pairs.diagonal(dim1=-2, dim2=-1).sum().item()
                variance[sender, receiver] += pairs.square().sum().item() / (bins - TREND)
    with np.errstate(invalid="ignore"):  # a variance of 0 is of scores that are 0, too
        return score / np.sqrt(variance)


def _own(network: GLMTransformer, batch: Batch, inputs: Tensor, residual: Tensor, area: int) -> Tensor:
    """The part of `_within` that every unit of a population makes up with its own residuals."""
    head = network.head(batch.session)
    units = (head.area == area).nonzero().flatten()
    counts, missed = inputs[:, batch.history :, units], residual[..., units]
    parts = []
    for factor in range(network.config.rank):
        kernel = network.coupling_kernels(head)[:, area, area, factor, None].expand(-1, len(units))
        scale = head.send[units, area, factor] * head.receive[units, area, factor]
        parts.append(_within(counts * scale, filter_back(missed, kernel), network.token_bins))
    return reduce(torch.add, parts)


def _within(sent: Tensor, wanted: Tensor, bins: int) -> Tensor:
    """Products of deviations from the trends of tokens, summed over series: float64 [B, tokens, bins, bins].

    sent, wanted : [B, T, series]; a last token that is not whole is left out.
    """
    time = torch.arange(bins, dtype=torch.float64, device=sent.device)
    trend, _ = torch.linalg.qr(torch.stack([time**power for power in range(TREND)], dim=1))
    rest = torch.eye(bins, dtype=torch.float64, device=sent.device) - trend @ trend.T

    def deviations(series: Tensor) -> Tensor:
        whole = series.shape[1] // bins * bins
        return torch.einsum("st,bnti->bnsi", rest, series[:, :whole].unflatten(1, (-1, bins)).double())

    return deviations(sent) @ deviations(wanted).transpose(2, 3)
