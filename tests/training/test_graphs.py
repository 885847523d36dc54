"""The functions that are recorded as CUDA graphs make the steps that are otherwise launched; here without a GPU."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.network import Transformer
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.batches import Batch, InOrder
from pipeline_lib.training.engine import Training
from pipeline_lib.training.graphs import Prefetched, Recording, Recordings, put_gradients
from pipeline_lib.training.run import Run
from pipeline_lib.training.streaming import shuffled
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training.test_ensemble import SEEDS, SMALL, ensemble, rows_of, weights


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


class Kept(Immediate):
    """Calls again what it was given first of a kind; a run before it leaves what it changes as it was: like graphs."""

    def run(
        self,
        kind: object,
        function: Callable[[dict[str, Tensor]], Tensor],
        inputs: dict[str, Tensor],
        changed: list[Tensor],
        streams: tuple = (),
    ) -> Tensor:
        key = (kind, *((name, tensor.shape) for name, tensor in inputs.items()))
        if key not in self.made:
            before = [tensor.detach().clone() for tensor in changed]
            states = [torch.get_rng_state(), *(stream.get_state() for stream in streams)]
            function({name: tensor.clone() for name, tensor in inputs.items()})
            for tensor, old in zip(changed, before, strict=True):
                tensor.detach().copy_(old)
            torch.set_rng_state(states[0])
            for stream, state in zip(streams, states[1:], strict=True):
                stream.set_state(state)
            self.made[key] = function
        return super().run(kind, self.made[key], inputs, changed, streams)


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
    launched, recorded = (trained(data, tmp_path, config, way) for way in (None, Kept()))
    for row, other in zip(launched.run.rows, recorded.run.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    # What changed was named: all weights and means, and the whole state of the optimiser.
    assert all(recorded.steps.recordings.moved)


def trained(data: FitData, directory: Path, config: Config, recordings: Recordings | None) -> Training:
    run, model = Run(directory / type(recordings).__name__), NDT(config, 0)
    windows, validation = (model.windows(data, part, run) for part in ("train", "validation"))
    model.start(data, windows)
    made = Training(model.network, shuffled(windows, config.batch, 0), InOrder(validation, 64), config, 0, run)
    made.steps.recordings = recordings
    made.train()
    return made


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions whose batches have the same shapes."""
    made = [recording(name, seed, units=9, trials=24) for seed, name in enumerate(("one", "two"))]
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("twins"), made=made), fitting=True)


