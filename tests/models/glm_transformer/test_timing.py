"""Couplings act within milliseconds: slower common input must not pass for one, and a true one must be found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.models.glm_transformer.filters import filter_back, filter_series
from pipeline_lib.models.glm_transformer.inference import evidence, permutation_test
from pipeline_lib.models.glm_transformer.network import GLMTransformer
from pipeline_lib.models.glm_transformer.timing import timing_test
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from tests.models.glm_transformer.test_network import CONFIG, HISTORY, SIZES, pair, rows, windows

TOKEN = 10  # bins
AREAS = 2


def test_filtering_back_is_the_transpose_of_filtering() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 15, 4, dtype=torch.float64)
    kernels = torch.randn(6, 4, dtype=torch.float64)
    assert torch.isclose((filter_series(x, kernels, 0) * y).sum(), (x * filter_back(y, kernels)).sum())
    grown = filter_back(y[:, :3], kernels)  # windows shorter than the filter
    assert torch.isclose((filter_series(x[:, :3], kernels, 0) * y[:, :3]).sum(), (x[:, :3] * grown).sum())


@pytest.mark.parametrize("rank", [1, 2])
def test_scores_are_those_of_pairs_of_units_added_up(rank: int) -> None:
    _, network = pair(rank=rank)
    network.eval()
    batch, head = windows(), network.head("s")
    found = timing_test(network, [rows(batch, slice(0, 2)), rows(batch, slice(2, None))])

    counts = batch.counts.double().numpy()
    parts = {name: part.detach().numpy() for name, part in network.components(batch).items()}
    kernels = network.coupling_kernels(head).detach().numpy()
    send, receive, area = head.send.detach().numpy(), head.receive.detach().numpy(), head.area.numpy()
    bins = counts.shape[1] - HISTORY
    lags = len(kernels)
    time = np.stack([np.ones(TOKEN), np.arange(TOKEN)], 1)
    rest = np.eye(TOKEN) - time @ np.linalg.inv(time.T @ time) @ time.T
    for i in range(AREAS):
        for j in range(AREAS):
            senders, receivers = np.flatnonzero(area == i), np.flatnonzero(area == j)
            log_rates = sum(parts.values())
            factors = network.coupling_factors("s", network.inputs(batch), HISTORY).detach().numpy()
            factors = factors.reshape(*factors.shape[:2], AREAS, AREAS, rank)
            # All couplings of the sending population are taken out.
            for other in range(AREAS):
                members = area == other
                log_rates[..., members] -= factors[:, :, i, other] @ receive[members, i].T
            residual = counts[:, HISTORY:] - np.exp(log_rates)
            score = variance = 0.0
            for trial in range(len(counts)):
                for token in range(bins // TOKEN):
                    at = np.arange(TOKEN) + token * TOKEN
                    products = np.zeros((TOKEN, TOKEN))
                    for n in senders:
                        for m in receivers[receivers != n]:
                            kernel = kernels[:, i, j] @ (send[n, j] * receive[m, i])
                            wanted = [
                                sum(
                                    kernel[lag] * residual[trial, t + 1 + lag, m]
                                    for lag in range(min(lags, bins - 1 - t))
                                )
                                for t in at
                            ]
                            products += np.outer(rest @ counts[trial, HISTORY + at, n], rest @ np.array(wanted))
                    score += np.trace(products)
                    variance += (products**2).sum() / (TOKEN - 2)
            assert found[i, j] == pytest.approx(score / np.sqrt(variance), rel=1e-6), (i, j)


def simulated(drive: float, seed: int, trials: int = 60, area: int = 1) -> Batch:
    """Spikes of two populations under one strong wave of 200 ms, a phase a trial; `drive`: the first drives `area`."""
    rng = np.random.default_rng(seed)
    bins, units, first = 200, sum(SIZES), SIZES[0]
    receiving = slice(first, units) if area else slice(0, first)
    wave = 0.8 * np.sin(2 * np.pi * (np.arange(bins) / 100 + rng.random((trials, 1))))
    counts = np.zeros((trials, bins, units))
    for t in range(bins):
        log_rate = np.repeat(np.log(0.08) + wave[:, t, None], units, axis=1)
        if t >= 2:
            others = counts[:, t - 2, :first].sum(1, keepdims=True)
            own = counts[:, t - 2, receiving] if area == 0 else 0.0
            log_rate[:, receiving] += drive * np.minimum(others - own, 2)
        counts[:, t] = rng.poisson(np.exp(log_rate))
    made = torch.as_tensor(counts.astype(np.uint8))
    ones = torch.ones_like(made, dtype=torch.bool)
    return Batch("s", made, ones, ones, torch.full((trials,), bins), HISTORY)


def coupled_network() -> GLMTransformer:
    """Every unit sends and receives alike, through a filter of 4 to 8 ms; the background knows nothing of trials."""
    population = ["V1"] * SIZES[0] + ["V2"] * SIZES[1]
    units = len(population)
    layout = Layout(2.0, 200, HISTORY, 0, 1, {"s": units}, {"s": list(range(units))}, {"s": population})
    network = GLMTransformer(replace(CONFIG, background="invariant", history="none"), layout).eval()
    head = network.head("s")
    with torch.no_grad():
        head.send.fill_(0.3)
        head.receive.fill_(0.3)
        head.shape.fill_(0.5)
        head.bias.fill_(np.log(0.1))
    return network


def test_a_wave_that_two_populations_share_is_no_coupling() -> None:
    network, batch = coupled_network(), simulated(0.0, seed=0, trials=100)
    found = evidence(network, [batch])
    for i, j in ((0, 1), (1, 0), (0, 0)):
        assert permutation_test(found.trial_gains(i, j), found.condition, 199, 0)[0] < 0.02, "trials share the wave"
    z = np.array([timing_test(network, [simulated(0.0, seed)]) for seed in range(1, 26)]).ravel()
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) + 0.1 and 0.75 < z.std() < 1.25


@pytest.mark.parametrize("area", [0, 1])
def test_spikes_that_drive_others_are_found_in_their_direction(area: int) -> None:
    z = timing_test(coupled_network(), [simulated(0.7, seed=3, trials=200, area=area)])
    assert z[0, area] > 5
    assert z[1, 0] < 3


def test_tokens_too_short_for_a_trend_say_nothing() -> None:
    _, network = pair(token=0.006)
    assert np.isnan(timing_test(network.eval(), [windows()])).all()
