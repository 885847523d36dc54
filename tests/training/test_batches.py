"""Batches: every window once an epoch, in an order that the seed fixes, and nothing that may not be seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.training.batches import PIECE, InOrder, Order, Windows
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort


def test_an_epoch_visits_every_window_once_in_an_order_that_the_seed_fixes(data: FitData) -> None:
    windows = {session: Windows(data, session, "train") for session in data.sessions}
    for each in windows.values():
        each.inputs["row"] = torch.arange(len(each))
    order = Order(windows, 7, seed=1)
    epochs = [[order[number] for number in range(k * len(order), (k + 1) * len(order))] for k in range(2)]
    visits = [[(batch.session, row) for batch in epoch for row in batch.inputs["row"].tolist()] for epoch in epochs]
    everything = [(session, row) for session, each in windows.items() for row in range(len(each))]
    assert sorted(visits[0]) == sorted(visits[1]) == sorted(everything)
    assert visits[0] != visits[1]
    # A window meets others in the next epoch: the same batches in another order would be fewer steps, repeated.
    beside = [{(batch.session, *sorted(batch.inputs["row"].tolist())) for batch in epoch} for epoch in epochs]
    assert not beside[0] & beside[1]
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


def test_an_evaluation_goes_through_all_windows_so_many_at_a_time(data: FitData) -> None:
    windows = {session: Windows(data, session, "train") for session in data.sessions}
    evaluation = InOrder(windows, 5)
    for _ in range(2):  # one evaluation after another
        batches = list(evaluation)
        assert max(len(batch.counts) for batch in batches) == 5
        for session, each in windows.items():
            own = [batch.counts for batch in batches if batch.session == session]
            assert torch.equal(torch.cat(own), each.counts)


def test_counts_of_a_bin_are_what_they_are_however_large_and_in_whichever_window(data: FitData) -> None:
    samples = data.samples("one", "train")
    samples = samples.loc[samples.index.repeat(300 // len(samples) + 1)]
    counts, observed = (each.copy() for each in data.read("one", samples))
    counts = counts.astype(np.uint16)
    counts[-1, 5, 0] = 300  # past what a byte holds, and past the windows that are read at once
    held = replace(data)
    object.__setattr__(held, "read", lambda *_: (counts, observed))
    windows = Windows(held, "one", samples)
    assert len(windows) > PIECE and windows.most() == 300
    assert int(windows.batch(np.array([len(windows) - 1])).counts[0, 5, 0]) == 300


def test_a_session_without_training_windows_has_no_batch(data: FitData) -> None:
    windows = {"one": Windows(data, "one", "train"), "two": Windows(data, "two", data.samples("two", "train").iloc[:0])}
    order = Order(windows, 7, seed=1)
    assert {order[number].session for number in range(2 * len(order))} == {"one"}


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


def test_mean_counts_have_half_a_spike_more_and_the_mean_rate_where_nothing_was_seen(data: FitData) -> None:
    windows = Windows(data, "one", "train")
    assert windows.counts.dtype == torch.uint8 and not windows.ragged and not windows.batch(slice(3)).ragged
    counts = windows.counts.numpy().astype(float)
    assert windows.most() == counts.max() > 1
    seen = np.full(counts.shape[2], counts[..., 0].size)
    windows.observed = torch.ones_like(windows.counts, dtype=torch.bool)
    windows.observed[:, :, 2] = False
    windows.counts[:, :, 2] = seen[2] = 0
    spikes = windows.counts.numpy().sum(axis=(0, 1))
    overall = (spikes.sum() + 0.5) / (seen.sum() + 1)
    expected = (spikes + 0.5) / (seen + 0.5 / overall)
    np.testing.assert_allclose(windows.mean_counts(), expected, rtol=1e-6)
    assert expected[2] == overall


def test_windows_are_cut_to_the_longest_of_a_batch(tmp_path: Path) -> None:
    made = recording(trials=20)
    made.trials["stop"] = made.trials["start"] + np.linspace(0.4, 1.2, 20)
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, [made]))
    windows = Windows(data, "small0", "train")
    two = data.samples("small0", "train")
    two = two[two["bins"].isin([two["bins"].min(), two["bins"].max()])]
    assert two["bins"].nunique() == 2 and Windows(data, "small0", two).ragged and windows.ragged
    rows = np.argsort(windows.bins.numpy())[:3]
    batch = windows.batch(rows)
    assert batch.counts.shape[1] == int(windows.bins[rows].max()) < int(windows.bins.max())
    for row in range(3):
        assert batch.observed[row, : batch.bins[row]].all() and not batch.observed[row, batch.bins[row] :].any()
