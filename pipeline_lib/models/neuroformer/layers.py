"""Parts of the transformer: attention whose keys and values can be kept, and a block around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.ndt.layers import Dropout

Pair = tuple[Tensor, Tensor]
"""Keys and values, each [M, heads, tokens, width / heads]."""


@dataclass(frozen=True)
class Rows:
    """Where R tokens stand in a table of M sequences of P places: all that is not attention works on R rows.

    `place` int64 [R], places of the flattened table, ascending; None: every place has a token.
    """

    sequences: int
    places: int
    place: Tensor | None = None

    @classmethod
    def of(cls, real: Tensor) -> Rows:
        """The rows of the True places of `real` [M, P]."""
        return cls(len(real), real.shape[1], None if bool(real.all()) else real.flatten().nonzero()[:, 0])

    def spread(self, x: Tensor) -> Tensor:
        """Rows [R, ...] in their places [M, P, ...], 0 elsewhere."""
        if self.place is not None:
            x = x.new_zeros(self.sequences * self.places, *x.shape[1:]).index_copy(0, self.place, x)
        return x.view(self.sequences, self.places, *x.shape[1:])

    def collect(self, x: Tensor) -> Tensor:
        """The rows [R, ...] of a table [M, P, ...]."""
        x = x.flatten(0, 1)
        return x if self.place is None else x[self.place]


class Attention(nn.Module):
    """Multi-head attention of one sequence to another."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def pair(self, source: Tensor, rows: Rows) -> Pair:
        """Keys and values of the tokens `source` [R, width] that stand in `rows`."""
        keys, values = rows.spread(self.key_value(source)).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, rows: Rows, pair: Pair, bias: Tensor | None) -> Tensor:
        """What the tokens `x` [R, width] attend to; `bias` as in `weights`."""
        if self.training and self.dropout.p:
            mixed = self.dropout(self.weights(x, rows, pair, bias)) @ pair[1]
        else:
            query, mask = self._split(rows.spread(self.query(x))), None if bias is None else bias[:, None]
            mixed = functional.scaled_dot_product_attention(query, *pair, mask)
        return self.out(rows.collect(mixed.transpose(1, 2).flatten(2)))

    def weights(self, x: Tensor, rows: Rows, pair: Pair, bias: Tensor | None) -> Tensor:
        """Attention [M, heads, P, K]; `bias` broadcasts to [M, P, K]: 0, or -inf where a place may not look."""
        query = self._split(rows.spread(self.query(x)))
        scores = query @ pair[0].transpose(-1, -2) / math.sqrt(query.shape[-1])
        return (scores if bias is None else scores + bias[:, None]).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """x + attention(LN(x), source), then x + MLP(LN(x)), then LN; specs/neuroformer.md, section 2.

    The public code makes keys and values of the raw source; `norm_source` normalises it first, which trains faster.
    """

    def __init__(self, width: int, heads: int, dropout: float, norm_source: bool = True) -> None:
        super().__init__()
        self.ln1, self.ln2, self.ln_f = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.ln_source = nn.LayerNorm(width) if norm_source else nn.Identity()
        self.attention = Attention(width, heads, dropout)
        self.hidden, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def pair(self, source: Tensor, rows: Rows) -> Pair:
        """Keys and values of the tokens `source` [R, width], which may be kept between calls."""
        return self.attention.pair(self.ln_source(source), rows)

    def forward(self, x: Tensor, rows: Rows, pair: Pair, bias: Tensor | None) -> Tensor:
        """The block over the tokens `x` [R, width]; `bias` as in `Attention.weights`."""
        x = x + self.dropout(self.attention(self.ln1(x), rows, pair, bias))
        x = x + self.dropout(self.out(functional.gelu(self.hidden(self.ln2(x)))))
        return self.ln_f(x)


def causal_bias(length: int, device: torch.device, before: int = 0) -> Tensor:
    """[1, length, before + length]: 0 where a token may look, at itself and before, else -inf."""
    return torch.full((1, length, before + length), -torch.inf, device=device).triu(before + 1)


def padding_bias(real: Tensor) -> Tensor:
    """[M, 1, K]: 0 for a real token of `real` [M, K], -inf for padding."""
    return torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)[:, None]


@torch.inference_mode(False)
@torch.no_grad()
def lay_out_for_few_rows(module: nn.Module) -> None:
    """Store the weights of linear maps that widen column by column, in place; no value changes.

    The product with a single row then reads them twice as fast (one thread: 9 against 4 GB/s).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.out_features > part.in_features:
            part.weight.data = part.weight.data.t().contiguous().t()


@torch.no_grad()
def initialise(module: nn.Module, spread: float = 0.02) -> None:
    """Normal weights of linear maps and tables, zero biases, as in the public code."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=spread)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
