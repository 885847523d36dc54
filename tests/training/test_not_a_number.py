"""Losses and gradients that are no numbers: training ends, and nothing worth nothing is published."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.run import FitError, Run
from tests.training.test_engine import Noiseless, NoiselessModel, same
from tests.training.tiny_network import Config, Tiny, TinyModel


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_a_number_ends_training_with_the_last_good_weights(
    data: FitData, tmp_path: Path, capsys: pytest.CaptureFixture, where: str
) -> None:
    config = Config(schedule="constant")
    model = NoiselessModel(config, 0)
    model.fails_at, model.fails_in = 7, where
    run = Run(tmp_path / "fails")
    model.fit(data, run)
    assert "step 8: loss or gradient is nan" in capsys.readouterr().err
    assert run.rows[-1] == {"step": 8, "stopped": "loss or gradient nan"}
    until = NoiselessModel(replace(config, steps=6), 0)
    until.fit(data, Run(tmp_path / "until"))
    assert same(model.state(), until.state())


@pytest.mark.parametrize("step", [2, 3])  # in the last before the first evaluation, too
def test_a_loss_that_never_was_a_number_publishes_nothing(data: FitData, tmp_path: Path, step: int) -> None:
    model = NoiselessModel(Config(), 0)
    model.fails_at = step - 1
    with pytest.raises(FitError, match=f"nan at step {step}, before the first evaluation; lower the learning_rate"):
        model.fit(data, Run(tmp_path))


class Unjudged(Tiny):
    """Whose validation loss is no finite number."""

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        losses = super().forward(batch, step)
        return losses if step is not None else {name: value + math.inf for name, value in losses.items()}


class UnjudgedModel(TinyModel):
    def build(self, layout: Layout) -> Tiny:
        return Unjudged(self.config, layout)


def test_without_a_finite_validation_loss_no_weights_are_the_best(data: FitData, tmp_path: Path) -> None:
    """The weights of the start would be published, which nothing was learned by."""
    with pytest.raises(FitError, match="the validation loss was never a finite number"):
        UnjudgedModel(Config(), 0).fit(data, Run(tmp_path / "best"))
    last, judged = UnjudgedModel(Config(keep="last"), 0), TinyModel(Config(keep="last"), 0)
    last.fit(data, Run(tmp_path / "last"))
    judged.fit(data, Run(tmp_path / "judged"))
    assert same(last.state(), judged.state())


def test_a_loss_that_stops_being_a_number_leaves_what_was_to_be_kept(data: FitData, tmp_path: Path) -> None:
    """Evaluated, but never judged: the last weights are there, no best ones are."""

    class Both(Unjudged, Noiseless):
        pass

    class BothModel(NoiselessModel):
        fails_at = 7

        def build(self, layout: Layout) -> Tiny:
            return Both(layout, self.fails_at, "loss")

    config = Config(schedule="constant")
    with pytest.raises(FitError, match="nan at step 8, and the validation loss was never a finite number"):
        BothModel(config, 0).fit(data, Run(tmp_path / "best"))
    last, until = BothModel(replace(config, keep="last"), 0), NoiselessModel(replace(config, steps=6, keep="last"), 0)
    last.fit(data, Run(tmp_path / "last"))
    until.fit(data, Run(tmp_path / "until"))
    assert same(last.state(), until.state())
