"""Nothing is seen that may not be seen; rates are what they are called; every part learns."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.layers import lay_out_for_few_rows
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
def test_latents_give_the_rates_of_heldout_units(given) -> None:
    made = network(units=8, heldout=2)
    read = made.head("one").log_rates(made.latents(given)).exp()
    assert torch.allclose(read[:, 10:], made.rates(given)[:, 10:, 6:], atol=1e-5)


def test_every_weight_has_a_gradient(given) -> None:
    made = network(units=8, heldout=2)
    sum(made(given, 1).values()).backward()
    idle = [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_terms_are_those_asked_for(given) -> None:
    terms = network(units=8, heldout=2)(given)
    assert set(terms) == {"time", "id", "heldout"}
    only = network(units=8, heldout=2, config=with_settings(loss_terms=("id",)))(given)
    assert set(only) == {"id"} and torch.allclose(only["id"], terms["id"])


@torch.inference_mode()
def test_jitter_moves_the_windows_in_training_only(given) -> None:
    made = network(units=8, heldout=2)
    assert made(given, None) == made(given, None)
    losses = {round(float(made(given, 1)["time"]), 6) for _ in range(30)}
    assert 2 <= len(losses) <= 5


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
