"""A second NDT, as plain as the layers of torch allow, with the tensor names of the public code.

Written from a description of the public code alone, sharing no line with the package: the yardstick for its log-rates
and, in benchmarks, for its speed.
"""

import math

import torch
from torch import nn


class ScaleNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x):
        return self.scale * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, hidden, dropout, activation, pre_norm):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.activation, self.pre_norm = activation, pre_norm

    def attend(self, x, mask):
        return self.dropout(self.self_attn(x, x, x, attn_mask=mask, need_weights=True)[0])

    def feed(self, x):
        return self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(self, x, mask):
        if self.pre_norm:
            x = x + self.attend(self.norm1(x), mask)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attend(x, mask))
        return self.norm2(x + self.feed(x))


class Encoder(nn.Module):
    def __init__(self, layers, norm):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class LearnedPosition(nn.Module):
    def __init__(self, bins, width):
        super().__init__()
        self.pos_embedding = nn.Embedding(bins, width)

    def forward(self, bins):
        return self.pos_embedding.weight[:bins, None]


class SinusoidPosition(nn.Module):
    def __init__(self, bins, width):
        super().__init__()
        table = torch.zeros(bins, 1, width)
        for t in range(bins):
            for k in range(width):
                angle = (t + 1) / 10_000 ** (k // 2 * 2 / width)
                table[t, 0, k] = math.cos(angle) if k % 2 else math.sin(angle)
        self.register_buffer("pe", table)

    def forward(self, bins):
        return self.pe[:bins]


class PlainNDT(nn.Module):
    """Counts [B, T, N] to log-rates [B, T, N]; contexts in bins, None: no limit."""

    def __init__(
        self,
        units,
        bins,
        embedding=2,
        max_spikes=9,
        layers=6,
        heads=2,
        hidden=128,
        backward=8,
        forward=4,
        dropout=0.1,
        dropout_embedding=0.2,
        dropout_rates=0.2,
        activation="relu",
        pre_norm=True,
        scale_norm=False,
        sinusoid=False,
        two_layers=False,
    ):
        super().__init__()
        width = units * max(embedding, 1)
        self.width = width
        self.embedder = nn.Sequential(nn.Embedding(max_spikes + 2, embedding) if embedding else nn.Identity())
        self.looks_up = embedding > 0
        self.pos_encoder = (SinusoidPosition if sinusoid else LearnedPosition)(bins, width)
        act = {"relu": torch.relu, "gelu": nn.functional.gelu}[activation]
        stack = [EncoderLayer(width, heads, hidden, dropout, act, pre_norm) for _ in range(layers)]
        self.transformer_encoder = Encoder(stack, ScaleNorm(width) if scale_norm else nn.LayerNorm(width))
        sizes = [nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, units)] if two_layers else [nn.Linear(width, units)]
        self.decoder = nn.Sequential(*sizes)
        self.drop_in, self.drop_out = nn.Dropout(dropout_embedding), nn.Dropout(dropout_rates)
        mask = torch.full((bins, bins), -math.inf)
        for i in range(bins):
            for j in range(bins):
                behind = backward is None or j >= i - backward
                ahead = forward is None or j <= i + forward
                if behind and ahead:
                    mask[i, j] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, counts):
        x = counts.transpose(0, 1)
        x = self.embedder(x.long()).flatten(2) if self.looks_up else x.float()
        x = self.drop_in(x * self.width**0.5 + self.pos_encoder(len(x)))
        x = self.transformer_encoder(x, self.mask[: len(x), : len(x)])
        return self.decoder(self.drop_out(x)).transpose(0, 1)
