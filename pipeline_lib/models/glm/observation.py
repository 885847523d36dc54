"""Observation models: how likely a count is, given the linear predictor eta of its bin.

Every model turns eta into the residual d(-log likelihood)/d(eta) in place, because eta is the largest array of a fit.
Losses leave out terms that depend on the counts alone; `log_likelihood` puts them back.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError

# Smallest expected count: below it a logarithm or a quotient would overflow in float32.
TINY = 1e-30


class Observation(ABC):
    """An observation model with one link. Shapes: any, elementwise, unless said.

    `dispersion` is a number, or one a unit; then arrays are (..., units, bins).
    """

    link: ClassVar[str]

    def __init__(self, dispersion: float | Tensor = 1.0) -> None:
        self.dispersion = torch.as_tensor(dispersion, dtype=torch.float64).reshape(-1, 1)

    def of(self, units: Tensor) -> Self:
        """The model of some units only, where units differ."""
        return self if len(self.dispersion) == 1 else type(self)(self.dispersion[units.to(self.dispersion.device)])

    @abstractmethod
    def mean(self, eta: Tensor) -> Tensor:
        """Expected count of a bin."""

    @abstractmethod
    def inverse_mean(self, mean: Tensor) -> Tensor:
        """The eta that gives `mean` (positive; below one for Bernoulli)."""

    @abstractmethod
    def curvature(self, eta: Tensor) -> Tensor:
        """Expected second derivative of the loss in eta (Fisher information of a bin)."""

    @abstractmethod
    def loss_(self, eta: Tensor, counts: Tensor, weights: Tensor | None) -> Tensor:
        """Loss of each unit (units,), float64; `eta` (blocks, units, bins) becomes the weighted residual, in place."""

    @abstractmethod
    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """Log-likelihood of each bin, all constants included, nats."""

    def observed(self, counts: Tensor) -> Tensor:
        """What of the counts the model looks at."""
        return counts


class Canonical(Observation):
    """An exponential family under its canonical link: loss cumulant(eta) - count eta, mean = cumulant'.

    Counts enter a fit once only, as their products with the columns.
    """

    @abstractmethod
    def cumulant_(self, eta: Tensor, weights: Tensor | None) -> Tensor:
        """Cumulant of each unit (units,), float64; `eta` becomes the weighted mean, in place."""

    def loss_(self, eta: Tensor, counts: Tensor, weights: Tensor | None) -> Tensor:
        """Sum of cumulant(eta) - count eta."""
        counts = self.observed(counts)
        linear = weighted_sum(eta * counts, weights)
        loss = self.cumulant_(eta, weights) - linear
        eta.sub_(counts if weights is None else counts * weights)
        return loss


class PoissonExp(Canonical):
    """Counts ~ Poisson(exp(eta)): the canonical point-process GLM (Truccolo et al., 2005)."""

    link = "exp"

    def mean(self, eta: Tensor) -> Tensor:
        """exp(eta)."""
        return eta.exp()

    def inverse_mean(self, mean: Tensor) -> Tensor:
        """log(mean)."""
        return mean.log()

    def curvature(self, eta: Tensor) -> Tensor:
        """The mean."""
        return eta.exp()

    def cumulant_(self, eta: Tensor, weights: Tensor | None) -> Tensor:
        """The mean itself."""
        return _weighted_(eta.exp_(), weights).sum(-1).sum(0, dtype=torch.float64)

    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """Count eta - mean - log(count!)."""
        return counts * eta - eta.exp() - torch.lgamma(counts.to(eta.dtype) + 1)


class BernoulliLogistic(Canonical):
    """A bin holds a spike with probability logistic(eta). Counts above one are read as one."""

    link = "logistic"

    def mean(self, eta: Tensor) -> Tensor:
        """The probability of a spike."""
        return torch.sigmoid(eta)

    def inverse_mean(self, mean: Tensor) -> Tensor:
        """log(mean / (1 - mean))."""
        return torch.logit(mean)

    def curvature(self, eta: Tensor) -> Tensor:
        """p (1 - p)."""
        return torch.sigmoid(eta) * torch.sigmoid(-eta)

    def observed(self, counts: Tensor) -> Tensor:
        """One for any number of spikes."""
        return counts.clamp(max=1)

    def cumulant_(self, eta: Tensor, weights: Tensor | None) -> Tensor:
        """log(1 + exp(eta))."""
        cumulant = weighted_sum(functional.softplus(eta), weights)
        _weighted_(eta.sigmoid_(), weights)
        return cumulant

    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """[spike] eta - log(1 + exp(eta))."""
        return self.observed(counts) * eta - functional.softplus(eta)


class Gaussian(Canonical):
    """Counts ~ Normal(eta, variance): least squares. The loss is eta^2 / 2 - count eta, for unit variance."""

    link = "identity"

    def mean(self, eta: Tensor) -> Tensor:
        """Eta itself."""
        return eta

    def inverse_mean(self, mean: Tensor) -> Tensor:
        """The mean itself."""
        return mean

    def curvature(self, eta: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(eta)

    def cumulant_(self, eta: Tensor, weights: Tensor | None) -> Tensor:
        """eta^2 / 2."""
        cumulant = weighted_sum(eta * eta, weights).mul_(0.5)
        _weighted_(eta, weights)
        return cumulant

    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """Of the normal density with variance `dispersion`."""
        variance = self.dispersion.to(eta)
        return -0.5 * (counts - eta) ** 2 / variance - 0.5 * torch.log(2 * torch.pi * variance)


class _Dispersed(Observation):
    """A family of variance V(mean) under a link that is not its canonical one: residual (mean - count) mean' / V."""

    def loss_(self, eta: Tensor, counts: Tensor, weights: Tensor | None) -> Tensor:
        """Sum of the family's loss; the residual by the chain rule."""
        mean, slope = self._mean_and_slope(eta)
        loss = weighted_sum(self._loss(mean, counts), weights)
        torch.mul(mean.sub(counts), slope.div_(self._variance(mean)), out=eta)
        _weighted_(eta, weights)
        return loss

    def curvature(self, eta: Tensor) -> Tensor:
        """mean'^2 / V(mean)."""
        mean, slope = self._mean_and_slope(eta)
        return slope**2 / self._variance(mean)

    @abstractmethod
    def _mean_and_slope(self, eta: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _variance(self, mean: Tensor) -> Tensor: ...

    @abstractmethod
    def _loss(self, mean: Tensor, counts: Tensor) -> Tensor: ...


class PoissonSoftplus(_Dispersed):
    """Counts ~ Poisson(log(1 + exp(eta))): grows linearly, so that strong coupling does not explode."""

    link = "softplus"

    def mean(self, eta: Tensor) -> Tensor:
        """log(1 + exp(eta))."""
        return functional.softplus(eta).clamp(min=TINY)

    def inverse_mean(self, mean: Tensor) -> Tensor:
        """log(exp(mean) - 1)."""
        return mean + torch.log(-torch.expm1(-mean))

    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """Count log(mean) - mean - log(count!)."""
        return -self._loss(self.mean(eta), counts) - torch.lgamma(counts.to(eta.dtype) + 1)

    def _mean_and_slope(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(eta), torch.sigmoid(eta)

    def _variance(self, mean: Tensor) -> Tensor:
        return mean

    def _loss(self, mean: Tensor, counts: Tensor) -> Tensor:
        return mean - counts * mean.log()


class NegativeBinomial(_Dispersed):
    """Counts with mean m and variance m + dispersion m^2, m = exp(eta): spiking more variable than Poisson."""

    link = "exp"

    def mean(self, eta: Tensor) -> Tensor:
        """exp(eta)."""
        return eta.exp().clamp(min=TINY)

    def inverse_mean(self, mean: Tensor) -> Tensor:
        """log(mean)."""
        return mean.log()

    def log_likelihood(self, eta: Tensor, counts: Tensor) -> Tensor:
        """Of the negative binomial with 1 / dispersion failures."""
        shape = 1.0 / self.dispersion.to(eta)
        y = counts.to(eta.dtype)
        constant = torch.lgamma(y + shape) - torch.lgamma(shape) - torch.lgamma(y + 1) + y * torch.log(1 / shape)
        return constant - self._loss(self.mean(eta), counts)

    def _mean_and_slope(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(eta)
        return mean, mean.clone()

    def _variance(self, mean: Tensor) -> Tensor:
        return mean + self.dispersion.to(mean) * mean**2

    def _loss(self, mean: Tensor, counts: Tensor) -> Tensor:
        dispersion = self.dispersion.to(mean)
        return (counts + 1.0 / dispersion) * torch.log1p(dispersion * mean) - counts * mean.log()


OBSERVATIONS: dict[tuple[str, str], type[Observation]] = {
    ("poisson", "exp"): PoissonExp,
    ("poisson", "softplus"): PoissonSoftplus,
    ("bernoulli", "logistic"): BernoulliLogistic,
    ("negative_binomial", "exp"): NegativeBinomial,
    ("gaussian", "identity"): Gaussian,
}


def observation_model(name: str, link: str = "", dispersion: float | Tensor = 1.0) -> Observation:
    """The observation model a configuration names; an empty `link` is the model's usual one.

    Raises
    ------
    InputError : unknown model, a link it does not have, or a dispersion that is not positive.
    """
    links = [known_link for known, known_link in OBSERVATIONS if known == name]
    if not links:
        known_names = sorted({known for known, _ in OBSERVATIONS})
        raise InputError("config", "observation", repr(name), f"one of {', '.join(known_names)}")
    if link and link not in links:
        raise InputError("config", "link", repr(link), f"for {name}: {', '.join(links)}")
    if not bool((torch.as_tensor(dispersion) > 0).all()):
        raise InputError("config", "dispersion", dispersion, "a positive number")
    return OBSERVATIONS[name, link or links[0]](dispersion)


def weighted_sum(values: Tensor, weights: Tensor | None) -> Tensor:
    """Sum (blocks, units, bins) to (units,), float64: a block's bins in the working precision, blocks in double."""
    if weights is not None:
        values = torch.where(weights, values, 0) if weights.dtype == torch.bool else values * weights
    # Integers are summed as integers (exact).
    return values.sum(-1).sum(0, dtype=torch.float64)


def _weighted_(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values
    # Not a product: what was not observed has no say, not even where it overflows.
    return values.masked_fill_(~weights, 0.0) if weights.dtype == torch.bool else values.mul_(weights)
