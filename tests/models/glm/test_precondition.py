"""The shared picture of the curvature against the dense design, and its inverse against dense algebra."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.precondition import Covariance, Preconditioner
from tests.models.glm.networks import dense_design

SEGMENTS = np.array([[30, 4000], [4100, 12_000]])


@pytest.fixture
def pictured(network) -> tuple[Covariance, np.ndarray]:
    """What the engine makes of two features and three senders, and the covariance of the dense columns."""
    time = np.arange(len(network.counts))
    recent = np.convolve(network.counts[:, 0], np.ones(20))[: len(time)]
    features = np.stack([1e-5 * np.sin(time / 200), recent], axis=1)
    senders = np.array([6, 0, 2])
    data = Data(network.counts, SEGMENTS, network.kernel, senders, np.arange(2), features)
    design = Design(data, torch.float64)
    sums = design.feature_sums()
    covariance = Covariance(design, sums[1:] / sums[0], float(sums[0]))
    return covariance, np.cov(dense_design(data)[0][:, 1:].T, bias=True)


def test_covariance_is_that_of_the_columns(pictured) -> None:
    covariance, expected = pictured
    found = covariance.matrix.numpy()
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-7, atol=1e-12)  # with features it is exact
    np.testing.assert_allclose(found, found.T, rtol=1e-9)
    deviation = np.sqrt(np.diag(expected))
    scale = np.outer(deviation, deviation)
    np.testing.assert_allclose(found / scale, expected / scale, atol=0.02)
    assert np.abs(found[1, 7:12]).max() > 0.1, "a feature made of a sender's counts goes with its columns"
    assert covariance.mean_variance == pytest.approx(np.diag(found)[2:].mean())
    assert covariance.largest() == pytest.approx(np.linalg.eigvalsh(found)[-1])
    assert covariance.rank_deficiency() == 0, "small numbers are no missing directions"
    vectors = np.random.default_rng(0).normal(size=(4, 17))
    np.testing.assert_allclose(covariance.multiply(torch.from_numpy(vectors)), vectors @ found, rtol=1e-9)


def test_it_is_inverted_for_every_unit_with_its_mask_curvature_and_penalties(pictured) -> None:
    covariance, _ = pictured
    random = np.random.default_rng(1)
    allowed = np.ones((3, 17), dtype=bool)
    allowed[1, 4:9] = False
    scale, curvature, strength = random.uniform(0.1, 3, 17), np.array([0.1, 0.5, 2.0]), np.array([1e-3, 1e-1, 1.0])
    metric = Preconditioner(covariance, torch.from_numpy(allowed), torch.from_numpy(scale))
    gradient, units = random.normal(size=(3, 18)), np.array([2, 1, 0])
    given = (torch.from_numpy(array) for array in (gradient, units, curvature[units], strength[units]))
    found = metric.apply(*given).numpy()
    for row, unit in enumerate(units):
        kept = allowed[unit]
        hessian = curvature[unit] * covariance.matrix.numpy() + strength[unit] * np.diag(scale)
        expected = np.zeros(18)
        expected[0] = gradient[row, 0] / curvature[unit]
        expected[1:][kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], gradient[row, 1:][kept])
        np.testing.assert_allclose(found[row], expected, rtol=1e-7, atol=1e-12)
