"""Counts follow the rates that the truth describes."""

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.glm_factors import BINS, Settings, gaussian_processes, run


def test_truth_predicts_the_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.sources.simulate.glm_factors.BATCH", 50)  # trials in three batches
    made = simulate("glm_factors", {"neurons_per_area": 8, "trials": 120, "coupled": 3, "coupling": 2.0}, 0, "s")
    truth = made.truth.arrays
    counts = np.zeros((120, BINS, 16))
    trial = np.searchsorted(made.trials["start"].to_numpy(), made.spike_times, side="right") - 1
    at = ((made.spike_times - made.trials["start"].to_numpy()[trial]) / 0.002 + 1e-6).astype(int)
    np.add.at(counts, (trial, at, made.spike_units), 1)
    past = np.zeros_like(counts)
    for lag in range(truth["history_filters"].shape[1]):
        past[:, lag + 1 :] += counts[:, : -lag - 1] * truth["history_filters"][:, lag]
    for lag in range(truth["coupling_filters"].shape[2]):
        past[:, lag + 1 :] += counts[:, : -lag - 1] @ truth["coupling_filters"][:, :, lag]
    latents = truth["latents"].reshape(120, BINS, 2, 2)
    background = np.einsum("mbaf,anf->mban", latents, truth["loadings"].reshape(2, 8, 2)).reshape(counts.shape)
    log_rate = np.log(0.05) + background + past
    # With the true parameters the score of a Poisson model is zero on average, in every direction.
    residual = counts - np.exp(log_rate)
    for direction in (np.ones_like(counts), background, past):
        score = (residual * direction).sum()
        assert abs(score) < 4 * np.sqrt((np.exp(log_rate) * direction**2).sum())
    assert truth["synapse"].sum() == 9 and truth["synapse"][:3, 8:11].all()
    again = simulate("glm_factors", {"neurons_per_area": 8, "trials": 120, "coupled": 3, "coupling": 2.0}, 0, "s")
    assert np.array_equal(again.spike_times, made.spike_times)


def test_filters_loadings_and_factors_are_the_authors() -> None:
    """specs/glm_transformer.md, section 2 (GLM simulation); the size of the filters as in its figure 2."""
    made = simulate("glm_factors", {"neurons_per_area": 200, "trials": 1}, 0, "s")
    truth = made.truth.arrays
    assert truth["coupling_kernel"].shape == (27,) and abs(truth["coupling_kernel"].max() - 1.10) < 0.01
    assert abs(truth["history_filters"][0, 0] + 2.5) < 0.05
    assert -0.9 <= truth["loadings"].min() < -0.85 and 0.95 < truth["loadings"].max() <= 1
    factors = gaussian_processes(Settings(trials=4000, factors=1), np.random.default_rng(0))[:, :, 0, 0]
    assert np.allclose(factors.var(axis=0), 0.5, atol=0.06)
    assert abs(np.corrcoef(factors[:, 50], factors[:, 125])[0, 1] - np.exp(-1)) < 0.04  # 150 ms apart


def test_a_spike_acts_from_the_next_bin_on() -> None:
    log_rates = np.full((1, 12, 2), -50.0)
    log_rates[0, 2, 0] = 2.0  # one bin in which unit 0 fires
    kernel, history = np.array([1.0, 0.5]), np.array([-1.0])
    send, receive = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    counts, passed = run(log_rates, kernel, history, send, receive, np.random.default_rng(0))
    spikes = counts[0, 2, 0]
    assert spikes > 0 and counts.sum() == spikes
    assert passed[0, :6, 0].tolist() == [0, 0, 0, spikes, spikes / 2, 0]


def test_a_chain_of_areas_runs_with_the_animal() -> None:
    settings = {"neurons_per_area": 6, "trials": 400, "coupled": 2, "areas": 4, "running": 2.0}
    made = simulate("glm_factors", settings, 0, "s")
    truth, area = made.truth.arrays, np.repeat(np.arange(4), 6)
    sender, receiver = np.nonzero(truth["synapse"])
    assert len(sender) == 3 * 4 and (area[receiver] == area[sender] + 1).all()
    assert np.array_equal(truth["coupling"] != 0, truth["synapse"])
    assert truth["coupling_factor"].shape == (400, BINS, 3)
    speed = made.signals["running"]["speed"].to_numpy()[::2]
    assert (speed == 0).any() and speed.max() > 13 and 0.1 < (speed > 0).mean() < 0.9
    first = truth["latents"].reshape(400, BINS, 4, 2).mean(1)
    assert np.corrcoef(speed, first[:, :, 0].mean(1))[0, 1] > 0.8
    assert abs(np.corrcoef(speed, first[:, :, 1].mean(1))[0, 1]) < 0.2
    assert made.signals["running"]["time"].iloc[1] == made.trials["stop"].iloc[0]


def test_more_coupled_units_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="coupled"):
        simulate("glm_factors", {"neurons_per_area": 5, "coupled": 6}, 0, "s")
