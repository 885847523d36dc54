"""On a GPU the network computes what it computes on a CPU."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.models.glm_transformer.inference import weight_errors
from pipeline_lib.models.glm_transformer.timing import timing_test
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.graphs import Recording, put_gradients
from tests.models.glm_transformer.test_network import pair, windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def on_gpu(batch: Batch) -> Batch:
    tensors = {each.name: getattr(batch, each.name) for each in fields(batch)}
    return replace(batch, **{name: value.cuda() for name, value in tensors.items() if isinstance(value, Tensor)})


@pytest.mark.parametrize("compat", [False, True])
def test_losses_and_gradients_are_those_of_a_cpu(compat: bool) -> None:
    _, network = pair(compat=compat)
    batch = windows()
    sum(network(batch, 0).values()).backward()
    expected = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    network.zero_grad()
    network.cuda()
    sum(network(on_gpu(batch), 0).values()).backward()
    for name, weight in network.named_parameters():
        assert torch.allclose(weight.grad.cpu(), expected[name], rtol=1e-8, atol=1e-10), name


def test_tests_of_couplings_are_those_of_a_cpu() -> None:
    _, network = pair(rank=2)
    batch = windows()
    network.eval()
    z, errors = timing_test(network, [batch]), weight_errors(network, [batch])
    network.cuda()
    assert np.allclose(timing_test(network, [on_gpu(batch)]), z, rtol=1e-6)
    for found, expected in zip(weight_errors(network, [on_gpu(batch)]), errors, strict=True):
        assert np.allclose(found, expected, rtol=1e-4, equal_nan=True)


def test_a_recorded_step_is_the_step() -> None:
    _, network = pair()
    network.cuda()
    prepared, other = (network.prepare(replace(on_gpu(windows(seed)), ragged=False), 0) for seed in (1, 2))
    weights = list(network.parameters())

    def total(tensors: dict[str, Tensor]) -> Tensor:
        loss = torch.stack(list(network.loss(prepared.holding(tensors)).values())).sum()
        put_gradients(loss, weights)
        return loss.detach()

    found = Recording(total, prepared.tensors(), changed=[]).run(other.tensors())
    gradients = [weight.grad.clone() for weight in weights]
    network.zero_grad()
    expected = torch.stack(list(network(other, 0).values())).sum()
    expected.backward()
    assert torch.isclose(found, expected, rtol=1e-10)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert torch.allclose(gradient, weight.grad, rtol=1e-8, atol=1e-10)
