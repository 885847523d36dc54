"""How much more variable than Poisson counts are, estimated."""

import torch
from torch import Tensor

from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.observation import Observation, weighted_sum

SMALLEST = 1e-3
"""Dispersion of a unit that is not more variable than Poisson: the negative binomial is then as good as Poisson."""


def estimate_dispersion(design: Design, observation: Observation, coefficients: Tensor) -> Tensor:
    """Dispersion a (units,) float64 of counts whose variance is mean + a mean^2, around fitted means.

    By moments: the sum of (count - mean)^2 - mean over that of mean^2 (Breslow, 1984). A pass over the data.
    """

    def excess(eta: Tensor, counts: Tensor, weights: Tensor | None) -> Tensor:
        mean = observation.mean(eta)
        return weighted_sum((counts - mean) ** 2 - mean, weights)

    def square(eta: Tensor, counts: Tensor, weights: Tensor | None) -> Tensor:
        return weighted_sum(observation.mean(eta) ** 2, weights)

    above, below = design.evaluate(coefficients, excess), design.evaluate(coefficients, square)
    return torch.where(below > 0, above / below.clamp(min=1e-300), 0.0).clamp(min=SMALLEST)
