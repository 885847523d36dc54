"""Trainings on a GPU that is not there, run as a program: prints what was wrong with each network, as JSON."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import ndt as benchmark
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.likelihood import log_factorials
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config as NDTConfig
from pipeline_lib.models.torch_model import TorchModel
from pipeline_lib.training import graphs
from pipeline_lib.training.batches import Batch, Batches, InOrder
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.engine import Training
from pipeline_lib.training.fit_ensemble import ensemble_of
from pipeline_lib.training.graphs import Recordings
from pipeline_lib.training.network import Network
from pipeline_lib.training.run import Run
from pipeline_lib.training.settings import TrainingSettings
from pipeline_lib.training.steps import Steps
from pipeline_lib.training.streaming import shuffled
from pipeline_lib.trains.settings import WindowSettings
from tests.models.glm_transformer.test_network import pair, windows
from tests.models.lfads.small import CONTROLLED, SMALL
from tests.models.neuroformer.small import batch as neuroformer_batch
from tests.models.neuroformer.small import network as neuroformer
from tests.models.neuroformer.small import poisson
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training import pretended_device
from tests.training.pretended_device import DEVICE
from tests.training.tiny_network import Config as TinyConfig
from tests.training.tiny_network import TinyModel

STEPS = {"steps": 2, "warmup": 2, "evaluate_every": 2, "average": 0.9}
"""The second is a replay of what was recorded in the first."""
NARROW = NDTConfig(layers=1, hidden=16, read_in=8, batch=8, clip=0.1, **STEPS)
HARD = {"hardest_share": 0.4, "weight_decay": 2.0, "weight_decay_ramp": (0, 4), "mask_span": 2}
"""The ramp is a number of the step, and how many counts are the hardest one of the mask."""
MODES = ("timestep", "element", "neuron", "causal", "intra_region", "inter_region")


class Mixing(Network):
    """Adds a tensor of the CPU."""

    vectorises = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        return batch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (self.weight + torch.ones(3)).sum()}


class Reading(Mixing):
    """Looks at a count."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.weight.sum() * batch.counts.sum().item()}


class Remembering(Mixing):
    """Takes a number of the host's for one of the step."""

    steps = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.steps += 1
        return {"loss": self.weight.sum() * self.steps}


class Same(Batches):
    """One batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __getitem__(self, number: int) -> Batch:
        return self.batch


def steps(network: Network, batch: Batch, recorded: bool) -> list[list[float]]:
    """Losses and weights of two steps of a network by itself."""
    network = copy.deepcopy(network).to(DEVICE)
    batch = batch.holding({name: tensor.to(DEVICE) for name, tensor in batch.tensors().items()})
    with tempfile.TemporaryDirectory() as folder:
        made = Steps(network, Same(batch), TrainingSettings(**STEPS), 0, Run(Path(folder), device=DEVICE))
        made.recordings = Recordings() if recorded else None
        losses = [made.make(Progress(step)) for step in range(2)]
    return [losses, *(weight.detach().cpu().flatten().tolist() for weight in network.parameters())]


def hurried(step: Callable[[Any], Any], recordings: Callable[[], Recordings | None]) -> Callable[[Any], Any]:
    """A step, which must not wait for the device but once, for what a recording makes, after the first of them."""

    def made(which: Any) -> Any:
        before, found = pretended_device.WAITS[0], recordings()
        ready = found is not None and found.made
        result = step(which)
        if ready and (waits := pretended_device.WAITS[0] - before) > 1:
            raise RuntimeError(f"the host waits {waits} times in a recorded step")
        return result

    return made


def training(model: TorchModel, data: FitData, recorded: bool) -> list[list[float]]:
    """The history of a model's training, and some of its predictions."""
    model.device = DEVICE
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), device=DEVICE)
        train, validation = (model.windows(data, part, run) for part in ("train", "validation"))
        model.start(data, train)
        batches = shuffled(train, model.config.batch, 0)
        made = Training(model.network, batches, InOrder(validation, 64), model.config, 0, run)
        steps = made.steps
        steps.recordings = Recordings() if recorded else None
        steps.make = hurried(steps.make, lambda: steps.recordings)
        made.train()
    rates = model.predict(data, "small0", data.samples("small0", "validation").iloc[:2])
    return [*(list(row.values()) for row in run.rows), rates.reshape(-1).tolist()]


def together(models: list[TorchModel], data: FitData, recorded: bool) -> list[list[float]]:
    """The history of an ensemble's members."""
    for model in models:
        model.device = DEVICE
    with tempfile.TemporaryDirectory() as folder:
        made = ensemble_of(models, data, Run(Path(folder), device=DEVICE))
        made.recorded = recorded
        made._step = hurried(made._step, lambda: made.recordings)
        made.train()
        return [list(row.values()) for row in made.run.rows]


