"""Several seeds trained as one: each as alone."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.network import Transformer
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.torch_model import TorchModel
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.checkpoint import Tensors
from pipeline_lib.training.ensemble import Ensemble
from pipeline_lib.training.fit_ensemble import ensemble_of
from pipeline_lib.training.groups import Group
from pipeline_lib.training.run import FitError, Run
from pipeline_lib.training.settings import TrainingSettings
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed

SMALL = Config(layers=1, hidden=12, read_in=10, steps=12, warmup=2, evaluate_every=3, batch=8, learning_rate=2e-3)
SEEDS = [0, 3, 7]


def ensemble(
    data: FitData, run: Run, config: TrainingSettings, seeds: list[int] = SEEDS, kind: type[TorchModel] = NDT
) -> Ensemble:
    return ensemble_of([kind(config, seed) for seed in seeds], data, run)


def weights(made: Ensemble, number: int) -> dict[str, np.ndarray]:
    return {name: value.numpy(force=True) for name, value in made.networks[number].state_dict().items()}


def alone(
    data: FitData, directory: Path, config: TrainingSettings, seed: int, kind: type[TorchModel] = NDT
) -> tuple[TorchModel, list[dict]]:
    run, model = Run(directory), kind(config, seed)
    model.fit(data, run)
    return model, run.rows


def rows_of(run: Run, seed: int) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seed"} for row in run.rows if row["seed"] == seed]


def assert_alike(data: FitData, made: Ensemble, number: int, model: TorchModel, rows: list[dict]) -> None:
    """The same history and the same network, by what it predicts, to float rounding."""
    own = rows_of(made.run, made.members[number].seed)
    assert [list(row) for row in own] == [list(row) for row in rows]
    for mine, theirs in zip(own, rows, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5)
    for session in data.sessions:
        batch = model.windows(data, "validation", made.run)[session].batch(slice(None))
        networks = (each.eval() for each in (made.networks[number], model.network))
        with torch.inference_mode():
            rates = [network.rates(batch) for network in networks]
        torch.testing.assert_close(*rates, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "average": 0.0,
            "accumulate": 2,
            "clip": 0.01,
            "weight_decay": 0.1,
            "masking": ("timestep", "neuron", "causal"),
        },
        {"schedule": "plateau", "decay_patience": 1, "decay": 0.5, "learning_rate": 0.03, "keep": "last"},
        {"embedding": 2, "mask_span": 3, "masking": ("element",), "norm": "post", "final_norm": "scale"},
        {"embedding": 2, "embedding_init": "log", "hardest_share": 0.4, "masking": ("timestep", "neuron")},
        {"mask_token_ratio": 0.5},
        {"precision": "bfloat16", "freeze": ("encoder.*",)},
        {
            "schedule": "plateau",
            "decay_patience": 1,
            "decay": 0.5,
            "learning_rate": 0.03,
            "least_learning_rate": 0.01,
            "validation_smoothing": 0.6,
            "patience": 1,
            "patience_start": 4,
            "weight_decay": 0.5,
            "weight_decay_ramp": (2, 8),
        },
    ],
    ids=[
        "plain",
        "accumulate and modes",
        "plateau",
        "embedding",
        "hardest",
        "random counts",
        "bfloat16 and frozen",
        "ramps",
    ],
)
def test_every_member_trains_as_it_would_alone(data: FitData, tmp_path: Path, settings: dict) -> None:
    config = replace(SMALL, **settings)
    made = ensemble(data, Run(tmp_path / "together"), config)
    made.train()
    fits = [alone(data, tmp_path / str(seed), config, seed) for seed in SEEDS]
    tolerant = settings.get("precision") == "bfloat16"
    for number, (model, rows) in enumerate(fits):
        if not tolerant:
            assert_alike(data, made, number, model, rows)
        else:
            own = rows_of(made.run, SEEDS[number])
            assert [row["validation_loss"] for row in own] == pytest.approx(
                [row["validation_loss"] for row in rows], rel=2e-3
            )
    if not tolerant:  # seeds differ by much more than the tolerance
        assert abs(fits[0][1][-1]["validation_loss"] - fits[1][1][-1]["validation_loss"]) > 1e-4


def test_evaluations_are_in_float32_whatever_the_steps_are_in(data: FitData, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        made = ensemble(data, Run(tmp_path / precision), replace(SMALL, precision=precision))
        losses.append(made._validation_losses(made.weights))
    assert losses[0] == losses[1]


def test_weights_have_paces_of_their_own(data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "pace", lambda self, name: 0.0 if name == "position" else 1.0)
    made = ensemble(data, Run(tmp_path), replace(SMALL, steps=3, average=0.0))
    before = [{name: weight.clone() for name, weight in each.named_parameters()} for each in made.networks]
    made.train()
    for network, was in zip(made.networks, before, strict=True):
        moved = {name for name, weight in network.named_parameters() if not torch.equal(weight, was[name])}
        assert "position" not in moved and len(moved) > 10


def test_windows_of_different_length_train_as_alone(tmp_path: Path) -> None:
    """Batches of members then differ in length: members are grouped by it."""
    made = recording(trials=24)
    made.trials["stop"] = made.trials["start"] + np.linspace(0.4, 1.2, 24)
    data = open_cohort(*write_cohort(tmp_path / "data", replace(WINDOWS, after=None), SPLITS, [made]), fitting=True)
    config = replace(SMALL, batch=3, steps=8, evaluate_every=4)
    together = ensemble(data, Run(tmp_path / "together"), config, [0, 1])
    together.train()
    for number, seed in enumerate((0, 1)):
        assert_alike(data, together, number, *alone(data, tmp_path / str(seed), config, seed))


# Members end on their own


def test_an_early_end_of_one_member_leaves_the_others_alone(data: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, steps=30, patience=2, learning_rate=0.01, schedule="constant", average=0.0)
    seeds = [2, 1, 0]
    made = ensemble(data, Run(tmp_path / "together"), config, seeds)
    made.train()
    fits = [alone(data, tmp_path / str(seed), config, seed) for seed in seeds]
    ends = [rows[-1]["step"] for _, rows in fits]
    assert ends[0] < ends[1] < ends[2] == 30  # who goes on is then no longer in the row where it began
    for number, (model, rows) in enumerate(fits):
        assert_alike(data, made, number, model, rows)


class Failing(Ensemble):
    """Loss or gradient of some members is not a number, from a step of each on."""

    loss_fails: ClassVar[dict[int, int]] = {}
    gradient_fails: ClassVar[dict[int, int]] = {}

    def _attempt(self, step: int) -> Tensor:
        self.now = step
        return super()._attempt(step)

    def _loss(self, group: Group, tensors: dict[str, Tensor]) -> Tensor:
        losses = super()._loss(group, tensors)
        for row, member in enumerate(self._active):
            if self.loss_fails.get(member.seed, math.inf) <= self.now:
                losses[row] *= math.nan
            if self.gradient_fails.get(member.seed, math.inf) <= self.now:
                nothing = (self.weights["network.position"][row] * 0).sum()
                losses[row] += nothing.sqrt()  # its gradient is not a number
        return losses


def test_a_loss_that_is_not_a_number_ends_one_member(
    data: FitData, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_lib.training.ensemble.Ensemble", Failing)
    together = ensemble(data, Run(tmp_path / "together"), SMALL, [0, 3, 7, 8])
    together.loss_fails, together.gradient_fails = {3: 1, 8: 10}, {7: 7}
    together.train()
    problems = {member.seed: member.problem for member in together.members if member.problem}
    start = "seed 3: loss or gradient is nan at step 2, before the first evaluation"
    assert problems == {3: f"{start}; lower the learning_rate"}
    assert "seed 7: loss or gradient is nan at step 8" in capsys.readouterr().err
    assert rows_of(together.run, 7)[-1] == {"step": 8, "stopped": "loss or gradient nan"}
    assert_alike(data, together, 0, *alone(data, tmp_path / "0", SMALL, 0))
    # What is kept of a member that ended is what a run up to there had kept.
    for number, seed, end in ((2, 7, 6), (3, 8, 9)):
        undisturbed = ensemble(data, Run(tmp_path / f"until{seed}"), SMALL, [seed])
        monkeypatch.setattr(undisturbed, "_evaluate", lambda made=undisturbed, last=end: until(made, last))
        undisturbed.train()
        for (name, kept), other in zip(
            together.networks[number].named_parameters(), undisturbed.networks[0].parameters(), strict=True
        ):
            torch.testing.assert_close(kept, other, rtol=1e-3, atol=1e-4, msg=name)


def test_every_evaluation_gives_back_the_memory_that_was_freed(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr("pipeline_lib.training.ensemble.give_back_freed_memory", lambda: given.append(True))
    ensemble(data, Run(tmp_path), replace(SMALL, steps=6, evaluate_every=2), [0, 3]).train()
    assert len(given) == 3


def test_a_member_without_a_finite_validation_loss_has_nothing_to_keep(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = ensemble(data, Run(tmp_path), SMALL, [0, 3])
    judged = together._validation_losses

    def unjudged(weights: Tensors) -> dict[str, list[float]]:
        return {name: [math.inf, values[1]] for name, values in judged(weights).items()}

    monkeypatch.setattr(together, "_validation_losses", unjudged)
    together.train()
    assert [member.problem for member in together.members] == [
        "seed 0: the validation loss was never a finite number; lower the learning_rate",
        "",
    ]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_member_that_was_never_judged_and_ends_late_has_its_last_weights(
    data: FitData, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Where these were asked for; there are no best ones."""
    monkeypatch.setattr("pipeline_lib.training.ensemble.Ensemble", Failing)
    together = ensemble(data, Run(tmp_path), replace(SMALL, keep=keep), [0, 3])
    together.loss_fails = {3: 5}
    judged = together._validation_losses
    monkeypatch.setattr(
        together, "_validation_losses", lambda weights: {name: [v[0], math.inf] for name, v in judged(weights).items()}
    )
    together.train()
    if keep == "best":
        assert together.members[1].problem == (
            "seed 3: loss or gradient is nan at step 6, and the validation loss was never a finite number;"
            " lower the learning_rate"
        )
    else:
        assert not together.members[1].problem
        said = capsys.readouterr().err
        assert "seed 3: loss or gradient is nan at step 6; training ends with the last weights so far" in said


