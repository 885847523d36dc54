"""The training engine: steps that follow the book, and the same bytes whatever happens to the process."""

import contextlib
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
from pipeline_lib.training.optimiser import AdamW, move_towards
from pipeline_lib.training.run import Interrupted, Run, State
from tests.small_cohort import SPLITS, WINDOWS, Cohort, open_cohort, recording, write_cohort
from tests.training.tiny_network import Config, Tiny, TinyModel

TINY = str(Path(__file__).with_name("tiny_network.py"))


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
        {
            "schedule": "plateau",
            "decay_patience": 1,
            "decay": 0.5,
            "learning_rate": 0.3,
            "least_learning_rate": 0.1,
            "validation_smoothing": 0.5,
            "patience": 2,
            "patience_start": 7,
            "weight_decay": 0.3,
            "weight_decay_ramp": (2, 9),
        },
    ],
    ids=["plain", "average and accumulate", "plateau", "bfloat16 and patience", "running mean and ramps"],
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


def test_what_patience_has_counted_is_not_forgotten(data: FitData, tmp_path: Path) -> None:
    """Killed between evaluations without a gain, a fit would else go on for ever."""
    config = Config(learning_rate=0.3, schedule="constant", steps=60, patience=2)
    weights, history = trained(data, tmp_path / "undisturbed", config)
    assert 3 < len(history.splitlines()) < 60 // config.evaluate_every
    for _ in range(20):
        run, model = FragileRun(tmp_path / "killed", 4), TinyModel(config, 0)
        with contextlib.suppress(Killed):
            model.fit(data, run)
            break
        run.close()
    assert same(model.state(), weights) and run.history_csv() == history


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


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_steps_are_those_of_a_plain_loop(data: FitData, tmp_path: Path, average: float) -> None:
    """AdamW, warm-up, cosine, clipping, two batches a step, mean weights; a session in no batch stays as it is."""
    config = Config(steps=7, warmup=3, accumulate=2, clip=0.05, weight_decay=0.1, keep="last", evaluate_every=4)
    config = replace(config, average=average)
    model = NoiselessModel(config, 5)
    run = Run(tmp_path)
    model.fit(data, run)

    plain = NoiselessModel(replace(config, steps=1, learning_rate=1e-30), 5)
    plain.fit(data, Run(tmp_path / "start"))
    network, order = plain.network, Order(windows_of(data), config.batch, 5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.1)
    losses, means = [], [weight.detach().clone() for weight in network.parameters()]
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
        decay = min(average, (step + 1) / (step + 10))
        for mean, weight in zip(means, network.parameters(), strict=True):
            mean.mul_(decay).add_(weight.detach(), alpha=1 - decay)
    for (name, weight), mean in zip(model.network.named_parameters(), means, strict=True):
        assert torch.allclose(weight, mean, atol=1e-5), name
    assert run.rows[0]["loss"] == pytest.approx(sum(losses[:8]) / 4, rel=1e-5)
    assert run.rows[-1]["learning_rate"] == pytest.approx(config.learning_rate * factor)
    assert run.rows[-1]["validation_loss"] == pytest.approx(validation_loss(data, model), rel=1e-5)


def validation_loss(data: FitData, model: TinyModel) -> float:
    """The mean over windows, without dropout."""
    unseen = [Windows(data, session, "validation").batch(slice(None)) for session in data.sessions]
    scores = [sum(model.network.eval()(batch, None).values()).item() * len(batch.bins) for batch in unseen]
    return sum(scores) / sum(len(batch.bins) for batch in unseen)


def test_an_evaluation_is_without_dropout(data: FitData, tmp_path: Path) -> None:
    run, model = Run(tmp_path), TinyModel(Config(noise=0.5, keep="last"), 0)
    model.fit(data, run)
    assert run.rows[-1]["validation_loss"] == pytest.approx(validation_loss(data, model), rel=1e-5)


def test_another_seed_is_another_start(data: FitData, tmp_path: Path) -> None:
    starts = []
    for seed in (0, 0, 1):
        model = TinyModel(Config(steps=1, learning_rate=1e-30), seed)
        model.fit(data, Run(tmp_path))
        starts.append(model.state()["shared.weight"])
    assert np.array_equal(starts[0], starts[1]) and not np.allclose(starts[0], starts[2])


class Listening(Tiny):
    """Writes down the noise that it is given in training, and that in evaluations."""

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        (self.evaluated if step is None else self.heard).append(torch.rand(1).item())
        return super().forward(batch, step)


class ListeningModel(TinyModel):
    def build(self, layout: Layout) -> Tiny:
        network = Listening(self.config, layout)
        network.heard, network.evaluated = self.heard, self.evaluated = [], []
        return network


