"""Pieces of a batch that memory has no room for make up its gradient, whatever each term of the loss counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.models import glm_transformer, neuroformer
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.torch_model import TorchModel
from pipeline_lib.training.batches import Order
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.gradients import Gradients
from pipeline_lib.training.run import Run
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

TOKENS = {"window": 0.1, "past": 0.1, "width": 16, "heads": 2, "dropout": 0.0}
TASKS: dict[str, Any] = {
    "signals": ("running/angle",),
    "decode": {"running/speed": "regression", "running/fast": "classification"},
    # Of the pieces no window can be told from those of others: exact without it, and a number with it.
    "contrastive": ("spikes", "signals"),
    "contrastive_weight": 0.0,
}
FACTORS = {"width": 16, "heads": 2, "hidden": 16, "splines": 8, "history_peak": 0.06, "coupling_peak": 0.06}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Trials from 60 ms to 1.2 s, some units held out; speed is not always measured, and fast not always told."""
    made = recording("one", 0, units=9, trials=40)
    made.trials["stop"] = made.trials["start"] + np.linspace(0.06, 1.2, 40)
    time = np.arange(0, made.duration, 0.05)
    speed, angle = 3 * np.sin(9 * time), np.cos(3 * time)
    fast = np.where(time % 4 < 1, np.nan, speed > 1)
    known = {"speed": np.where(time % 3 < 1, np.nan, speed), "angle": angle, "fast": fast}
    made = replace(made, signals={"running": pd.DataFrame({"time": time, **known})})
    windows, splits = replace(WINDOWS, after=None), replace(SPLITS, forward=0.0)
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("ragged"), windows, splits, [made]), fitting=True)


def gradients(model: TorchModel, data: FitData, step: int, folder: Path) -> list[torch.Tensor]:
    """The gradient of a step as a whole and in 2 and 7 pieces, far from where weights start."""
    run = Run(folder)
    data = model.learned(data)
    windows = model.windows(data, "train", run)
    model.start(data, windows)
    generator = torch.Generator().manual_seed(0)
    weights = list(model.network.parameters())
    with torch.no_grad():
        for weight in weights:
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    found = []
    for pieces in (1, 2, 7):
        model.network.zero_grad()
        made = Gradients(model.network, Order(windows, 7, 0), replace(model.config, clip=1e9), 0, run)
        assert np.isfinite(made.compute(Progress(step=step, pieces=pieces), weights))
        found.append(torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]))
    return found


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (neuroformer.MODEL, TOKENS | {"jitter": False}),
        (neuroformer.MODEL, TOKENS | {"limit": 3}),
        (neuroformer.MODEL, TOKENS | TASKS),
        (glm_transformer.MODEL, FACTORS | {"sample_latent": True}),
        (glm_transformer.MODEL, FACTORS | {"encoder": "gru", "sample_latent": True}),
    ],
    ids=["tokens", "jitter", "tasks", "factors", "recurrent"],
)
def test_pieces_make_up_the_gradient_of_the_batch(
    ragged: FitData, tmp_path: Path, kind: type[TorchModel], settings: dict[str, Any]
) -> None:
    """Likelihoods by counts or spikes, penalties by windows, read-outs by windows that are known."""
    for step in (0, 3):
        whole, *others = gradients(kind(kind.Config(batch=7, **settings), 0), ragged, step, tmp_path / str(step))
        for other in others:
            assert float((other - whole).norm() / whole.norm()) < 1e-5