def log_factorials_of(counts: Tensor, on_device: bool) -> list[list[float]]:
    """A GPU sums over all entries, a CPU over those above 1."""
    entries = counts, counts % 2 == 0, torch.linspace(0.5, 2, counts.numel()).view(counts.shape)
    return [[log_factorials(*(each.to(DEVICE if on_device else "cpu") for each in entries)).item()]]


def host_time(_: bool) -> list[list[float]]:
    """What the benchmark prints of it after steps on the device, and then for the CPU."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        benchmark.host_time(DEVICE, repeats=2)
        benchmark.change_device()
        benchmark.host_time("cpu", repeats=2)
        benchmark.change_device()
    return [[float(line.split()[-2]) for line in printed.getvalue().split("\n") if line]]


def problem(made: Callable[[bool], list[list[float]]], ways: tuple[bool, ...] = (False, True)) -> str:
    """What goes wrong in steps that are launched and, the same again, recorded; or nothing."""
    try:
        found = [made(recorded) for recorded in ways]
        for values in zip(*found, strict=True):
            np.testing.assert_allclose(values[-1], values[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(np.isfinite(values[0]), True)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def problems(folder: Path) -> dict[str, str]:
    """Of every network, by name."""
    short = WindowSettings(bin_size=20.0, after=0.3, history=0.1)
    made = recording(trials=40)
    data = open_cohort(*write_cohort(folder / "even", short, made=[made]), fitting=True)
    made.trials["stop"] = made.trials["start"] + np.where(np.arange(40) % 2, 0.3, 0.2)
    uneven = open_cohort(*write_cohort(folder / "uneven", replace(short, after=None), made=[made]), fitting=True)
    lfads = {"small": replace(SMALL, **STEPS), "controlled": replace(CONTROLLED, **STEPS)}
    seen = {"sample_validation": 0.2, "pass_rate": 0.3, "hide_units": 0.2, "initial_segment": 0.05}
    models: dict[str, TorchModel] = {
        **{f"ndt that hides by {mode}": NDT(replace(NARROW, masking=(mode,)), 0) for mode in MODES},
        "ndt with embeddings, a context and plateaus": NDT(
            replace(NARROW, embedding=2, context_forward=0.1, mask_token_ratio=0.5, mask_span=3, schedule="plateau"), 0
        ),
        "ndt of the hardest counts, ramped decay": NDT(replace(NARROW, **HARD), 0),
        "lfads": LFADS(lfads["small"], 0),
        "lfads with all that hides": LFADS(replace(lfads["small"], **seen), 0),
        "lfads with a controller, bfloat16": LFADS(replace(lfads["controlled"], precision="bfloat16"), 0),
    }
    ensembles = {
        "ensemble of ndt": [NDT(NARROW, seed) for seed in (3, 0)],
        "ensemble of ndt with modes of its own": [NDT(replace(NARROW, masking=MODES[:2]), seed) for seed in (3, 0)],
        "ensemble of ndt of the hardest counts": [NDT(replace(NARROW, **HARD), seed) for seed in (3, 0)],
        "ensemble of lfads": [LFADS(lfads["controlled"], seed) for seed in (3, 0)],
    }
    networks = {
        "glm_transformer": (pair()[1], windows()),
        "glm_transformer of rank 2": (pair(rank=2)[1], windows()),
        "mixing": (Mixing(), windows()),
        "reading": (Reading(), windows()),
        "remembering": (Remembering(), windows()),
    }
    launched = {"neuroformer": (neuroformer(heldout=2), neuroformer_batch(poisson(), heldout=2))}
    found = {name: problem(lambda way, m=model: training(m, data, way)) for name, model in models.items()}
    ragged = {"ndt of ragged windows": NDT(NARROW, 0), "lfads of ragged windows": LFADS(lfads["small"], 0)}
    found |= {name: problem(lambda way, m=model: training(m, uneven, way)) for name, model in ragged.items()}
    found |= {name: problem(lambda way, m=members: together(m, data, way)) for name, members in ensembles.items()}
    found |= {name: problem(lambda way, n=each: steps(*n, way)) for name, each in networks.items()}
    found |= {name: problem(lambda way, n=each: steps(*n, way), (False,)) for name, each in launched.items()}
    found["log y!"] = problem(lambda way: log_factorials_of(torch.arange(12).view(3, 4), way))
    found["the host's time in the benchmark"] = problem(host_time, (False,))
    pretended_device.ROOM[0] = 1000
    found["ndt without memory to record"] = problem(lambda way: training(NDT(NARROW, 0), data, way))
    found["ensemble without memory to record"] = problem(lambda way: together(ensembles["ensemble of ndt"], data, way))
    graphs.MOST = 0
    found["ndt beyond the last recording"] = problem(lambda way: training(NDT(NARROW, 0), data, way))
    found["tiny"] = problem(lambda way: training(TinyModel(TinyConfig(**STEPS), 0), data, way), (False,))
    return found


if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{DEVICE}:0"
    graphs.WARM_UP = 1
    with tempfile.TemporaryDirectory() as folder:
        json.dump(problems(Path(folder)), sys.stdout)
