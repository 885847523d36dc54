"""Sums of a few rows instead of products with counts that are mostly 0: the same numbers."""

import pytest
import torch
from torch import Tensor

from pipeline_lib.models.lfads import cell
from pipeline_lib.models.lfads.concealment import Shown
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.sequence import GRU
from pipeline_lib.models.lfads.spikes import Spikes
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from tests.models.lfads import plain
from tests.models.lfads.small import CONTROLLED

BINS, WINDOWS, UNITS = 9, 4, 11


def few(rate: float = 0.08) -> Tensor:
    """Counts [T, B, N], some above 1, with a unit, a window and a bin without spikes."""
    counts = torch.poisson(torch.full((BINS, WINDOWS, UNITS), rate))
    counts[2, 0, 1] = 3
    counts[:, 1] = counts[4] = counts[..., 7] = 0
    return counts.to(torch.uint8)


@pytest.mark.parametrize("bins", [slice(0, BINS), slice(3, 6), slice(4, 5)])
def test_products_are_those_of_all_counts(bins: slice) -> None:
    torch.manual_seed(0)
    counts = few()
    spikes, x = Spikes.of(counts, 1.5, torch.float64), 1.5 * counts.double()
    assert spikes is not None and spikes.shape == x.shape
    for part, whole in ((spikes[bins], x[bins]), (spikes[bins].reversed, x[bins].flip(0))):
        assert part.shape == whole.shape
        rows = whole.flatten(0, 1)
        first, second = torch.randn(UNITS, 6).double(), torch.randn(len(rows), 6).double()
        assert torch.allclose(part.times(first), rows @ first, rtol=0, atol=1e-12)
        assert torch.allclose(part.transposed_times(second), rows.t() @ second, rtol=0, atol=1e-12)


def test_no_spike_at_all_gives_zeros() -> None:
    spikes = Spikes.of(torch.zeros(3, 2, 5, dtype=torch.uint8), 1.0, torch.float32)
    assert spikes is not None
    assert torch.equal(spikes.reversed.times(torch.ones(5, 4)), torch.zeros(6, 4))
    assert torch.equal(spikes.transposed_times(torch.ones(6, 4)), torch.zeros(5, 4))


def test_counts_that_are_mostly_spikes_are_left_as_they_are() -> None:
    assert Spikes.of(torch.ones(3, 2, 5, dtype=torch.uint8), 1.0, torch.float32) is None


@pytest.mark.parametrize("block", [60, 10_000], ids=["many blocks", "one block"])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_walk_is_the_plain_loop(directions: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "BLOCK", block)
    torch.manual_seed(0)
    counts = few()
    network = GRU(UNITS, 4, directions).double()
    start = torch.randn(directions, WINDOWS, 4, dtype=torch.float64)
    learned = network.input, network.recurrent, network.bias
    ours = network(Spikes.of(counts, 2.0, torch.float64), BINS, start)
    theirs = plain.walk(2.0 * counts.double(), BINS, start, None, *learned)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    outer = torch.randn_like(theirs[0])
    gradients = [torch.autograd.grad((made[0] * outer).sum() + made[1].sum(), learned) for made in (ours, theirs)]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_step_learns_the_same_either_way(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bins, units, windows = 12, 10, 16
    layout = Layout(5.0, bins, 0, 0, 6, {"s": units}, {"s": list(range(units))}, {"s": ["a"] * units})
    torch.manual_seed(0)
    network = LFADS(CONTROLLED, 0).build(layout).train()
    counts = torch.poisson(torch.full((windows, bins, units), 0.1)).to(torch.uint8)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, ones, ones, torch.full((windows,), bins), 0)

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = torch.stack(list(network(batch, 4).values())).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]

    few_shown: list[bool] = []
    encode = network.encode

    def watched(head: object, shown: Shown, half: bool) -> object:
        few_shown.append(isinstance(shown.inputs, Spikes))
        return encode(head, shown, half)

    monkeypatch.setattr(network, "encode", watched)
    ours = gradients()
    monkeypatch.setattr("pipeline_lib.models.lfads.spikes.SHARE", -1.0)
    theirs = gradients()
    assert few_shown == [True, False]
    error = 2e-2 if half else 1e-5
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= error * b.norm() + 1e-6
