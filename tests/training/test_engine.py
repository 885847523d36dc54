"""The training engine: steps that follow the book, and the same bytes whatever happens to the process."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file, sha256_tree
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch, Order, Windows
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.run import FitError, Interrupted, Run, State, read_arrays, write_arrays
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort
from tests.training.tiny_network import Config, Tiny, TinyModel

TINY = str(Path(__file__).with_name("tiny_network.py"))
Cohort = tuple[list[Path], Path]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two sessions of different size."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=24)]
    return write_cohort(tmp_path_factory.mktemp("cohort"), made=made)


@pytest.fixture
def data(cohort: Cohort) -> FitData:
    return open_cohort(*cohort, fitting=True)


class Killed(Exception):
    """Stands for SIGKILL."""


class FragileRun(Run):
    """A run that dies at its `last`-th safe point, after or before the checkpoint there."""

    def __init__(self, directory: Path, last: int = -1, saves: bool = True, **settings: object) -> None:
        super().__init__(directory, checkpoint_seconds=0, **settings)
        self.left, self.saves = last, saves

    def checkpoint(self, state, force: bool = False) -> None:
        self.left -= 1
        if self.left != 0 or self.saves:
            super().checkpoint(state, force)
        if self.left == 0:
            raise Killed


def trained(data: FitData, directory: Path, config: Config, seed: int = 0) -> tuple[State, str]:
    """Weights and history of an undisturbed fit."""
    run, model = Run(directory), TinyModel(config, seed)
    model.fit(data, run)
    return model.state(), run.history_csv()


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


# Resuming


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"average": 0.9, "accumulate": 2},
        {"schedule": "plateau", "decay_patience": 1, "decay": 0.5, "learning_rate": 0.3},
        {"precision": "bfloat16", "patience": 2, "learning_rate": 0.3},
    ],
    ids=["plain", "average and accumulate", "plateau", "bfloat16 and patience"],
)
@pytest.mark.parametrize("kill", [1, 4, 6, 11])
def test_killed_at_any_step_the_fit_ends_in_the_same_bytes(
    data: FitData, tmp_path: Path, settings: dict, kill: int
) -> None:
    config = Config(**settings)
    weights, history = trained(data, tmp_path / "undisturbed", config, seed=3)
    for saves in (True, False):
        # Dying before a checkpoint, every attempt but the first starts a step earlier: it must get further each time.
        for attempt in range(30):
            run, model = FragileRun(tmp_path / f"killed{saves}", kill + (not saves), saves), TinyModel(config, 3)
            try:
                torch.rand(attempt)  # what another process did with its generators is no matter
                model.fit(data, run)
                break
            except Killed:
                run.close()
        assert attempt > 0
        assert same(model.state(), weights)
        assert run.history_csv() == history


@pytest.mark.slow
def test_sigkill_and_sigterm_of_a_real_process(cohort: Cohort, tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen:
        stores = [str(each) for each in cohort[0]]
        settings = {"steps": 200, "evaluate_every": 50}
        program = (
            "import torch; torch.set_num_threads(1)\nfrom pipeline_lib.training.fit import fit\n"
            f"fit({stores}, {str(cohort[1])!r}, 'tiny', {TINY!r}, {settings}, 0, {str(out)!r}, checkpoint_seconds=0.02)"
        )
        return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)

    def hashes(out: Path) -> list[str]:
        return [
            sha256_file(out / "model.safetensors"),
            sha256_file(out / "history.csv"),
            sha256_tree(out / "predictions.zarr"),
        ]

    process = start(tmp_path / "undisturbed")
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        out = tmp_path / number.name
        process = start(out)
        while process.poll() is None and not list((out / ".resume").glob("*.safetensors")):
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=60) == code, process.stderr.read().decode()
        process = start(out)
        assert process.wait(timeout=300) == 0, process.stderr.read().decode()
        assert hashes(out) == hashes(tmp_path / "undisturbed")


def test_asked_to_stop_the_training_saves_first(data: FitData, tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_seconds=1e9)
    with run.stopping(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        TinyModel(Config(), 0).fit(data, run)
    assert json.loads(Run(tmp_path).resume()["progress"].tobytes())["step"] == 1


# Steps


class Noiseless(Tiny):
    """Without dropout, and able to fail."""

    def __init__(self, layout: Layout, fails_at: float, fails_in: str) -> None:
        super().__init__(replace(Config(), noise=0.0), layout)
        self.fails_at, self.fails_in = fails_at, fails_in

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        losses = super().forward(batch, step)
        if step is not None and step >= self.fails_at:
            nothing = (self.shared.weight * 0).sum().sqrt()  # its gradient is not a number
            losses["nll"] = losses["nll"] + (nothing if self.fails_in == "gradient" else math.nan)
        return losses


class NoiselessModel(TinyModel):
    fails_at, fails_in = math.inf, "loss"

    def build(self, layout: Layout) -> Tiny:
        return Noiseless(layout, self.fails_at, self.fails_in)


def windows_of(data: FitData) -> dict[str, Windows]:
    return {session: Windows(data, session, "train") for session in data.sessions}


def test_steps_are_those_of_a_plain_loop(data: FitData, tmp_path: Path) -> None:
    """AdamW, warm-up, cosine, clipping, two batches a step; a session in neither batch keeps its weights."""
    config = Config(steps=7, warmup=3, accumulate=2, clip=0.05, weight_decay=0.1, keep="last", evaluate_every=7)
    model = NoiselessModel(config, 5)
    run = Run(tmp_path)
    model.fit(data, run)

    plain = NoiselessModel(replace(config, steps=1, learning_rate=1e-30), 5)
    plain.fit(data, Run(tmp_path / "start"))
    network, order = plain.network, Order(windows_of(data), config.batch, 5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.1)
    losses = []
    for step in range(7):
        factor = (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 4))
        optimiser.param_groups[0]["lr"] = config.learning_rate * factor
        optimiser.zero_grad()
        for batch in (order[2 * step], order[2 * step + 1]):
            loss = sum(network(batch, step).values()) / 2
            loss.backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
    for (name, weight), other in zip(network.named_parameters(), model.network.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-5), name
    assert run.rows[0]["loss"] == pytest.approx(sum(losses) / 7, rel=1e-5)


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


def test_a_loss_that_never_was_a_number_publishes_nothing(data: FitData, tmp_path: Path) -> None:
    model = NoiselessModel(Config(), 0)
    model.fails_at = 1
    with pytest.raises(FitError, match="nan at step 2, before the first evaluation; lower the learning_rate"):
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


def test_patience_stops_and_the_best_weights_are_kept(data: FitData, tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    config = Config(learning_rate=0.3, schedule="constant", steps=200, patience=3)
    model = TinyModel(config, 0)
    model.fit(data, run)
    losses = [row["validation_loss"] for row in run.rows]
    assert len(losses) < 200 // 3 and np.argmin(losses) == len(losses) - 4
    again = TinyModel(replace(config, patience=None, steps=3 * (len(losses) - 3), keep="last"), 0)
    again.fit(data, Run(tmp_path / "b"))
    assert same(model.state(), again.state())


def test_every_evaluation_gives_back_the_memory_that_was_freed(
    data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr("pipeline_lib.training.engine.give_back_freed_memory", lambda: given.append(True))
    trained(data, tmp_path, Config(steps=6, evaluate_every=2))
    assert len(given) == 3


def test_training_lowers_the_loss_of_windows_it_has_not_seen(data: FitData, tmp_path: Path) -> None:
    run = Run(tmp_path)
    TinyModel(Config(steps=300, evaluate_every=100, average=0.9), 0).fit(data, run)
    first, *_, last = (row["validation_loss"] for row in run.rows)
    assert last < first - 0.01
    assert {"step", "loss", "learning_rate", "validation_loss", "validation_nll", "validation_size"} == set(run.rows[0])


# Fine-tuning


def test_fine_tuning_starts_from_the_given_weights_and_leaves_the_frozen_ones(cohort: Cohort, tmp_path: Path) -> None:
    stores, split = cohort
    fit(stores, split, "tiny", TINY, {}, 0, tmp_path / "cohort")
    weights = tmp_path / "cohort" / "model.safetensors"
    made = write_cohort(tmp_path / "new", made=[recording("three", 5, units=7, trials=24)])
    config = {"initial": str(weights), "freeze": ["shared.*", "*/read_out.bias"]}
    fit(*made, "tiny", TINY, config, 1, tmp_path / "fine")
    before, after = read_arrays(weights)[0], read_arrays(tmp_path / "fine" / "model.safetensors")[0]
    assert after["shared.weight"].tobytes() == before["shared.weight"].tobytes()
    assert set(after) == {"layout", "shared.weight", "shared.bias"} | {
        f"three/{name}.{kind}" for name in ("read_in", "read_out") for kind in ("weight", "bias")
    }
    fit(*made, "tiny", TINY, {**config, "steps": 1, "learning_rate": 1e-30}, 1, tmp_path / "start")
    start = read_arrays(tmp_path / "start" / "model.safetensors")[0]
    assert after["three/read_out.bias"].tobytes() == start["three/read_out.bias"].tobytes()
    assert not np.array_equal(after["three/read_in.weight"], start["three/read_in.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": "nowhere.safetensors"}, "initial: found nowhere.safetensors"),
        (
            {"freeze": ("encoder.*",)},
            "freeze: found 'encoder.+'; accepted: a pattern of weights such as shared",
        ),
        ({"steps": 0}, "steps: found 0; accepted: at least 1"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data: FitData, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TinyModel(Config(**settings), 0).fit(data, Run(tmp_path))


def test_a_fit_is_made_again_when_what_it_starts_from_has_changed(cohort: Cohort, tmp_path: Path) -> None:
    weights, out = tmp_path / "cohort" / "model.safetensors", tmp_path / "fine"
    for seed, code in ((0, "first"), (0, "first"), (3, "second")):
        fit(*cohort, "tiny", TINY, {"steps": 2}, seed, tmp_path / "cohort", code=code)
        fit(*cohort, "tiny", TINY, {"steps": 2, "initial": str(weights)}, 1, out, code="same")
        made = json.loads((out / "manifest.json").read_text())
        assert made["initial"] == sha256_file(weights)


@pytest.mark.parametrize("freeze", [("*",), ("shared.*", "one/*")])
def test_a_session_of_which_nothing_is_left_to_train_is_refused_in_a_line(
    data: FitData, tmp_path: Path, freeze: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match=r"freeze: found .*; accepted: patterns that leave something to train"):
        TinyModel(Config(freeze=freeze), 0).fit(data, Run(tmp_path))


@pytest.mark.parametrize("session", ["train", "items", "day.1"])
def test_a_session_that_torch_cannot_name_is_refused_in_a_line(tmp_path: Path, session: str) -> None:
    made = open_cohort(*write_cohort(tmp_path, made=[recording(session, trials=12)]), fitting=True)
    with pytest.raises(InputError, match=f"session: found '{session}'"):
        TinyModel(Config(), 0).fit(made, Run(tmp_path / "run"))


def test_weights_of_another_shape_are_refused(data: FitData, tmp_path: Path) -> None:
    weights, _ = trained(data, tmp_path / "a", Config(factors=4))
    write_arrays(tmp_path / "w.safetensors", weights)
    with pytest.raises(InputError, match=r"shared.weight: found shape \(4, 4\); accepted: shape \(3, 3\)"):
        TinyModel(Config(initial=str(tmp_path / "w.safetensors")), 0).fit(data, Run(tmp_path / "b"))


# Batches


def test_an_epoch_visits_every_window_once_in_an_order_that_the_seed_fixes(data: FitData) -> None:
    windows = windows_of(data)
    for each in windows.values():
        each.inputs["row"] = torch.arange(len(each))
    order = Order(windows, 7, seed=1)
    epochs = [[order[number] for number in range(k * len(order), (k + 1) * len(order))] for k in range(2)]
    visits = [[(batch.session, row) for batch in epoch for row in batch.inputs["row"].tolist()] for epoch in epochs]
    everything = [(session, row) for session, each in windows.items() for row in range(len(each))]
    assert sorted(visits[0]) == sorted(visits[1]) == sorted(everything)
    assert visits[0] != visits[1]
    assert max(len(batch.counts) for batch in epochs[0]) <= 7
    # Any batch can be asked for at any time: the engine resumes in the middle.
    assert torch.equal(Order(windows, 7, seed=1)[len(order) + 2].counts, epochs[1][2].counts)
    # Another seed shuffles windows otherwise, and leaves sessions and sizes where they are.
    other = [Order(windows, 7, seed=2)[number] for number in range(len(order))]
    assert [(batch.session, len(batch.counts)) for batch in other] == [
        (batch.session, len(batch.counts)) for batch in epochs[0]
    ]
    assert any(
        batch.inputs["row"].tolist() != each.inputs["row"].tolist()
        for batch, each in zip(other, epochs[0], strict=True)
    )
    assert [batch.session for batch in epochs[0]] != [batch.session for batch in epochs[1]]


def test_inputs_are_the_heldin_units_before_the_forward_bins(data: FitData) -> None:
    for part in ("train", "validation"):
        batch = Windows(data, "two", part).batch(slice(None))
        expected = np.ones(batch.counts.shape[1:], bool)
        expected[:, data.heldout("two")] = False
        expected[-data.split.forward_bins :] = False
        assert torch.equal(batch.visible, batch.observed & torch.as_tensor(expected))
        assert batch.history == data.split.history_bins == 5
        assert batch.visible[:, 5:-5, data.heldin("two")].all()
        assert batch.observed[:, 5:].all() if part == "train" else torch.equal(batch.observed, batch.visible)


def test_windows_are_cut_to_the_longest_of_a_batch(tmp_path: Path) -> None:
    made = recording(trials=20)
    made.trials["stop"] = made.trials["start"] + np.linspace(0.4, 1.2, 20)
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, [made]))
    windows = Windows(data, "small0", "train")
    rows = torch.argsort(windows.bins)[:3]
    batch = windows.batch(rows)
    assert batch.counts.shape[1] == int(windows.bins[rows].max()) < int(windows.bins.max())
    for row in range(3):
        assert batch.observed[row, : batch.bins[row]].all() and not batch.observed[row, batch.bins[row] :].any()


def test_a_published_fit_predicts_as_the_fitted_one(cohort: Cohort, data: FitData, tmp_path: Path) -> None:
    fit(*cohort, "tiny", TINY, {}, 0, tmp_path / "fit")
    model = load_fit(tmp_path / "fit", TINY)
    samples = data.samples("one", "validation")
    rates = model.predict(data, "one", samples)
    assert rates.shape == (len(samples), 50, 9) and rates.dtype == np.float32
    with pytest.raises(InputError, match="session: found three; accepted: a session it was fitted to: one, two"):
        model.predict(data, "three", samples)
