"""Low-rank couplings: exact when the rank is full, right when the truth has few channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.low_rank import low_rank
from pipeline_lib.models.glm.observation import PoissonExp
from tests.models.glm.networks import simulate_network

KERNEL = simulate_network(2, 40, 0).kernel


def driven(rank: int, bins: int = 20_000) -> tuple[Data, np.ndarray]:
    """Six receivers driven by six senders through `rank` channels; the weights (sender x basis, receiver)."""
    random = np.random.default_rng(1)
    senders = random.poisson(0.2, (bins, 6)).astype(np.uint8)
    shape = np.outer(random.normal(size=(6, rank)).ravel(), [0.3, 0.2, 0.1, 0.03, 0.0]).reshape(6, rank, 5)
    weights = np.einsum("srb,rj->sbj", shape, random.normal(size=(rank, 6)))
    filters = np.einsum("kb,sbj->ksj", KERNEL, weights)
    eta = np.full((bins, 6), np.log(0.2))
    for lag in range(30):
        eta[lag + 1 :] += senders[: bins - lag - 1].astype(float) @ filters[lag]
    counts = np.concatenate([senders, random.poisson(np.exp(np.minimum(eta, 1.5))).astype(np.uint8)], axis=1)
    data = Data(counts, np.array([[30, bins]]), KERNEL, np.arange(6), np.arange(6, 12))
    return data, weights.reshape(30, 6)


@pytest.mark.parametrize("strength", [0.0, 3e-2])
@pytest.mark.parametrize("features", [None, np.sin(np.arange(5000) / 50)[:, None]], ids=["alone", "with a feature"])
def test_full_rank_is_the_full_fit(features, strength):
    """With its penalty, too, whose share differs from column to column."""
    data, _ = driven(2, bins=5000)
    data = replace(data, features=features)
    scale = torch.linspace(0.5, 2, 30 + (features is not None))
    problem = Problem(Design(data, torch.float64), PoissonExp(), scale=scale)
    full = problem.solve(strength)
    found = low_rank(problem, full, 6, strength)
    torch.testing.assert_close(found.coefficients, full.coefficients, rtol=0, atol=1e-6)
    assert found.share[-1] == pytest.approx(1)


def test_channels_lose_the_least_likelihood_to_second_order():
    """Best for receivers weighed by their curvatures: as much is lost as `share` says, and by no rival less."""
    data, _ = driven(2, bins=5000)
    data.counts[::2, 8] = 0  # a receiver at half the rate
    full, problem = fit(data, PoissonExp(), 0.0, dtype=torch.float64)
    found = low_rank(problem, full, 2, 0.0)
    covariance, curvature = problem.covariance.of_couplings().numpy(), problem.curvature.numpy()
    weights = full.coefficients[:, 1:].T.numpy()

    def lost(channels: np.ndarray) -> float:
        read = np.linalg.solve(channels.T @ covariance @ channels, channels.T @ covariance @ weights)
        missing = weights - channels @ read
        return float((curvature * np.einsum("ij,ik,kj->j", missing, covariance, missing)).sum())

    channels = found.channels.reshape(30, 2).numpy()
    whole = float((curvature * np.einsum("ij,ik,kj->j", weights, covariance, weights)).sum())
    assert lost(channels) / whole == pytest.approx(1 - found.share[-1], rel=1e-6)
    random = np.random.default_rng(0)
    rivals = [lost(channels + 0.01 * channels.std() * random.normal(size=channels.shape)) for _ in range(10)]
    assert lost(channels) < min(rivals)


def test_two_channels_are_found_and_cost_no_likelihood():
    data, weights = driven(2)
    full, problem = fit(data, PoissonExp(), 0.0, dtype=torch.float64)
    one, two = low_rank(problem, full, 1, 0.0), low_rank(problem, full, 2, 0.0)
    couplings = two.coefficients[:, 1:].T.numpy()
    assert np.linalg.matrix_rank(couplings) == 2 and two.share[1] > 0.9
    error = np.linalg.norm(couplings - weights)
    assert error < 0.75 * np.linalg.norm(full.coefficients[:, 1:].T.numpy() - weights), "fewer weights, less noise"
    bins = problem.design.frames
    lost = (two.loss - full.loss).sum() * bins
    assert 0 < lost < 200, "about half a nat for each of the 122 weights that it does without"
    assert (one.loss - two.loss).sum() * bins > 100


def test_weights_on_channels_have_the_least_penalised_loss():
    """Without their penalty a few spikes that a channel tells from the others gave weights without end."""
    data, _ = driven(3, bins=2000)
    scale, strength = torch.linspace(0.5, 2, 30, dtype=torch.float64), 3e-2
    problem = Problem(Design(data, torch.float64), PoissonExp(), scale=scale)
    found = low_rank(problem, problem.solve(strength), 2, strength)
    counts = torch.as_tensor(data.counts[30:, 6:])

    def objective(readout: torch.Tensor) -> float:
        weights = (found.channels.reshape(30, 2) @ readout).T
        eta = problem.design.predictors(torch.cat([found.coefficients[:, :1], weights], dim=1))[30:]
        return float((eta.exp() - counts * eta).mean(0).sum() + strength / 2 * (scale * weights**2).sum())

    noise = 0.03 * torch.randn(20, *found.readout.shape, generator=torch.manual_seed(0))
    assert objective(found.readout) < min(objective(found.readout + each) for each in noise)
    assert objective(found.readout) < objective(0.97 * found.readout)


def test_mistakes_are_named():
    data, _ = driven(1, bins=2000)
    allowed = np.ones((6, 30), dtype=bool)
    for mask, rank in ((allowed, 7), (allowed, 0), (allowed & (np.arange(30) > 4), 2)):
        solution, problem = fit(data, PoissonExp(), 1e-3, mask)
        with pytest.raises(InputError):
            low_rank(problem, solution, rank, 1e-3)
