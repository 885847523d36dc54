"""The likelihood is one: of all that can happen in a window, exact, and comparable with models of counts."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import poisson as poisson_law

from pipeline_lib.models.neuroformer.independent import IndependentNeuroformer
from pipeline_lib.models.neuroformer.law import rates_of_first, unit_law, unit_marginal
from pipeline_lib.models.neuroformer.layers import Rows
from pipeline_lib.models.neuroformer.likelihood import score_rows, window_sums
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.reading import Last
from pipeline_lib.models.torch_model import Layout
from tests.models.neuroformer.small import batch, network, poisson, with_settings


def log_likelihood(made, given) -> torch.Tensor:
    windows = made.windows(given)
    bins, units = made.token_log_likelihood(made.head("one"), windows, made.read(given, windows))
    return bins + units


@torch.inference_mode()
def test_all_that_can_happen_has_probability_one() -> None:
    """Every table of counts of 2 bins and 2 units up to 6 spikes a cell, after the same past, weights random."""
    made = network(units=2, spread=0.12, config=with_settings(window=0.02))
    tables = np.array(list(itertools.product(range(7), repeat=4))).reshape(-1, 2, 2)
    past = np.random.default_rng(0).poisson(0.4, (10, 2))
    counts = np.concatenate([np.broadcast_to(past, (len(tables), 10, 2)), tables], 1)
    probability = log_likelihood(made, batch(counts)).double().exp()
    assert probability.max() < 0.9
    assert abs(probability.sum() - 1) < 1e-3


@torch.inference_mode()
def test_a_network_that_has_learned_nothing_is_a_poisson_process() -> None:
    made = network(spread=0.0)
    mean = made.head("one").expected.numpy()
    counts = np.minimum(poisson(40, 35), 1)
    given = batch(counts)
    rates = made.rates(given)[:, 10:].numpy()
    assert np.allclose(rates, mean, rtol=1e-4)
    found = log_likelihood(made, given).view(40, -1).sum(1).numpy()
    # Without second spikes in a bin: the law leaves those half as likely as Poisson's, to first order.
    expected = poisson_law.logpmf(counts[:, 10:], mean).sum((1, 2))
    assert np.allclose(found, expected, atol=0.02 * counts[:, 10:].sum((1, 2)))
    none = torch.tensor([-1])
    units = rates_of_first(unit_law(torch.as_tensor(mean)[None], torch.zeros(6), none, none > 0).exp())[0]
    assert np.allclose(units, mean, rtol=1e-4)


def test_bits_per_spike_by_hand() -> None:
    made = network()
    given = batch(poisson(6, 37))
    with torch.inference_mode():
        sums = window_sums(made, [given])
        total = float(log_likelihood(made, given).sum())
    counts = given.counts[:, 10:].numpy()
    for row, mean in zip(score_rows(sums, np.full(6, 0.3)), (counts.mean((0, 1)), np.full(6, 0.3)), strict=True):
        null = poisson_law.logpmf(counts, mean).sum()
        assert np.isclose(row["value"], (total - null) / counts.sum() / np.log(2), atol=1e-5)
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["n"] == 6


@torch.inference_mode()
def test_the_null_of_a_unit_is_of_the_bins_where_it_was_observed() -> None:
    made, given = network(), batch(poisson(6, 37), bins=np.array([37, 37, 30, 37, 37, 37]))
    given.observed[:3, :, 2] = given.visible[:3, :, 2] = False
    given.counts.mul_(given.observed)
    sums = window_sums(made, [given])
    seen, counts = given.observed[:, 10:].numpy(), given.counts[:, 10:].numpy().astype(float)
    assert np.array_equal(sums["bins"], seen.sum(1)) and sums["bins"][:3, 2].max() == 0
    mean = counts.sum((0, 1)) / seen.sum((0, 1))
    null = np.where(seen, poisson_law.logpmf(counts, mean), 0).sum()
    row = score_rows(sums, mean)[0]
    assert np.isclose(row["value"], (sums["loglik"].sum() - null) / counts.sum() / np.log(2), atol=1e-5)


@torch.inference_mode()
def test_tokens_are_counted_over_all_batches_those_cut_off_from_a_past_too() -> None:
    counts = np.zeros((2, 1, 15, 6), dtype=int)
    counts[0, 0, 2:7, 1] = counts[0, 0, 12, 0] = counts[1, 0, 12, :2] = 1
    sums = window_sums(network(config=with_settings(limit=3)), [batch(each) for each in counts])
    assert {name: int(sums[name]) for name in ("longest", "longest_past", "cut")} == {
        "longest": 2,
        "longest_past": 3,
        "cut": 2,
    }


def test_resampled_windows_bring_their_own_spikes() -> None:
    """Every window gains half a bit a spike: so does every sample of them, however many spikes it drew."""
    spikes, bins = np.array([[1.0], [40.0], [3.0], [200.0]]), np.full((4, 1), 100.0)
    found = spikes @ np.log([0.61]) - bins @ [0.61] + spikes[:, 0] * np.log(2) / 2
    sums = {"spikes": spikes, "bins": bins, "log_factorials": np.zeros(4), "loglik": found}
    for row in score_rows(sums, np.array([0.61])):
        assert row["value"] == pytest.approx(0.5) and row["ci_low"] == pytest.approx(0.5) == row["ci_high"]


@torch.inference_mode()
def test_units_that_were_not_observed_cannot_fire() -> None:
    made = network()
    given = batch(poisson(4, 30))
    given.observed[:2, :, 3] = given.visible[:2, :, 3] = False
    windows = made.windows(given)
    assert not (windows.now.unit[windows.now.real] == 3)[windows.now.real.nonzero()[:, 0] < 8].any()
    reading = made.read(given, windows)
    anywhere = torch.zeros(len(reading.window), dtype=torch.bool)
    units = made.unit_log_probabilities(made.head("one"), reading.states, reading.last, anywhere)
    assert torch.equal(units[:, 3] == -torch.inf, reading.window < 8)
    before = log_likelihood(made, given)
    given.counts[:2, 10:, 3] += 5
    assert torch.equal(log_likelihood(made, given), before) and bool(before.isfinite().all())
    smaller = network(units=6)
    smaller.head("one").expected[3] = 1e-12
    smaller.head("one").logits.weight[3], smaller.head("one").logits.bias[3] = 0, -50
    given.counts[:2, :, 3] = 0
    assert torch.allclose(log_likelihood(smaller, given)[:8], before[:8], atol=1e-3)


@torch.inference_mode()
def test_the_likelihood_of_a_window_knows_no_padding() -> None:
    """Alone, among longer windows, and as the end of a ragged trial."""
    made = network()
    counts = poisson(6, 35)
    counts[3:] *= 4
    together = log_likelihood(made, batch(counts)).view(6, -1)
    for row in range(3):
        assert torch.allclose(log_likelihood(made, batch(counts[row : row + 1])), together[row], atol=1e-5)
    bins = np.array([35, 33, 22, 35, 20, 35])
    ragged = log_likelihood(made, batch(counts, bins=bins)).view(6, -1)
    assert torch.allclose(ragged[0], together[0], atol=1e-5) and torch.allclose(
        ragged[4, :2], together[4, :2], atol=1e-5
    )
    assert (ragged[4, 2:] == 0).all() and (ragged[2, 3:] == 0).all() and (ragged[2, 2] != 0)


@pytest.mark.parametrize(("units", "rate", "cost"), [(20, 4.0, 0.74), (200, 7.0, 0.16)])
@torch.inference_mode()
def test_independent_heads_cost_what_they_must(units: int, rate: float, cost: float) -> None:
    """On independent units, before any training, against the figures of specs/neuroformer.md, section 4, 20."""
    counts = np.random.default_rng(0).poisson(rate / 100, (2000 if units < 50 else 200, 10, units))
    bits = []
    for compat in (False, True):
        config = with_settings(past=0.05, compat=compat)
        layout = Layout(10.0, 10, 5, 0, 3, {"one": units}, {"one": list(range(units))}, {"one": [""] * units})
        kind = IndependentNeuroformer if compat else Neuroformer
        made = kind(config, layout, Shapes(classes={"one": {}})).eval()
        made.head("one").start_at(torch.full((units,), rate / 100), {})
        bits.append(float(log_likelihood(made, batch(counts, history=5)).sum()) / counts[:, 5:].sum() / np.log(2))
    assert bits[0] - bits[1] == pytest.approx(cost, abs=0.03)


@torch.inference_mode()
def test_independent_heads_do_not_know_each_other() -> None:
    """Each is a law of its own that sums to one, and what the unit is asked for does not depend on the bin."""
    torch.manual_seed(0)
    layout = Layout(10.0, 40, 10, 0, 3, {"one": 6}, {"one": list(range(6))}, {"one": [""] * 6})
    made = IndependentNeuroformer(with_settings(compat=True), layout, Shapes(classes={"one": {}})).eval()
    head, given = made.head("one"), batch(poisson(3, 30))
    windows = made.windows(given)
    reading = made.read(given, windows)
    units = made.next_log_probabilities(head, reading.states, reading.last)
    assert torch.allclose(units.exp().sum(1), torch.ones(len(units)), atol=1e-5)
    bins = made.bin_log_probabilities(head, reading.states, reading.last)
    # Untrained, both ends are as likely as the law says; after the last token of a long silence they are certain.
    assert torch.allclose(units[:, -1], bins[:, -1], atol=1e-4)
    # Writing asks for the unit where the bins have said that there is one.
    given_one = made.unit_log_probabilities(head, reading.states, reading.last, reading.last.unit >= 0)
    assert torch.allclose(given_one.exp().sum(1), torch.ones(len(units)), atol=1e-5)
    asked = [made.unit_query(reading.states, torch.full((len(units),), bin)) for bin in (0, 4)]
    assert torch.equal(*asked)


@torch.inference_mode()
def test_independent_heads_are_those_of_each_token_by_hand() -> None:
    """Weights random, the end's too: token by token, of what was written before alone; a unit was not observed."""
    made, given = network(config=with_settings(compat=True)), batch(poisson(3, 20))
    given.observed[0, :, 3] = given.visible[0, :, 3] = False
    head, windows = made.head("one"), made.windows(given)
    head.logits.bias[3] = 15  # what the heads say outweighs the law, which holds it for as good as impossible
    reading = made.read(given, windows)
    found = made.token_log_likelihood(head, windows, reading)
    next_bin, next_unit = windows.now.following(made.bins, 6)
    for window, tokens in enumerate(windows.now.count.tolist()):
        first = int((reading.window == window).nonzero()[0])
        seen, context = reading.last.seen[first], reading.context.rows(torch.tensor([window]))
        assert bool(seen[3]) == (window >= 2), "two windows a trial"
        sums = torch.zeros(2)
        for place in range(tokens + 1):
            unit = torch.cat([torch.tensor([-1]), next_unit[window, :place]])
            bin = torch.cat([torch.tensor([0]), next_bin[window, :place]])
            rows, x = Rows(1, len(unit)), made.embed(head, unit, bin, torch.arange(len(unit)))
            states = rows.spread(made.states(x, rows, context, None)[0])[:, -1]
            last = Last(bin[-1:], unit[-1:], reading.last.width[first, None], seen[None])
            wanted_bin, wanted_unit = next_bin[window, place, None], int(next_unit[window, place])
            sums[0] += made.bin_log_probabilities(head, states, last)[0, wanted_bin].sum()
            asked = made.unit_states(states, wanted_bin, Rows(1, 1), *context.who_with(made.who.pair(x, rows), None))
            times = made.time_law(head, last).log_softmax(1)
            law = unit_marginal(times, head.expected[None] * seen, head.again, last.bin, last.unit)[0]
            logits = law + torch.cat([head.logits(asked)[0], (asked @ made.end.weight[0] + made.end.bias)])
            logits[:-1][~seen] = -torch.inf
            sums[1] += logits.log_softmax(0)[wanted_unit]
        assert torch.allclose(torch.stack([each[window] for each in found]), sums, atol=1e-4)
    assert min(each.abs().max() for each in found) > 1 and windows.now.count.max() > 2
