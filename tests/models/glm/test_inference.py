"""Standard errors and tests: against textbook formulas, and at their nominal level where nothing is coupled."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.inference import coupling_table, false_discovery_rate, infer, likelihood_ratio
from pipeline_lib.models.glm.observation import Gaussian, NegativeBinomial, PoissonExp
from tests.models.glm.networks import dense_design, simulate_network


def data_of(counts: np.ndarray, kernel: np.ndarray, **changes) -> Data:
    units = np.arange(counts.shape[1])
    given = {"counts": counts, "segments": np.array([[len(kernel), len(counts)]]), "kernel": kernel}
    return Data(**given | {"senders": units, "receivers": units} | changes)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    ranks = stats.rankdata(scores)
    positive = truth.sum()
    return (ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (~truth).sum())


@pytest.mark.parametrize("levels", [(False, True), (0.0, 0.5, 2.0)])
def test_standard_errors_are_those_of_the_textbook(network, levels):
    weights = np.tile(np.random.default_rng(0).choice(levels, (12_000, 1)), (1, 8))
    features = np.sin(np.arange(12_000) / 300)[:, None]
    offset = np.tile(np.random.default_rng(1).normal(0, 0.3, (12_000, 1)), (1, 8))
    data = data_of(network.counts, network.kernel, weights=weights, features=features, offset=offset)
    strength, scale = 1e-3, np.r_[0.1, np.ones(40)]
    problem = Problem(Design(data, torch.float64), PoissonExp(), scale=torch.from_numpy(scale))
    solution = problem.solve(strength)
    found = infer(problem, solution, strength)
    design, frames = dense_design(data)
    weight = weights[frames, 0].astype(np.float64)
    for unit in (0, 5):
        mean = np.exp(design @ solution.coefficients[unit].numpy() + offset[frames, unit])
        information = (design.T * mean * weight) @ design
        bread = np.linalg.inv(information + weight.sum() * strength * np.diag(np.r_[0, scale]))
        covariance = bread @ information @ bread
        np.testing.assert_allclose(found.standard_errors[unit], np.sqrt(np.diag(covariance)), rtol=1e-6)
        part = slice(2 + 3 * 5, 2 + 4 * 5)
        block = solution.coefficients[unit, part].numpy()
        expected = block @ np.linalg.solve(covariance[part, part], block)
        np.testing.assert_allclose(found.wald[3, unit], expected, rtol=1e-5)
        of_filter = np.diag(network.kernel @ covariance[part, part] @ network.kernel.T)
        np.testing.assert_allclose(found.filter_errors[3, unit], np.sqrt(of_filter), rtol=1e-5)
    np.testing.assert_allclose(found.p, stats.chi2.sf(found.wald, 5))


def test_units_have_errors_of_their_own_dispersion(network, monkeypatch):
    monkeypatch.setattr("pipeline_lib.models.glm.inference.UNITS_AT_ONCE", 3)
    dispersion = torch.linspace(0.1, 3.0, 8, dtype=torch.float64)
    data = data_of(network.counts, network.kernel, senders=np.arange(2))
    solution, problem = fit(data, NegativeBinomial(dispersion), 0.0, dtype=torch.float64)
    found, design = infer(problem, solution, 0.0), dense_design(data)[0]
    for unit in range(8):
        mean = np.exp(design @ solution.coefficients[unit].numpy())
        information = (design.T * (mean / (1 + float(dispersion[unit]) * mean))) @ design
        expected = np.sqrt(np.diag(np.linalg.inv(information)))
        np.testing.assert_allclose(found.standard_errors[unit], expected, rtol=1e-6)


def test_a_gaussians_errors_and_tests_know_how_variable_its_counts_are(network):
    """Least squares by the book; spikes five times over are five times as uncertain and just as significant."""
    weights = np.tile(np.random.default_rng(0).random((12_000, 1)) < 0.7, (1, 8))
    found, ratio = [], []
    for times in (1, 5):
        counts = times * network.counts
        data = data_of(counts, network.kernel, weights=weights, senders=np.arange(2))
        solution, problem = fit(data, Gaussian(), 0.0, dtype=torch.float64)
        found.append(infer(problem, solution, 0.0))
        ratio.append(likelihood_ratio(problem, solution)[0])
    design, frames = dense_design(data)
    design, seen = design[weights[frames, 0]], frames[weights[frames, 0]]
    for unit in (0, 5):
        residual = counts[seen, unit] - design @ np.linalg.lstsq(design, counts[seen, unit], rcond=None)[0]
        variance = residual @ residual / (len(design) - design.shape[1])
        expected = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
        np.testing.assert_allclose(found[1].standard_errors[unit], expected, rtol=1e-6)
    np.testing.assert_allclose(found[1].standard_errors[:, 0], 5 * found[0].standard_errors[:, 0])
    np.testing.assert_allclose(found[1].wald, found[0].wald, rtol=1e-4)
    np.testing.assert_allclose(ratio[1], found[1].wald, rtol=1e-4)  # without a ridge they are one


def test_no_more_false_discoveries_than_promised_where_nothing_is_coupled():
    random = np.random.default_rng(1)
    kernel = simulate_network(2, 50, 0).kernel
    counts = random.poisson(0.15, (20_000, 16)).astype(np.uint8)
    solution, problem = fit(data_of(counts, kernel), PoissonExp(), 0.0)
    found = infer(problem, solution, 0.0)
    other = ~np.eye(16, dtype=bool)
    share = (found.p[other] < 0.05).mean()
    assert 0.025 < share < 0.085, "5 % of 240 tests, give or take 2.5 standard errors"
    assert stats.kstest(found.p[other], "uniform").pvalue > 0.01
    assert (false_discovery_rate(found.p)[other] < 0.05).sum() <= 2


def test_true_couplings_are_found_and_few_others():
    network = simulate_network(units=12, bins=40_000, seed=2)
    solution, problem = fit(data_of(network.counts, network.kernel), PoissonExp(), 1e-5)
    found = infer(problem, solution, 1e-5)
    other = ~np.eye(12, dtype=bool)
    truth = network.connected[other]
    assert auc(found.wald[other], truth) > 0.99
    discovered = false_discovery_rate(found.p)[other] < 0.05
    assert discovered[truth].mean() > 0.9
    assert (discovered & ~truth).sum() <= 0.15 * discovered.sum()
    strength = np.einsum("ijb,kb->ij", network.weights, network.kernel)
    weights = solution.coefficients[:, 1:].reshape(12, 12, 5)
    fitted = np.einsum("jib,kb->ij", weights, network.kernel)
    assert np.corrcoef(fitted[network.connected & other], strength[network.connected & other])[0, 1] > 0.9


def test_likelihood_ratio_agrees_with_wald(network):
    data = data_of(network.counts, network.kernel, receivers=np.array([0, 1, 2, 3]))
    solution, problem = fit(data, PoissonExp(), 0.0)
    statistic, p = likelihood_ratio(problem, solution, tolerance=1e-8)
    wald = infer(problem, solution, 0.0).wald
    other = np.ones_like(wald, dtype=bool)
    other[np.arange(4), np.arange(4)] = False  # refractoriness is far from the quadratic regime
    np.testing.assert_allclose(statistic[other], wald[other], rtol=0.3, atol=1.0)
    assert (statistic[~other] > 50).all() and (p[~other] < 1e-9).all()
    np.testing.assert_allclose(p, stats.chi2.sf(statistic, 5))


def test_a_test_has_a_degree_of_freedom_for_each_function_that_was_fitted(network):
    """A last function that is a unit's own, as refractoriness is, is no part of what a coupling to others is."""
    own = np.eye(3, dtype=bool)
    allowed = np.ones((3, 3, 5), dtype=bool)
    allowed[:, :, 4] = own
    data = data_of(network.counts, network.kernel, senders=np.arange(3), receivers=np.arange(3))
    solution, problem = fit(data, PoissonExp(), 0.0, allowed.reshape(3, -1))
    found, freedom = infer(problem, solution, 0.0), np.where(own, 5, 4)
    np.testing.assert_allclose(found.p, stats.chi2.sf(found.wald, freedom))
    statistic, p = likelihood_ratio(problem, solution, tolerance=1e-4)
    np.testing.assert_allclose(p, stats.chi2.sf(statistic, freedom))


