"""Goodness of fit and simulation: right models pass, wrong ones do not, a fit recovers what was simulated."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import d2_tweedie_score

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.engine import fit
from pipeline_lib.models.glm.goodness import explained, residual_autocorrelation, time_rescaling
from pipeline_lib.models.glm.observation import PoissonExp
from pipeline_lib.models.glm.simulation import simulate


def test_pseudo_r2_by_the_book(network):
    table = explained(network.counts, network.rates)
    for unit in (0, 3):
        expected = d2_tweedie_score(network.counts[:, unit], network.rates[:, unit], power=1)
        assert table["cohen"][unit] == pytest.approx(expected, rel=1e-9)
    constant = np.tile(network.counts.mean(0), (len(network.counts), 1))
    np.testing.assert_allclose(
        explained(network.counts, constant)[["mcfadden", "cohen", "bits_per_spike"]], 0, atol=1e-12
    )
    assert (explained(network.counts, network.counts.astype(float))["cohen"] > 1 - 1e-9).all()
    difference = (network.counts * np.log(network.rates / constant) - network.rates + constant).sum(0)
    np.testing.assert_allclose(table["bits_per_spike"], difference / network.counts.sum(0) / np.log(2))


def test_time_rescaling_accepts_the_truth_and_rejects_a_constant(network):
    truth = time_rescaling(network.counts, network.rates)
    assert np.mean([test.statistic < test.band for test in truth]) >= 0.75
    events = (network.counts > 0).sum(0)
    expected = stats.kstwobign.isf(0.05) / np.sqrt(events - 1)  # of the intervals between them
    np.testing.assert_allclose([test.band for test in truth], expected, rtol=1e-3)
    assert min(test.p for test in truth) > 1e-3
    constant = np.tile(network.counts.mean(0), (len(network.counts), 1))
    assert max(test.p for test in time_rescaling(network.counts, constant)) < 0.01


@pytest.mark.parametrize("most", [0.6, 4.0])
def test_time_rescaling_has_its_level_even_with_many_spikes_a_bin(most):
    rates = np.random.default_rng(0).uniform(0.1, most, (4000, 120))
    counts = np.random.default_rng(1).poisson(rates)
    p = np.array([test.p for test in time_rescaling(counts, rates, seed=2)])
    assert 0.005 < (p < 0.05).mean() < 0.12


def test_residuals_of_the_truth_are_white_and_those_of_a_constant_are_not(network):
    truth, band = residual_autocorrelation(network.counts, network.rates, 20)
    assert (np.abs(truth) < band[:, None]).mean() > 0.9
    pearson = (network.counts - network.rates) / np.sqrt(network.rates)
    by_hand = [np.mean(unit[3:] * unit[:-3]) / np.var(unit) for unit in (pearson - pearson.mean(0)).T]
    np.testing.assert_allclose(truth[2], by_hand, rtol=1e-9)
    constant = np.tile(network.counts.mean(0), (len(network.counts), 1))
    refractory, _ = residual_autocorrelation(network.counts, constant, 20)
    assert (refractory[0] < -1.5 * band[0]).all()


def test_residual_pairs_do_not_cross_segments():
    counts = np.array([[5.0], [0.0], [0.0], [5.0]])
    rates = np.full((4, 1), 2.5)
    joined, _ = residual_autocorrelation(counts, rates, 1)
    apart, _ = residual_autocorrelation(counts, rates, 1, np.array([[0, 2], [2, 4]]))
    assert joined[0, 0] == pytest.approx(-1 / 3) and apart[0, 0] == pytest.approx(-1)
    with pytest.raises(InputError, match="lags"):
        residual_autocorrelation(counts, rates, 2, np.array([[0, 2], [2, 4]]))


def test_a_fit_to_simulated_spikes_is_the_network_they_came_from(network):
    filters = np.einsum("ijb,kb->ijk", network.weights, network.kernel)
    made = simulate(np.full(8, np.log(0.1)), filters, bins=4000, repeats=10, cap=3.0, seed=4)
    assert made.capped == 0 and made.counts.shape == (10, 4000, 8)
    starts = np.arange(10) * 4000
    data = Data(
        made.counts.reshape(-1, 8),
        np.stack([starts + 30, starts + 4000], axis=1),
        network.kernel,
        np.arange(8),
        np.arange(8),
    )
    solution, _ = fit(data, PoissonExp(), 1e-5)
    weights = solution.coefficients[:, 1:].reshape(8, 8, 5)
    fitted = np.einsum("jib,kb->ijk", weights, network.kernel)
    assert np.corrcoef(fitted.ravel(), filters.ravel())[0, 1] > 0.95
    # The rates it reports are the model's, bin by bin, from the first on.
    eta = np.full((4000, 8), np.log(0.1))
    for lag in range(30):
        eta[lag + 1 :] += made.counts[3, : 4000 - lag - 1].astype(float) @ filters[:, :, lag]
    np.testing.assert_allclose(made.rates[3], np.exp(eta), rtol=1e-5)


def test_inputs_and_a_softplus_link_are_in_the_rates():
    inputs = np.random.default_rng(0).normal(size=(40, 2))
    made = simulate(np.array([-1.0, 0.5]), np.zeros((2, 2, 3)), 40, inputs=inputs, cap=9.0, link="softplus")
    np.testing.assert_allclose(made.rates[0], np.logaddexp(0, inputs + np.array([-1.0, 0.5])), rtol=1e-6)


def test_an_unstable_network_is_capped_and_says_so():
    filters = np.full((2, 2, 5), 2.0)
    with pytest.warns(UserWarning, match=r"held at 1.0 spikes a bin"):
        made = simulate(np.full(2, -1.0), filters, bins=200)
    assert made.rates.max() <= 1.0 and made.capped > 0.5


def test_same_seed_same_spikes_and_mistakes_are_named():
    arguments = (np.full(2, -2.0), np.zeros((2, 2, 3)), 50)
    np.testing.assert_array_equal(simulate(*arguments, seed=5).counts, simulate(*arguments, seed=5).counts)
    for changes, field in (({"link": "logistic"}, "link"), ({"cap": 0.0}, "cap")):
        with pytest.raises(InputError) as error:
            simulate(*arguments, **changes)
        assert error.value.field == field
    with pytest.raises(InputError, match="filters"):
        simulate(np.zeros(3), np.zeros((2, 2, 3)), 50)
    with pytest.raises(InputError, match="rates"):
        explained(np.ones((5, 2)), np.ones((5, 3)))
