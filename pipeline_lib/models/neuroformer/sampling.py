"""How one of several outcomes is drawn, given their log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: first its bin (or the end), then its unit, each from what these leave over."""

    temperature: float = 1.0
    """0: always the most probable one."""
    top_k: int | None = None
    """Only the so many most probable ones."""
    top_p: float = 1.0
    """Only the fewest that together have this probability."""
    most: int = 1000
    """Tokens of a window at which it ends whatever is drawn."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError("sampling", "temperature", self.temperature, "finite, not below 0")
        if not 0 < self.top_p <= 1:
            raise InputError("sampling", "top_p", self.top_p, "above 0, at most 1")
        for name in ("top_k", "most"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError("sampling", name, value, "at least 1")

    def draw(self, log_probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
        """One of the C outcomes in each row of [R, C]."""
        return pick(self.probabilities(log_probabilities), generator)

    def probabilities(self, log_probabilities: Tensor) -> Tensor:
        """What outcomes are drawn with [R, C]."""
        if self.temperature == 0:
            return functional.one_hot(log_probabilities.argmax(1), log_probabilities.shape[1]).float()
        scores = log_probabilities / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[1]:
            least = scores.topk(self.top_k, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        probabilities = scores.softmax(1)
        if self.top_p < 1:
            ordered, place = probabilities.sort(1, descending=True)
            beyond = ordered.cumsum(1) - ordered >= self.top_p
            probabilities = probabilities.scatter(1, place, ordered.masked_fill(beyond, 0))
        return probabilities


def pick(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """One of the C outcomes in each row of [R, C], with probabilities as the weights.

    By the cumulative sum: a fraction of the time of `multinomial`, which draws a number for every outcome.
    """
    total = weights.cumsum(1)
    drawn = torch.rand(len(total), 1, generator=generator, device=total.device) * total[:, -1:]
    chosen = torch.searchsorted(total, drawn, right=True)[:, 0]
    # Rounding can put a number at the very end of the sum, where no outcome is left.
    last = total.shape[1] - 1 - (weights.flip(1) > 0).int().argmax(1)
    return torch.minimum(chosen, last)
