"""Random masks and noise, drawn where the tensors live; under vmap each member of an ensemble draws its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.training.noise import DRAWS, drawn, short_draws


def chosen(shape: Sequence[int], probability: float, beside: Tensor) -> Tensor:
    """Bool of `shape`, True with `probability` (on a CPU exact to 2**-16); `beside` as for `training.noise.drawn`."""
    return drawn(shape, torch.bool, beside, partial(_choose, probability))


def dropout_mask(shape: Sequence[int], probability: float, like: Tensor) -> Tensor:
    """What dropout multiplies by: 0 with `probability`, else 1 / (1 - probability); in the type of `like`."""
    return drawn(shape, like.dtype, like, partial(_mask, probability))


def normal(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise in the type of `like`."""
    return drawn(shape, like.dtype, like, lambda target, generator: target.normal_(generator=generator))


def _mask(probability: float, target: Tensor, generator: torch.Generator | None) -> None:
    _choose(1 - probability, target, generator).mul_(1 / (1 - probability))


def _choose(probability: float, target: Tensor, generator: torch.Generator | None) -> Tensor:
    """Make every element of a contiguous tensor 1 (True) with `probability`, else 0; that tensor."""
    if target.device.type != "cpu":
        return target.bernoulli_(probability, generator=generator)
    draws = short_draws(target, generator)
    most = max(round(probability * DRAWS), 1) - DRAWS // 2 - 1  # fits in 16 bits, where a probability of 1 must, too
    # Via bool it would take twice as long.
    return target.copy_(torch.le(draws, most, out=torch.empty_like(draws)))


def standard_normal(seed: int, samples: Tensor, draw: int, size: int) -> Tensor:
    """Noise [len(samples), size] that depends on the seed, a window's sample id and the number of the draw alone: of a
    longer draw a shorter one is the beginning."""
    rows = [np.random.default_rng([seed, draw, each]).standard_normal(size, np.float32) for each in samples.tolist()]
    return torch.as_tensor(np.stack(rows), device=samples.device)
