"""Standard errors against second derivatives, and a permutation test that finds what is there and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm_transformer.inference import _errors, evidence, permutation_test, weight_errors
from pipeline_lib.training.batches import Batch
from tests.models.glm_transformer.test_network import BINS, HISTORY, SIZES, pair, rows, windows


def total_nll(network, batch) -> torch.Tensor:
    return network(batch, None)["nll"] * batch.observed[:, batch.history :].sum()


def test_standard_errors_are_those_of_the_second_derivatives() -> None:
    _, network = pair(rank=2)
    network.eval()
    batch, head = windows(), network.head("s")
    receive, send = weight_errors(network, [rows(batch, slice(0, 2)), rows(batch, slice(2, None))])

    def hessian(name: str, index: tuple) -> np.ndarray:
        """Second derivatives of the likelihood in some entries of a weight."""
        weight = getattr(head, name)

        def loss(values: torch.Tensor) -> torch.Tensor:
            changed = weight.detach().clone()
            changed[index] = values
            state = {f"sessions.s.{name}": changed}
            return torch.func.functional_call(network, state, (batch, None))["nll"] * batch.observed[:, 12:].sum()

        return torch.autograd.functional.hessian(loss, weight.detach()[index]).numpy()

    for unit in (1, 4):  # of each population
        size = receive[unit].size
        information = hessian("receive", (unit,)).reshape(size, size)
        expected = np.sqrt(np.diag(np.linalg.inv(information)))
        assert np.allclose(receive[unit].ravel(), expected, rtol=1e-4)
    information = hessian("send", (slice(0, SIZES[0]), 1, 0))
    assert np.allclose(send[: SIZES[0], 1, 0], np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-4)


def test_gains_are_what_a_weak_coupling_adds_to_the_likelihood() -> None:
    _, network = pair()
    head = network.head("s")
    with torch.no_grad():
        head.shape.mul_(1e-3)
        batch = windows()
        found = evidence(network.eval(), [rows(batch, slice(0, 3)), rows(batch, slice(3, None))])
        with_it = total_nll(network, batch)
        head.shape[0, 1] = 0
        without = total_nll(network, batch)
    gains = found.trial_gains(0, 1)
    assert np.isclose(np.trace(gains), float(without - with_it), rtol=1e-3)
    spikes = batch.counts[:, batch.history :, SIZES[0] :].sum().item()
    assert gains.all() and np.allclose(found.spike_gains(0, 1), gains * len(batch.counts) / spikes, atol=0)


def partly_observed() -> Batch:
    """Five windows, of which the last two end after 25 bins; in the second a receiver was away."""
    whole = windows()
    seen = whole.observed.clone()
    seen[3:, HISTORY + 25 :] = False
    seen[1, :, 6] = False
    bins = torch.tensor([seen.shape[1]] * 3 + [HISTORY + 25] * 2)
    inputs = {"condition": torch.tensor([7, 7, 9, 7, 9])}
    return replace(whole, counts=whole.counts * seen, observed=seen, visible=seen, bins=bins, inputs=inputs)


def in_two(batch: Batch) -> list[Batch]:
    """The first three windows and, as long as they are, the last two."""
    first, last = (batch.windows(torch.arange(5)[part]) for part in (slice(0, 3), slice(3, None)))
    short = {name: getattr(last, name)[:, : HISTORY + 25] for name in ("counts", "observed", "visible")}
    return [first, replace(last, **short)]


def test_what_was_not_observed_is_no_evidence() -> None:
    _, network = pair()
    batch, head = partly_observed(), network.eval().head("s")
    found = evidence(network, in_two(batch))
    assert found.condition.tolist() == [7, 7, 9, 7, 9]
    assert found.spikes.tolist() == [batch.counts[:, HISTORY:, part].sum() for part in (slice(0, 3), slice(3, 8))]
    gains, inside = found.trial_gains(0, 1), batch.observed[:, HISTORY:, SIZES[0] :]
    with torch.no_grad():
        passed = network.coupling_factors("s", network.inputs(batch), HISTORY).unflatten(2, (2, 2))[:, :, 0, 1, None]
        log_rates = sum(network.components(batch).values())[..., SIZES[0] :]
        weights = head.receive[SIZES[0] :, 0, 0]
        rates = (log_rates - passed * weights).exp()
        residual = batch.counts[:, HISTORY:, SIZES[0] :] - rates
        for receiver, sender in np.ndindex(5, 5):
            end = 25 if max(receiver, sender) >= 3 else BINS
            g = passed[sender] * weights
            each = (residual[receiver] * g - rates[receiver] * g**2 / 2) * inside[receiver]
            assert gains[receiver, sender] == pytest.approx(each[:end].sum().item(), rel=1e-4, abs=1e-6)


def test_errors_are_of_what_was_observed() -> None:
    """The information of a receiving weight: the sum of rates times squares of what is passed on, where observed."""
    _, network = pair()
    batch = partly_observed()
    network.eval()
    batch.visible[:, :, 1] = False  # a held-out unit sends nothing
    batch.counts[:, :, 2] = 0
    receive, send = weight_errors(network, in_two(batch))
    with torch.no_grad():
        passed = network.coupling_factors("s", network.inputs(batch), HISTORY).unflatten(2, (2, 2))[:, :, :, 1]
        rates = sum(network.components(batch).values()).exp()[..., 6] * batch.observed[:, HISTORY:, 6]
        information = torch.einsum("bt,bti,btj->ij", rates, passed, passed).numpy()
    assert np.allclose(receive[6, :, 0], np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-4)
    assert np.isnan(send[[1, 2]]).all() and np.isfinite(send[[0, 3]]).all()


def test_a_weight_of_which_little_is_known_has_a_large_error() -> None:
    information = torch.diag(torch.tensor([1.0, 1e-20, 0.0], dtype=torch.float64))
    assert np.allclose(_errors(information), [1, 1e10, np.nan], equal_nan=True)


def test_a_gain_pairs_each_receiver_with_each_sender() -> None:
    _, network = pair()
    batch = windows()
    found = evidence(network.eval(), [batch]).trial_gains(0, 1)
    # The sender's spikes of trial 2 given to trial 0; its own population's stay as they are.
    with torch.no_grad():
        passed = evidence(network, [batch]).passed
        mixed = replace(evidence(network, [batch]), passed=passed.roll(-2, 0))
    assert np.isclose(mixed.trial_gains(0, 1)[0, 0], found[0, 2])


def test_permutations_keep_to_their_condition() -> None:
    rng = np.random.default_rng(0)
    condition = np.repeat([0, 1], 30)
    same = (condition[:, None] == condition).astype(float)
    # All that the pairs share is the condition: chance within conditions gains as much.
    assert permutation_test(same, condition, 199, 0)[0] == 1.0
    assert permutation_test(same, np.zeros(60), 199, 0)[0] == 0.005
    noise = rng.standard_normal((60, 60))
    assert permutation_test(noise + 5 * np.eye(60), condition, 199, 0)[0] == 0.005
    for everywhere in (0, 3):  # what trials gain however they are paired is none of the coupling's
        gains = 5 * np.eye(60) + everywhere
        assert permutation_test(gains, np.zeros(60), 199, 0)[1] == pytest.approx(5, abs=0.2)
    p = [permutation_test(rng.standard_normal((20, 20)), np.zeros(20), 99, seed)[0] for seed in range(200)]
    assert 0.4 < np.mean(p) < 0.6 and 0.01 < np.mean(np.array(p) <= 0.05) < 0.1
    assert np.isnan(permutation_test(noise, np.arange(60), 199, 0)[0])
    assert np.isnan(permutation_test(noise, condition, 0, 0)).all()


def test_permutations_are_the_seeds_and_rounding_is_no_gain() -> None:
    noise = np.random.default_rng(0).standard_normal((40, 40))
    found = [permutation_test(noise, np.zeros(40), 199, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    # Each sender gives every receiver the same: the sums differ by their order alone.
    assert permutation_test(np.tile(noise[0], (40, 1)), np.zeros(40), 199, 0)[0] == 1.0
