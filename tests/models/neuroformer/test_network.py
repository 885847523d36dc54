"""Nothing is seen that may not be seen; rates are what they are called; every part learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.layers import Attention, Block, Rows, lay_out_for_few_rows
from pipeline_lib.models.neuroformer.session import Head
from tests.models.neuroformer.small import batch, network, poisson, with_settings


@pytest.fixture(scope="module")
def given():
    return batch(poisson(3, 31, units=8), heldout=2)


@torch.inference_mode()
def test_rates_of_a_bin_see_earlier_bins_only(given) -> None:
    made = network(units=8, heldout=2)
    before = made.rates(given)
    for at in (12, 19, 20, 24, 30):
        given.counts[0, at, 1] += 3
        after = made.rates(given)
        given.counts[0, at, 1] -= 3
        assert torch.allclose(after[0, : at + 1], before[0, : at + 1], atol=1e-6)
        assert torch.allclose(after[1:], before[1:], atol=1e-6)
        assert at == 30 or not torch.allclose(after[0, at + 1 :], before[0, at + 1 :], atol=1e-3)


@torch.inference_mode()
def test_heldout_units_are_never_seen(given) -> None:
    made = network(units=8, heldout=2)
    before = made.rates(given)
    given.counts[:, :, 6:] += 5
    assert torch.equal(made.rates(given), before) and bool((before[:, 10:] > 0).all())
    given.counts[:, :, 6:] -= 5


@torch.inference_mode()
def test_rates_are_probabilities_of_firing() -> None:
    """exp(-rate) of each unit is P(no spike of it, none of the units before it) / P(none of those), by enumeration."""
    made = network(units=3, config=with_settings(window=0.01))
    past = poisson(1, 10, units=3, rate=0.5)[0]
    cells = np.array([[first, second, third] for first in range(6) for second in range(6) for third in range(6)])
    counts = np.concatenate([np.broadcast_to(past, (216, 10, 3)), cells[:, None]], 1)
    given = batch(counts)
    windows = made.windows(given)
    bins, units = made.token_log_likelihood(made.head("one"), windows, made.read(given, windows))
    probability = (bins + units).double().exp().numpy()
    rates = made.rates(batch(counts[:1]))[0, 10].double().numpy()
    for unit in range(3):
        quiet_before = (cells[:, :unit] == 0).all(1)
        quiet = quiet_before & (cells[:, unit] == 0)
        assert np.isclose(np.exp(-rates[unit]), probability[quiet].sum() / probability[quiet_before].sum(), rtol=2e-3)


@torch.inference_mode()
@pytest.mark.parametrize("first", [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_rates_of_a_later_bin_are_those_given_the_spikes_before_it(first: tuple[int, int]) -> None:
    """The same in the second bin of a window, by enumeration of all that can follow what fired in the first."""
    made = network(units=2, spread=0.25, config=with_settings(window=0.02))
    cells = np.array([[one, two] for one in range(9) for two in range(9)])
    past = np.broadcast_to(poisson(1, 10, units=2, rate=0.5), (81, 10, 2))
    counts = np.concatenate([past, np.broadcast_to(np.array(first), (81, 1, 2)), cells[:, None]], 1)
    windows = made.windows(batch(counts))
    bins, units = made.token_log_likelihood(made.head("one"), windows, made.read(batch(counts), windows))
    probability = (bins + units).double().exp().numpy()
    rates = made.rates(batch(counts[:1]))[0, 11].double().numpy()
    for unit in range(2):
        quiet_before = (cells[:, :unit] == 0).all(1)
        quiet = quiet_before & (cells[:, unit] == 0)
        assert np.isclose(np.exp(-rates[unit]), probability[quiet].sum() / probability[quiet_before].sum(), rtol=3e-3)


@torch.inference_mode()
def test_latents_give_the_rates_of_heldout_units(given) -> None:
    made = network(units=8, heldout=2)
    read = made.head("one").log_rates(made.latents(given)).exp()
    assert torch.allclose(read[:, 10:], made.rates(given)[:, 10:, 6:], atol=1e-5)


def test_untrained_rates_are_the_means_of_all_units_whichever_are_held_out() -> None:
    made = network(units=8, heldout=2, spread=0.0)
    rates = made.rates(batch(poisson(3, 31, units=8), heldout=2))[:, 10:]
    assert torch.allclose(rates, torch.linspace(0.1, 0.3, 8).expand_as(rates), rtol=1e-3)
    head = Head(with_settings(), [1, 2, 5], 6, 5, 10, {})
    mean = torch.linspace(0.1, 0.3, 6)
    head.start_at(mean, {})
    assert head.log_rates is not None and torch.equal(head.expected, mean[[1, 2, 5]])
    assert torch.allclose(head.log_rates(torch.zeros(16)).exp(), mean[[0, 3, 4]])


@torch.inference_mode()
def test_a_limit_keeps_the_latest_of_the_past() -> None:
    counts = np.zeros((2, 15, 6), dtype=int)
    counts[:, 8, :3] = 1
    counts[1, 5:8] = 2
    for limit, seen in ((3, False), (None, True)):
        rates = network(config=with_settings(limit=limit)).rates(batch(counts))
        assert torch.allclose(rates[0], rates[1], atol=1e-6) is not seen


@torch.inference_mode()
def test_the_loss_of_heldout_units_by_hand(given) -> None:
    """Of their rates, which are those predicted, in the bins in which they were observed; nats a spike."""
    made = network(units=8, heldout=2)
    seen = given.observed.clone()
    seen[1, 14:22, 7] = seen[2, :, 6] = False
    part = replace(given, observed=seen)
    rates = made.rates(part)[:, 10:, 6:].double()
    counts, mask = given.counts[:, 10:, 6:].double(), seen[:, 10:, 6:]
    expected = ((rates - counts * rates.log()) * mask).sum() / (counts * mask).sum()
    assert made(part)["heldout"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("compat", [False, True])
def test_every_weight_has_a_gradient(given, compat: bool) -> None:
    made = network(units=8, heldout=2, config=with_settings(compat=compat))
    sum(made(given, 1).values()).backward()
    idle = [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert bool(made.start.grad.any(1).all()), "of the window and of the past"


def test_attention_is_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    attention, rows, x = Attention(8, 2, 0.5), Rows(3, 4), torch.randn(12, 8)
    pair = attention.pair(x, rows)
    with torch.no_grad():
        calm = [attention.eval()(x, rows, pair, None) for _ in range(2)]
        drawn = torch.stack([attention.train()(x, rows, pair, None) for _ in range(2000)])
    assert torch.equal(*calm) and not torch.allclose(drawn[0], drawn[1])
    assert torch.allclose(drawn.mean(0), calm[0], atol=0.05)  # what stays is scaled up


def test_what_a_block_adds_is_dropped_in_training_alone() -> None:
    """Of what it attends to and of what it makes of that: an entry stays away, or counts twice."""
    torch.manual_seed(0)
    block, rows, x = Block(8, 2, 0.5), Rows(3, 4), torch.randn(12, 8)
    block.ln_f, block.attention.dropout.p = torch.nn.Identity(), 0.0
    pair = block.pair(x, rows)
    for part, other in ((block.attention, block), (block, block.attention)):
        with torch.no_grad():
            part.out.weight.normal_()
            other.out.weight.zero_()
            other.out.bias.zero_()
            calm, dropped = (block.train(training)(x, rows, pair, None) - x for training in (False, True))
        stays = dropped != 0
        assert 20 < int(stays.sum()) < 76 and calm.all()
        assert torch.allclose(dropped[stays], 2 * calm[stays], atol=1e-5)


def test_every_source_has_the_layers_asked_for() -> None:
    layers = {"past": 3, "frames": 5, "signals": 4}
    inputs = {"frames": 2, "frame_step": 0.01, "frame_kernel": (2, 2), "signals": ("a/b",)}
    settings = {f"layers_{name}": number for name, number in layers.items()}
    made = network(config=with_settings(layers_state=2, **settings, **inputs), frame=(4, 4))
    assert {name: len(made.blocks(name)) for name in layers} == layers
    assert len(made.state) == len(made.state_last) == 2


def test_terms_are_those_asked_for(given) -> None:
    terms = network(units=8, heldout=2)(given)
    assert set(terms) == {"time", "id", "heldout"}
    made = network(units=8, heldout=2)
    windows = made.windows(given)
    found = made.token_log_likelihood(made.head("one"), windows, made.read(given, windows))
    spikes = given.counts[:, 10:, :6].sum()
    assert torch.allclose(torch.stack([terms["time"], terms["id"]]), -torch.stack(found).sum(1) / spikes)
    only = network(units=8, heldout=2, config=with_settings(loss_terms=("id",)))(given)
    assert set(only) == {"id"} and torch.allclose(only["id"], terms["id"])


@torch.inference_mode()
def test_the_loss_knows_no_padding() -> None:
    """Of samples that are cut to a longer one's length: not in the tokens, nor in windows that are told apart."""
    config = with_settings(signals=("a/b",), contrastive=("spikes", "signals"), contrastive_width=4)
    made, counts = network(units=8, heldout=2, config=config), poisson(4, 40, units=8)
    signals = torch.randn(4, 40, 1)
    losses = []
    for length in (40, 22):
        part = batch(counts[:, :length], heldout=2, bins=np.full(4, 22))
        losses.append(made(replace(part, inputs={"signals": signals[:, :length]})))
    assert losses[0].keys() == losses[1].keys() == {"time", "id", "heldout", "contrastive"}
    for name, loss in losses[0].items():
        assert torch.allclose(loss, losses[1][name], rtol=1e-5), name


