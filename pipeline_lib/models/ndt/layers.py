"""Parts of the transformer encoder, written for speed on the device at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.training.noise import dropout, vectorised

ALIGNED = 16
"""Bytes: tensor cores of a GPU take rows of whole multiples of this, and others slowly or not at all."""
LEAST_BLOCK = 16
"""Bins in a block of a `Band`, at least: smaller products are slower."""


def suits_tensor_cores(device: torch.device) -> bool:
    """Whether sizes of products are to be what tensor cores take whole."""
    return device.type != "cpu"


def missing(size: int, item: int = 2) -> int:
    """Elements of so many bytes that `size` of them lack to the next multiple of `ALIGNED` bytes."""
    return -size % (ALIGNED // item)


def in_rows(x: Tensor) -> Tensor:
    """`x` [..., n]; compiled for a GPU with zeros behind, as long as its products take it.

    All that is between two products has rows of this length: it is one kernel then, and two where it makes others.
    """
    if not (torch.compiler.is_compiling() and suits_tensor_cores(x.device)):
        return x
    return functional.pad(x, (0, row(x.shape[-1]) - x.shape[-1]))


def row(size: int) -> int:
    """Length of a row of a product that holds `size` numbers and a 1, by which the bias is multiplied."""
    return size + 1 + missing(size + 1)


class Linear(nn.Linear):
    """The linear layer; compiled for a GPU, one product whose sizes suit tensor cores and which has the bias in it.

    Sums over bins for the gradient of the bias, which take longer than the products around them, are then part of a
    product, too.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`input` [..., in], or that `in_rows`, as [..., out]."""
        if not (torch.compiler.is_compiling() and suits_tensor_cores(input.device)):
            return super().forward(input)
        length, more = row(self.in_features), missing(self.out_features)
        flat = input.flatten(0, -2)  # of more axes the compiler pads the outer ones, and copies all for the product
        flat = flat if flat.shape[-1] == length else in_rows(flat)
        rows = torch.where(torch.arange(length, device=input.device) == self.in_features, 1.0, flat)
        weight = functional.pad(self.weight, (0, length - self.in_features, 0, more))
        behind = length - self.in_features - 1
        weight = weight + functional.pad(self.bias[:, None], (self.in_features, behind, 0, more))
        return functional.linear(rows, weight)[:, : self.out_features].unflatten(0, input.shape[:-1])


class LayerNorm(nn.LayerNorm):
    """The layer norm, of `in_rows`, too, whose zeros behind stay."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` [..., width]."""
        width, more = len(self.weight), input.shape[-1] - len(self.weight)
        if not more:
            return super().forward(input)
        inside = torch.arange(width + more, device=input.device) < width
        centred = torch.where(inside, input - input.sum(-1, keepdim=True) / width, 0.0)
        factor = (centred.square().sum(-1, keepdim=True) / width + self.eps).rsqrt()
        weight, bias = (functional.pad(each, (0, more)) for each in (self.weight, self.bias))
        return centred * factor * weight + bias


