"""A cohort larger than memory: the same weights to the last bit, bounded memory, and no waiting for batches."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.files import sha256_file
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config as NDTConfig
from pipeline_lib.training.batches import Batch, Order, Windows
from pipeline_lib.training.fit import fit
from pipeline_lib.training.run import Run
from pipeline_lib.training.streaming import Ahead, Streamed, cohort_windows, shuffled, window_bytes
from pipeline_lib.trains.sessions import Sessions
from pipeline_lib.trains.splits import Split
from tests.small_cohort import SPLITS, WINDOWS, Cohort, recording, write_cohort
from tests.training.test_engine import FragileRun, Killed, same
from tests.training.tiny_network import Config, TinyModel

TINY = str(Path(__file__).with_name("tiny_network.py"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four sessions of different size, one of ragged windows."""
    made = [recording(f"s{number}", number, units=6 + number, trials=20 + 2 * number) for number in range(4)]
    made[2].trials["stop"] = made[2].trials["start"] + np.linspace(0.4, 1.0, len(made[2].trials))
    return write_cohort(tmp_path_factory.mktemp("cohort"), replace(WINDOWS, after=None), SPLITS, made)


def no_inputs(data: FitData, session: str, samples: object) -> dict[str, np.ndarray]:
    return {}


def test_batches_are_those_of_resident_windows(data: FitData) -> None:
    resident, streamed = (cohort_windows(data, "train", "cpu", no_inputs, budget) for budget in (2**30, 0))
    assert type(resident["s0"]) is Windows and type(streamed["s0"]) is Streamed
    one, other = shuffled(resident, 5, seed=3), shuffled(streamed, 5, seed=3)
    assert isinstance(one, Order) and isinstance(other, Ahead)
    for number in [*range(2 * len(one)), 3, 50]:  # in order, and back and forth
        first, second = one[number], other[number]
        for name in ("counts", "observed", "visible", "bins"):
            assert torch.equal(getattr(first, name), getattr(second, name)), (number, name)
        assert (first.session, first.history) == (second.session, second.history)
    for session in data.sessions:
        assert torch.equal(resident[session].mean_counts(), streamed[session].mean_counts())
        counts, mask = data.read(session, "train")
        overall = (counts.sum(dtype=float) + 0.5) / (mask.sum() + 1)
        mean = (counts.sum(axis=(0, 1), dtype=float) + 0.5) / (mask.sum(axis=(0, 1)) + 0.5 / overall)
        np.testing.assert_allclose(resident[session].mean_counts(), mean, rtol=1e-6)
        assert resident[session].most() == streamed[session].most() == int(resident[session].counts.max())


def test_a_batch_of_equal_windows_is_as_ragged_as_its_session(data: FitData) -> None:
    """Which kernels run may depend on it."""
    resident, streamed = (cohort_windows(data, "train", "cpu", no_inputs, budget) for budget in (2**30, 0))
    for session, ragged in (("s0", False), ("s2", True)):
        assert {windows[session].batch(np.array([3])).ragged for windows in (resident, streamed)} == {ragged}


def test_the_budget_is_what_the_windows_take(data: FitData) -> None:
    windows = [cohort_windows(data, part, "cpu", no_inputs, 2**30) for part in ("train", "validation")]
    taken = sum(2 * each.counts.numel() for part in windows for each in part.values())
    assert window_bytes(data) == taken
    for budget, kind in ((taken, Windows), (taken - 1, Streamed)):
        assert type(cohort_windows(data, "train", "cpu", no_inputs, budget)["s0"]) is kind


@pytest.mark.parametrize(
    ("model", "config"),
    [(TinyModel, Config(accumulate=2)), (NDT, NDTConfig(steps=6, evaluate_every=3, layers=1, hidden=8, read_in=8))],
    ids=["tiny", "ndt"],
)
def test_weights_are_the_same_bytes_resident_or_streamed(
    data: FitData, cohort: Cohort, tmp_path: Path, model: type, config: object
) -> None:
    resident, streamed = model(config, 1), model(config, 1)
    resident.fit(data, Run(tmp_path / "resident"))
    sessions = Sessions(cohort[0], lambda trains: trains, memory_budget=1)
    few = FitData(sessions, Split.read(cohort[1]), fitting=True)
    streamed.fit(few, Run(tmp_path / "streamed", memory_budget=0))
    assert same(resident.state(), streamed.state())


def test_a_published_fit_does_not_depend_on_memory(cohort: Cohort, tmp_path: Path) -> None:
    for name, budget in (("resident", 2**30), ("streamed", 1)):
        fit(*cohort, "tiny", TINY, {}, 0, tmp_path / name, memory_budget=budget)
    hashes = [sha256_file(tmp_path / name / "manifest.json") for name in ("resident", "streamed")]
    assert hashes[0] == hashes[1]


def test_a_killed_streamed_fit_ends_in_the_same_bytes(data: FitData, tmp_path: Path) -> None:
    undisturbed = TinyModel(Config(), 2)
    undisturbed.fit(data, Run(tmp_path / "undisturbed"))
    with pytest.raises(Killed):
        TinyModel(Config(), 2).fit(data, FragileRun(tmp_path / "killed", 5, memory_budget=0))
    model = TinyModel(Config(), 2)
    model.fit(data, FragileRun(tmp_path / "killed", memory_budget=0))
    assert same(model.state(), undisturbed.state())


def test_no_more_is_in_memory_than_batches_and_two_sessions(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, real = [0], Windows.__init__

    def counted(self: Windows, data: FitData, session: str, samples: object, *more: object) -> None:
        most[0] = max(most[0], len(samples))
        assert len(data.trains.resident) <= 2
        real(self, data, session, samples, *more)

    monkeypatch.setattr(Windows, "__init__", counted)
    monkeypatch.setattr("pipeline_lib.training.batches.PIECE", 4)
    monkeypatch.setattr("pipeline_lib.models.torch_model.PREDICTED", 4)
    monkeypatch.setattr(Windows.pieces, "__defaults__", (4,))
    data = FitData(Sessions(cohort[0], lambda trains: trains, 1), Split.read(cohort[1]), fitting=True)
    TinyModel(Config(batch=4), 0).fit(data, Run(tmp_path, memory_budget=0))
    assert 0 < most[0] <= 4


class Slow:
    """Batches that take a while to be made."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.made = seconds, list[int]()

    def __getitem__(self, number: int) -> Batch:
        time.sleep(self.seconds)
        self.made.append(number)
        if number == 99:
            raise ValueError("the batch that cannot be made")
        return number  # type: ignore[return-value]


def test_a_step_does_not_wait_for_its_batch() -> None:
    slow = Slow(0.05)
    batches, waits = Ahead(slow), []
    for number in range(0, 20, 2):  # every other batch: the rest is another process's
        start = time.monotonic()
        assert batches[number] == number
        waits.append(time.monotonic() - start)
        time.sleep(0.1)  # the step
    assert waits[0] >= 0.05  # the first cannot be hidden; nor what was guessed wrongly beside it
    assert np.median(waits[3:]) < 0.02
    assert set(range(0, 20, 2)) <= set(slow.made) and len(slow.made) == len(set(slow.made)) <= 10 + 2 + 2


def test_a_batch_that_cannot_be_made_fails_the_step_that_needs_it() -> None:
    batches = Ahead(Slow(0.0))
    assert batches[98] == 98
    with pytest.raises(ValueError, match="cannot be made"):
        batches[99]
