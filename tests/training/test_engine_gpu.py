"""The engine on a GPU: the CPU's answers, and the same bytes after a kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.run import Run
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed, same

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SMALL = Config(layers=2, hidden=32, steps=12, warmup=2, evaluate_every=4, batch=8, masking=("timestep", "neuron"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort"), made=[recording(trials=30)]), fitting=True)


def on_gpu(config: Config) -> NDT:
    model = NDT(config, 0)
    model.device = "cuda"
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_fit_ends_in_the_same_bytes(data: FitData, tmp_path: Path, precision: str) -> None:
    config = replace(SMALL, precision=precision)
    undisturbed = on_gpu(config)
    undisturbed.fit(data, Run(tmp_path / "undisturbed", device="cuda"))
    for _ in range(10):
        model = on_gpu(config)
        try:
            model.fit(data, FragileRun(tmp_path / "killed", 5, device="cuda"))
            break
        except Killed:
            continue
    assert same(model.state(), undisturbed.state())


def test_predictions_are_those_of_the_cpu(data: FitData, tmp_path: Path) -> None:
    model = on_gpu(SMALL)
    model.fit(data, Run(tmp_path, device="cuda"))
    cpu = NDT(SMALL, 0)
    cpu.load_state(model.state())
    samples = data.samples("small0", "validation")
    ours, theirs = (each.predict(data, "small0", samples) for each in (model, cpu))
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    masked = [each.predict_masked(data, "small0", samples, "leave_one_out") for each in (model, cpu)]
    assert np.allclose(*masked, rtol=1e-4, atol=1e-5, equal_nan=True)