def test_sessions_of_equal_size_have_recordings_of_their_own(twins: FitData, tmp_path: Path) -> None:
    """In the other's, one would be read through the other's weights."""
    launched, recorded = (trained(twins, tmp_path, SMALL, way) for way in (None, Kept()))
    for row, other in zip(launched.run.rows, recorded.run.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    launched, recorded = (ensemble(twins, Run(tmp_path / name), SMALL) for name in ("launched", "recorded"))
    recorded.recorded, recorded.recordings = True, Kept()
    launched.train()
    recorded.train()
    for row, other in zip(launched.run.rows, recorded.run.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


def test_a_gradient_that_is_no_number_ends_a_recorded_training(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, steps = Transformer.loss, []

    def failing(network: Transformer, batch: Batch) -> dict[str, Tensor]:
        terms = loss(network, batch)
        steps.append(network.training)
        if network.training and sum(steps) == 8:
            terms["nothing"] = (network.position * 0).sum().sqrt()
        return terms

    monkeypatch.setattr(Transformer, "loss", failing)
    made = trained(data, tmp_path, SMALL, Immediate())
    assert made.run.rows[-1] == {"step": 8, "stopped": "loss or gradient nan"}
    assert all(torch.isfinite(weight).all() for weight in made.network.parameters())


EARLY = {"steps": 30, "patience": 2, "learning_rate": 0.01, "schedule": "constant", "average": 0.0}
MODES = {"masking": ("timestep", "neuron")}


@pytest.mark.parametrize("settings", [*SETTINGS, EARLY, MODES], ids=[*IDS, "early ends", "modes of its own"])
def test_steps_of_an_ensemble(data: FitData, tmp_path: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.training.ensemble.Recordings", Kept)
    config = replace(SMALL, **settings)
    launched, recorded = (ensemble(data, Run(tmp_path / name), config) for name in ("launched", "recorded"))
    recorded.recorded, first = True, recorded.recordings
    launched.train()
    recorded.train()
    steps = [member.progress.step for member in launched.members]
    assert len(set(steps)) == (3 if settings == EARLY else 1)
    assert [member.progress.step for member in recorded.members] == steps
    for number, member in enumerate(launched.members):
        for row, other in zip(*(rows_of(each.run, member.seed) for each in (launched, recorded)), strict=True):
            assert row == pytest.approx(other, rel=1e-5)
        for name, value in weights(launched, number).items():
            np.testing.assert_allclose(weights(recorded, number)[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert all(first.moved)


class Crowded(Immediate):
    """Has no memory for the step of some members at once."""

    room = 2

    def run(self, kind: object, function: Callable, inputs: dict[str, Tensor], *more: object) -> Tensor:
        if len(inputs["counts"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().run(kind, function, inputs, *more)


def test_out_of_memory_in_a_recording_nothing_is_kept_ahead(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Neither the batches of the step that failed nor, from then on, those of a next one."""
    launched, recorded = (ensemble(data, Run(tmp_path / name), SMALL) for name in ("launched", "recorded"))
    recorded.recorded, recorded.recordings = True, Immediate()
    attempt, held = recorded._attempt, []

    def attempted(step: int) -> Tensor:
        if step == 5:
            held.append(recorded.ahead.made is not None)
            recorded.recordings = Crowded() if recorded.at_once == len(SEEDS) else recorded.recordings
        return attempt(step)

    monkeypatch.setattr(recorded, "_attempt", attempted)
    launched.train()
    recorded.train()
    assert "step 6: out of memory: 2 members at once from here" in capsys.readouterr().err
    assert held == [True, False] and recorded.ahead.made is None
    for number in range(len(SEEDS)):
        for name, value in weights(launched, number).items():
            np.testing.assert_allclose(weights(recorded, number)[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


class Doubled(Recording):
    """Of a function that doubles; replayed on the host."""

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        self.inputs, self.loaded = {name: tensor.clone() for name, tensor in inputs.items()}, {}
        self.graph, self.output = self, torch.empty(3)

    def replay(self) -> None:
        torch.mul(self.inputs["x"] + self.inputs["now"], 2, out=self.output)


def test_inputs_loaded_ahead_are_those_of_the_next_run_alone() -> None:
    first, second, now = torch.zeros(3), torch.ones(3), torch.full((), 10.0)
    recordings = Recordings()
    recordings.load({"x": second})  # nothing has run
    recordings.last = recording = Doubled({"x": first, "now": now})
    recordings.load({"x": second})
    assert torch.equal(recording.inputs["x"], second), "not there before it runs"
    recording.inputs["x"] += 5  # seen if it is not put there again
    assert recording.run({"x": second, "now": now}).tolist() == [32] * 3
    assert recording.run({"x": second, "now": now}).tolist() == [22] * 3, "run again it was not put there again"
    recordings.load({"x": second})
    assert recording.run({"x": first, "now": now}).tolist() == [20] * 3, "what was loaded is not what it is given"
    for others in ({"x": torch.ones(4)}, {"y": second}):
        recordings.load(others)
        assert not recording.loaded and recording.inputs.keys() == {"x", "now"}


def test_what_a_step_needs_is_made_once_ahead_of_it_or_when_there_is_room() -> None:
    ahead, asked, full = Prefetched[Tensor](), list[int](), False

    def make(step: int) -> Tensor:
        asked.append(step)
        if full:
            raise torch.OutOfMemoryError("no room")
        return torch.tensor(step)

    assert ahead.take(0, make) == 0 and asked == [0]
    ahead.prepare(1, make)
    first = weakref.ref(ahead.made[1])
    assert asked == [0, 1] and ahead.take(1, make) == 1 and asked == [0, 1]
    assert first() is None  # held no longer than the step does
    ahead.prepare(2, make)
    assert ahead.take(3, make) == 3 and asked == [0, 1, 2, 3]
    full = True
    ahead.prepare(4, make)
    full = False
    assert ahead.made is None and ahead.take(4, make) == 4 and asked[4:] == [4, 4]
    ahead.prepare(5, make)
    ahead.forget()
    assert ahead.take(5, make) == 5 and asked[6:] == [5, 5]


def test_an_ensemble_is_gone_with_its_batches_once_nobody_needs_it(data: FitData, tmp_path: Path) -> None:
    """A GPU's memory does not wait for Python's search for cycles."""
    made = ensemble(data, Run(tmp_path), replace(SMALL, steps=2))
    made.recorded, made.recordings = True, Immediate()
    made.train()
    batch, gone = weakref.ref(made.ahead.made[1][0]), weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None and batch() is None
    finally:
        gc.enable()


def test_gradients_lie_in_memory_as_their_weights() -> None:
    weight, unused = torch.randn(3, 4, requires_grad=True), torch.randn(2, requires_grad=True)
    loss = (weight.t() * torch.arange(3.0)).contiguous().square().sum()
    put_gradients(loss, [weight, unused])
    assert weight.grad.stride() == weight.stride() and unused.grad is None
    expected = 2 * weight.detach() * torch.arange(3.0).square()[:, None]
    torch.testing.assert_close(weight.grad, expected)
