"""Cross-correlation, the reading that attention and couplings are compared with: within windows, lag by lag."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer import connectivity
from pipeline_lib.models.neuroformer.connectivity import attention, cross_correlation, probed_couplings
from pipeline_lib.training.batches import Batch
from tests.models.neuroformer.small import batch, network, poisson, with_settings


def followers() -> np.ndarray:
    """Counts [windows, bins, units]: unit 1 repeats unit 0 a bin later, unit 2 four bins later; unit 3 is silent."""
    rng = np.random.default_rng(0)
    long = rng.poisson(0.5, (40, 64)).astype(float)
    shifted = [long[:, 4 - lag : 64 - lag] for lag in (0, 1, 4)]
    return np.stack([*shifted, np.zeros((40, 60))], 2)


@pytest.mark.parametrize(("lags", "seen"), [(1, [1]), (3, [1]), (4, [1, 2])])
def test_who_follows_within_the_lags_is_found(lags: int, seen: list[int]) -> None:
    found = cross_correlation(followers(), np.ones((40, 60, 4), dtype=bool), lags)
    assert found.shape == (4, 4) and np.allclose(found[0, seen], 1, atol=0.02)
    others = np.ones((4, 4), dtype=bool)
    others[0, seen] = others[1, 2] = False
    assert found[others].max() < 0.15 and (found[3] == 0).all()
    assert (found[1, 2] > 0.9) == (lags >= 3)


def test_a_unit_that_is_silenced_is_found_too() -> None:
    counts = followers()[:, :, :2]
    counts[:, :, 1] = counts.max() - counts[:, :, 1]
    found = cross_correlation(counts, np.ones(counts.shape, dtype=bool), 2)
    assert found[0, 1] > 0.98 and found[1, 0] < 0.15


def test_silence_after_the_end_of_a_trial_correlates_nobody() -> None:
    counts = followers()
    inside = np.pad(np.ones(counts.shape, dtype=bool), ((0, 0), (0, 50), (0, 0)))
    expected = cross_correlation(counts, inside[:, :60], 4)
    assert np.allclose(cross_correlation(np.pad(counts, ((0, 0), (0, 50), (0, 0))), inside, 4), expected)


def test_a_spike_that_a_limit_cuts_off_has_no_coupling() -> None:
    made = network(config=with_settings(limit=8))
    made.head("one").expected.fill_(1.0)  # some six in each bin
    found = probed_couplings(made, "one", 2)
    assert np.abs(found[:, :, 5:]).max() < 1e-4 and np.abs(found[:, :, 0]).max() > 0.1


def test_a_coupling_is_what_a_spike_does_to_the_next_bin() -> None:
    """Units that hardly ever fire have silent pasts: there it is the change of a predicted rate."""
    made = network(heldout=1)
    made.head("one").expected.fill_(1e-6)
    silent = np.zeros((1, 15, 6), dtype=int)
    found = probed_couplings(made, "one", 2)
    assert np.isnan(found[5]).all()
    with torch.inference_mode():
        before = made.rates(batch(silent, heldout=1))[0, 10].log().numpy()
        for sender, lag in ((0, 0), (3, 4), (4, 9)):
            spike = silent.copy()
            spike[0, 9 - lag, sender] = 1
            change = made.rates(batch(spike, heldout=1))[0, 10].log().numpy() - before
            assert np.allclose(found[sender, :, lag], change, atol=1e-4) and np.abs(change).max() > 0.01


def test_a_coupling_is_the_mean_over_busy_pasts_of_one_spike_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(heldout=1)
    counts = np.pad(poisson(3, 10, rate=0.5), ((0, 0), (0, 5), (0, 0)))
    counts[:, :, 5] = 0
    monkeypatch.setattr(torch, "poisson", lambda mean, generator: torch.as_tensor(counts[:, :10, :5]).float())
    found = probed_couplings(made, "one", 3)
    with torch.inference_mode():
        before = made.rates(batch(counts, heldout=1))[:, 10].log().numpy()
        for sender, lag in ((0, 0), (3, 4), (4, 9)):
            spike = counts.copy()
            spike[:, 9 - lag, sender] += 1
            change = made.rates(batch(spike, heldout=1))[:, 10].log().numpy() - before
            assert np.allclose(found[sender, :, lag], change.mean(0), atol=1e-4) and change.std(0).max() > 0.01
    assert counts[:, [9, 5, 0], [0, 3, 4]].any()


def test_backgrounds_are_the_seeds_and_nothing_is_dropped() -> None:
    made = network(config=with_settings(dropout=0.5))
    one, other = (probed_couplings(made, "one", 2, seed) for seed in (0, 1))
    assert not np.allclose(one, other)
    given = [batch(poisson(4, 30, rate=0.3))]
    looked = attention(made, given)
    assert np.array_equal(probed_couplings(made.train(), "one", 2, 0), one)
    assert np.array_equal(attention(made.train(), given), looked, equal_nan=True)


def test_tables_have_a_row_for_each_unit_of_the_session_whichever_is_held_out() -> None:
    """The same network of the same spikes, the held-out unit before the others instead of after them."""
    made, given = network(heldout=1), batch(poisson(6, 30, rate=0.3), heldout=1)
    found = probed_couplings(made, "one", 2), attention(made, [given])
    head = made.head("one")
    head.heldin += 1
    head.heldout.zero_()
    rolled = (each.roll(1, 2) for each in (given.counts, given.observed, given.visible))
    moved = probed_couplings(made, "one", 2), attention(made, [Batch("one", *rolled, given.bins, given.history)])
    for before, after in zip(found, moved, strict=True):
        assert np.array_equal(after, np.roll(before, 1, (0, 1)), equal_nan=True)
        assert np.isnan(after[0]).all() and np.isfinite(after[1:, 1:]).all()


def test_attention_is_relative_to_an_even_look_at_all_spikes() -> None:
    """Keys that tell unit 2 from the others: a spike of it weighs e^2 of theirs, wherever it is and whoever follows."""
    made = network(heldout=1, config=with_settings(heads=1))
    head, size = made.head("one"), made.config.width
    direction = torch.tensor([1.0, -1.0]).repeat(size // 2)
    with torch.no_grad():
        for weight in (made.past_time.weight, made.start):
            weight.zero_()
        head.unit.weight.copy_(-direction.expand_as(head.unit.weight))
        head.unit.weight[2] = direction
        for block in (*made.blocks("past"), made.who):
            block.ln_source.weight.fill_(1)
            block.ln_source.bias.zero_()
            inner = block.attention
            inner.query.weight.zero_()
            inner.query.bias.copy_(direction)
            inner.key_value.bias.zero_()
            inner.key_value.weight[:size] = torch.eye(size) / size * np.sqrt(size)
    given = batch(poisson(4, 30, rate=0.3), heldout=1)
    counts = given.counts.numpy()
    total, pairs = np.zeros((6, 6)), np.zeros((6, 6))
    weight = np.exp(np.where(np.arange(5) == 2, 1.0, -1.0))
    for sample in range(4):
        for start in range(10, 30, 5):
            past = counts[sample, start - 10 : start, :5].sum(0).astype(float)
            relative = weight * past.sum() / (weight @ past) if past.any() else weight
            both = np.outer(past, counts[sample, start : start + 5, :5].sum(0))
            total[:5, :5] += both * relative[:, None]
            pairs[:5, :5] += both
    expected = np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)
    assert np.allclose(attention(made, [given]), expected, rtol=1e-3, equal_nan=True)


def test_attention_is_what_the_network_looks_at_as_it_judges_the_tokens() -> None:
    """Watched from outside: of the place before each token in every block, and when its unit is asked for."""
    made = network(spread=0.5, config=with_settings(layers_past=2, layers_state=2))
    given, looked = batch(poisson(4, 30, rate=0.3)), []
    windows = made.windows(given)
    blocks = [*made.blocks("past"), made.who]
    with torch.no_grad():
        for block in blocks:
            block.ln1.weight.normal_()
    parts = [block.attention for block in blocks]
    hooks = [
        part.register_forward_pre_hook(lambda part, inputs: looked.append(part.weights(*inputs).mean(1)))
        for part in parts
    ]
    with torch.inference_mode():
        made.token_log_likelihood(made.head("one"), windows, made.read(given, windows))
    for hook in hooks:
        hook.remove()
    now, past = windows.now, windows.past
    mean = torch.stack([each[:, : now.unit.shape[1], 1 : 1 + past.unit.shape[1]] for each in looked]).mean(0).numpy()
    assert len(looked) == 3
    total, pairs = np.zeros((6, 6)), np.zeros((6, 6))
    for window, place in now.real.nonzero().tolist():
        share = mean[window, place, : int(past.count[window])]
        for sender, value in zip(past.unit[window].tolist(), share / share.mean(), strict=False):
            total[sender, now.unit[window, place]] += value
            pairs[sender, now.unit[window, place]] += 1
    assert pairs.min() > 0 and np.ptp(total / pairs) > 0.1
    assert np.allclose(attention(made, [given]), total / pairs, rtol=1e-4)


def test_a_lone_spike_is_looked_at_as_much_as_any() -> None:
    counts = np.zeros((2, 15, 6), dtype=int)
    counts[0, 4, 1] = counts[:, 12, 3] = 1
    found = attention(network(), [batch(counts)])
    assert found[1, 3] == pytest.approx(1) and np.isfinite(found).sum() == 1


def test_attention_is_held_for_a_few_samples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples = network(), batch(poisson(20))
    seen = []
    windows = made.windows
    monkeypatch.setattr(made, "windows", lambda each: seen.append(len(each.counts)) or windows(each))
    found = attention(made, [samples])
    assert seen == [8, 8, 4]
    monkeypatch.setattr(connectivity, "FEW", 20)
    assert np.allclose(found, attention(made, [samples]), rtol=1e-5)
