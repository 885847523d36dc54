"""Several seeds of LFADS trained as one: each as alone, whatever the settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.overrides import TorchFunctionMode

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.fit import fit
from pipeline_lib.training.fit_ensemble import fit_ensemble
from pipeline_lib.training.run import Run, read_arrays
from tests.models.lfads.small import CONTROLLED, SMALL
from tests.small_cohort import SPLITS, WINDOWS, Cohort, open_cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed
from tests.training.test_ensemble import alone, assert_alike, ensemble, rows_of, weights
from tests.training.test_fit_ensemble import folders, history
from tests.training.test_graphs import Immediate

SEEDS = [3, 0]
CHECKED = {"steps": 6, "evaluate_every": 3}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions of different size, trials of different length, bins that were not observed, held-out units,
    forward bins, history, a signal."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=30)]
    for each in made:
        each.trials["stop"] = each.trials["start"] + np.linspace(0.4, 1.2, 30)
        ends = np.r_[np.arange(0.2, each.duration, 6.0), each.duration]  # of what was observed: again 0.1 s later
        each.observed = np.stack([np.r_[0.0, ends[:-1] + 0.1], ends], axis=1)
        seen = np.searchsorted(each.observed.ravel(), each.spike_times, side="right") % 2 == 1
        each.spike_times, each.spike_units = each.spike_times[seen], each.spike_units[seen]
        time = np.arange(0.0, each.duration, 0.05)
        each.signals["running"] = pd.DataFrame({"time": time, "speed": np.sin(time)})
    windows = replace(WINDOWS, after=None)
    data = open_cohort(*write_cohort(tmp_path_factory.mktemp("ragged"), windows, SPLITS, made), fitting=True)
    samples = data.samples("one", "train")
    assert not data.mask("one", samples)[:, 5:20].all()  # of windows that all have these bins
    return data


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A session without read-in, whose windows have the same length: batches of members are gathered together."""
    return write_cohort(tmp_path_factory.mktemp("even"), made=[recording("one", 2, units=10, trials=30)])


EVERY = {
    "plain": SMALL,
    "controller and signal": replace(CONTROLLED, signals=("running.speed",), hide_units=0.2, weight_decay=0.1),
    "sample validation": replace(
        CONTROLLED, sample_validation=0.2, hide_units=0.2, initial_segment=0.3, pass_rate=0.3, accumulate=2, clip=0.1
    ),
    "gaussian": replace(
        CONTROLLED, observation="gaussian", input_lag=0, input_dropout=0.2, average=0.0, freeze=("generator.*",)
    ),
    "no dropout, of a plateau": replace(
        SMALL, dropout=0.0, coordinated_dropout=0.0, schedule="plateau", decay_patience=1, alignment=False
    ),
    "learned validation": replace(CONTROLLED, learn_validation=True, keep="last", posterior_samples=2),
}


