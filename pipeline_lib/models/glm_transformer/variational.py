"""The trial-varying background: a transformer reads a latent off the counts of a trial, decoders make factors of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline_lib.models.ndt.layers import Encoder, Layer

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.settings import Config

SLOWEST = 1000.0
"""The longest wave of the positions, tokens times 2 pi; 10,000 elsewhere."""
TOKENS = 500
"""Positions that there are at least, as published."""
SMALL = 1e-3
"""Share of their usual size with which the last weights of a decoder start."""


class Posterior(nn.Module):
    """Tokens to the mean and log-variance of the latent; one encoder for all populations and sessions.

    Post-norm transformer layers (or, for comparison, recurrent ones), the mean over tokens, and a linear layer.
    """

    position: Tensor

    def __init__(self, config: Config, latents: int, tokens: int = TOKENS) -> None:
        super().__init__()
        self.over_trials = config.compat
        self.recurrent = config.encoder == "gru"
        if self.recurrent:
            both_ways = {"bidirectional": True, "batch_first": True, "dropout": config.dropout}
            self.encoder: nn.Module = nn.GRU(config.width, config.width // 2, config.layers, **both_ways)
        else:
            layers = [
                Layer(config.width, config.heads, config.hidden, config.dropout, "gelu", pre_norm=False)
                for _ in range(config.layers)
            ]
            self.encoder = Encoder(layers, nn.Identity())
        self.to_latent = nn.Linear(config.width, 2 * latents)
        self.register_buffer("position", sinusoids(max(tokens, TOKENS), config.width))

    def forward(self, tokens: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode streams of tokens, each on its own.

        Parameters
        ----------
        tokens : [B, S, Q, width], S streams of a window.
        known : bool [B, Q], the tokens within a window; None: all.

        Returns
        -------
        mean, log_variance : [B, S, latents].
        """
        windows, streams, count, width = tokens.shape
        x = tokens + self.position[:count]
        if self.over_trials:
            # As published: the layers take the windows of a batch for the sequence, each token on its own.
            x = self._encoded(x.permute(1, 2, 0, 3).reshape(-1, windows, width), None)
            x = x.view(streams, count, windows, width).permute(2, 0, 1, 3)
        else:
            each = None if known is None else known.repeat_interleave(streams, 0)
            x = self._encoded(x.reshape(-1, count, width), each).view(windows, streams, count, width)
        share = 1 / count if known is None else (known / known.sum(1, keepdim=True))[:, None, :, None]
        mean, log_variance = self.to_latent((x * share).sum(2)).chunk(2, -1)
        return mean, log_variance

    def _encoded(self, x: Tensor, known: Tensor | None) -> Tensor:
        """Sequences [R, Q, width] through the layers; what is not `known` [R, Q] is not looked at."""
        if not self.recurrent:
            bias = None
            if known is not None:
                shut = torch.zeros(known.shape, dtype=x.dtype, device=x.device).masked_fill(~known, -torch.inf)
                bias = shut[:, None].expand(-1, x.shape[1], -1)
            return cast(Tensor, self.encoder(x, bias))
        if known is None:
            return cast(Tensor, self.encoder(x)[0])
        packed = pack_padded_sequence(x, known.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Decoder(nn.Module):
    """A latent to the spline weights of factors.

    Parameters
    ----------
    latents : dimensions of the latent.
    hidden : units of a hidden layer; 0: none, a linear map.
    shape : of what is made, `[..., *shape]`.
    """

    def __init__(self, latents: int, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(latents, hidden) if hidden else None
        self.last = nn.Linear(hidden or latents, math.prod(shape))
        for layer in self.children():
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            self.last.weight.mul_(SMALL)
            self.last.bias.zero_()

    def forward(self, latent: Tensor) -> Tensor:
        """Spline weights [..., *shape] of latents [..., latents]."""
        x = latent if self.first is None else self.first(latent).relu()
        return self.last(x).unflatten(-1, self.shape)


def sinusoids(count: int, width: int) -> Tensor:
    """Positions [count, width]: sines in the even columns, cosines in the odd ones."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(SLOWEST) / width))
    angle = torch.arange(count)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(log_variance)) from the standard normal [B], nats, summed over the other axes."""
    each = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
    return each.flatten(1).sum(1)
