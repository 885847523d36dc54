"""What belongs to a session in LFADS: its units' read-in and read-out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline_lib.models.lfads.concealment import learned_from
from pipeline_lib.models.lfads.settings import Config

if TYPE_CHECKING:
    from pipeline_lib.models.lfads.alignment import Alignment
    from pipeline_lib.training.batches import Batch, Windows


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Weights N(0, 1 / inputs), bias 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


class Head(nn.Module):
    """What belongs to a session: its units' read-in and read-out, means of counts and signals."""

    mean: Tensor
    heldin: Tensor
    signal_mean: Tensor
    signal_sd: Tensor

    def __init__(self, units: int, heldin: list[int], config: Config, width: int | None) -> None:
        super().__init__()
        self.all = len(heldin) == units
        self.read_in = None if width is None else linear(len(heldin), width)
        self.read_out = linear(config.factors, units)
        self.log_variance = nn.Parameter(torch.zeros(units)) if config.observation == "gaussian" else None
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("heldin", torch.tensor(heldin), persistent=False)
        self.register_buffer("signal_mean", torch.zeros(len(config.signals)))
        self.register_buffer("signal_sd", torch.ones(len(config.signals)))

    @torch.no_grad()
    def start_at(self, windows: Windows, signals: str | None) -> None:
        """Start units at the mean of the counts to learn from, and scale the input `signals` of the batches, if any."""
        mean = windows.mean_counts(learned_from)
        self.mean.copy_(mean)
        if self.log_variance is None:
            self.read_out.bias.copy_(mean.log())
        else:
            self.read_out.bias.copy_(mean)
            self.log_variance.copy_(mean.log())
        if signals is not None:
            known = [_known(batch, signals) for batch in windows.pieces()]
            number, total, squares = (sum(each) for each in zip(*known, strict=True))
            self.signal_mean.copy_(total / number.clamp(min=1))
            variance = squares / number.clamp(min=1) - self.signal_mean.double().square()
            self.signal_sd.copy_(torch.where(variance > 0, variance, 1.0).sqrt())

    @torch.no_grad()
    def start_from(self, alignment: Alignment) -> None:
        """Read in and out as `alignment` has it; factors beyond its latents keep their random read-out."""
        assert self.read_in is not None
        weight = self.read_out.weight
        self.read_in.weight.copy_(torch.as_tensor(alignment.read_in.T))
        self.read_in.bias.copy_(torch.as_tensor(alignment.offset))
        width = min(weight.shape[1], len(alignment.read_out))
        weight[:, :width] = torch.as_tensor(alignment.read_out[:width].T).to(weight)

    @property
    def inputs(self) -> Tensor | None:
        """Rows of the held-in units, None where that is all."""
        return None if self.all else self.heldin


def _known(batch: Batch, signals: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of signals [B, L, E] inside the windows: how many are known, their sum and the sum of their squares, each [E]."""
    values = batch.inputs[signals].double()
    inside = torch.arange(values.shape[1], device=values.device) < batch.bins[:, None]
    known = torch.isfinite(values) & inside[:, :, None]
    values = torch.where(known, values, 0.0)
    return known.sum((0, 1)), values.sum((0, 1)), values.square().sum((0, 1))
