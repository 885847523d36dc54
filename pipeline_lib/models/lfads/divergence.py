"""Kullback-Leibler divergences of the posteriors from the priors."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp log_variance) || N(prior)), nats, element by element."""
    gap = prior_log_variance - log_variance
    square = (mean - prior_mean).square() * torch.exp(-prior_log_variance)
    return 0.5 * (gap + torch.exp(-gap) + square - 1)


def autoregressive_divergence(
    mean: Tensor, log_variance: Tensor, sample: Tensor, log_time_constant: Tensor, log_noise: Tensor
) -> Tensor:
    """Divergence of inferred inputs from a first-order autoregressive prior, along the path that was decoded.

    With a = exp(-1 / time constant), the prior of the first bin is N(0, noise / (1 - a^2)), the stationary one, and of
    the others N(a u_{t-1}, noise). Given the bins before, the divergence of a bin is that of two Gaussians, so only the
    path is sampled: the mean over paths is the divergence of the paths, and its noise is less than that of
    log q(u) - log p(u).

    Parameters
    ----------
    mean, log_variance, sample : of the posterior, [T, B, U]; `sample` is what the generator was given.
    log_time_constant, log_noise : [U]; the time constant in bins.

    Returns
    -------
    Nats, [T, B, U].
    """
    decay = torch.exp(-torch.exp(-log_time_constant))
    stationary = log_noise - torch.log1p(-decay.square())
    expected = torch.cat([torch.zeros_like(sample[:1]), decay * sample[:-1]])
    first = torch.zeros(len(sample), 1, 1, dtype=torch.bool, device=sample.device)
    first[0] = True
    return gaussian_divergence(mean, log_variance, expected, torch.where(first, stationary, log_noise))