def test_masked_and_silent_units_are_not_tested(network):
    counts = network.counts.copy()
    counts[:, 6] = 0
    allowed = np.ones((8, 40), dtype=bool)
    allowed[2, 5:10] = False
    solution, problem = fit(data_of(counts, network.kernel), PoissonExp(), 1e-3, allowed)
    found = infer(problem, solution, 1e-3)
    assert np.isnan(found.p[1, 2]) and np.isnan(found.standard_errors[2, 6:11]).all()
    assert np.isnan(found.p[:, 6]).all() and np.isnan(found.p[6]).all()
    np.testing.assert_array_equal(np.isnan(found.filter_errors).all(axis=2), np.isnan(found.p))
    statistic, _ = likelihood_ratio(problem, solution, tolerance=1e-4)
    np.testing.assert_array_equal(np.isnan(statistic), np.isnan(found.p))
    assert np.isfinite(found.p).sum() == 7 * 7 - 1 == np.isfinite(false_discovery_rate(found.p)).sum()


def test_what_the_data_do_not_tell_apart_has_finite_errors(network):
    """A sender twice, without a ridge: each has half the weight, and its errors are of that, not of the difference."""
    counts = np.concatenate([network.counts, network.counts[:, :1]], axis=1)
    data = data_of(counts, network.kernel, senders=np.array([0, 8, 1]), receivers=np.arange(3))
    solution, problem = fit(data, PoissonExp(), 0.0, dtype=torch.float64)
    alone = data_of(network.counts, network.kernel, senders=np.arange(2), receivers=np.arange(3))
    once = infer(*fit(alone, PoissonExp(), 0.0, dtype=torch.float64)[::-1], 0.0)
    found = infer(problem, solution, 0.0)
    np.testing.assert_allclose(2 * found.standard_errors[:, 1:6], once.standard_errors[:, 1:6], rtol=1e-4)
    np.testing.assert_allclose(found.standard_errors[:, 11:], once.standard_errors[:, 6:], rtol=1e-4)


