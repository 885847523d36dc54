"""Random numbers of networks: seeds, and dropout that draws for each member of an ensemble what it would draw alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

DRAWS = 2**16
_streams: Sequence[torch.Generator] | None = None
"""Generators of the members of an ensemble, while their networks run as one."""


def seed_noise(*numbers: int) -> None:
    """Seed torch's generators, on every device, with a hash of `numbers`."""
    torch.manual_seed(_hash(numbers))


def seed_stream(stream: torch.Generator, *numbers: int) -> None:
    """Seed a generator as `seed_noise` does torch's own."""
    stream.manual_seed(_hash(numbers))


def catch_up(stream: torch.Generator) -> None:
    """Let a generator go on from where torch's own one of its device has got to."""
    on_gpu = stream.device.type == "cuda"
    stream.set_state(torch.cuda.get_rng_state(stream.device) if on_gpu else torch.get_rng_state())


def _hash(numbers: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def vectorised() -> bool:
    """Whether the networks of an ensemble run as one: not every kernel of torch can."""
    return _streams is not None


@contextlib.contextmanager
def as_one(streams: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """While open, networks run as one: under `torch.vmap` dropout draws for each from a generator of its own, and
    outside of it `uniform` does so for an equal share of the windows.
    """
    global _streams
    before, _streams = _streams, streams
    try:
        yield
    finally:
        _streams = before


def uniform(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform on [0, 1), of shape [windows, ...]."""
    if _streams is None:
        return torch.rand(shape, device=device)
    values = torch.empty(shape, device=device)
    for part, stream in zip(values.chunk(len(_streams)), _streams, strict=True):
        part.uniform_(generator=stream)
    return values


def dropout(x: Tensor, share: float) -> Tensor:
    """`x` with each element 0 with probability `share`, else divided by 1 - `share`.

    On a CPU a quarter of a random number an element, where drawing is what dropout costs (0.25 of the time of torch's
    own); the probability is then exact to 2**-16.
    """
    if _streams is not None:
        mask: Tensor = _OfEachMember.apply(x.detach(), share)
        return x * mask
    mask = torch.empty_like(x, memory_format=torch.contiguous_format)
    _draw(mask, share, None)
    return x * mask.mul_(1 / (1 - share))


def _draw(mask: Tensor, share: float, generator: torch.Generator | None) -> None:
    """Make every element of a contiguous tensor 0 with probability `share`, else 1."""
    if mask.device.type != "cpu":
        mask.bernoulli_(1 - share, generator=generator)
        return
    words = torch.empty(-(-mask.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    draws = words.view(torch.int16)[: mask.numel()].view(mask.shape)
    least = min(round(share * DRAWS), DRAWS - 1) - DRAWS // 2  # fits in 16 bits
    torch.ge(draws, least, out=mask)  # into a float: 3 times faster than via bool


class _OfEachMember(torch.autograd.Function):
    """Dropout masks under vmap: torch would draw them for all members from one generator, or once for all."""

    @staticmethod
    def forward(x: Tensor, share: float) -> Tensor:
        raise RuntimeError("noise of an ensemble was drawn outside of torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Nothing to keep: a mask has no gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], x: Tensor, share: float) -> tuple[Tensor, int]:
        one = x if in_dims[0] is None else x.select(in_dims[0], 0)
        assert _streams is not None
        mask = x.new_empty(info.batch_size, *one.shape)
        for row, stream in zip(mask, _streams, strict=True):
            _draw(row, share, stream)
        return mask.mul_(1 / (1 - share)), 0
