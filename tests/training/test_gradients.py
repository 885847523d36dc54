"""The gradient of a step when memory runs out: smaller pieces, the same batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt import settings as ndt
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch, Order, Windows
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.gradients import Gradients, cut
from pipeline_lib.training.run import FitError, Run
from tests.small_cohort import open_cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed, same
from tests.training.tiny_network import Config, Tiny, TinyModel

NOISELESS = Config(noise=0.0, batch=8, keep="last", accumulate=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=24)]
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort"), made=made), fitting=True)


class Large(Tiny):
    """Has room for so many windows at once while it trains; runs out of it behind the first batch of a step."""

    room, last = 8, -1

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        losses = super().forward(batch, step)
        first, self.last = step != self.last, step
        if step is not None and step >= 2 and not first and len(batch.bins) > self.room:
            self.last = -1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand so on")
        return losses


class LargeModel(TinyModel):
    room = 8

    def build(self, layout: Layout) -> Large:
        network = Large(self.config, layout)
        network.room = self.room
        return network


def fitted(data: FitData, run: Run, room: int, config: Config = NOISELESS) -> LargeModel:
    model = LargeModel(config, 0)
    model.room = room
    model.fit(data, run)
    return model


def test_out_of_memory_the_batch_is_cut_and_the_step_stays_the_same(
    data: FitData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    enough = fitted(data, Run(tmp_path / "enough"), room=8)
    assert "memory" not in capsys.readouterr().err
    run = Run(tmp_path / "little")
    little = fitted(data, run, room=2)
    notes = [row for row in run.rows if "note" in row]
    assert [(row["step"], row["note"]) for row in notes] == [
        (3, f"out of memory: batches of 8 windows in {pieces} pieces from here") for pieces in (2, 4)
    ]
    assert "step 3: out of memory: batches of 8 windows in 4 pieces" in capsys.readouterr().err
    for (name, weight), other in zip(enough.network.named_parameters(), little.network.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6, msg=name)
    assert not same(enough.state(), little.state())  # sums in another order: the test would see nothing otherwise


@pytest.mark.parametrize("settings", [{}, {"masking": ("element", "neuron"), "mask_span": 3, "mask_token_ratio": 0.5}])
def test_the_pieces_of_a_masked_batch_hide_and_weigh_what_it_does(
    data: FitData, tmp_path: Path, settings: dict
) -> None:
    """Pieces differ in how many counts are scored: the gradient was off by percents, and more with masks of theirs."""
    silent = {"dropout": 0.0, "dropout_embedding": 0.0, "dropout_rates": 0.0}
    config = ndt.Config(layers=1, hidden=8, read_in=6, batch=7, accumulate=2, **silent, **settings)
    run, model = Run(tmp_path), NDT(config, 0)
    windows = model.windows(data, "train", run)
    model.start(data, windows)
    found = []
    for pieces in (1, 3, 7):
        model.network.zero_grad()
        gradients = Gradients(model.network, Order(windows, config.batch, 0), config, 0, run)
        loss = gradients.compute(Progress(step=4, pieces=pieces), model.network.parameters())
        found.append([torch.tensor(loss), *(weight.grad.clone() for weight in model.network.parameters())])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-7)


def test_what_was_learned_about_memory_is_resumed(data: FitData, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = replace(NOISELESS, noise=0.3)
    undisturbed = fitted(data, Run(tmp_path / "undisturbed"), 3, config)
    capsys.readouterr()
    with pytest.raises(Killed):
        fitted(data, FragileRun(tmp_path / "killed", 5), 3, config)
    assert "out of memory" in capsys.readouterr().err
    resumed = fitted(data, FragileRun(tmp_path / "killed"), 3, config)
    assert "out of memory" not in capsys.readouterr().err
    assert same(resumed.state(), undisturbed.state())


def test_no_room_for_a_single_window_is_said_in_a_line(data: FitData, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"single window at a time \(CUDA out of memory. Tried to allocate 2 GiB.\)"):
        fitted(data, Run(tmp_path), room=0)


@pytest.mark.parametrize("variable", ["ACCELERATE_MIXED_PRECISION=bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4"])
def test_the_environment_changes_no_gradient(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Neither is a setting of the fit: its name would not tell the results apart."""

    def weights(run: Run) -> dict[str, np.ndarray]:
        monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # else made once a process
        model = TinyModel(NOISELESS, 0)
        model.fit(data, run)
        return model.state()

    usual = weights(Run(tmp_path / "usual"))
    monkeypatch.setenv(*variable.split("="))
    assert same(weights(Run(tmp_path / "changed")), usual)


class Watching(Tiny):
    """Writes down in what precision products are computed, in training and in evaluations."""

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        self.seen.add((step is not None, (self.shared.weight @ self.shared.weight).dtype))
        return super().forward(batch, step)


class WatchingModel(TinyModel):
    def build(self, layout: Layout) -> Watching:
        network = Watching(self.config, layout)
        network.seen = self.seen = set()
        return network


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_are_in_the_precision_asked_for_and_evaluations_in_float32(
    data: FitData, tmp_path: Path, precision: str
) -> None:
    model = WatchingModel(replace(NOISELESS, steps=4, precision=precision), 0)
    model.fit(data, Run(tmp_path))
    assert model.seen == {(True, getattr(torch, precision)), (False, torch.float32)}


def test_pieces_are_the_batch(data: FitData) -> None:
    batch = Windows(data, "two", "train", inputs={"row": np.arange(14)}).batch(slice(None))
    for pieces in (1, 2, 4, 16, 64):
        parts = cut(batch, pieces)
        assert len(parts) == min(pieces, 14)
        for name in ("counts", "observed", "visible", "bins"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
        assert torch.cat([part.inputs["row"] for part in parts]).tolist() == list(range(14))
        assert {(part.session, part.history) for part in parts} == {(batch.session, batch.history)}
