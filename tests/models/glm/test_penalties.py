"""Sparse penalties: conditions of optimality by hand, and scikit-learn's lasso for the Gaussian case."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.observation import Gaussian, PoissonExp
from pipeline_lib.models.glm.penalties import Penalty, kink
from tests.models.glm.networks import dense_design

UNITS = np.arange(8)


def data_of(network, **changes) -> Data:
    given = {"counts": network.counts, "segments": np.array([[30, 12_000]]), "kernel": network.kernel}
    return Data(**given | {"senders": UNITS, "receivers": UNITS} | changes)


def loss_gradient(data: Data, coefficients: np.ndarray, unit: int) -> np.ndarray:
    design, frames = dense_design(data)
    return design.T @ (np.exp(design @ coefficients) - data.counts[frames, unit].numpy()) / len(frames)


@pytest.mark.parametrize(("kind", "ratio"), [("lasso", 1.0), ("elastic_net", 0.6)])
def test_least_squares_is_scikit_learns(network, kind, ratio):
    data, strength = data_of(network), 2e-3
    solution, _ = fit(data, Gaussian(), strength, penalty=Penalty(kind, ratio), dtype=torch.float64)
    assert solution.converged.all()
    design, frames = dense_design(data)
    for unit in (0, 4):
        peer = ElasticNet(alpha=strength, l1_ratio=ratio, tol=1e-12, max_iter=100_000)
        peer.fit(design[:, 1:], network.counts[frames, unit].astype(float))
        found = solution.coefficients[unit].numpy()
        np.testing.assert_allclose(found, np.r_[peer.intercept_, peer.coef_], atol=1e-6)
        np.testing.assert_array_equal(found[1:] == 0, peer.coef_ == 0)
        eta, weights = design @ found, found[1:]
        loss = (eta**2 / 2 - network.counts[frames, unit] * eta).mean()
        penalty = strength * (ratio * np.abs(weights).sum() + (1 - ratio) * (weights**2).sum() / 2)
        assert float(solution.loss[unit]) == pytest.approx(loss, rel=1e-9)
        assert float(solution.objective[unit]) == pytest.approx(loss + penalty, rel=1e-9)


def test_too_many_columns_for_one_metric_still_give_the_optimum(network, monkeypatch):
    """Above 5,000 columns, as 700 units have, of their covariance the blocks of each sender alone are known."""
    signal = np.random.default_rng(4).standard_normal((len(network.counts), 1)).astype(np.float32)
    given = data_of(network, features=signal, segments=np.array([[30, 3000]])), PoissonExp(), 5e-3
    whole, _ = fit(*given, penalty=Penalty("group_lasso"), dtype=torch.float64)
    monkeypatch.setattr("pipeline_lib.models.glm.precondition.LARGEST_SHARED", 10)
    blockwise, problem = fit(*given, penalty=Penalty("group_lasso"), dtype=torch.float64)
    assert problem.covariance.blockwise and blockwise.converged.all() and (blockwise.coefficients[:, 2:] != 0).any()
    torch.testing.assert_close(blockwise.coefficients, whole.coefficients, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [3e-3, 3e-4])
def test_lasso_optimum_of_poisson(network, strength):
    data = data_of(network)
    solution, _ = fit(data, PoissonExp(), strength, penalty=Penalty("lasso"), dtype=torch.float64)
    assert solution.converged.all()
    for unit in (1, 6):
        found = solution.coefficients[unit].numpy()
        gradient = loss_gradient(data, found, unit)
        zero = found[1:] == 0
        assert abs(gradient[0]) < 1e-6 and 0 < zero.sum() < 40
        np.testing.assert_allclose(gradient[1:][~zero], -strength * np.sign(found[1:][~zero]), atol=1e-6)
        assert (np.abs(gradient[1:][zero]) <= strength + 1e-6).all()


def test_group_lasso_keeps_or_drops_whole_filters(network):
    data, strength = data_of(network), 1.5e-3
    solution, _ = fit(data, PoissonExp(), strength, penalty=Penalty("group_lasso"), dtype=torch.float64)
    assert solution.converged.all()
    for unit in (1, 6):
        found = solution.coefficients[unit].numpy()
        gradient = loss_gradient(data, found, unit)[1:].reshape(8, 5)
        groups = found[1:].reshape(8, 5)
        norms = np.linalg.norm(groups, axis=1)
        assert ((groups == 0).all(1) | (groups != 0).all(1)).all() and 0 < (norms == 0).sum() < 8
        kept = norms > 0
        expected = -strength * np.sqrt(5) * groups[kept] / norms[kept, None]
        np.testing.assert_allclose(gradient[kept], expected, atol=2e-6)
        assert (np.linalg.norm(gradient[~kept], axis=1) <= strength * np.sqrt(5) + 1e-6).all()


def test_group_lasso_finds_the_network(network):
    solution, _ = fit(data_of(network), PoissonExp(), 2e-3, penalty=Penalty("group_lasso"))
    groups = solution.coefficients[:, 1:].reshape(8, 8, 5).norm(dim=2).T.numpy()
    other = ~np.eye(8, dtype=bool)
    found, truth = groups[other] > 0, network.connected[other]
    assert found[truth].mean() > 0.85 and found[~truth].mean() < 0.3


def test_at_the_largest_strength_the_last_coupling_goes(network):
    for kind in ("lasso", "group_lasso", "elastic_net"):
        problem = Problem(Design(data_of(network)), PoissonExp(), penalty=Penalty(kind))
        largest = problem.largest_strength(torch.arange(8))
        assert (problem.solve(1.001 * largest).coefficients[:, 1:] == 0).all(), kind
        assert (problem.solve(0.97 * largest).coefficients[:, 1:] != 0).any(), kind


def test_masks_features_and_float32(network):
    allowed = np.ones((8, 41), dtype=bool)
    allowed[:, 6:11] = False
    features = np.sin(np.arange(12_000) / 300)[:, None]
    data = data_of(network, features=features)
    double, _ = fit(data, PoissonExp(), 5e-4, allowed, Penalty("group_lasso"), dtype=torch.float64)
    single, _ = fit(data, PoissonExp(), 5e-4, allowed, Penalty("group_lasso"))
    assert (double.coefficients[:, 7:12] == 0).all() and single.converged.all()
    torch.testing.assert_close(single.coefficients, double.coefficients, rtol=0, atol=2e-3)
    assert ((single.objective - double.objective).abs() < 5e-8).all()
    weak, _ = fit(data, PoissonExp(), 1e-6, allowed, Penalty("lasso"))
    assert (weak.coefficients[:, 7:12] == 0).all(), "by the mask, not by the penalty"


def test_without_any_input_the_mean_is_fitted(network):
    data = data_of(network, senders=UNITS[:0])
    solution, _ = fit(data, PoissonExp(), 1e-3, penalty=Penalty("lasso"), dtype=torch.float64)
    np.testing.assert_allclose(solution.coefficients[:, 0].exp(), network.counts[30:].mean(0), rtol=1e-6)


def test_elastic_net_of_ratio_one_is_the_lasso(network):
    data = data_of(network)
    lasso, _ = fit(data, PoissonExp(), 1e-3, penalty=Penalty("lasso"), dtype=torch.float64)
    net, _ = fit(data, PoissonExp(), 1e-3, penalty=Penalty("elastic_net", 1.0), dtype=torch.float64)
    torch.testing.assert_close(lasso.coefficients, net.coefficients, rtol=0, atol=1e-7)


def test_shrinking_is_the_proximal_map():
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.5, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    for kind in ("lasso", "group_lasso"):
        part = kink(Penalty(kind), scale, features=1, basis=3)
        point = torch.randn(4, 7, generator=random, dtype=torch.float64)
        amount = torch.tensor([0.1, 0.4, 1.0, 3.0], dtype=torch.float64)
        best = part.shrink(point, amount)

        def objective(candidate, part=part, point=point, amount=amount):
            return 0.5 * ((candidate - point) ** 2).sum(1) + part.value(candidate, amount)

        for _ in range(50):
            near = best + 0.01 * torch.randn(4, 7, generator=random, dtype=torch.float64)
            assert (objective(near) >= objective(best) - 1e-12).all()


def test_mistakes_are_named():
    with pytest.raises(InputError, match="penalty"):
        Penalty("l1")
    with pytest.raises(InputError, match="ratio"):
        Penalty("elastic_net", 0.0)
