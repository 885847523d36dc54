"""The same code on a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.run import Run
from tests.models.lfads.test_lfads import CONTROLLED, SMALL
from tests.small_cohort import open_cohort, write_cohort

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.mark.parametrize(
    "config", [SMALL, replace(CONTROLLED, posterior_samples=2), replace(SMALL, precision="bfloat16")]
)
def test_a_gpu_predicts_what_a_cpu_does(tmp_path: Path, config: object) -> None:
    data = open_cohort(*write_cohort(tmp_path))
    model = LFADS(config, 0)
    model.device = "cuda"
    run = Run(tmp_path / "run", device="cuda")
    model.fit(replace(data, fitting=True), run)
    assert np.isfinite([row["validation_loss"] for row in run.rows]).all()
    copy = LFADS(config, 0)
    copy.load_state(model.state())
    samples = data.samples("small0", "test")
    first, second = (each.predict(data, "small0", samples) for each in (model, copy))
    assert np.allclose(first, second, atol=1e-4)