def test_noise_belongs_to_the_seed_and_the_number_of_a_batch(data: FitData, tmp_path: Path) -> None:
    """Not to its step: batches that share one are not hidden the same things."""
    heard = []
    for seed, accumulate in ((0, 1), (0, 3), (1, 1)):
        model = ListeningModel(Config(steps=6 // accumulate, accumulate=accumulate), seed)
        model.fit(data, Run(tmp_path / f"{seed}{accumulate}"))
        heard.append(model.heard)
    assert heard[0] == heard[1] and len({*heard[0], *heard[2]}) == 12


def test_every_evaluation_of_every_seed_has_the_same_noise(data: FitData, tmp_path: Path) -> None:
    """So that losses differ by the weights alone; its batches have noise of their own."""
    heard = []
    for seed, steps in ((0, 12), (1, 6)):
        model = ListeningModel(Config(steps=steps), seed)
        model.fit(data, Run(tmp_path / str(seed)))
        heard += [model.evaluated[number : number + 2] for number in range(0, len(model.evaluated), 2)]  # two sessions
    assert len(heard) == 4 + 2 and all(each == heard[0] for each in heard) and len(set(heard[0])) == 2


@pytest.mark.parametrize("ramped", [False, True])
def test_the_optimiser_is_torchs_with_a_pace_for_each_weight(ramped: bool) -> None:
    torch.manual_seed(0)
    start = {name: torch.randn(4, 3) for name in ("slow", "usual", "seldom")}
    ours, theirs = ({name: weight.clone().requires_grad_() for name, weight in start.items()} for _ in range(2))
    paces = {"slow": 0.25}
    settings = {"betas": (0.8, 0.95), "weight_decay": 0.3}
    optimiser = AdamW(ours, epsilon=1e-3, paces=paces, **settings)
    groups = [{"params": [weight], "name": name} for name, weight in theirs.items()]
    reference = torch.optim.AdamW(groups, eps=1e-3, **settings)
    for step in range(6):
        for name in start:
            gradient = torch.randn(4, 3)
            for weights, longer in ((ours, 4), (theirs, 1)):  # a weight without a gradient does not decay either
                weights[name].grad = None if name == "seldom" and step % 2 else longer * gradient
        for group in reference.param_groups:
            group["lr"] = 0.1 * paces.get(group["name"], 1.0) / (step + 1)
            group["weight_decay"] = 0.3 * step / 6 if ramped else 0.3
        reference.step()
        optimiser.step(0.1 / (step + 1), step / 6 if ramped else None, shrink=torch.tensor(4.0))
        assert all(weight.grad is None for weight in ours.values())
    for name in start:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_a_mean_moves_by_its_share_as_a_number_or_a_tensor() -> None:
    values = [torch.randn(3), torch.randn(2, 2)]
    for share in (0.3, torch.tensor(0.3)):
        means = [torch.ones(3), torch.zeros(2, 2)]
        move_towards(means, values, share)
        torch.testing.assert_close(means, [0.7 + 0.3 * values[0], 0.3 * values[1]])


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


def test_a_published_fit_predicts_as_the_fitted_one(cohort: Cohort, data: FitData, tmp_path: Path) -> None:
    fit(*cohort, "tiny", TINY, {}, 0, tmp_path / "fit")
    model = load_fit(tmp_path / "fit", TINY)
    samples = data.samples("one", "validation")
    rates = model.predict(data, "one", samples)
    assert rates.shape == (len(samples), 50, 9) and rates.dtype == np.float32
    with pytest.raises(InputError, match="session: found three; accepted: a session it was fitted to: one, two"):
        model.predict(data, "three", samples)


@pytest.mark.parametrize(
    ("windows", "splits", "units", "message"),
    [
        ({"bin_size": 50.0}, {}, 9, "bin_size: found 50 ms; accepted: 20 ms, as in the fit"),
        ({"history": 0.2}, {}, 9, "history: found 10 bins; accepted: 5 bins, as in the fit"),
        ({}, {}, 8, "units: found 8 units; accepted: 9 units, as in the fit"),
        (
            {},
            {"heldout_units": 0},
            9,
            r"held-out units: found rows \[\] of session one; accepted: those of the fit: rows",
        ),
    ],
)
def test_a_network_refuses_windows_unlike_those_it_learned_from(
    cohort: Cohort, tmp_path: Path, windows: dict, splits: dict, units: int, message: str
) -> None:
    """They would have the right shape, and rates that mean nothing; units that were hidden would be shown."""
    fit(*cohort, "tiny", TINY, {}, 0, tmp_path / "fit")
    made = [recording("one", 0, units=units, trials=30)]
    other = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, **windows), replace(SPLITS, **splits), made))
    with pytest.raises(InputError, match=message):
        load_fit(tmp_path / "fit", TINY).predict(other, "one", other.samples("one", "test"))
