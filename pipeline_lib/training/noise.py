"""Random numbers of networks: seeds, and draws that give each member of an ensemble what it would draw alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

DRAWS = 2**16
Draw = Callable[[Tensor, torch.Generator | None], object]
"""Fills a contiguous tensor from a generator; None: torch's own."""
_streams: Sequence[torch.Generator] | None = None
"""Generators of the members of an ensemble, while their networks run as one."""


def seed_noise(*numbers: int) -> None:
    """Seed torch's generators, of the host and of the GPUs in use, with a hash of `numbers`.

    `torch.manual_seed` also tells devices that are not there, at every call: 0.1 ms or 0.2 of every step.
    """
    seed = _hash(numbers)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


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
    """While open, networks run as one: under `torch.vmap` `drawn` draws for each from a generator of its own, and
    outside of it `uniform` does so for an equal share of the windows. Without `streams` all share torch's own draws.
    """
    global _streams
    before, _streams = _streams, streams
    try:
        yield
    finally:
        _streams = before


def uniform(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform on [0, 1), of shape [windows, ...]."""
    if not _streams:
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
    if torch.compiler.is_compiling():
        return fusible_dropout(x, share)
    return x * drawn(x.shape, x.dtype, x, partial(_mask, share))


def fusible_dropout(x: Tensor, share: float) -> Tensor:
    """`dropout` as an expression that a compiler makes part of the kernels around it.

    Masks that are drawn in place came out of torch's compiler (2.13, on a CPU) as numbers that are not finite.
    """
    return torch.where(torch.rand(x.shape, device=x.device) < share, 0, x * (1 / (1 - share)))


def _mask(share: float, mask: Tensor, generator: torch.Generator | None) -> None:
    """Make every element 0 with probability `share`, else 1 / (1 - share)."""
    _choose(share, mask, generator)
    mask.mul_(1 / (1 - share))


def _choose(share: float, mask: Tensor, generator: torch.Generator | None) -> None:
    """Make every element 0 with probability `share`, else 1."""
    if mask.device.type != "cpu":
        mask.bernoulli_(1 - share, generator=generator)
        return
    least = min(round(share * DRAWS), DRAWS - 1) - DRAWS // 2  # fits in 16 bits
    torch.ge(short_draws(mask, generator), least, out=mask)  # into a float: 3 times faster than via bool


def short_draws(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random int16 for each element of a tensor on the CPU; four share one random number, which is what is dear."""
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[: like.numel()].view(like.shape)


def drawn(shape: Sequence[int], dtype: torch.dtype, beside: Tensor, draw: Draw) -> Tensor:
    """A tensor of `shape` that `draw` has filled.

    It lives where `beside` does; under vmap each member has one of its own if each has a `beside` of its own.
    """
    if not _streams:
        made = torch.empty(tuple(shape), dtype=dtype, device=beside.device)
        draw(made, None)
        return made
    found: Tensor = _OfEachMember.apply(tuple(shape), dtype, beside.detach(), draw)
    return found


class _OfEachMember(torch.autograd.Function):
    """Draws under vmap: torch would make them for all members from one generator, or once for all."""

    @staticmethod
    def forward(shape: tuple[int, ...], dtype: torch.dtype, beside: Tensor, draw: Draw) -> Tensor:
        raise RuntimeError("noise of an ensemble was drawn beside what all its members share")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[object, ...], output: Tensor) -> None:
        """Nothing to keep: noise has no gradient."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], shape: tuple[int, ...], dtype: torch.dtype, beside: Tensor, draw: Draw
    ) -> tuple[Tensor, int]:
        assert _streams is not None
        made = beside.new_empty(info.batch_size, *shape, dtype=dtype)
        for row, stream in zip(made, _streams, strict=True):
            draw(row, stream)
        return made, 0
