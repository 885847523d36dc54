"""Agreement with NeMoS 0.2.8 in float64 (numbers made by nemos_reference.py), and its how-to page on raw history."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.bases import (
    BSpline,
    Convolve,
    CyclicBSpline,
    RaisedCosineLinear,
    RaisedCosineLog,
    RawHistory,
    kernel_rank,
)
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.engine import fit
from pipeline_lib.models.glm.goodness import explained
from pipeline_lib.models.glm.observation import PoissonExp

STRENGTH, HISTORY, FUNCTIONS = 1e-3, 30, 5


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).with_name("nemos_reference.npz")))


@pytest.mark.parametrize(
    "basis", [RaisedCosineLinear(7, width=1.5), RaisedCosineLog(8), BSpline(7, order=3), CyclicBSpline(7)]
)
def test_bases(reference, basis):
    expected = reference[f"basis_{type(basis).__name__}"]
    np.testing.assert_allclose(basis.evaluate(reference["s"]), expected, atol=1e-14)


@pytest.mark.parametrize("causality", ["causal", "acausal", "anti-causal"])
def test_convolution_and_its_padding(reference, causality):
    found = Convolve(BSpline(5), 6, causality=causality).compute(reference["counts"][:40])
    np.testing.assert_allclose(found, reference[f"conv_{causality}"], atol=1e-12)


@pytest.mark.parametrize("name", ["full", "masked"])
def test_coefficients_and_scores(reference, name):
    counts, units = reference["counts"], np.arange(4)
    kernel = RaisedCosineLog(FUNCTIONS).kernel(HISTORY)
    mask = reference["mask"] if name == "masked" else np.ones((4, 4), dtype=bool)
    data = Data(counts, np.array([[HISTORY, len(counts)]]), kernel, units, units)
    allowed = np.repeat(mask.T, FUNCTIONS, axis=1)
    solution, _ = fit(data, PoissonExp(), STRENGTH, allowed, dtype=torch.float64)
    weights = solution.coefficients.numpy()
    np.testing.assert_allclose(weights[:, 1:], reference[f"{name}_coef"].T, atol=1e-6)
    np.testing.assert_allclose(weights[:, 0], reference[f"{name}_intercept"], atol=1e-6)
    assert (weights[:, 1:][~allowed] == 0).all()
    design = Convolve(RaisedCosineLog(FUNCTIONS), HISTORY).compute(counts)[HISTORY:]
    table = explained(counts[HISTORY:], np.exp(weights[:, 0] + design @ weights[:, 1:].T))
    scores = {"log_likelihood": "log-likelihood", "mcfadden": "pseudo-r2-McFadden", "cohen": "pseudo-r2-Cohen"}
    for ours, theirs in scores.items():
        np.testing.assert_allclose(table[ours], reference[f"{name}_{theirs}"], atol=1e-8, err_msg=ours)


def test_the_how_to_page_on_raw_history():
    counts = np.random.default_rng(0).poisson(0.7, (100, 4)).astype(np.uint8)
    units = np.arange(4)

    def converged(kernel: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        data = Data(counts, np.array([[len(kernel), 100]]), kernel, units, units)
        allowed = None if mask is None else np.repeat(mask.T, kernel.shape[1], axis=1)
        solution, _ = fit(data, PoissonExp(), 1e-2, allowed, dtype=torch.float64)
        assert solution.converged.all()
        return solution.coefficients[:, 1:].numpy()

    history = Convolve(RawHistory(10), 10, "spike-history")
    columns = history.compute(counts)
    assert columns.shape == (100, 40) and np.isnan(columns[:10]).all()
    assert converged(RawHistory(10).kernel(10)).shape == (4, 40)

    cosines = Convolve(RaisedCosineLog(3), 3, "spike-history")
    assert cosines.compute(counts).shape == (100, 12)
    kernel = RaisedCosineLog(3).kernel(3)
    assert kernel_rank(kernel) == 2, "the page's basis describes a filter in more than one way"
    weights = cosines.split_by_feature(converged(kernel), counts, axis=1)["spike-history"]
    assert weights.shape == (4, 4, 3)  # receiver, sender, function

    mask = np.ones((4, 4), dtype=bool)
    mask[[0, 3], [1, 2]] = False  # 0 does not drive 1, 3 does not drive 2
    masked = converged(kernel, mask).reshape(4, 4, 3)
    assert (masked[1, 0] == 0).all() and (masked[2, 3] == 0).all() and (masked[0, 1] != 0).any()
