"""What a configuration can choose: masks, kernels, how the strength is chosen, how variable counts are."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm import MODEL
from pipeline_lib.models.glm.crossvalidation import cross_validate
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.dispersion import estimate_dispersion
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.observation import PoissonExp, observation_model
from pipeline_lib.models.glm.path import default_strengths
from pipeline_lib.models.glm.settings import Config, allowed_couplings
from tests.models.glm.networks import dense_design, newton
from tests.models.glm.sessions import BLOCKS, CONFIG, CONTINUOUS, cohort, fitted, recording_of


def test_coupling_masks_follow_the_populations():
    units = pd.DataFrame({"population": ["A", "A", "B", "B"]})
    senders = np.array([0, 2, 3])
    for coupling, expected in {
        "all": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
        "within": [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
        "between": [[1, 0, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]],
        "none": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    }.items():
        found = allowed_couplings(Config(coupling=coupling), units, senders)
        np.testing.assert_array_equal(found, np.array(expected, dtype=bool), err_msg=coupling)
    alone = allowed_couplings(Config(coupling="none", self_history=False), units, senders)
    assert not alone.any()


def test_a_distance_is_a_mask():
    units = pd.DataFrame({"unit_id": ["a", "b", "c"], "population": "A", "x": [0.0, 3.0, 0.0], "y": [0.0, 4.0, 0.0]})
    placed = units.assign(z=[0.0, 0.0, 20.0])
    found = allowed_couplings(Config(distance=5.0), placed, np.arange(3))
    np.testing.assert_array_equal(found, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="distance: found units without z; accepted: units with columns x, y and z"):
        allowed_couplings(Config(distance=5.0), units, np.arange(3))
    with pytest.raises(InputError, match="no position of unit b"):
        allowed_couplings(Config(distance=5.0), placed.assign(y=[0.0, np.nan, 0.0]), np.arange(3))


def test_pairs_can_be_left_out_by_name():
    units = pd.DataFrame({"unit_id": ["a", "b", "c"], "population": "A"})
    found = allowed_couplings(Config(uncoupled=("a > c", "b > *")), units, np.array([0, 1]))
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0]])  # own histories stay
    with pytest.raises(InputError, match="uncoupled: found 'd'"):
        allowed_couplings(Config(uncoupled=("d > a",)), units, np.arange(3))


def test_a_distance_reaches_the_fit(tmp_path, network_counts):
    recording = recording_of(network_counts)
    recording.units = recording.units.assign(x=np.arange(10.0), y=0.0, z=0.0)
    data, _ = cohort(tmp_path, recording, CONTINUOUS, replace(BLOCKS, heldout_units=0))
    filters = fitted(replace(CONFIG, distance=2.5), data, tmp_path / "run")[0].couplings("net").filters
    apart = np.abs(np.arange(10)[:, None] - np.arange(10))
    np.testing.assert_array_equal((filters != 0).any(axis=2), apart <= 2)


def test_the_refractory_weight_is_a_units_own_and_finds_dead_time(tmp_path):
    random = np.random.default_rng(0)
    counts = (random.random((20_000, 4)) < 0.2).astype(np.uint8)
    for _ in range(20):  # no spike within two bins of another
        counts[1:][(counts[:-1] > 0)] = 0
        counts[2:][(counts[:-2] > 0)] = 0
    data, _ = cohort(tmp_path, counts, CONTINUOUS, replace(BLOCKS, heldout_units=0))
    config = replace(CONFIG, refractory=0.02, strength=1e-6)
    model, _ = fitted(config, data, tmp_path / "run")
    learned, filters = model.learned["net"], model.couplings("net").filters
    assert learned["kernel"].shape == (30, 6)
    np.testing.assert_array_equal(learned["kernel"][:, -1], np.arange(30) < 2)
    weights = learned["coefficients"][:, 1:].reshape(4, 4, 6)
    assert (weights[..., -1][~np.eye(4, dtype=bool)] == 0).all()
    own, other = filters[np.arange(4), np.arange(4)], filters[~np.eye(4, dtype=bool)]
    assert (own[:, :2] < -4).all() and np.abs(own[:, 3:]).max() < 1 and np.abs(other).max() < 0.5


def test_folds_choose_the_strength_that_cross_validation_finds(tmp_path, continuous):
    data, _ = continuous
    config = replace(CONFIG, strength="auto", selection="folds", folds=2)
    model, run = fitted(config, data, tmp_path)
    rows = {row["strength"]: row["validation_log_likelihood"] for row in run.rows if row["stage"] == "folds"}
    assert len(rows) == 11 and not any(row["stage"] == "path" for row in run.rows)
    assert model.learned["net"]["strength"][0] == max(rows, key=rows.get)
    # By hand, with the held-in units alone as judges.
    source = model.read(data, "net", data.samples("net", "train"), model.learned["net"], merge=True)[0]
    problem, heldin = Problem(Design(source), PoissonExp()), data.heldin("net")
    scores = cross_validate(problem, default_strengths(problem, heldin), folds=2).scores[:, heldin].mean(1)
    np.testing.assert_allclose(list(rows.values()), scores, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"selection": "folds", "folds": 2}, {"regulariser": "lasso"}, {"observation": "negative_binomial"}],
    ids=["ridge", "folds", "lasso", "negative_binomial"],
)
def test_heldout_units_have_no_say_in_the_strength(tmp_path, network_counts, settings):
    """Not even in which strengths are tried: a held-out unit that fires at another rate changes no held-in unit."""
    found = []
    for rate in (0.01, 1.0):
        counts, splits = network_counts[:6000].copy(), replace(BLOCKS, heldout_units=5)
        heldout = cohort(tmp_path / f"{rate}", counts, CONTINUOUS, splits)[0].heldout("net")
        counts[:, heldout] = np.random.default_rng(0).poisson(rate, (len(counts), len(heldout)))
        data, _ = cohort(tmp_path / f"{rate} changed", counts, CONTINUOUS, splits)
        model, run = fitted(replace(CONFIG, strength="auto", **settings), data, tmp_path / f"{rate} run")
        tried = [row["strength"] for row in run.rows if row["stage"] in ("path", "folds")]
        found.append((tried, model.learned["net"]["coefficients"][data.heldin("net")]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2e-3)


def test_the_bins_to_forecast_are_no_part_of_the_validation(tmp_path, network_counts):
    """Windows that follow each other without a gap hide the bins at the end of each, not of the last one only."""
    from scipy.stats import poisson

    fit_data, data = cohort(tmp_path, network_counts, CONTINUOUS, replace(BLOCKS, forward=0.2))
    model, run = fitted(replace(CONFIG, strength="auto"), fit_data, tmp_path / "run")
    (chosen,) = model.learned["net"]["strength"]
    (found,) = {
        row["validation_log_likelihood"] for row in run.rows if row["stage"] == "path" and row["strength"] == chosen
    }
    validation, heldin = data.samples("net", "validation"), data.heldin("net")
    assert (np.diff(validation["start_tick"]) == 100_000).any()
    counts = data.counts("net", validation)[:, 30:110][:, :, heldin]
    rates = model.predict(data, "net", validation)[:, :80][:, :, heldin].astype(np.float64)
    assert found == pytest.approx(poisson.logpmf(counts, rates).mean(), rel=1e-4)


def test_folds_need_no_validation_part_and_ignore_it(tmp_path, network_counts):
    data, _ = cohort(tmp_path, network_counts, CONTINUOUS, replace(BLOCKS, fractions=(0.8, 0.0, 0.2)))
    model, _ = fitted(replace(CONFIG, strength="auto", selection="folds", folds=2), data, tmp_path / "run")
    assert model.learned["net"]["strength"][0] > 0


def test_a_rank_bounds_the_couplings(tmp_path, continuous):
    data, prediction = continuous
    test, lost = prediction.samples("net", "test"), []
    full, _ = fitted(CONFIG, data, tmp_path / "full")
    loss = {}
    for rank in (1, 3, 10):
        model, run = fitted(replace(CONFIG, rank=rank), data, tmp_path / str(rank))
        weights = model.learned["net"]["coefficients"][:, 1:]
        assert np.linalg.matrix_rank(weights, tol=1e-4 * np.linalg.norm(weights, 2)) == rank
        loss[rank] = next(row["train_loss"] for row in run.rows if row["stage"] == "rank")
        lost.append(np.abs(model.predict(prediction, "net", test) - full.predict(prediction, "net", test)).mean())
    assert loss[1] > loss[3] > loss[10] and lost[0] > lost[1] > lost[2]
    masked = [{"coupling": "within"}, {"distance": 3.0}, {"uncoupled": ("u0 > u1",)}, {"refractory": 0.02}]
    others = [{"trial_gain": True}, {"inference": True}, {"memory": "stream"}, {"regulariser": "lasso"}, {"rank": 0}]
    for changes in masked + others:
        with pytest.raises(InputError, match="rank"):
            replace(CONFIG, **{"rank": 2} | changes)


def test_dispersion_is_found_for_every_unit(tmp_path):
    random = np.random.default_rng(1)
    truth = np.array([0.3, 1.0, 3.0])
    mean = 0.4
    gamma = random.gamma(1 / truth, truth * mean, (60_000, 3))
    counts = random.poisson(gamma).astype(np.uint8)
    source = Data(counts, np.array([[5, 60_000]]), np.eye(5), np.empty(0, int), np.arange(3))
    solution, problem = fit(source, PoissonExp())
    found = estimate_dispersion(problem.design, PoissonExp(), solution.coefficients)
    np.testing.assert_allclose(found.numpy(), truth, rtol=0.15)
    poisson = random.poisson(0.4, (20_000, 3)).astype(np.uint8)
    solution, problem = fit(replace(source, counts=poisson, segments=np.array([[5, 20_000]])), PoissonExp())
    assert (estimate_dispersion(problem.design, PoissonExp(), solution.coefficients) < 0.05).all()

    data, _ = cohort(tmp_path, counts[:20_000], CONTINUOUS, replace(BLOCKS, heldout_units=0))
    config = replace(CONFIG, observation="negative_binomial", strength=1e-3)
    learned = fitted(config, data, tmp_path / "run")[0].learned["net"]
    assert learned["dispersion"][0] < learned["dispersion"][1] < learned["dispersion"][2]
    model = MODEL(config, 0)
    source = model.read(data, "net", data.samples("net", "train"), learned, merge=True)[0]
    of_each = observation_model("negative_binomial", "", torch.from_numpy(learned["dispersion"]))
    expected = fit(source, of_each, 1e-3)[0].coefficients
    np.testing.assert_allclose(learned["coefficients"], expected, atol=1e-5)


def test_weights_of_signals_bear_a_share_of_the_penalty(tmp_path, continuous):
    data, _ = continuous
    config = replace(CONFIG, strength=0.03, feature_penalty=0.2, signals=("speed",), n_basis=2, dtype="float64")
    model, _ = fitted(config, data, tmp_path)
    source = model.read(data, "net", data.samples("net", "train"), model.learned["net"], merge=True)[0]
    design, frames = dense_design(source)
    strength, allowed = np.full(design.shape[1], 0.03), np.ones(design.shape[1] - 1, dtype=bool)
    strength[1:3] *= 0.2
    for unit in data.heldin("net")[:2]:
        expected = newton(design, source.counts.numpy()[frames, unit], strength, allowed)
        np.testing.assert_allclose(model.learned["net"]["coefficients"][unit], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("observation", "link"),
    [("poisson", "softplus"), ("bernoulli", ""), ("negative_binomial", ""), ("gaussian", "")],
)
def test_a_prediction_is_the_mean_of_its_model(tmp_path, continuous, observation, link):
    """By hand from filters and intercepts, through the model's own link; an expected count is never negative."""
    fit_data, data = continuous
    config = replace(CONFIG, observation=observation, link=link, history=0.2, strength=1e-3)
    model, _ = fitted(config, fit_data, tmp_path)
    window, history = data.samples("net", "test").iloc[:3], data.split.history_bins
    counts = data.counts("net", window).astype(np.float64)
    eta = np.tile(model.learned["net"]["coefficients"][:, 0], (3, 100, 1))
    filters = np.nan_to_num(model.couplings("net").filters.astype(np.float64))
    assert filters.shape[2] == 20 < history
    for lag in range(20):
        eta += counts[:, history - 1 - lag : history + 99 - lag] @ filters[:, :, lag]
    means = {"softplus": np.logaddexp(0, eta), "bernoulli": 1 / (1 + np.exp(-eta)), "gaussian": np.maximum(eta, 0)}
    expected = means.get(link or observation, np.exp(eta))
    np.testing.assert_allclose(model.predict(data, "net", window), expected, rtol=1e-4, atol=1e-7)
    assert observation != "gaussian" or (eta < 0).any()


