"""The functions that are recorded as CUDA graphs make the steps that are otherwise launched; here without a GPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.batches import InOrder
from pipeline_lib.training.engine import Training
from pipeline_lib.training.graphs import Recordings, put_gradients
from pipeline_lib.training.run import Run
from pipeline_lib.training.streaming import shuffled
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training.test_ensemble import SMALL, ensemble, rows_of, weights


class Immediate(Recordings):
    """Calls what it should record."""

    def run(
        self,
        kind: object,
        function: Callable[[dict[str, Tensor]], Tensor],
        inputs: dict[str, Tensor],
        changed: list[Tensor],
        streams: tuple = (),
    ) -> Tensor:
        before = [tensor.detach().clone() for tensor in changed]
        made = function({name: tensor.clone() for name, tensor in inputs.items()})
        self.moved = [not torch.equal(tensor, old) for tensor, old in zip(changed, before, strict=True)]
        return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort"), made=[recording(trials=30)]), fitting=True)


SETTINGS = [
    {},
    {"schedule": "plateau", "decay_patience": 1, "average": 0.0, "clip": 0.01, "learning_rate": 0.02},
    {"weight_decay": 2.0, "weight_decay_ramp": (1, 6)},
]
IDS = ["mean", "plateau", "ramped decay"]


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_steps(data: FitData, tmp_path: Path, settings: dict) -> None:
    config: Config = replace(SMALL, **settings)
    runs = []
    for recorded in (False, True):
        run, model = Run(tmp_path / str(recorded)), NDT(config, 0)
        windows, validation = (model.windows(data, part, run) for part in ("train", "validation"))
        model.start(data, windows)
        training = Training(model.network, shuffled(windows, config.batch, 0), InOrder(validation, 64), config, 0, run)
        if recorded:
            training.steps.recordings = Immediate()
        training.train()
        runs.append((run.rows, training))
    for row, other in zip(runs[0][0], runs[1][0], strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    # What changed was named: all weights and means, and the whole state of the optimiser.
    assert all(runs[1][1].steps.recordings.moved)


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
def test_steps_of_an_ensemble(data: FitData, tmp_path: Path, settings: dict) -> None:
    config = replace(SMALL, **settings)
    launched, recorded = (ensemble(data, Run(tmp_path / name), config) for name in ("launched", "recorded"))
    recorded.recorded, recorded.recordings = True, Immediate()
    launched.train()
    recorded.train()
    for number, member in enumerate(launched.members):
        for row, other in zip(*(rows_of(each.run, member.seed) for each in (launched, recorded)), strict=True):
            assert row == pytest.approx(other, rel=1e-5)
        for name, value in weights(launched, number).items():
            np.testing.assert_allclose(weights(recorded, number)[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert all(recorded.recordings.moved)


def test_gradients_lie_in_memory_as_their_weights() -> None:
    weight, unused = torch.randn(3, 4, requires_grad=True), torch.randn(2, requires_grad=True)
    loss = (weight.t() * torch.arange(3.0)).contiguous().square().sum()
    put_gradients(loss, [weight, unused])
    assert weight.grad.stride() == weight.stride() and unused.grad is None
    expected = 2 * weight.detach() * torch.arange(3.0).square()[:, None]
    torch.testing.assert_close(weight.grad, expected)
