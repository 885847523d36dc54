"""Batches: every sample once, in an order the seed fixes, wherever they are made."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains import sessions as module
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.loader import Batch, Loader
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains

from .conftest import make_recording

SETTINGS = WindowSettings(after=0.5, history=0.1)


@pytest.fixture
def cohort() -> tuple[list[Trains], Split]:
    trains = [Trains.from_recording(make_recording(f"s{number}", seed=number)) for number in range(3)]
    return trains, make_split(trains, SETTINGS, SplitSettings(), "three")


@pytest.fixture
def directories(directories):
    """The same three sessions, on disk."""
    return directories[:3]


def _same(one: Batch, other: Batch) -> None:
    assert one.session == other.session
    for name in ("sample", "trial", "counts", "mask", "history", "history_mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_batch_holds_what_its_samples_say(cohort):
    trains, split = cohort
    by_session = {session.session: session for session in trains}
    for batch in Loader(trains, split, "train", batch_size=7):
        session, rows = by_session[batch.session], split.samples.loc[batch.sample]
        starts = rows["start_tick"].to_numpy()
        assert set(rows["split"]) == {"train"} and set(rows["session"]) == {batch.session}
        np.testing.assert_array_equal(batch.counts, bin_windows(session, starts, 100, 500))
        np.testing.assert_array_equal(batch.history, bin_windows(session, starts - 10_000, 20, 500))
        np.testing.assert_array_equal(batch.mask, observed_windows(session, starts, 100, 500))
        np.testing.assert_array_equal(batch.history_mask, observed_windows(session, starts - 10_000, 20, 500))
        np.testing.assert_array_equal(batch.trial, rows["trial"])


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_every_sample_once(cohort, mixed, shuffle):
    trains, split = cohort
    loader = Loader(trains, split, "train", batch_size=8, mixed=mixed, shuffle=shuffle)
    steps = [step if mixed else [step] for step in loader]
    assert len(steps) == len(loader)
    seen = np.concatenate([batch.sample for step in steps for batch in step])
    expected = np.flatnonzero(split.samples["split"] == "train")
    np.testing.assert_array_equal(np.sort(seen), expected)
    if not shuffle:
        np.testing.assert_array_equal(seen, expected)
    if mixed and shuffle:
        assert {len(step) for step in steps[:-1]} <= {2, 3}
        assert {sum(len(batch.sample) for batch in step) for step in steps[:-1]} == {8}


def test_sessions_take_turns(cohort):
    trains, split = cohort
    order = [batch.session for batch in Loader(trains, split, "train", batch_size=4)]
    assert sum(one != other for one, other in pairwise(order)) > 5


def test_order_follows_the_seed_and_changes_with_the_epoch(cohort):
    trains, split = cohort

    def orders(seed: int) -> list[list[int]]:
        loader = Loader(trains, split, "train", seed=seed)
        return [[int(number) for batch in loader for number in batch.sample] for _ in range(2)]

    first, second = orders(0)
    assert orders(0) == [first, second] and first != second and orders(1)[0] != first


@pytest.mark.parametrize("budget", [2**30, 1])
def test_windows_come_from_all_over_a_session_and_sessions_in_any_order(directories, cohort, budget):
    split, orders = cohort[1], set()
    for seed in range(6):
        batches = list(Loader(directories, split, batch_size=8, seed=seed, memory_budget=budget))
        orders.add(tuple(dict.fromkeys(batch.session for batch in batches)))
        assert all((np.diff(batch.sample) < 0).any() for batch in batches if len(batch.sample) == 8)
    assert len(orders) > 2


@pytest.mark.parametrize("mode", ["resident", "mixed", "streamed"])
@pytest.mark.parametrize("after", [0, 3, "all"])
def test_resuming_in_mid_epoch(directories, cohort, mode, after):
    split = cohort[1]
    options = {"mixed": mode == "mixed", "memory_budget": 1 if mode == "streamed" else 2**30, "batch_size": 8}
    whole = Loader(directories, split, seed=5, **options)
    steps = [*whole, *whole]
    stop = len(whole) if after == "all" else after
    first = Loader(directories, split, seed=5, **options)
    states = [first.state_dict()]
    for _ in first:
        states.append(first.state_dict())
        if len(states) > stop:
            break
    second = Loader(directories, split, seed=5, **options)
    second.load_state_dict(states[stop])
    rest = [*second, *(second if stop < len(whole) else ())]
    assert len(rest) == len(steps) - stop
    for one, other in zip(rest, steps[stop:], strict=True):
        pairs = zip(one, other, strict=True) if mode == "mixed" else [(one, other)]
        for pair in pairs:
            _same(*pair)


def test_ragged_trials_are_masked_and_empty_beyond_their_end(cohort):
    trains, _ = cohort
    by_session = {session.session: session for session in trains}
    split = make_split(trains, replace(SETTINGS, after=None), SplitSettings(), "three")
    for batch in Loader(trains, split, batch_size=16, signals=["running"]):
        bins, starts = (split.samples.loc[batch.sample, name].to_numpy() for name in ("bins", "start_tick"))
        beyond = np.arange(batch.counts.shape[1]) >= bins[:, None]
        assert batch.counts.shape[1] == bins.max() and beyond.any()
        assert not batch.counts[beyond].any() and not batch.mask[beyond].any()
        assert np.isnan(batch.signals["running"][beyond]).all()
        assert batch.counts[~beyond].any()
        whole = by_session[batch.session], starts - 10_000, 20 + bins.max(), 500
        counts, mask = bin_windows(*whole), observed_windows(*whole)
        np.testing.assert_array_equal(batch.counts[~beyond], counts[:, 20:][~beyond])
        np.testing.assert_array_equal(batch.mask[~beyond], mask[:, 20:][~beyond])
        np.testing.assert_array_equal(batch.history, counts[:, :20])
        np.testing.assert_array_equal(batch.history_mask, mask[:, :20])


def test_signals_at_the_middle_of_each_bin(cohort):
    """The signal of the test sessions is its own time."""
    trains, split = cohort
    for batch in Loader(trains, split, signals=["running"]):
        middle = (
            split.samples.loc[batch.sample, "start_tick"].to_numpy()[:, None] / 1e5 + (np.arange(100) + 0.5) * 0.005
        )
        np.testing.assert_allclose(batch.signals["running"][:, :, 0], middle, rtol=1e-6)
    with pytest.raises(InputError, match="running"):
        next(iter(Loader(trains, split, signals=["pupil"])))


def test_a_cohort_beyond_the_budget_is_streamed(cohort, directories, monkeypatch):
    split = cohort[1]
    opened = []
    real = Trains.open
    monkeypatch.setattr(module.Trains, "open", lambda path: opened.append(path.name) or real(path))
    loader = Loader(directories, split, batch_size=8, memory_budget=1)
    sessions = []
    for batch in loader:
        sessions.append(batch.session)
        assert len(loader.sessions.resident) <= 2
    assert sorted(opened[:3]) == ["s0", "s1", "s2"]  # each once, then perhaps the first of the next epoch
    assert len(opened) <= 4
    assert sum(one != other for one, other in pairwise(sessions)) == 2
    resident = np.concatenate([batch.sample for batch in Loader(cohort[0], split)])
    streamed = np.concatenate([batch.sample for batch in Loader(directories, split, memory_budget=1)])
    np.testing.assert_array_equal(np.sort(resident), np.sort(streamed))
    with pytest.raises(InputError, match="memory_budget"):
        Loader(directories, split, mixed=True, memory_budget=1)


def test_the_next_session_is_opened_while_one_is_in_use(cohort, directories, monkeypatch):
    real = Trains.open

    def slow(path):
        time.sleep(0.4)
        return real(path)

    monkeypatch.setattr(module.Trains, "open", slow)
    waits, last = [], time.monotonic()
    for _ in Loader(directories, cohort[1], batch_size=16, memory_budget=1):
        waits.append(time.monotonic() - last)
        time.sleep(0.4)  # the training step
        last = time.monotonic()
    assert waits[0] >= 0.4  # the first session cannot be hidden
    assert max(waits[1:]) < 0.3  # the others are


def test_missing_session_and_empty_part(cohort):
    trains, split = cohort
    with pytest.raises(InputError, match="s2"):
        Loader(trains[:2], split)
    with pytest.raises(InputError, match="no sample in exam"):
        Loader(trains, split, part="exam")


def test_torch_tensors_are_the_same_numbers(cohort):
    torch = pytest.importorskip("torch")
    trains, split = cohort
    for plain, tensors in zip(Loader(trains, split), Loader(trains, split, device="cpu"), strict=True):
        assert isinstance(tensors.counts, torch.Tensor) and tensors.mask.dtype == torch.bool
        _same(plain, tensors)


def test_a_bin_of_more_spikes_than_a_byte_holds_is_an_integer_of_torch(store):
    torch = pytest.importorskip("torch")
    trains = store([np.linspace(1.0, 1.004, 700), np.arange(1.0, 9, 1.0)], 10.0)
    samples = pd.DataFrame({"session": "s", "start_tick": [50_000, 100_000], "bins": [50, 30], "trial": [3, -1]})
    samples = samples.astype({"trial": "int32"}).assign(condition="", split="train")
    split = Split(samples.astype({"session": "str", "split": "str"}), {"s": np.empty(0, np.int64)}, 0, 10.0, 5, "one")
    (plain,), (tensors,) = (list(Loader([trains], split, shuffle=False, device=device)) for device in (None, "cpu"))
    assert plain.counts.dtype == np.uint16 and tensors.counts.dtype == torch.int32 and plain.counts.max() == 700
    assert plain.trial.dtype == np.int64 and tensors.trial.dtype == torch.int64
    _same(plain, tensors)


@pytest.mark.parametrize("observed", [[[0.0, 40.0]], [[0.0, 9.75], [10.0, 40.0]]])
def test_a_mask_that_is_the_same_for_all_units_is_moved_once(store, observed):
    """All of it, where nothing is missing, or what was not recorded of whichever window."""
    pytest.importorskip("torch")
    trains = store([np.arange(0.5, 40, 0.1), np.arange(1.0, 40, 1.0)], 40.0, observed=np.array(observed))
    samples = pd.DataFrame({"session": "s", "start_tick": np.arange(20) * 100_000 + 50_000, "bins": 50, "trial": -1})
    samples = samples.assign(condition="", split="train").astype({"session": "str", "split": "str"})
    split = Split(samples, {"s": np.empty(0, np.int64)}, 0, 10.0, 5, "one")
    (plain,), (tensors,) = (list(Loader([trains], split, shuffle=False, device=device)) for device in (None, "cpu"))
    assert tensors.mask.shape == (20, 50, 2) and not tensors.mask.stride()[2]
    assert bool(tensors.mask.all()) == (len(observed) == 1) and tensors.mask.any()
    _same(plain, tensors)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_binning_on_the_device_equals_binning_in_numpy(cohort, device, store):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from pipeline_lib.trains.device import DeviceEvents

    starts = np.random.default_rng(0).integers(-200_000, 10_100_000, 50)
    dense = store([np.linspace(1.0, 1.004, 700), np.array([2.0])], 100.0)
    long = store([np.array([1.0, 50_000.0])], 50_000.0, session="long")
    for trains in (cohort[0][0], dense, long):
        for bins, width in ((100, 500), (1, 5_000_000), (7, 133)):
            counts = DeviceEvents(trains, device).bin_windows(starts, bins, width)
            np.testing.assert_array_equal(counts.cpu().numpy(), bin_windows(trains, starts, bins, width))
    ticks, unit = np.array([10, 60], np.int32), np.array([7, 39_999], np.uint16)
    many = Trains("many", ticks, unit, 40_000, 100, np.array([[0, 100]]), None, {})
    counts = DeviceEvents(many, device).bin_windows(np.array([0]), 2, 50)
    np.testing.assert_array_equal(counts.cpu().numpy(), bin_windows(many, np.array([0]), 2, 50))
