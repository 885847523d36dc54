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
    batch.observed[:, -7:, 6] = False  # of a receiver that was away there nothing is left over
    found = correlations(network, "s", [rows(batch, slice(0, 2)), rows(batch, slice(2, None))])
    counts = batch.counts.double().numpy()
    rates = np.exp(sum(part.detach().numpy() for part in network.eval().components(batch).values()))
    rates = rates * batch.observed[:, HISTORY:].numpy()
    residual = counts[:, HISTORY:] * batch.observed[:, HISTORY:].numpy() - rates
    basis = network.coupling_basis.numpy()
    for function, sender, receiver in ((0, 1, 6), (2, 4, 0), (1, 7, 6)):
        past = np.zeros(residual.shape[:2])
        for lag, weight in enumerate(basis[:, function]):
            for bin_ in range(residual.shape[1]):
                if HISTORY + bin_ - 1 - lag >= 0:
                    past[:, bin_] += weight * counts[:, HISTORY + bin_ - 1 - lag, sender]
        expected = (past * residual[..., receiver]).sum() / np.sqrt((past**2).sum() * rates[..., receiver].sum())
        assert found[function, sender, receiver].item() == pytest.approx(expected, rel=1e-8)
    assert (found.diagonal(dim1=1, dim2=2) == 0).all()


def test_where_couplings_start_is_not_drawn() -> None:
    _, network = pair(dropout=0.5)
    batch = windows()
    one, other = (correlations(network.train(), "s", [batch]) for _ in range(2))
    assert torch.equal(one, other)


def test_each_factor_starts_along_a_direction_of_its_own() -> None:
    """By numpy: singular vectors of the correlations; the product of the weights points the way of the data."""
    _, network = pair(rank=2)
    network.terms = frozenset({"trials", "history"})
    batch, head, first = windows(), network.head("s"), SIZES[0]
    found = correlations(network, "s", [batch]).detach().numpy()
    align_couplings(network, "s", [batch])
    for sender, receiver in ((0, 1), (1, 0), (1, 1)):
        rows, columns = (slice(0, first) if area == 0 else slice(first, None) for area in (sender, receiver))
        block = found[:, rows, columns]
        sides, sizes, _ = np.linalg.svd(block.reshape(-1, block.shape[2]), full_matrices=False)
        for factor in range(2):
            top = np.linalg.svd(sides[:, factor].reshape(block.shape[:2]), compute_uv=False)[0]
            shape = head.shape[sender, receiver, :, factor].detach().numpy()
            send, receive = head.send[rows, receiver, factor], head.receive[columns, sender, factor]
            along = np.einsum("fnm,f,n,m", block, shape, send.detach().numpy(), receive.detach().numpy())
            assert along == pytest.approx(START * sizes[factor] * top, rel=1e-4)
            assert send.sum() > 0 and receive.sum() > 0


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
