"""The weights of a session: a row a unit, whatever populations the units belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.settings import Config

START = 0.1
"""Standard deviation with which coupling starts."""
DIP = -1.0
"""History weights start here: a spike makes the next one less likely."""


class Session(nn.Module):
    """What belongs to one session. N units in A populations (of the cohort), K coupling factors a pair, F factors.

    Weights
    -------
    embed [N, width], embed_bias [A or 1, width] : counts to tokens.
    readout [N, F], bias [N] : background factors to log-rates; gain [N] : with `background: gain` only.
    response [A, F, splines + 1] : the factors that are the same in every trial; with `compat` the network has one.
    send [N, A, K] : of the unit to each population; receive [N, A, K] : of the unit from each population.
    shape [A, A, functions, K] : filter from (first) to (second) population.
    history [functions, N] : of the unit's own past.
    level [A], coupled [A, A] : usual spikes of a population in a bin, 1 for pairs that are coupled; not trained.
    order [N] : the units, population by population, `sizes` of each.
    """

    area: Tensor
    order: Tensor
    member: Tensor
    level: Tensor
    coupled: Tensor

    def __init__(self, population: Sequence[str], areas: Sequence[str], config: Config) -> None:
        super().__init__()
        units, number, rank = len(population), len(areas), config.rank
        area = torch.tensor([areas.index(name) for name in population])
        member = nn.functional.one_hot(area, number).to(torch.get_default_dtype())
        present = member.any(0)
        self.sizes: list[int] = torch.bincount(area, minlength=number).tolist()
        self.register_buffer("area", area, persistent=False)
        self.register_buffer("order", area.argsort(stable=True), persistent=False)
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("level", torch.zeros(number))
        self.register_buffer("coupled", coupled_pairs(present, config.coupling))
        streams = number if config.area_specific else 1
        inputs = member.sum(0)[area] if config.area_specific else torch.full((units,), float(units))
        self.embed = nn.Parameter(uniform(units, config.width) / inputs.sqrt()[:, None])
        self.embed_bias = nn.Parameter(uniform(streams, config.width) / math.sqrt(units / streams))
        self.readout = nn.Parameter(uniform(units, config.factors) / math.sqrt(config.factors))
        self.bias = nn.Parameter(uniform(units) / math.sqrt(config.factors))
        response = torch.zeros(number, config.factors, config.splines + 1)
        self.response = None if config.compat else nn.Parameter(response)
        self.gain = nn.Parameter(torch.zeros(units)) if config.background == "gain" else None
        size = START / (member.sum(0)[area] * rank).sqrt()[:, None, None]
        self.send = nn.Parameter(torch.randn(units, number, rank) * size)
        self.receive = nn.Parameter(torch.randn(units, number, rank) * size)
        self.shape = nn.Parameter(START * torch.randn(number, number, config.coupling_basis, rank))
        self.history = nn.Parameter(torch.full((config.history_basis, units), DIP))

    def start_at(self, mean: Tensor) -> None:
        """Start from the mean spikes a bin `mean` [N], above 0."""
        with torch.no_grad():
            self.bias.copy_(mean.log())
            self.level.copy_(mean @ self.member)

    def activity(self, counts: Tensor, visible: Tensor) -> Tensor:
        """Log of the spikes of a unit's population in each window, relative to the usual in what is `visible`: [B, N].

        Both arguments are [B, T, N]. A spike is added to both, so that a silent window has an activity too.
        """
        share = visible.sum(1).to(counts.dtype) @ self.member / self.member.sum(0).clamp(min=1)
        spikes, usual = counts.sum(1) @ self.member, self.level * share
        return ((spikes + 1) / (usual + 1)).log()[:, self.area]

    @property
    def present(self) -> Tensor:
        """Bool [A]: populations of this session."""
        return self.member.any(0)

    def sending(self) -> Tensor:
        """Counts to coupling factors [N, P], the P = A A K columns those of (sender, receiver, factor)."""
        return (self.member[:, :, None, None] * self.send[:, None]).flatten(1)

    def receiving(self) -> Tensor:
        """Coupling factors to log-rates [P, N], the rows as the columns of `sending`."""
        pairs = self.member[:, None, :, None] * self.receive[:, :, None]
        return pairs.flatten(1).T

    def loadings(self) -> Tensor:
        """Background factors [A F] of all populations to log-rates: [A F, N]."""
        return (self.member[:, :, None] * self.readout[:, None]).flatten(1).T

    def sparsity(self, everywhere: bool) -> Tensor:
        """Sum over pairs of populations of the mean norm of a unit's weights, sending and receiving.

        `everywhere` counts the weights of pairs that are not coupled, as the public code does.
        """
        coupled = torch.ones_like(self.coupled) if everywhere else self.coupled
        share = self.member / self.member.sum(0).clamp(min=1)
        out = torch.einsum("ni,ij,nj->", share, coupled, self.send.norm(dim=2))
        back = torch.einsum("nj,ij,ni->", share, coupled, self.receive.norm(dim=2))
        return out + back

    @torch.no_grad()
    def normalise(self) -> None:
        """Give the weights of each pair and factor norm 1 and a mean above 0, and their size to the filter."""
        for weights, order in ((self.send, "ni,njk->ijk"), (self.receive, "nj,nik->jik")):
            norm = torch.einsum(order, self.member, weights.square()).sqrt()
            sign = torch.where(torch.einsum(order, self.member, weights) < 0, -1.0, 1.0)
            scale = torch.where(norm > 0, norm * sign, 1.0)
            weights.div_(scale[self.area])
            self.shape.mul_((scale if weights is self.send else scale.transpose(0, 1))[:, :, None])


def coupled_pairs(present: Tensor, coupling: str) -> Tensor:
    """1 for the ordered pairs of populations that are coupled, else 0: [A, A]."""
    pairs = (present[:, None] & present).to(torch.get_default_dtype())
    if coupling == "none":
        return torch.zeros_like(pairs)
    return pairs - torch.diag(pairs.diag()) if coupling == "between" else pairs


def uniform(*shape: int) -> Tensor:
    """Uniform within 1 of 0."""
    return 2 * torch.rand(shape) - 1
