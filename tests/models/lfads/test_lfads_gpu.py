"""The same code on a GPU, and its steps as CUDA graphs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.sequence import GRU
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.training.fit_ensemble import ensemble_of
from pipeline_lib.training.run import Run
from tests.models.lfads.small import CONTROLLED, SMALL
from tests.small_cohort import open_cohort, write_cohort
from tests.training.test_ensemble import rows_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort")))


def fitted(config: Config, data: FitData, folder: Path) -> LFADS:
    model, run = LFADS(config, 0), Run(folder, device="cuda")
    model.device = "cuda"
    model.fit(replace(data, fitting=True), run)
    assert np.isfinite([row["validation_loss"] for row in run.rows]).all()
    return model


@pytest.mark.parametrize(
    "config", [SMALL, replace(CONTROLLED, posterior_samples=2), replace(SMALL, precision="bfloat16")]
)
def test_a_gpu_predicts_what_a_cpu_does(data: FitData, tmp_path: Path, config: Config) -> None:
    model, copy = fitted(config, data, tmp_path), LFADS(config, 0)
    copy.load_state(model.state())
    samples = data.samples("small0", "test")
    first, second = (each.predict(data, "small0", samples) for each in (model, copy))
    assert np.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("hidden", [16, 100, 130])
@pytest.mark.parametrize("half", [False, True])
def test_a_walk_has_the_gradients_of_a_cpu(half: bool, hidden: int) -> None:
    torch.manual_seed(0)
    network = GRU(20, hidden, 2)
    x, start, outer = torch.rand(11, 5, 20), torch.randn(2, 5, hidden), torch.randn(2, 11, 5, hidden)
    absent = torch.rand(11, 5) < 0.3
    found = []
    for device in ("cpu", "cuda"):
        network.to(device)
        states, last = network(x.to(device), 11, start.to(device), absent.to(device), half)
        loss = (states.float() * outer.to(device)).sum() + last.sum()
        found.append([each.cpu() for each in (last, *torch.autograd.grad(loss, list(network.parameters())))])
    for first, second in zip(*found, strict=True):
        assert (first - second).norm() < (0.03 if half else 1e-4) * first.norm()


@pytest.mark.parametrize("config", [SMALL, CONTROLLED, replace(CONTROLLED, precision="bfloat16")])
def test_a_cuda_graph_changes_no_step(data: FitData, tmp_path: Path, config: Config) -> None:
    """The same noise, ramps and gradients, launched one by one or as one."""
    single = fitted(config, data, tmp_path / "single").state()
    as_one = fitted(replace(config, cuda_graphs=True), data, tmp_path / "graph").state()
    start = fitted(replace(config, learning_rate=1e-30), data, tmp_path / "start").state()
    for name, weight in single.items():
        moved = np.linalg.norm(weight.astype(float) - start[name])
        assert np.linalg.norm(weight.astype(float) - as_one[name]) <= 0.02 * moved + 1e-6, name


@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "recorded"])
@pytest.mark.parametrize("config", [SMALL, replace(CONTROLLED, sample_validation=0.2)], ids=["plain", "controlled"])
def test_members_of_an_ensemble_train_as_alone(data: FitData, tmp_path: Path, config: Config, graphs: bool) -> None:
    data, seeds, run = replace(data, fitting=True), [3, 0], Run(tmp_path / "together", device="cuda")
    models = [LFADS(replace(config, cuda_graphs=graphs), seed) for seed in seeds]
    for model in models:
        model.device = "cuda"
    ensemble_of(models, data, run).train()
    for seed in seeds:
        alone, own = LFADS(config, seed), Run(tmp_path / str(seed), device="cuda")
        alone.device = "cuda"
        alone.fit(data, own)
        rows = rows_of(run, seed)
        assert len(rows) == len(own.rows) == 2
        for row, other in zip(rows, own.rows, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
