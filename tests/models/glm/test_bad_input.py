"""Data that a textbook fit chokes on: what is done about them is written down, and one unit never costs the others."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.descent import CONVERGED, STATUS
from pipeline_lib.models.glm.engine import fit
from pipeline_lib.models.glm.inference import infer
from pipeline_lib.models.glm.observation import BernoulliLogistic, PoissonExp, observation_model
from tests.models.glm.networks import dense_design, newton
from tests.models.glm.sessions import BIN, BLOCKS, CONFIG, CONTINUOUS, cohort, fitted, recording_of


def test_collinear_signals_share_the_weight_and_are_noted(tmp_path, network_counts):
    recording = recording_of(network_counts)
    seconds = np.arange(len(network_counts)) * BIN
    wave = np.sin(seconds)
    recording.signals = {"same": pd.DataFrame({"time": seconds, "a": wave, "b": 3 * wave, "still": 1.0})}
    data, _ = cohort(tmp_path, recording, CONTINUOUS, replace(BLOCKS, heldout_units=0))
    for number, strength in enumerate((1e-3, 0.0)):
        config = replace(CONFIG, signals=("same",), strength=strength)
        model, run = fitted(config, data, tmp_path / f"run{number}")
        weights = model.learned["net"]["coefficients"][:, 1:4]
        np.testing.assert_allclose(weights[:, 0], weights[:, 1], atol=5e-3)  # signals are standardised
        assert (weights[:, 2] == 0).all()
        notes = " ".join(row["note"] for row in run.rows if row["stage"] == "note")
        assert "1 directions of the inputs are not told apart" in notes and "features [2]: constant" in notes
        statuses = [row["status"] for row in run.rows if row["stage"] == "unit"]
        assert statuses.count("converged") == 10


@pytest.fixture
def one_thread():
    """Sums in one order: where a descent stops, a flat direction shows which."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_separation_is_reported_and_stays_one_units_problem(network, dtype, one_thread):
    """Unit 1 spikes exactly one bin after unit 0: no finite weights are best without a ridge."""
    counts = np.minimum(network.counts, 1)
    counts[1:, 1], counts[0, 1] = counts[:-1, 0], 0
    data = Data(counts, np.array([[30, 12_000]]), np.eye(30)[:, :3], np.arange(4), np.arange(4))
    solution, _ = fit(data, BernoulliLogistic(), 0.0, dtype=dtype)
    assert torch.isfinite(solution.coefficients).all() and float(solution.loss[1]) < 1e-3
    assert solution.coefficients[1, 1] > 5  # as large as it got
    others = [0, 2, 3]
    assert (solution.status[others] == CONVERGED).all()
    alone, _ = fit(replace(data, receivers=np.array(others)), BernoulliLogistic(), 0.0, dtype=dtype)
    torch.testing.assert_close(solution.coefficients[others], alone.coefficients, rtol=0, atol=2e-3)
    assert STATUS[int(solution.status[1])] in solution.describe()
    ridge, _ = fit(data, BernoulliLogistic(), 1e-4, dtype=dtype)
    assert (ridge.decrement < 1e-6).all() and ridge.coefficients[1].abs().max() < 50


def test_what_is_unusual_is_written_down_and_nothing_else(tmp_path, network_counts):
    counts = network_counts[:6000].copy()
    counts[:, 4] = 0
    data, _ = cohort(tmp_path, counts, CONTINUOUS, replace(BLOCKS, heldout_units=0))
    model, run = fitted(replace(CONFIG, history=0.295, observation="bernoulli"), data, tmp_path / "bernoulli")
    assert len(model.learned["net"]["kernel"]) == 30, "29.5 bins of 10 ms"
    notes = [row["note"] for row in run.rows if row["stage"] == "note"]
    beginnings = ["units [4]: no spike", "units [4]: silent as inputs", "bins with several spikes"]
    assert [note[: len(begun)] for note, begun in zip(notes, beginnings, strict=True)] == beginnings
    statuses = [row["status"] for row in run.rows if row["stage"] == "unit"]
    assert statuses[4] == "silent: held at its floor" and set(statuses[:4] + statuses[5:]) == {"converged"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", [("poisson", "exp"), ("negative_binomial", "exp")])
def test_what_nobody_observed_has_no_say_not_even_an_artefact(network, model, dtype):
    """An input that is huge while nothing is recorded overflows no likelihood and passes for no curvature."""
    seen = np.ones((12_000, 8), dtype=bool)
    seen[5000:5100], seen[7000:7500, 3] = False, False
    features = np.sin(np.arange(12_000) / 50)[:, None]
    found = []
    for artefact in (0.0, 1e4):
        features[5000:5100] = artefact
        data = Data(network.counts, np.array([[30, 12_000]]), network.kernel, np.arange(8), np.arange(8))
        data = replace(data, features=features.copy(), weights=seen)
        solution, problem = fit(data, observation_model(*model, dispersion=0.5), 1e-4, dtype=dtype)
        assert solution.converged.all()
        found.append((solution.coefficients, torch.from_numpy(infer(problem, solution, 1e-4).standard_errors)))
    assert (found[0][0][:, 1].abs() > 0.02).any()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_unit_that_fires_in_every_bin_is_finite_and_spoils_nothing(network):
    counts = np.minimum(network.counts, 1)
    counts[:, 2] = 1
    data = Data(counts, np.array([[30, 12_000]]), network.kernel, np.arange(4), np.arange(4))
    solution, _ = fit(data, BernoulliLogistic(), 1e-3)
    assert torch.isfinite(solution.coefficients).all() and float(solution.loss[2]) < 1e-3
    assert (solution.status[[0, 1, 3]] == CONVERGED).all()


def test_a_recording_shorter_than_the_window_is_refused_or_padded(tmp_path, network, network_counts):
    with pytest.raises(InputError, match="20 bins of history before start"):
        Data(network.counts[:15], np.array([[10, 15]]), np.eye(20), np.arange(8), np.arange(8))
    short = recording_of(network_counts[:600])
    data, prediction = cohort(tmp_path, short, replace(CONTINUOUS, length=0.5, history=0.0), replace(BLOCKS, block=1.0))
    model, run = fitted(replace(CONFIG, history=3.0, strength=1e-2), data, tmp_path / "run")
    notes = " ".join(row["note"] for row in run.rows if row["stage"] == "note")
    assert "windows give 0 bins of history, filters have 300: the rest counts as silence" in notes
    assert np.isfinite(model.predict(prediction, "net", prediction.samples("net", "test"))).all()


def test_more_inputs_than_bins_has_the_ridge_solution(network):
    """Forty inputs, thirty bins: the ridge still has one answer, and it is found."""
    data = Data(network.counts[:60], np.array([[30, 60]]), network.kernel, np.arange(8), np.arange(8))
    solution, problem = fit(data, PoissonExp(), 1e-2, dtype=torch.float64)
    design, frames = dense_design(data)
    for unit in problem.fitted.nonzero()[:, 0].tolist():
        expected = newton(design, network.counts[frames, unit], 1e-2, np.ones(40, dtype=bool))
        np.testing.assert_allclose(solution.coefficients[unit].numpy(), expected, atol=1e-5)