@pytest.mark.parametrize(
    ("name", "windows"), [*((name, "ragged") for name in EVERY), ("plain", "even"), ("controller and signal", "even")]
)
def test_every_member_trains_as_it_would_alone(
    name: str, windows: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data, config = request.getfixturevalue(windows), replace(EVERY[name], **CHECKED)
    if windows == "even":
        data, config = open_cohort(*data, fitting=True), replace(config, signals=())
    made = ensemble(data, Run(tmp_path / "together"), config, SEEDS, LFADS)
    assert made.network.prepares_together
    made.train()
    fits = [alone(data, tmp_path / str(seed), config, seed, LFADS) for seed in SEEDS]
    for number, (model, rows) in enumerate(fits):
        assert len(rows) == 2 and ("sample_validation_nll" in rows[0]) == (name == "sample validation")
        assert_alike(data, made, number, model, rows)
    first, second = (rows[-1]["loss"] for _, rows in fits)  # seeds differ by much more than the tolerance
    assert abs(first - second) > 1e-4 * abs(first)


def test_every_member_trains_as_it_would_alone_in_bfloat16(ragged: FitData, tmp_path: Path) -> None:
    """The sums of products differ by more there, but not as seeds do."""
    config = replace(CONTROLLED, precision="bfloat16", **CHECKED)
    made = ensemble(ragged, Run(tmp_path / "together"), config, SEEDS, LFADS)
    made.train()
    fits = [alone(ragged, tmp_path / str(seed), config, seed, LFADS)[1] for seed in SEEDS]
    for seed, rows in zip(SEEDS, fits, strict=True):
        own = rows_of(made.run, seed)
        assert own[-1]["loss"] == pytest.approx(rows[-1]["loss"], rel=2e-3)
    assert abs(fits[0][-1]["loss"] - fits[1][-1]["loss"]) > 5e-3 * fits[0][-1]["loss"]


def test_a_whole_step_of_an_ensemble_can_be_recorded(even: Cohort, tmp_path: Path) -> None:
    """All that changes from step to step, the ramps too, is an input of what a GPU records."""
    data, config = open_cohort(*even, fitting=True), replace(CONTROLLED, **CHECKED)
    launched, recorded = (ensemble(data, Run(tmp_path / name), config, SEEDS, LFADS) for name in ("plain", "recorded"))
    recorded.recorded, recorded.recordings = True, Immediate()
    launched.train()
    recorded.train()
    for row, other in zip(recorded.run.rows, launched.run.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    assert all(recorded.recordings.moved)


class Torch211(TorchFunctionMode):
    """Refuses what that version's `torch.vmap` cannot do."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is Tensor.view and isinstance(arguments[1], torch.dtype) and is_batchedtensor(arguments[0]):
            raise RuntimeError("no batching rule for a view as another type")
        return function(*arguments, **(options or {}))


def test_members_step_as_one_in_older_torch(even: Cohort, tmp_path: Path) -> None:
    data, config = open_cohort(*even, fitting=True), replace(SMALL, steps=1, evaluate_every=1, sample_validation=0.2)
    made = ensemble(data, Run(tmp_path), config, SEEDS, LFADS)
    with Torch211():
        made.train()


@pytest.mark.parametrize("kill", [1, 4])
def test_killed_at_any_step_it_ends_in_the_same_bytes(ragged: FitData, tmp_path: Path, kill: int) -> None:
    config = replace(CONTROLLED, steps=7, evaluate_every=2, sample_validation=0.2)
    undisturbed = ensemble(ragged, Run(tmp_path / "undisturbed"), config, SEEDS, LFADS)
    undisturbed.train()
    for _attempt in range(30):
        run = FragileRun(tmp_path / "killed", kill)
        made = ensemble(ragged, run, config, SEEDS, LFADS)
        try:
            made.train()
            break
        except Killed:
            run.close()
    assert _attempt >= 1
    assert run.history_csv() == undisturbed.run.history_csv()
    for number in range(len(SEEDS)):
        first, second = weights(made, number), weights(undisturbed, number)
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_weights_that_are_not_numbers_end_one_member(
    even: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go through the same products as those of the others, which end as if they had been alone."""
    data, config = open_cohort(*even, fitting=True), replace(CONTROLLED, steps=6, evaluate_every=2)
    together = ensemble(data, Run(tmp_path / "together"), config, [3, 5, 0, 7], LFADS)
    attempt, fails = together._attempt, {1: 5, 3: 7}

    def spoilt(step: int) -> Tensor:
        for row, member in enumerate(together._active):
            if member.seed == fails.get(step):
                together.weights["network.controller.recurrent"].detach()[row, 0, 1, 2] = np.nan
        return attempt(step)

    monkeypatch.setattr(together, "_attempt", spoilt)
    together.train()
    problems = {member.seed: member.problem for member in together.members if member.problem}
    assert list(problems) == [5] and "nan at step 2, before the first evaluation" in problems[5]
    assert "seed 7: loss or gradient is nan at step 4" in capsys.readouterr().err
    for number, seed in ((0, 3), (2, 0)):
        assert_alike(data, together, number, *alone(data, tmp_path / str(seed), config, seed, LFADS))


def test_members_are_published_as_ordinary_fits(even: Cohort, tmp_path: Path) -> None:
    """Predictions with samples of each member's own posterior, and each one's table of scores."""
    names = ("steps", "batch", "initial_encoder", "generator", "factors", "input_encoder", "controller")
    settings = {name: getattr(CONTROLLED, name) for name in names}
    settings |= {"inferred_inputs": 2, "evaluate_every": 2, "sample_validation": 0.2, "posterior_samples": 2}
    fit_ensemble(*even, "mine", "lfads", settings, SEEDS, folders(tmp_path, SEEDS))
    for seed, folder in zip(SEEDS, folders(tmp_path, SEEDS), strict=True):
        fit(*even, "mine", "lfads", settings, seed, tmp_path / f"alone{seed}")
        other = tmp_path / f"alone{seed}"
        files = ({str(path.relative_to(each)) for path in each.rglob("*")} for each in (folder, other))
        assert next(files) == next(files)
        assert json.loads((folder / "run.json").read_text())["seeds_together"] == 2
        for own, expected in zip(history(folder), history(other), strict=True):
            assert own == pytest.approx(expected, rel=2e-5)
        mine, theirs = (pd.read_parquet(each / "tables/scores.parquet")["value"] for each in (folder, other))
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5)
        ours, lone = (read_arrays(each / "model.safetensors")[0] for each in (folder, other))
        assert ours.keys() == lone.keys()
