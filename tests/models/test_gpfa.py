"""Gaussian-process factor analysis against the whole Gaussian written out, and what its steps must do."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.gpfa.em import _timescale, start, steps
from pipeline_lib.models.gpfa.model import Gpfa, _cut, _Latents
from pipeline_lib.models.gpfa.posterior import Parameters, Posterior, covariance, groups, inverse
from pipeline_lib.models.gpfa.readout import fit_readout
from pipeline_lib.models.gpfa.settings import Config
from pipeline_lib.training.run import Run
from pipeline_lib.trains.store import Trains
from tests.small_cohort import open_cohort, recording, store, write_cohort

WINDOWS, BINS, UNITS, LATENTS = 5, 7, 4, 2


@pytest.fixture
def parameters() -> Parameters:
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((UNITS, LATENTS))
    return Parameters(loadings, rng.standard_normal(UNITS), rng.uniform(0.2, 1.0, UNITS), np.array([1.5, 4.0]))


def sample(parameters: Parameters, windows: int, bins: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Observations [S, L, N] and the latents [S, L, D] behind them."""
    rng = np.random.default_rng(seed)
    roots = [np.linalg.cholesky(covariance(timescale, bins)) for timescale in parameters.timescales]
    latents = np.stack([rng.standard_normal((windows, bins)) @ root.T for root in roots], axis=2)
    noise = rng.standard_normal((windows, bins, len(parameters.noise))) * np.sqrt(parameters.noise)
    return latents @ parameters.loadings.T + parameters.offset + noise, latents


