"""The GLM network: it follows its own equation, and its filters can be read off its spikes."""

import warnings

import numpy as np
import pytest

from pipeline_lib.clock import to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.sources.simulate import glm, simulate


@pytest.fixture(scope="module")
def network():
    settings = {
        "units": 12,
        "duration": 600.0,
        "connected": 0.15,
        "strength": 2.0,
        "base_rate": 5.0,
        "keep_rates": True,
    }
    return simulate("glm", settings, 2, "network")


def counts_of(recording) -> np.ndarray:
    bins = round(recording.duration / 0.005)
    counts = np.zeros((bins, len(recording.units)), dtype=int)
    np.add.at(counts, (to_ticks(recording.spike_times) // 500, recording.spike_units), 1)
    return counts


def test_rates_follow_from_the_spikes_and_the_filters(network) -> None:
    truth, counts = network.truth.arrays, counts_of(network).astype(float)
    filters = truth["coupling_filters"].copy()
    filters[np.arange(12), np.arange(12)] = truth["history_filters"]
    drive = np.zeros((2000, 12))
    for lag in range(filters.shape[2]):
        drive[lag + 1 :] += counts[: 2000 - lag - 1] @ filters[:, :, lag]
    log_rates = np.log(truth["rates"][0, :2000])
    base = log_rates[0]
    assert np.allclose(log_rates, base + drive, atol=2e-5)
    assert np.allclose(np.exp(base).mean(), 5, atol=2)


def test_counts_are_poisson_with_the_true_rates(network) -> None:
    expected = network.truth.arrays["rates"][0].astype(float) * 0.005
    counts = counts_of(network)
    # Given its past a count is Poisson, so that these sums of surprises are a martingale of this variance.
    z = (counts - expected).sum(axis=0) / np.sqrt(expected.sum(axis=0))
    assert np.abs(z).max() < 4
    assert abs((((counts - expected) ** 2) / expected).mean() - 1) < 0.02


def test_couplings_are_sparse_signed_by_sender_and_sum_to_their_filters(network) -> None:
    truth = network.truth.arrays
    coupling = truth["coupling"]
    assert np.allclose(coupling, truth["coupling_filters"].sum(axis=2))
    assert np.array_equal(truth["synapse"], coupling != 0) and not coupling.diagonal().any()
    for row in coupling:
        assert (row >= 0).all() or (row <= 0).all()
    assert (truth["history_filters"][:, :2] < -2.5).all() and (truth["history_filters"] <= 0).all()


def test_populations_are_halves_and_spikes_fall_anywhere_in_their_bin(network) -> None:
    assert network.units["population"].tolist() == ["A"] * 6 + ["B"] * 6
    histogram = np.bincount(to_ticks(network.spike_times) % 500 // 50, minlength=10)
    assert np.abs(histogram - histogram.mean()).max() < 4.5 * np.sqrt(histogram.mean())


def poisson_regression(inputs: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of log rate on `inputs` (bin, column) and their standard errors, by Newton's method."""
    weights = np.zeros(inputs.shape[1])
    weights[-1] = np.log(counts.mean())
    for _ in range(12):
        rate = np.exp(inputs @ weights)
        information = inputs.T @ (inputs * rate[:, None])
        weights += np.linalg.solve(information, inputs.T @ (counts - rate))
    return weights, np.sqrt(np.diag(np.linalg.inv(information)))


def test_a_regression_finds_the_strongest_filter_and_nothing_between_unconnected_units(network) -> None:
    truth, counts = network.truth.arrays, counts_of(network).astype(float)
    filters, lags = truth["coupling_filters"], truth["coupling_filters"].shape[2]
    sender, receiver = np.unravel_index(truth["coupling"].argmax(), truth["coupling"].shape)
    stranger = next(unit for unit in range(12) if unit != receiver and not truth["synapse"][unit, receiver])
    past = [counts[lags - lag : len(counts) - lag, [sender, stranger, receiver]] for lag in range(1, lags + 1)]
    inputs = np.concatenate([*np.stack(past, axis=1).transpose(2, 0, 1), np.ones((len(counts) - lags, 1))], axis=1)
    weights, error = poisson_regression(inputs, counts[lags:, receiver])
    found, none, own = weights[:-1].reshape(3, lags)
    error = error[:-1].reshape(3, lags)
    assert (found / error[0]).max() > 10
    assert np.abs((found - filters[sender, receiver]) / error[0]).max() < 4
    assert np.abs(none / error[1]).max() < 4
    assert np.abs((own - truth["history_filters"][receiver])[:2] / error[2, :2]).max() < 4


def test_own_spikes_leave_a_refractory_dip(network) -> None:
    counts = counts_of(network).astype(float)
    following = (counts[:-1] * counts[1:]).sum(axis=0) / counts.sum(axis=0) / counts.mean(axis=0)
    assert (following < 0.4).all()


def test_a_block_boundary_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"units": 5, "duration": 5.0, "base_rate": 20.0}
    whole = simulate("glm", settings | {"keep_rates": True}, 0, "s")
    monkeypatch.setattr(glm, "BLOCK", 17)
    pieces = simulate("glm", settings | {"keep_rates": True}, 0, "s")
    assert np.array_equal(whole.truth.arrays["rates"], pieces.truth.arrays["rates"])
    assert np.array_equal(to_ticks(whole.spike_times) // 500, to_ticks(pieces.spike_times) // 500)


def test_a_network_that_runs_away_is_refused_and_the_default_is_calm() -> None:
    with pytest.raises(InputError, match="strength"):
        simulate("glm", {"strength": 20.0, "duration": 1.0}, 0, "s")
    with pytest.raises(InputError, match="strength"):  # beyond what an exponential of floats can hold
        simulate("glm", {"units": 5, "duration": 3.0, "strength": 1e308, "connected": 1.0}, seed=0, session="s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate("glm", {"duration": 20.0}, 0, "s")


def test_gain_counts_the_spikes_that_a_spike_causes() -> None:
    """A chain 0 -> 1 -> 0 without history: the radius is the geometric mean of the two gains."""
    filters = np.zeros((2, 2, 3))
    filters[0, 1] = [0.5, 0.2, 0.0]
    filters[1, 0] = [0.0, 0.1, 0.3]
    rates = np.array([1e-4, 2e-4])  # so low that the mean field is the base rate
    onto_1, onto_0 = np.expm1(filters[0, 1]).sum() * 2e-4, np.expm1(filters[1, 0]).sum() * 1e-4
    assert np.isclose(glm.gain(filters, rates), np.sqrt(onto_1 * onto_0), rtol=1e-3)


def test_gain_is_that_of_the_rates_the_network_comes_to() -> None:
    """A unit that excites itself fires at r = base exp(r w), not at its base rate."""
    rate = 0.1
    for _ in range(50):
        rate = 0.1 * np.exp(rate)
    assert np.isclose(glm.gain(np.full((1, 1, 1), 1.0), np.array([0.1])), np.expm1(1.0) * rate) and rate > 0.11


def test_rates_cut_at_the_limit_are_reported() -> None:
    with pytest.warns(UserWarning, match="rate_limit"):
        simulate("glm", {"units": 4, "duration": 5.0, "base_rate": 20.0, "rate_limit": 10.0}, 0, "s")
