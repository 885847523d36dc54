"""Random masks, drawn where the tensors live."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

DRAWS = 2**16


def chosen(shape: Sequence[int], probability: float, device: torch.device) -> Tensor:
    """Bool of `shape`, True with `probability` (exact to 2**-16).

    On a CPU four elements share one random number: drawing is what dropout costs there.
    """
    if device.type != "cpu":
        return torch.rand(tuple(shape), device=device) < probability
    number = int(np.prod(shape))
    words = torch.empty(-(-number // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:number] < round(probability * DRAWS) - DRAWS // 2).view(tuple(shape))


def dropout_mask(shape: Sequence[int], probability: float, like: Tensor) -> Tensor:
    """What dropout multiplies by: 0 with `probability`, else 1 / (1 - probability); in the type of `like`."""
    return chosen(shape, 1 - probability, like.device).to(like.dtype).mul_(1 / (1 - probability))


def standard_normal(seed: int, samples: Tensor, draw: int, size: int) -> Tensor:
    """Noise [len(samples), size] that depends on the seed, a window's sample id and the number of the draw alone."""
    rows = [np.random.default_rng([seed, draw, each]).standard_normal(size, np.float32) for each in samples.tolist()]
    return torch.as_tensor(np.stack(rows), device=samples.device)
