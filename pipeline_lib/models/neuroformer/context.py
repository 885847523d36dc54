"""Keys and values that are computed once: of what a window attends to, and of its own tokens while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline_lib.models.neuroformer.layers import Pair

PLACES = 16
"""Tokens that there is memory for at first."""


@dataclass(frozen=True)
class Source:
    """What windows attend to, as keys and values of every block that does, and bias [M, 1, K], -inf for padding."""

    pairs: list[Pair]
    bias: Tensor | None

    def rows(self, rows: Tensor) -> Source:
        """The source of some of the windows."""
        pairs = [(keys[rows], values[rows]) for keys, values in self.pairs]
        return Source(pairs, None if self.bias is None else self.bias[rows])


@dataclass(frozen=True)
class Context:
    """What windows attend to besides themselves: sources in turn, by name; `who`, when the unit is asked for."""

    sources: dict[str, Source]
    who: Source

    def rows(self, rows: Tensor) -> Context:
        """The context of some of the windows."""
        return Context({name: source.rows(rows) for name, source in self.sources.items()}, self.who.rows(rows))

    def who_with(self, pair: Pair, bias: Tensor | None) -> tuple[Pair, Tensor]:
        """Keys, values and bias [M, Q, K + S] of `who` and, after it, of the window itself; bias [1 or M, Q, S]."""
        keys, values = (torch.cat(both, 2) for both in zip(self.who.pairs[0], pair, strict=True))
        past = self.who.bias
        assert past is not None
        if bias is None:
            bias = past.new_zeros(1, 1, pair[0].shape[2])
        return (keys, values), torch.cat([past.expand(-1, bias.shape[1], -1), bias.expand(len(keys), -1, -1)], 2)


@dataclass
class Kept:
    """Keys and values of the tokens written so far, layer by layer, in memory that grows by doubling."""

    pairs: list[Pair] = field(default_factory=list)
    length: int = 0
    _layer: int = 0

    def add(self, pair: Pair) -> Pair:
        """Take the keys and values of the next tokens in the next layer; all kept of that layer."""
        layer, self._layer = self._layer, self._layer + 1
        end = self.length + pair[0].shape[2]
        if layer == len(self.pairs):
            self.pairs.append((_room(pair[0]), _room(pair[1])))
        keys, values = self.pairs[layer]
        while end > keys.shape[2]:
            keys, values = (torch.cat([each, torch.empty_like(each)], 2) for each in (keys, values))
            self.pairs[layer] = keys, values
        keys[:, :, self.length : end], values[:, :, self.length : end] = pair
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int = 1) -> None:
        """All layers have the tokens, of which the first `tokens` stay: go on to the next ones."""
        self.length, self._layer = self.length + tokens, 0

    def rows(self, rows: Tensor) -> Kept:
        """What is kept of some of the windows."""
        return Kept([(keys[rows], values[rows]) for keys, values in self.pairs], self.length)


def _room(tokens: Tensor) -> Tensor:
    """Memory for the first tokens of windows [M, heads, places, width], of which `tokens` are some."""
    windows, heads, _, width = tokens.shape
    return tokens.new_empty(windows, heads, PLACES, width)
