"""Divergences against closed forms and Monte Carlo."""

import math

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pipeline_lib.models.lfads.divergence import autoregressive_divergence, gaussian_divergence


def test_the_gaussian_divergence_is_that_of_torch() -> None:
    torch.manual_seed(0)
    mean, log_variance, prior_mean, prior_log_variance = torch.randn(4, 50, dtype=torch.float64)
    ours = gaussian_divergence(mean, log_variance, prior_mean, prior_log_variance)
    theirs = kl_divergence(
        Normal(mean, (0.5 * log_variance).exp()), Normal(prior_mean, (0.5 * prior_log_variance).exp())
    )
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert gaussian_divergence(mean, log_variance, mean, log_variance).abs().max() < 1e-12


def test_the_autoregressive_divergence_is_that_of_the_joint_gaussians() -> None:
    """Inputs that are independent given the spikes, and a prior written out as one Gaussian over all bins."""
    torch.manual_seed(1)
    bins, tau, noise, draws = 6, 3.0, 0.2, 40_000
    decay = math.exp(-1 / tau)
    lag = (torch.arange(bins)[:, None] - torch.arange(bins)).abs().double()
    prior = MultivariateNormal(torch.zeros(bins, dtype=torch.float64), noise / (1 - decay**2) * decay**lag)
    mean, log_variance = torch.randn(bins).double(), torch.randn(bins).double() - 1
    exact = kl_divergence(MultivariateNormal(mean, torch.diag(log_variance.exp())), prior)
    sample = mean + (0.5 * log_variance).exp() * torch.randn(draws, bins).double()
    posterior = [each[:, None, None].expand(-1, draws, 1) for each in (mean, log_variance)]
    logs = torch.tensor([math.log(tau)]).double(), torch.tensor([math.log(noise)]).double()
    made = autoregressive_divergence(*posterior, sample.t()[..., None], *logs)
    assert made.shape == (bins, draws, 1)
    estimates = made.sum(0)[:, 0]
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / draws**0.5
    # The estimate of the papers has the same mean and more noise.
    single = Normal(mean, (0.5 * log_variance).exp()).log_prob(sample).sum(1) - prior.log_prob(sample)
    assert abs(single.mean() - exact) < 4 * single.std() / draws**0.5
    assert estimates.std() < 0.8 * single.std()
