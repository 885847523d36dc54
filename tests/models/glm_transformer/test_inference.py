"""Standard errors against second derivatives, and a permutation test that finds what is there and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm_transformer.inference import evidence, permutation_test, weight_errors
from tests.models.glm_transformer.test_network import SIZES, pair, rows, windows


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

    unit = 4
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
        gains = evidence(network.eval(), [rows(batch, slice(0, 3)), rows(batch, slice(3, None))]).trial_gains(0, 1)
        with_it = total_nll(network, batch)
        head.shape[0, 1] = 0
        without = total_nll(network, batch)
    assert np.isclose(np.trace(gains), float(without - with_it), rtol=1e-3)
    found = evidence(network, [batch])
    spikes = batch.counts[:, batch.history :, SIZES[0] :].sum().item()
    assert np.allclose(found.spike_gains(0, 1), found.trial_gains(0, 1) * len(batch.counts) / spikes)


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
    assert permutation_test(5 * np.eye(60), np.zeros(60), 199, 0)[1] == pytest.approx(5, abs=0.2)
    p = [permutation_test(rng.standard_normal((20, 20)), np.zeros(20), 99, seed)[0] for seed in range(200)]
    assert 0.4 < np.mean(p) < 0.6 and 0.01 < np.mean(np.array(p) <= 0.05) < 0.1
    assert np.isnan(permutation_test(noise, np.arange(60), 199, 0)[0])