def test_false_discovery_rate_is_benjamini_hochberg():
    p = np.array([[0.01, 0.04], [0.041, np.nan], [0.042, 0.8]])  # the third is found where the second alone is not
    expected = stats.false_discovery_control(p[np.isfinite(p)])
    np.testing.assert_allclose(false_discovery_rate(p)[np.isfinite(p)], expected)
    assert np.isnan(false_discovery_rate(p)[1, 1])


def test_coupling_table_names_who_drives_whom():
    filters = np.zeros((3, 3, 4), dtype=np.float32)
    filters[0, 2] = [0.1, -0.5, 0.1, 0.0]
    filters[1] = np.nan
    units = pd.DataFrame({"unit_id": ["a", "b", "c"], "region": ["V1", "V1", "LM"]})
    p = np.full((3, 3), 0.5)
    p[0, 2] = 0.001
    allowed = np.ones((3, 3), dtype=bool)
    allowed[2, 0] = False
    table = coupling_table(filters, 5.0, units, p, allowed)
    assert table.loc[~table["allowed"], ["sender", "receiver"]].to_numpy().tolist() == [["c", "a"]]
    assert len(table) == 4 and not (table["sender"] == "b").any()
    row = table[(table["sender"] == "a") & (table["receiver"] == "c")].iloc[0]
    assert row["peak_lag"] == 10.0 and row["p"] == 0.001 and row["receiver_region"] == "LM"
    assert row["strength"] == pytest.approx(-0.3) and row["peak"] == pytest.approx(-0.5)
    with pytest.raises(InputError, match="filters"):
        coupling_table(filters, 5.0, units.iloc[:2])