def until(made: Ensemble, last: int) -> None:
    """Evaluate up to a step."""
    if made.members[0].progress.step <= last:
        Ensemble._evaluate(made)


@pytest.mark.parametrize("masking", [("timestep",), ("timestep", "neuron")], ids=["prepared together", "one by one"])
def test_out_of_memory_fewer_members_are_worked_on_at_once(
    data: FitData, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, masking: tuple
) -> None:
    config = replace(SMALL, masking=masking)
    enough = ensemble(data, Run(tmp_path / "enough"), config)
    enough.train()
    little = ensemble(data, Run(tmp_path / "little"), config)
    losses = little._losses

    def crowded(
        own: dict[str, Tensor], batch: Batch, tensors: dict[str, Tensor], *streams: object
    ) -> dict[str, Tensor]:
        if streams and len(tensors["counts"]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand so on")
        return losses(own, batch, tensors, *streams)

    monkeypatch.setattr(little, "_losses", crowded)
    room = 1
    little.train()
    assert "step 1: out of memory: 1 members at once from here (CUDA out of memory." in capsys.readouterr().err
    for number in range(len(SEEDS)):
        for name, value in weights(enough, number).items():
            np.testing.assert_allclose(weights(little, number)[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    room = 0
    with pytest.raises(FitError, match=r"a single member at a time .*; train them one by one"):
        again = ensemble(data, Run(tmp_path / "none"), config)
        losses = again._losses
        monkeypatch.setattr(again, "_losses", crowded)
        again.train()


# Resuming and publishing


ENDING = {"patience": 2, "learning_rate": 0.01, "schedule": "constant", "average": 0.0}
PLATEAUS = {
    "patience": 3, "learning_rate": 0.03, "schedule": "plateau", "decay_patience": 1, "decay": 0.5, "average": 0.9,
    "validation_smoothing": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(("kill", "settings"), [(1, ENDING), (5, ENDING), (8, ENDING), (5, PLATEAUS)])
def test_killed_at_any_step_it_ends_in_the_same_bytes(data: FitData, tmp_path: Path, kill: int, settings: dict) -> None:
    """One member has ended when it is killed late; each has a schedule of its own, and means."""
    config = replace(SMALL, steps=24, **settings)
    undisturbed = ensemble(data, Run(tmp_path / "undisturbed"), config)
    undisturbed.train()
    for _attempt in range(30):
        run = FragileRun(tmp_path / "killed", kill)
        made = ensemble(data, run, config)
        try:
            made.train()
            break
        except Killed:
            run.close()
    assert _attempt > 1 and len({member.progress.step for member in made.members}) > 1
    assert run.history_csv() == undisturbed.run.history_csv()
    for number in range(len(SEEDS)):
        first, second = weights(made, number), weights(undisturbed, number)
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_killed_after_a_member_failed_the_others_go_on_and_it_is_still_named(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_lib.training.ensemble.Ensemble", Failing)
    config = replace(SMALL, steps=6)
    found = []
    for runs in (
        [Run(tmp_path / "undisturbed")],
        [FragileRun(tmp_path / "killed", 4), FragileRun(tmp_path / "killed")],
    ):
        for run in runs:
            made = ensemble(data, run, config)
            made.loss_fails = {3: 1}
            with contextlib.suppress(Killed):
                made.train()
            run.close()
        found.append(([member.problem for member in made.members], run.history_csv(), weights(made, 2)))
    assert found[0][:2] == found[1][:2] and found[0][0][1].startswith("seed 3: loss or gradient is nan at step 2")
    assert all(value.tobytes() == found[1][2][name].tobytes() for name, value in found[0][2].items())