def joint(parameters: Parameters, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and covariance of the observations (bin, unit) laid out flat, and their covariance with the latents."""
    prior = [covariance(timescale, bins) for timescale in parameters.timescales]
    loadings = parameters.loadings
    signal = sum(np.kron(k, np.outer(own, own)) for k, own in zip(prior, loadings.T, strict=True))
    cross = np.concatenate([np.kron(k, own) for k, own in zip(prior, loadings.T, strict=True)])  # (latent, bin)
    return np.tile(parameters.offset, bins), signal + np.kron(np.eye(bins), np.diag(parameters.noise)), cross


def by_hand(parameters: Parameters, values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Posterior mean [D, L] of one window and its log-likelihood, from the whole Gaussian of what was observed."""
    mean, whole, cross = joint(parameters, len(values))
    seen = mask.ravel()
    inner, away = whole[np.ix_(seen, seen)], values.ravel()[seen] - mean[seen]
    latents = (cross[:, seen] @ np.linalg.solve(inner, away)).reshape(-1, len(values))
    return latents, float(multivariate_normal(mean[seen], inner).logpdf(values.ravel()[seen]))


@pytest.fixture
def observed(parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Observations of which some bins, and one unit in one window, are missing."""
    values, _ = sample(parameters, WINDOWS, BINS)
    mask = np.ones(values.shape, bool)
    mask[1, :, 2] = mask[3, 5:] = mask[4, 5:] = False
    return values, mask


def test_posterior_and_likelihood_are_those_of_the_whole_gaussian(parameters, observed) -> None:
    values, mask = observed
    patterns = list(groups(mask))
    assert sorted(len(group.rows) for group in patterns) == [1, 2, 2]
    assert [len(group.rows) for group in groups(np.ones((1, 2, 3), bool))] == [1]
    for group in patterns:
        posterior = Posterior(parameters, np.where(group.mask, values[group.rows], 99.0), group.mask)
        expected = [by_hand(parameters, values[row], group.mask) for row in group.rows]
        np.testing.assert_allclose(posterior.mean, [mean for mean, _ in expected], atol=1e-9)
        assert posterior.log_likelihood == pytest.approx(sum(value for _, value in expected), rel=1e-10)


def test_windows_are_grouped_by_what_was_observed_in_the_order_of_its_bits() -> None:
    """So that sums over groups come to the same bytes whichever window is first."""
    bits = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    bits[:, 0, 0] = True, False, True  # the first byte is above and below 128
    mask = bits[[2, 0, 1, 0, 2, 1, 1]]
    found = list(groups(mask))
    assert [group.mask.ravel().tolist() for group in found] == sorted(pattern.ravel().tolist() for pattern in bits)
    assert all((mask[group.rows] == group.mask).all() for group in found)
    assert sorted(tuple(group.rows) for group in found) == [(0, 4), (1, 3), (2, 5, 6)]


def test_posterior_covariance_is_that_of_the_whole_gaussian(parameters) -> None:
    _, whole, cross = joint(parameters, BINS)
    prior = np.zeros((LATENTS * BINS,) * 2)
    for latent, timescale in enumerate(parameters.timescales):
        own = slice(latent * BINS, (latent + 1) * BINS)
        prior[own, own] = covariance(timescale, BINS)
    posterior = Posterior(parameters, np.zeros((1, BINS, UNITS)), np.ones((BINS, UNITS), bool))
    expected = prior - cross @ np.linalg.solve(whole, cross.T)
    np.testing.assert_allclose(posterior.covariance.reshape(expected.shape), expected, atol=1e-10)


def test_a_unit_taken_back_is_a_unit_never_seen(parameters, observed) -> None:
    values, mask = observed
    for group in groups(mask):
        posterior = Posterior(parameters, values[group.rows], group.mask)
        for unit in range(UNITS):
            without = group.mask.copy()
            without[:, unit] = False
            expected = [by_hand(parameters, values[row], without)[0].T for row in group.rows]
            np.testing.assert_allclose(posterior.without(unit), expected, atol=1e-9)


def test_the_prior_is_that_of_the_paper() -> None:
    assert covariance(2.0, 3)[0] == pytest.approx([1.0, 0.999 * np.exp(-1 / 8), 0.999 * np.exp(-4 / 8)])


def test_a_matrix_that_is_no_covariance_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        inverse(np.diag([1.0, -1.0]))


def test_it_starts_from_probabilistic_pca() -> None:
    """Noise is the mean of the eigenvalues left out, and taken off the others; what was not seen is no matter."""
    rng = np.random.default_rng(0)
    vectors, values = np.linalg.qr(rng.standard_normal((6, 6)))[0], np.array([9.5, 4.5, 0.8, 0.6, 0.4, 0.2])
    whole = vectors * values @ vectors.T
    factors = vectors[:, :2] * [3.0, 2.0]
    values = rng.standard_normal((20, 30, 6))
    values = np.linalg.qr(values.reshape(600, 6) - values.mean(axis=(0, 1)))[0] * np.sqrt(600)  # uncorrelated
    values = (values @ np.linalg.cholesky(whole).T + 7.0).reshape(20, 30, 6)
    begun = start(values, np.ones(values.shape, bool), 2, 3.0)
    np.testing.assert_allclose(begun.loadings @ begun.loadings.T, factors @ factors.T, atol=1e-9)
    np.testing.assert_allclose(begun.offset, 7.0)
    rest = np.diag(whole) - (factors**2).sum(axis=1)
    np.testing.assert_allclose(begun.noise, np.maximum(rest, 0.1 * np.diag(whole)), atol=1e-9)
    assert begun.timescales.tolist() == [12.0, 0.75]
    assert start(values, np.ones(values.shape, bool), 1, 3.0).timescales.tolist() == [3.0]
    mask = rng.random(values.shape) < 0.8
    one, other = (start(np.where(mask, values, unseen), mask, 2, 3.0) for unseen in (0.0, 99.0))
    np.testing.assert_array_equal(one.loadings, other.loadings)
    np.testing.assert_allclose(one.offset, np.where(mask, values, 0).sum(axis=(0, 1)) / mask.sum(axis=(0, 1)))
    filled = start(np.where(mask, values, one.offset), np.ones(values.shape, bool), 2, 3.0)
    np.testing.assert_allclose(np.abs(one.loadings) * np.sqrt(mask.mean()), np.abs(filled.loadings))


def test_steps_end_where_the_likelihood_is_flat() -> None:
    rng = np.random.default_rng(4)
    true = Parameters(rng.standard_normal((4, 1)), np.ones(4), rng.uniform(0.5, 1, 4), np.array([2.0]))
    values, _ = sample(true, 10, 8)
    mask = np.broadcast_to(rng.random(values.shape[1:]) < 0.9, values.shape)
    *_, (fitted, _) = islice(steps(values, mask, start(values, mask, 1, 3.0)), 250)
    for name in ("loadings", "offset", "noise"):
        slope = np.zeros(4)
        for unit in range(4):
            sides = []
            for change in (1e-4, -1e-4):
                moved = getattr(fitted, name).copy()
                moved[unit] += change
                sides.append(Posterior(replace(fitted, **{name: moved}), values, mask[0]).log_likelihood)
            slope[unit] = (sides[0] - sides[1]) / 2e-4
        np.testing.assert_allclose(slope, 0, atol=0.05, err_msg=name)


def test_noise_has_a_floor_and_a_unit_never_seen_no_loadings() -> None:
    true = Parameters(np.array([[3.0], [1.0], [2.0], [1.0]]), np.zeros(4), np.array([1e-9, 1, 1, 1]), np.array([3.0]))
    values, _ = sample(true, 20, 10)
    mask = np.ones(values.shape, bool)
    mask[:, :, 3] = False
    *_, (fitted, _) = islice(steps(values, mask, start(values, mask, 1, 3.0)), 30)
    assert fitted.noise[0] == pytest.approx(0.01 * values[:, :, 0].var(), rel=1e-9)
    assert fitted.loadings[3] == pytest.approx(0, abs=1e-9) and np.isfinite(fitted.noise).all()


def test_every_step_raises_the_likelihood(observed, parameters) -> None:
    values, mask = observed
    likelihoods = [value for _, value in islice(steps(values, mask, start(values, mask, LATENTS, 3.0)), 40)]
    assert (np.diff(likelihoods) > -1e-9).all()
    assert likelihoods[-1] > likelihoods[0] + 1
    whole = sum(by_hand(start(values, mask, LATENTS, 3.0), values[row], mask[row])[1] for row in range(WINDOWS))
    assert likelihoods[0] == pytest.approx(whole, rel=1e-10)


def test_a_timescale_is_the_most_likely_one_and_never_made_worse() -> None:
    """Of second moments that are those of the prior itself; the search for it is rough."""
    moments = 50 * covariance(7.3, 30)
    assert _timescale(moments, 50, 2.0) == pytest.approx(7.3, rel=0.02)
    assert _timescale(moments, 50, 7.3) == 7.3


def test_the_truth_is_recovered() -> None:
    rng = np.random.default_rng(3)
    true = Parameters(rng.standard_normal((10, 2)), np.ones(10), np.full(10, 0.5), np.array([2.0, 8.0]))
    values, latents = sample(true, 60, 40)
    mask = np.ones(values.shape, bool)
    *_, (fitted, likelihood) = islice(steps(values, mask, start(values, mask, 2, 5.0)), 60)
    assert likelihood > Posterior(true, values, mask[0]).log_likelihood  # it was fitted to these windows
    np.testing.assert_allclose(np.sort(fitted.timescales), [2.0, 8.0], rtol=0.2)
    np.testing.assert_allclose(fitted.noise, 0.5, atol=0.1)
    angles = np.linalg.svd(np.linalg.qr(fitted.loadings)[0].T @ np.linalg.qr(true.loadings)[0])[1]
    assert angles.min() > 0.99
    found = Posterior(fitted, values, mask[0]).mean.transpose(0, 2, 1).reshape(-1, 2)
    inputs, targets = np.c_[found, np.ones(len(found))], latents.reshape(-1, 2)
    rest = targets - inputs @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    assert 1 - rest.var() / targets.var() > 0.8


def test_windows_are_cut_into_parts_that_hold_all_bins() -> None:
    values = np.arange(2 * 11 * 3, dtype=float).reshape(2, 11, 3)
    mask = np.ones(values.shape, bool)
    parts, seen = _cut(values, mask, 4)
    assert parts.shape == (6, 4, 3) and seen.sum() == mask.sum()
    np.testing.assert_array_equal(parts.reshape(2, 12, 3)[:, :11], values)
    np.testing.assert_array_equal(_cut(values, mask, 11)[0], values)


def test_steps_end_when_they_raise_little_and_latents_are_fewer_than_units(tmp_path: Path, monkeypatch) -> None:
    taken = []

    def counted(*arguments):
        for step in steps(*arguments):
            taken.append(step)
            yield step

    monkeypatch.setattr("pipeline_lib.models.gpfa.model.steps", counted)
    data = open_cohort(*write_cohort(tmp_path, made=[recording(units=5, trials=30)]), fitting=True)
    for tolerance, least, most in ((0.5, 2, 5), (1e-9, 25, 25)):
        model = Gpfa(Config(latents=(9,), ridge=(10.0,), iterations=25, tolerance=tolerance), 0)
        model.fit(data, Run(tmp_path / f"run{tolerance}"))
        assert least <= len(taken) <= most
        assert model.parameters["small0"].loadings.shape == (5, 4)
        taken.clear()


def test_training_windows_in_which_nobody_was_observed_change_nothing(tmp_path: Path) -> None:
    """Latents are 0 there: they say nothing of how far those of the others spread."""
    made = recording(trials=30)
    starts = made.trials["start"].to_numpy()[1::2]
    spans = np.concatenate([[0.0], np.stack([starts - 0.2, starts + 1.2], axis=1).ravel(), [made.duration]])
    each = pd.DataFrame({"start": spans[::2], "stop": spans[1::2]})
    made.unit_intervals = pd.concat([each.assign(unit=unit) for unit in range(len(made.units))], ignore_index=True)
    data = open_cohort(*write_cohort(tmp_path, made=[made]), fitting=True)
    seen = data.split.samples["trial"] % 2 == 0
    without = replace(data, split=replace(data.split, samples=data.split.samples[seen]))
    assert 0 < len(without.samples("small0", "train")) < len(data.samples("small0", "train"))
    fits = [Gpfa(Config(latents=(2,), ridge=(100.0,), iterations=5), 0) for _ in range(2)]
    for model, each in zip(fits, (data, without), strict=True):
        model.fit(each, Run(tmp_path / "run"))
    for one, other in zip(*(model.state().values() for model in fits), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_readout_is_poisson_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3000, 4))
    counts = rng.poisson(np.exp(inputs @ [0.5, -1.0, 0.2, 0.0] - 2))
    solution = fit_readout(inputs, counts, 7.0, tolerance=1e-14)
    other = linear_model.PoissonRegressor(alpha=7.0 / 3000, tol=1e-12, max_iter=5000).fit(inputs, counts)
    np.testing.assert_allclose(solution, np.append(other.coef_, other.intercept_), atol=1e-5)
    far = fit_readout(inputs, counts, 7.0, start=np.full(5, 3.0), tolerance=1e-14)
    np.testing.assert_allclose(far, solution, atol=1e-6)
    low = np.array([0.0, 0.0, 0.0, 0.0, -20.0])  # from here a whole step overflows
    np.testing.assert_allclose(fit_readout(inputs, counts, 7.0, start=low, tolerance=1e-14), solution, atol=1e-6)
    assert low.tolist() == [0, 0, 0, 0, -20]
    silent = fit_readout(inputs, np.zeros(3000), 7.0)
    assert not silent[:-1].any() and silent[-1] == pytest.approx(np.log(0.5 / 3000))


def test_readouts_are_regressions_on_latents_of_spread_one_in_bins_of_their_own(tmp_path: Path) -> None:
    data = open_cohort(*write_cohort(tmp_path, made=[recording(units=6, trials=20)]), fitting=True)
    model = Gpfa(Config(latents=(2,), ridge=(30.0,), iterations=3), 0)
    model.fit(data, Run(tmp_path / "run"))
    train, readouts = data.samples("small0", "train"), model.readouts["small0"]
    latents, ahead = _Latents(data, "small0", train, model.parameters["small0"]), data.ahead("small0", train)
    counts, mask = data.targets("small0", train)
    assert mask.all() and ahead.any() and len(readouts.weights) == 2
    spread = latents.whole.std(axis=(0, 1))
    for zone, bins in enumerate((~ahead, ahead)):
        for unit in range(6):
            found = fit_readout(latents.of(unit)[bins] / spread, counts[bins][:, unit], 30.0)
            np.testing.assert_allclose(readouts.weights[zone, :, unit], found[:-1] / spread, rtol=1e-6)
            np.testing.assert_allclose(readouts.bias[zone, unit], found[-1], rtol=1e-6)


def test_masked_rates_see_what_their_name_allows(tmp_path: Path) -> None:
    made = recording(trials=30)
    made.units["population"] = region = np.array(["A", "B"])[np.arange(len(made.units)) % 2]
    cohort = write_cohort(tmp_path, made=[made])
    modes = ("leave_one_out", "intra_region", "inter_region")
    model = Gpfa(Config(latents=(2,), ridge=(10.0,), iterations=5, predict_masked=modes), 0)
    model.fit(open_cohort(*cohort, fitting=True), Run(tmp_path / "run"))
    data = open_cohort(*cohort)
    samples, heldin = data.samples("small0", "test"), data.heldin("small0")
    before = model.extras(data, "small0", samples)
    np.testing.assert_allclose(
        before["rates_leave_one_out"][:, :, heldin], model.predict(data, "small0", samples)[:, :, heldin], rtol=1e-5
    )
    keep = region[made.spike_units] != "B"
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    silenced = FitData({"small0": Trains.open(store(tmp_path / "silenced", made))}, data.split)
    after = model.extras(silenced, "small0", samples)
    own = {name: np.intersect1d(heldin, np.flatnonzero(region == name)) for name in "AB"}
    for mode, same, other in (("intra_region", "A", "B"), ("inter_region", "B", "A")):
        first, second = (given[f"rates_{mode}"] for given in (before, after))
        assert np.isnan(first[:, :, data.heldout("small0")]).all() and np.isfinite(first[:, :, heldin]).all()
        np.testing.assert_array_equal(first[:, :, own[same]], second[:, :, own[same]])
        assert np.abs(first[:, :, own[other]] - second[:, :, own[other]]).max() > 1e-3


def test_the_pair_is_taken_that_predicts_heldin_units_of_the_validation_part_best(tmp_path: Path) -> None:
    """Each pair fitted alone, and judged by its own predictions, of bins that are no forecast."""
    cohort = write_cohort(tmp_path)
    fitting, data = open_cohort(*cohort, fitting=True), open_cohort(*cohort)
    samples, history = data.samples("small0", "validation"), data.split.history_bins
    heldin, predicted, losses = data.heldin("small0"), {}, {}
    counts, mask = (values[:, history:, heldin] for values in data.read("small0", samples))
    for pair in ((latents, ridge) for latents in (1, 2, 6) for ridge in (30.0, 0.1, 3000.0)):
        alone = Gpfa(Config(latents=pair[:1], ridge=pair[1:], iterations=8), 0)
        alone.fit(fitting, Run(tmp_path / "alone"))
        predicted[pair] = alone.predict(data, "small0", samples)
        rates = predicted[pair][:, :, heldin].astype(float)
        losses[pair] = (rates - counts * np.log(rates))[mask].sum() / counts[mask].sum()
    best = min(losses, key=losses.get)
    assert best == (2, 0.1), "neither the first nor the last of either"
    together = Gpfa(Config(latents=(1, 2, 6), ridge=(30.0, 0.1, 3000.0), iterations=8), 0)
    run = Run(tmp_path / "together")
    together.fit(fitting, run)
    logged = {(row["latents"], row["ridge"]): row["validation_nll_per_spike"] for row in run.rows}
    assert logged == pytest.approx(losses, rel=1e-5)
    np.testing.assert_allclose(together.predict(data, "small0", samples), predicted[best], rtol=1e-3)


@pytest.mark.parametrize(
    "settings", [{"latents": ()}, {"latents": (0,)}, {"ridge": (0.0,)}, {"timescale": -1.0}, {"iterations": 0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Config(**settings)