class Dropout(nn.Dropout):
    """The dropout of `training.noise`."""

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements of `input` with probability p and scale the others by 1 / (1 - p), in training mode."""
        return dropout(input, self.p) if self.training and self.p else input


class ScaleNorm(nn.Module):
    """g x / |x| over the last axis, one trained g (Nguyen & Salazar 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.sqrt(width)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., width]."""
        return x * (self.scale / x.norm(dim=-1, keepdim=True).clamp(min=1e-5))


class Attention(nn.Module):
    """Multi-head self-attention over bins.

    A width that the heads do not divide is projected to the next one that they do; otherwise this is the usual layer.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_width = heads, math.ceil(width / heads)
        inner = heads * self.head_width
        self.qkv = Linear(width, 3 * inner)
        self.out = Linear(inner, width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, bias: Bias) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : [B, T, width].
        bias : [1 or B, T, T], 0 where query i may attend to key j and -inf elsewhere; None: everywhere; or a `Band`.
        """
        batch, bins, _ = x.shape
        qkv = self.qkv(x).view(batch, bins, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if isinstance(bias, Band):
            mixed = self._mixed(bias.inside(query), bias.around(key), bias.around(value), bias.bias)
            mixed = mixed.flatten(2, 3)[:, :, :bins]
        elif self.training and suits_tensor_cores(x.device):
            mixed = self._padded(qkv, bias)
        else:
            mixed = (self._mixed if self.training or vectorised() else self._fused)(query, key, value, bias)
        return self.out(mixed.transpose(1, 2).reshape(batch, bins, -1))

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        mask = None if bias is None else bias[:, None].to(query.dtype)
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def _padded(self, qkv: Tensor, bias: Tensor | None) -> Tensor:
        """`_mixed` of queries, keys and values [3, B, heads, T, d], with sizes that suit tensor cores.

        A compiler makes them in the copies that batched products need anyway. Bins that fill up attend to all
        others, and nobody attends to them; they are cut off.
        """
        bins, item = qkv.shape[-2], qkv.element_size()
        more = missing(bins, item)
        padded = functional.pad(qkv, (0, missing(self.head_width, item), 0, more))
        # Compiled, gradients of parts are added up in the next kernel, and those of `unbind` copied; launched one by
        # one it is the other way round.
        one_by_one = not torch.compiler.is_compiling()
        query, key, value = padded.unbind(0) if one_by_one else (padded[part] for part in range(3))
        if more:
            bias = torch.zeros(1, bins, bins, device=qkv.device) if bias is None else bias
            bias = functional.pad(functional.pad(bias, (0, more), value=-torch.inf), (0, 0, 0, more))
        return self._mixed(query, key, value, bias)[:, :, :bins, : self.head_width]

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """In training on a CPU two batched products beat the fused kernel, in bfloat16 by a factor of 2.5."""
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
        if bias is not None:
            scores = scores + bias[:, None].to(scores.dtype)
        return self.dropout(scores.softmax(-1)) @ value


@dataclass(frozen=True)
class Band:
    """Attention to a context much shorter than the windows: bins in blocks, each block with the bins around it.

    Attributes
    ----------
    bias : [1 or B, n, size, backward + size + forward], of each block's bins to those around it.
    backward, forward : bins around a block, no more than are in it.
    """

    bias: Tensor
    backward: int
    forward: int

    @classmethod
    def of(cls, bias: Tensor, backward: int, forward: int) -> Band | None:
        """The same as the attention bias [1 or B, T, T] of that context; None where blocks would save little."""
        size, bins = max(backward + forward, LEAST_BLOCK), bias.shape[-1]
        if bins < 4 * size:
            return None
        count = -(-bins // size)
        rest = count * size - bins
        # Bins that fill up the last block may attend anywhere; nobody attends to them, and they are cut off.
        padded = functional.pad(functional.pad(bias, (size, size + rest), value=-torch.inf), (0, 0, 0, rest))
        starts = range(0, count * size, size)
        near = [
            padded[:, start : start + size, start + size - backward : start + 2 * size + forward] for start in starts
        ]
        return cls(torch.stack(near, 1), backward, forward)

    def inside(self, x: Tensor) -> Tensor:
        """`x` [..., T, d] in blocks [..., n, size, d]."""
        count, size = self.bias.shape[1:3]
        return functional.pad(x, (0, 0, 0, count * size - x.shape[-2])).unflatten(-2, (count, size))

    def around(self, x: Tensor) -> Tensor:
        """Blocks of `x` [..., T, d] with the bins around each, [..., n, backward + size + forward, d]."""
        size = self.bias.shape[2]
        blocks = functional.pad(self.inside(x), (0, 0, 0, 0, 1, 1))
        before, own, after = blocks[..., :-2, size - self.backward :, :], blocks[..., 1:-1, :, :], blocks[..., 2:, :, :]
        return torch.cat([before, own, after[..., : self.forward, :]], -2)


Bias = Tensor | Band | None


class Layer(nn.Module):
    """Attention and a feed-forward network, each around a residual sum; normalised before (`pre_norm`) or after."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.activation: Callable[[Tensor], Tensor] = functional.gelu if activation == "gelu" else functional.relu
        self.attention = Attention(width, heads, dropout)
        self.linear1 = Linear(width, hidden)
        self.linear2 = Linear(hidden, width)
        self.norm1 = LayerNorm(width)
        self.norm2 = LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, bias: Bias) -> Tensor:
        """One layer over `x` [B, T, width]; `bias` as in `Attention`."""
        if self.pre_norm:
            x = x + self.dropout(in_rows(self.attention(self.norm1(x), bias)))
            return x + self.dropout(in_rows(self._feed_forward(self.norm2(x))))
        x = self.norm1(x + self.dropout(in_rows(self.attention(x, bias))))
        return self.norm2(x + self.dropout(in_rows(self._feed_forward(x))))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class Encoder(nn.Module):
    """Layers one after another, and a norm."""

    def __init__(self, layers: list[Layer], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x: Tensor, bias: Bias) -> Tensor:
        """Encode `x` [B, T, width]; `bias` as in `Attention`."""
        width, x = x.shape[-1], in_rows(x)
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)[..., :width]


def context_bias(bins: int, backward: int | None, forward: int | None) -> Tensor:
    """The attention bias [1, T, T] by which bin i attends to bins i - backward ... i + forward (None: no limit)."""
    ahead = torch.arange(bins)[None, :] - torch.arange(bins)[:, None]
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    if backward is not None:
        allowed &= ahead >= -backward
    if forward is not None:
        allowed &= ahead <= forward
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)[None]
