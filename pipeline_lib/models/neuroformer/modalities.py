"""What windows attend to besides spikes, as tokens: frames of the stimulus, and signals such as running speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.neuroformer.layers import Block, Rows, initialise
from pipeline_lib.models.neuroformer.windows import Cut, slices

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.settings import Config


class FrameEncoder(nn.Module):
    """The last frames before the end of a window, cut into patches that know their place and their age.

    Parameters
    ----------
    size : height and width of a frame, pixels; what patches leave over at its lower and right edge is not seen.
    step : bins from a frame to the next.
    """

    def __init__(self, config: Config, size: tuple[int, int], step: int) -> None:
        super().__init__()
        width, kernel = config.width, config.frame_kernel
        self.kernel, self.frames, self.step = kernel, config.frames, step
        patches = (size[0] // kernel[0]) * (size[1] // kernel[1])
        self.patch = nn.Linear(kernel[0] * kernel[1], width)
        self.norm = nn.LayerNorm(width)
        self.age, self.place = nn.Embedding(self.frames, width), nn.Embedding(patches, width)
        blocks = (Block(width, config.heads, config.dropout) for _ in range(config.layers_frames))
        self.blocks = nn.ModuleList(blocks)
        initialise(self)

    def forward(self, grid: Tensor, cut: Cut) -> Tensor:
        """Tokens [M, frames x patches, width] of every window.

        Parameters
        ----------
        grid : uint8 [B, G, height, width], the frame on the screen every `step` bins, from `frames` - 1 steps before
            the first bin of a sample on.
        cut : where the windows lie.
        """
        samples, windows = len(grid), len(cut.start)
        pieces = functional.unfold(grid.flatten(0, 1)[:, None].float() / 127.5 - 1, self.kernel, stride=self.kernel)
        patches = self.norm(self.patch(pieces.transpose(1, 2))) + self.place.weight
        patches = patches.view(samples, grid.shape[1], *patches.shape[1:])
        last = (cut.start + cut.width.view(samples, windows) - 1).clamp(min=0) // self.step
        index = (last[..., None] + torch.arange(self.frames, device=grid.device)).clamp(max=grid.shape[1] - 1)
        tokens = patches[torch.arange(samples, device=grid.device)[:, None, None], index] + self.age.weight[:, None]
        x = tokens.flatten(2, 3).flatten(0, 1)
        rows = Rows(*x.shape[:2])
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x, rows, cast(Block, block).pair(x, rows), None)
        return rows.spread(x)


class SignalEncoder(nn.Module):
    """Standardised signals, a token a signal and step of a window's length, the past included.

    Each value goes through a small network of its own signal; a value that is not known is left out.
    """

    def __init__(self, width: int, signals: int, bins: int, past: int) -> None:
        super().__init__()
        self.bins, self.steps = bins, 1 + past // bins
        self.hidden = nn.Linear(1, width)
        self.out = nn.Linear(width, width)
        self.signal, self.step = nn.Embedding(signals, width), nn.Embedding(self.steps, width)
        initialise(self)
        nn.init.normal_(self.hidden.weight)

    def forward(self, values: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        """Tokens [M, steps x signals, width] of standardised `values` [B, L, signals], NaN unknown; which are real."""
        past = (self.steps - 1) * self.bins
        known = slices(values.isfinite().float(), cut, self.bins, past).unflatten(1, (self.steps, self.bins)).sum(2)
        total = slices(values.nan_to_num(), cut, self.bins, past).unflatten(1, (self.steps, self.bins)).sum(2)
        means = (total / known.clamp(min=1))[..., None]
        x = self.out(functional.gelu(self.hidden(means))) + self.signal.weight + self.step.weight[:, None]
        return x.flatten(1, 2), (known > 0).flatten(1, 2)


class Contrast(nn.Module):
    """Draws features of the same window together and those of other windows apart (Radford et al. 2021).

    Every feature has a projection of its own to unit length; the loss is symmetric, its temperature learned.
    """

    def __init__(self, names: tuple[str, ...], inner: int, width: int, temperature: float) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(inner, width) for name in names})
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def features(self, pooled: dict[str, Tensor]) -> dict[str, Tensor]:
        """Unit vectors [M, width] of the pooled features [M, inner]."""
        return {
            name: functional.normalize(projection(pooled[name]), dim=-1)
            for name, projection in self.projections.items()
        }

    def forward(self, pooled: dict[str, Tensor], kept: Tensor) -> Tensor:
        """Mean over pairs of features and both directions of the cross-entropy, nats, over the windows `kept` [M]; of
        none, 0."""
        vectors = [vector[kept] for vector in self.features(pooled).values()]
        target = torch.arange(int(kept.sum()), device=kept.device)
        temperature = self.log_temperature.exp().clamp(min=0.01)
        losses = []
        for first in range(len(vectors)):
            for second in range(first + 1, len(vectors)):
                logits = vectors[first] @ vectors[second].T / temperature
                losses += [functional.cross_entropy(each, target, reduction="sum") for each in (logits, logits.T)]
        return torch.stack(losses).mean() / max(len(target), 1)


def pooled(x: Tensor, window: Tensor, windows: int) -> Tensor:
    """Mean over the real tokens `x` [R, width] of each window; `window` [R] says whose they are: [M, width]."""
    total = x.new_zeros(windows, x.shape[1]).index_add(0, window, x)
    return total / torch.bincount(window, minlength=windows).clamp(min=1)[:, None]
