"""On a GPU the network computes what it computes on a CPU."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from tests.models.glm_transformer.test_network import pair, windows


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compat", [False, True])
def test_losses_and_gradients_are_those_of_a_cpu(compat: bool) -> None:
    _, network = pair(compat=compat)
    batch = windows()
    moved = {each.name: getattr(batch, each.name) for each in fields(batch)}
    moved = {name: value.cuda() for name, value in moved.items() if isinstance(value, Tensor)}
    sum(network(batch, 0).values()).backward()
    expected = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    network.zero_grad()
    network.cuda()
    sum(network(replace(batch, **moved), 0).values()).backward()
    for name, weight in network.named_parameters():
        assert torch.allclose(weight.grad.cpu(), expected[name], rtol=1e-8, atol=1e-10), name