def test_signals_are_standardised_and_may_be_unknown() -> None:
    config = with_settings(signals=("a/b",), contrastive=("spikes", "signals"), dropout=0.2)
    made, given, signals = network(config=config), batch(poisson(3, 30)), torch.randn(3, 30, 1)
    with torch.inference_mode():
        before = made.rates(replace(given, inputs={"signals": signals}))
        made.head("one").signal_scale.copy_(torch.tensor([[40.0], [5.0]]))
        assert torch.allclose(made.rates(replace(given, inputs={"signals": 5 * signals + 40})), before, atol=1e-5)
    unknown = replace(given, inputs={"signals": torch.full_like(signals, torch.nan)})
    assert all(bool(loss.isfinite()) for loss in made.train()(unknown, 1).values())


@torch.inference_mode()
def test_a_step_in_which_a_signal_is_unknown_is_not_looked_at() -> None:
    """Of the first window it is the earliest step, which the second window does not reach back to."""
    made, given, signals = network(config=with_settings(signals=("a/b",))), batch(poisson(3, 20)), torch.randn(3, 20, 1)
    signals[:, :5] = torch.nan
    part = replace(given, inputs={"signals": signals})
    before = made.rates(part)
    made.signals.step.weight[0] += torch.randn(16)
    after = made.rates(part)
    assert torch.equal(after[:, :15], before[:, :15]) and not torch.allclose(after[:, 15:], before[:, 15:], atol=1e-3)