def test_a_prediction_that_explodes_is_a_finite_number(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(CONFIG, fit_data, tmp_path)
    model.learned["net"]["coefficients"][:, 0] = 500.0
    assert np.isfinite(model.predict(data, "net", data.samples("net", "test").iloc[:1])).all()


def test_units_keep_their_own_dispersion_when_others_are_done(network):
    """A unit fitted beside others gives what it gives alone, with its dispersion."""
    dispersion = torch.tensor([0.1, 0.5, 2.0, 0.2, 1.0, 0.4, 3.0, 0.3], dtype=torch.float64)
    source = Data(network.counts, np.array([[30, 12_000]]), network.kernel, np.arange(8), np.arange(8))
    together, _ = fit(source, observation_model("negative_binomial", "", dispersion), 1e-3, dtype=torch.float64)
    assert together.converged.all()
    for unit in (2, 6):
        alone = replace(source, receivers=np.array([unit]))
        model = observation_model("negative_binomial", "", float(dispersion[unit]))
        single, _ = fit(alone, model, 1e-3, dtype=torch.float64)
        np.testing.assert_allclose(together.coefficients[unit], single.coefficients[0], atol=1e-6)
    design, frames = dense_design(source)
    eta = torch.from_numpy(design) @ together.coefficients.T
    shape, mean = 1 / dispersion, eta.exp()
    counts = torch.from_numpy(network.counts[frames]).double()
    expected = torch.distributions.NegativeBinomial(shape, logits=eta + dispersion.log()).log_prob(counts)
    found = observation_model("negative_binomial", "", dispersion).log_likelihood(eta.T, counts.T).T
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert mean.isfinite().all()
