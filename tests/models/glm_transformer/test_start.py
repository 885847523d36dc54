"""Couplings start where the data point, so that none is driven to zero before it is found."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm_transformer.session import START
from pipeline_lib.models.glm_transformer.start import align_couplings, correlations
from tests.models.glm_transformer.test_network import HISTORY, SIZES, pair, rows, windows
from tests.models.glm_transformer.test_timing import coupled_network, simulated


def test_correlations_are_those_of_spikes_and_what_came_after() -> None:
    _, network = pair()
    network.terms = frozenset({"trials", "history"})
    batch = windows()
    found = correlations(network, "s", [rows(batch, slice(0, 2)), rows(batch, slice(2, None))])
    counts = batch.counts.double().numpy()
    rates = np.exp(sum(part.detach().numpy() for part in network.eval().components(batch).values()))
    residual = counts[:, HISTORY:] - rates
    basis = network.coupling_basis.numpy()
    for function, sender, receiver in ((0, 1, 6), (2, 4, 0)):
        past = np.zeros(residual.shape[:2])
        for lag, weight in enumerate(basis[:, function]):
            for bin_ in range(residual.shape[1]):
                if HISTORY + bin_ - 1 - lag >= 0:
                    past[:, bin_] += weight * counts[:, HISTORY + bin_ - 1 - lag, sender]
        expected = (past * residual[..., receiver]).sum() / np.sqrt((past**2).sum() * rates[..., receiver].sum())
        assert found[function, sender, receiver].item() == pytest.approx(expected, rel=1e-8)
    assert (found.diagonal(dim1=1, dim2=2) == 0).all()


def test_a_coupling_starts_towards_the_units_that_are_driven() -> None:
    network, first = coupled_network(), SIZES[0]
    network.terms = frozenset()
    head = network.head("s")
    align_couplings(network, "s", [simulated(0.7, seed=3, trials=200)])
    send, receive = head.send[:first, 1, 0], head.receive[first:, 0, 0]
    assert torch.allclose(torch.stack([send.norm(), receive.norm()]), torch.ones(2), atol=1e-5)
    assert (send > 0.4).all() and (receive > 0.3).all()  # each its share of a norm of 1
    assert head.shape[0, 1].norm().item() == pytest.approx(START, rel=1e-4)
    filters = network.coupling_kernels(head)[:, 0, 1, 0]
    assert filters.argmax() in (1, 2) and filters.max() > 0
