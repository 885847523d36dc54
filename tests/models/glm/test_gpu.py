"""The same fit on a GPU."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.engine import fit
from pipeline_lib.models.glm.observation import PoissonExp
from pipeline_lib.models.glm.penalties import Penalty

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("kind", ["ridge", "group_lasso"])
def test_a_gpu_finds_the_minimum_that_a_cpu_finds(network, memory, kind):
    data = Data(network.counts, np.array([[30, 12_000]]), network.kernel, np.arange(8), np.arange(8))
    solutions = [
        fit(data, PoissonExp(), 1e-3, penalty=Penalty(kind), dtype=torch.float64, device=device, memory=memory)[0]
        for device in ("cpu", "cuda")
    ]
    assert all(bool(solution.converged.all()) for solution in solutions)
    torch.testing.assert_close(solutions[1].coefficients.cpu(), solutions[0].coefficients, rtol=0, atol=1e-6)