@torch.inference_mode()
def test_places_that_there_is_no_table_for_share_the_last() -> None:
    made = network()
    unit, bin = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    one, last, beyond = made.embed(made.head("one"), unit, bin, torch.tensor([1, 511, 600]))
    assert torch.equal(last, beyond) and not torch.equal(one, beyond)


@torch.inference_mode()
def test_jitter_moves_the_windows_in_training_only(given) -> None:
    made = network(units=8, heldout=2)
    assert made(given, None) == made(given, None)
    losses = {round(float(made(given, 1)["time"]), 6) for _ in range(30)}
    assert 2 <= len(losses) <= 5


def test_jitter_skips_no_whole_sample() -> None:
    """Samples of 2 bins, windows of 5: some of it is always left to be learned from."""
    made, short = network(), batch(poisson(3, 12))
    assert all(made(short, 1)["time"].item() > 0 for _ in range(30))


def test_how_weights_are_stored_changes_nothing(given) -> None:
    """Nor does it, or having written spikes, keep a network from training on."""
    made, other = network(units=8, heldout=2), network(units=8, heldout=2)
    with torch.inference_mode():
        lay_out_for_few_rows(other)
    wide = next(block.hidden.weight for block in other.blocks("past"))
    assert wide.t().is_contiguous() and not wide.is_contiguous()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in made.state_dict().items())
    losses = [sum(each(given, None).values()) for each in (made, other)]
    assert torch.allclose(*losses, rtol=1e-5)
    losses[1].backward()
    assert wide.grad is not None and bool(wide.grad.any())
