"""What a prediction may look at: nothing that is hidden, later than it should be, or of another window."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.concealment import conceal
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.batches import Windows
from tests.models.leaks import HIDDEN, check_heldout_counts_of_other_parts, check_hidden_counts, check_other_windows
from tests.models.lfads.small import CONTROLLED, SMALL


def test_other_windows_change_no_prediction(ragged: FitData, model: LFADS) -> None:
    check_other_windows(model, ragged, "two")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_counts_change_no_prediction(ragged: FitData, model: LFADS, hidden: str) -> None:
    samples = ragged.samples("two", "train")
    windows = Windows(ragged, "two", samples, inputs=model.inputs(ragged, "two", samples))
    check_hidden_counts(model.network, windows, ragged, "two", hidden)


@pytest.mark.parametrize("settings", [{}, {"inferred_inputs": 2}], ids=["autonomous", "controlled"])
def test_no_count_is_explained_by_itself(ragged: FitData, model: LFADS, settings: dict) -> None:
    """Counts that are targets of a step may change at will: what the network makes of the step is the same."""
    network = LFADS(replace(SMALL, dropout=0.0, read_in=4, **settings), 0).build(model.layout)
    head = network.head("one")
    batch = Windows(replace(ragged, fitting=True), "one", "train").batch(slice(0, 4))

    def step(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        changed = replace(batch, counts=counts)
        shown = conceal(changed, network.config, head.inputs, head.mean, 0, 0, drop=True)
        return network.decode(head, changed, network.encode(head, shown), None)[0], shown.scored.transpose(0, 1)

    factors, targets = step(batch.counts)
    assert 0.2 < float(targets[batch.visible].float().mean()) < 0.35
    more = torch.tensor(5, dtype=torch.uint8)
    assert torch.equal(step(batch.counts + more * targets)[0], factors)
    assert not torch.allclose(step(batch.counts + more * (batch.visible & ~targets))[0], factors)


def test_an_initial_segment_is_all_that_an_autonomous_network_sees(ragged: FitData, model: LFADS) -> None:
    network = LFADS(replace(SMALL, initial_segment=0.2, read_in=4), 0).build(model.layout)
    controlled = LFADS(replace(CONTROLLED, initial_segment=0.2, read_in=4), 0).build(model.layout)
    batch = Windows(ragged, "one", "train").batch(slice(0, 4))
    later, early = batch.counts.clone(), batch.counts.clone()
    later[:, 10:] += 3
    early[:, :10] += 3
    for each, changes in ((network.eval(), False), (controlled.eval(), True)):
        with torch.inference_mode():
            first, second, third = (each.rates(replace(batch, counts=x)) for x in (batch.counts, later, early))
            shown = replace(batch, counts=later)
            initial = each.outputs(batch).initial, each.outputs(shown).initial
        assert torch.allclose(first, second) != changes
        assert torch.equal(*initial)
        assert not torch.allclose(first, third)
    assert LFADS(replace(SMALL, initial_segment=0.2), 0).sees == "held-in units, first 0.2 s"
    assert LFADS(replace(CONTROLLED, initial_segment=0.2), 0).sees == "held-in units, past and future"


def test_the_controller_hears_both_directions_late(ragged: FitData, model: LFADS) -> None:
    """Without initial conditions a bin of factors depends on all bins, but the codes of a bin not on that bin alone."""
    lag = 3
    network = LFADS(replace(CONTROLLED, input_lag=lag, read_in=4), 0).build(model.layout).eval()
    x = torch.randn(12, 2, 4, requires_grad=True)
    codes = network._codes(x, None, False)
    ahead, back = codes.chunk(2, -1)
    seen = torch.autograd.grad(ahead[7].square().sum(), x, retain_graph=True)[0].abs().sum((1, 2)) > 0
    assert seen.tolist() == [t <= 7 - lag for t in range(12)]
    seen = torch.autograd.grad(back[4].square().sum(), x)[0].abs().sum((1, 2)) > 0
    assert seen.tolist() == [t >= 4 + lag for t in range(12)]
    assert (ahead[:lag] == 0).all() and (back[-lag:] == 0).all()
    gone = torch.zeros(12, 2, dtype=torch.bool)
    gone[9:] = True
    codes = network._codes(x, gone, False)
    assert (codes[9:] == 0).all() and (codes[8, :, :6] != 0).all()


def test_heldout_counts_of_other_parts_do_not_touch_the_fit(tmp_path: Path) -> None:
    check_heldout_counts_of_other_parts(lambda: LFADS(CONTROLLED, 0), tmp_path)


@pytest.mark.parametrize("name", ["leave_one_out", "intra_region", "inter_region"])
def test_masked_predictions_do_not_see_their_units(
    ragged: FitData, model: LFADS, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, unit = ragged.samples("one", "test"), int(ragged.heldin("one")[0])
    population = np.array(list("AAAABBBBB"))
    monkeypatch.setattr(model, "layout", replace(model.layout, population={"one": population.tolist()}))
    mates = np.flatnonzero(population == population[unit])
    silenced = replace(ragged)

    def silent(hidden: np.ndarray):
        def read(session: str, rows: object) -> tuple[np.ndarray, np.ndarray]:
            counts, mask = ragged.read(session, rows)
            counts[..., hidden] = 0
            return counts, mask

        return read

    rates = model.predict_masked(ragged, "one", samples, name)
    assert np.isfinite(rates[..., ragged.heldin("one")]).all() and np.isnan(rates[..., ragged.heldout("one")]).all()
    heldin = ragged.heldin("one")
    mates, others = np.intersect1d(mates, heldin), np.setdiff1d(heldin, mates)
    assert len(mates) > 1 and len(others) > 1
    unseen = {"leave_one_out": [unit], "intra_region": [unit, *others], "inter_region": mates}[name]
    seen = {"leave_one_out": others, "intra_region": np.setdiff1d(mates, unit), "inter_region": others}[name]
    for hidden, same in ((unseen, True), (seen, False)):
        object.__setattr__(silenced, "read", silent(np.asarray(hidden)))
        again = model.predict_masked(silenced, "one", samples, name)
        assert np.allclose(again[..., unit], rates[..., unit], atol=1e-7) == same
    if name == "leave_one_out":
        assert not np.allclose(model.predict(ragged, "one", samples)[..., unit], rates[..., unit], atol=1e-7)
