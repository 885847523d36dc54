"""Where couplings start: at what the background leaves unexplained, not at random.

A coupling is a product of three weights: what units send, a filter, what units receive. From small random ones the
likelihood has next to no slope, the penalty on their norms has its full slope, and the more units share the likelihood
the more couplings are driven to zero before they are found, and stay there. Reduced-rank regression says where to
start: the directions in which the senders' filtered spikes and the receivers' residuals correlate most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.models.glm_transformer.filters import filter_units
from pipeline_lib.models.glm_transformer.session import START

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.network import GLMTransformer
    from pipeline_lib.training.batches import Batch


@torch.no_grad()
def align_couplings(network: GLMTransformer, session: str, batches: Iterable[Batch]) -> None:
    """Turn the couplings of a session the way of the residuals in its training windows.

    Loadings start with norm 1, so that no few steps can turn them elsewhere, and filters with norm `START`.
    """
    head, rank = network.head(session), network.config.rank
    found = correlations(network, session, batches)
    for sender, receiver in head.coupled.nonzero().tolist():
        rows, columns = (head.area == area for area in (sender, receiver))
        block = found[:, rows][:, :, columns]  # [functions, N of the sender, N of the receiver]
        sides, sizes, receive = torch.linalg.svd(block.flatten(0, 1), full_matrices=False)
        for factor in range(min(rank, len(sizes))):
            shape, _, send = torch.linalg.svd(sides[:, factor].view(block.shape[:2]), full_matrices=False)
            sent, received = (torch.where(each.sum() < 0, -each, each) for each in (send[0], receive[factor]))
            # Both loadings point up, so the filter takes their signs.
            sign = (send[0] @ sent).sign() * (receive[factor] @ received).sign()
            head.shape[sender, receiver, :, factor] = START * sign * shape[:, 0]
            head.send[rows, receiver, factor] = sent
            head.receive[columns, sender, factor] = received


def correlations(network: GLMTransformer, session: str, batches: Iterable[Batch]) -> Tensor:
    """Of filtered spikes (sender) and residuals (receiver), by coupling function: [functions, N, N].

    None of a unit with itself: that is for its history to explain.
    """
    network.eval()
    basis = network.coupling_basis
    units = len(network.head(session).area)
    products = basis.new_zeros(basis.shape[1], units, units)
    power, expected = basis.new_zeros(basis.shape[1], units), basis.new_zeros(units)
    for batch in batches:
        inputs, observed = network.inputs(batch), batch.observed[:, batch.history :]
        rates = network.sum_of_parts(batch).exp() * observed
        residual = (batch.counts[:, batch.history :] * observed - rates).flatten(0, 1)
        expected += rates.sum((0, 1))
        for function, kernel in enumerate(basis.T):
            past = filter_units(inputs, kernel[:, None].expand(-1, units), batch.history).flatten(0, 1)
            products[function] += past.T @ residual
            power[function] += past.square().sum(0)
    scale = (power[:, :, None] * expected).sqrt()
    return torch.where(scale > 0, products / scale, 0.0) * (1 - torch.eye(units, device=basis.device))
