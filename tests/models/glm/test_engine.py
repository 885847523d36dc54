"""The engine against dense algebra: same objective, same minimum, whatever the blocks, masks and weights."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import PoissonRegressor
from torch.distributions import Bernoulli, NegativeBinomial, Normal, Poisson

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm import design as design_module
from pipeline_lib.models.glm.crossvalidation import log_likelihood
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.observation import OBSERVATIONS, PoissonExp, observation_model
from tests.models.glm.networks import Network, dense_design, newton

SEGMENTS = np.array([[30, 1500], [1600, 1640], [1700, 5000], [5100, 12_000]])
WHOLE = np.array([[30, 12_000]])
UNITS = np.arange(8)


def data_of(network: Network, segments: np.ndarray = WHOLE, **changes) -> Data:
    given = {"counts": network.counts, "segments": segments, "kernel": network.kernel}
    return Data(**given | {"senders": UNITS, "receivers": UNITS} | changes)


def features_of(network: Network) -> np.ndarray:
    time = np.arange(len(network.counts))
    return np.stack([np.sin(time / 200), np.cos(time / 90)], axis=1)


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("model", list(OBSERVATIONS))
def test_loss_and_gradient_are_those_of_the_dense_design(network, model, memory):
    random = np.random.default_rng(1)
    weights = random.choice([0.0, 1.0, 2.5], (len(network.counts), 5))
    offset = 0.1 * random.normal(size=weights.shape)
    data = data_of(
        network,
        SEGMENTS,
        senders=np.array([6, 1, 2]),
        receivers=np.array([0, 1, 2, 7, 4]),
        features=features_of(network),
        weights=weights,
        offset=offset,
    )
    observation = observation_model(*model, dispersion=1.0 if model[0] == "gaussian" else 0.7)
    columns = 1 + 2 + 3 * 5
    coefficients = torch.from_numpy(0.2 * random.normal(size=(5, columns))).requires_grad_()
    design, frames = dense_design(data)
    eta = torch.from_numpy(design) @ coefficients.T + torch.from_numpy(offset[frames])
    targets = torch.from_numpy(network.counts[frames][:, data.receivers])
    loss = -(observation.log_likelihood(eta, targets) * torch.from_numpy(weights[frames])).sum(0)
    loss.sum().backward()
    constant = observation.log_likelihood(eta, targets).detach()

    value, gradient = Design(data, torch.float64, memory=memory).pass_over(
        coefficients.detach(), torch.arange(5), observation.loss_
    )
    torch.testing.assert_close(gradient, coefficients.grad, rtol=1e-9, atol=1e-8)
    # The engine leaves out what depends on the counts alone: compare differences to another point.
    other = torch.zeros_like(coefficients)
    eta_other = torch.from_numpy(offset[frames])
    change = ((observation.log_likelihood(eta_other, targets) - constant) * torch.from_numpy(weights[frames])).sum(0)
    value_other, _ = Design(data, torch.float64).pass_over(other.detach(), torch.arange(5), observation.loss_)
    torch.testing.assert_close(value - value_other, change, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("senders", [np.array([6, 1, 2]), UNITS[:0]], ids=["coupled", "alone"])
def test_chunks_and_strips_change_nothing(network, monkeypatch, memory, senders):
    after = np.arange(len(network.counts)) > 6000
    features = np.concatenate([features_of(network), np.stack([np.ones(len(after)), after], axis=1)], axis=1)
    data = data_of(network, SEGMENTS, senders=senders, features=features, weights=network.counts[::-1] < 1)
    columns = 1 + 4 + 5 * len(senders)
    coefficients = torch.from_numpy(0.1 * np.random.default_rng(3).normal(size=(8, columns)))

    def results(design: Design) -> tuple[torch.Tensor, ...]:
        passed = design.pass_over(coefficients, torch.arange(8), PoissonExp().loss_)
        counts = design.count_products(lambda counts: counts)
        return *passed, design.predictors(coefficients), design.feature_sums(), counts, design.total_weight()

    whole = results(Design(data, torch.float64, memory=memory))
    monkeypatch.setattr(design_module, "FILTER_BYTES", dict.fromkeys(("fast", "low"), 1))  # short blocks
    monkeypatch.setattr(design_module, "STRIP_BYTES", {"cpu": 1})
    design = Design(data, torch.float64, memory=memory)
    three = 3 * design.n_frequencies * 8 * design.complex.itemsize
    monkeypatch.setattr(design_module, "CHUNK_BYTES", dict.fromkeys(("fast", "low"), three))
    assert len(list(design.chunks(8))) > 4 and len(list(design.strips(3, 6, 8))) == 3
    for ours, expected in zip(results(design), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-8)
    monkeypatch.setattr(design_module, "CHUNK_BYTES", dict.fromkeys(("fast", "low"), 1))
    assert design.unchanging("features").tolist() == [False, False, True, False]


@pytest.mark.parametrize("model", list(OBSERVATIONS))
def test_observation_models_are_the_textbooks_distributions(model):
    random = np.random.default_rng(0)
    eta = torch.from_numpy(random.normal(size=(40, 3))).requires_grad_()
    counts = torch.from_numpy(random.integers(0, 2 if model[0] == "bernoulli" else 5, (40, 3)))
    name, link = model
    observation = observation_model(*model, dispersion=0.7)
    links = {"exp": eta.exp(), "softplus": eta.exp().log1p(), "logistic": 1 / (1 + (-eta).exp()), "identity": eta}
    mean = links[link]
    torch.testing.assert_close(observation.mean(eta), mean)
    torch.testing.assert_close(observation.inverse_mean(mean), eta)
    textbook = {
        "poisson": lambda: Poisson(mean),
        "bernoulli": lambda: Bernoulli(mean),
        "gaussian": lambda: Normal(mean, 0.7**0.5),
        "negative_binomial": lambda: NegativeBinomial(1 / 0.7, probs=0.7 * mean / (1 + 0.7 * mean)),
    }[name]()
    torch.testing.assert_close(observation.log_likelihood(eta, counts), textbook.log_prob(counts.to(eta.dtype)))
    # Fisher information; of a Gaussian in units of its variance.
    slope = torch.autograd.grad(mean.sum(), eta)[0]
    expected = slope**2 / (1.0 if name == "gaussian" else textbook.variance)
    torch.testing.assert_close(observation.curvature(eta), expected)


def test_float32_pass_is_near_the_float64_pass(network):
    coefficients = torch.from_numpy(0.2 * np.random.default_rng(2).normal(size=(8, 41)))
    results = [
        Design(data_of(network), dtype).pass_over(coefficients, torch.arange(8), PoissonExp().loss_)
        for dtype in (torch.float32, torch.float64)
    ]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=0.05)


def test_predictors_stand_at_their_frames(network):
    data = data_of(network, SEGMENTS, features=features_of(network))
    coefficients = torch.from_numpy(np.random.default_rng(3).normal(size=(8, 43)))
    design, frames = dense_design(data)
    found = Design(data, torch.float64).predictors(coefficients).numpy()
    np.testing.assert_allclose(found[frames], design @ coefficients.numpy().T, atol=1e-10)
    assert (np.delete(found, frames, axis=0) == 0).all()


@pytest.mark.parametrize("strength", [1e-2, 1e-4, 0.0])
def test_minimum_is_newtons(network, strength):
    data = data_of(network, SEGMENTS, features=features_of(network))
    solution, _ = fit(data, PoissonExp(), strength, dtype=torch.float64)
    design, frames = dense_design(data)
    everything = np.ones(design.shape[1] - 1, dtype=bool)
    expected = [newton(design, network.counts[frames, unit], strength, everything) for unit in UNITS]
    assert solution.converged.all()
    np.testing.assert_allclose(solution.coefficients.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.0])
def test_a_share_of_the_penalty_falls_on_features(network, share):
    data, strength = data_of(network, SEGMENTS, features=features_of(network)), 1e-2
    scale = np.r_[share, share, np.ones(40)]
    solution = Problem(Design(data, torch.float64), PoissonExp(), scale=torch.from_numpy(scale)).solve(strength)
    design, frames = dense_design(data)
    everything = np.ones(42, dtype=bool)
    penalties = strength * np.r_[0, scale]
    expected = np.stack([newton(design, network.counts[frames, unit], penalties, everything) for unit in UNITS])
    found = solution.coefficients.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    eta = design @ found.T
    loss = (np.exp(eta) - network.counts[frames] * eta).mean(0)
    np.testing.assert_allclose(solution.loss, loss, rtol=1e-9)
    np.testing.assert_allclose(solution.objective, loss + 0.5 * found**2 @ penalties, rtol=1e-9)


def test_minimum_is_scikit_learns(network):
    strength = 1e-3
    data = data_of(network)
    solution, _ = fit(data, PoissonExp(), strength, dtype=torch.float64)
    design, frames = dense_design(data)
    for unit in UNITS[:3]:
        peer = PoissonRegressor(alpha=strength, solver="newton-cholesky", tol=1e-10, max_iter=100)
        peer.fit(design[:, 1:], network.counts[frames, unit])
        expected = np.r_[peer.intercept_, peer.coef_]
        np.testing.assert_allclose(solution.coefficients[unit].numpy(), expected, atol=1e-6)


def test_masked_couplings_are_exactly_zero_and_the_rest_is_optimal(network):
    allowed = np.repeat(np.random.default_rng(4).random((8, 8)) < 0.5, 5, axis=1)
    data = data_of(network)
    design, frames = dense_design(data)
    solution, _ = fit(data, PoissonExp(), 1e-3, allowed, dtype=torch.float64)
    found = solution.coefficients.numpy()
    assert (found[:, 1:][~allowed] == 0).all()
    expected = [newton(design, network.counts[frames, unit], 1e-3, allowed[unit]) for unit in UNITS]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_offset_and_weights_enter_as_they_should(network):
    random = np.random.default_rng(5)
    offset = np.tile(random.normal(size=(12_000, 1)) * 0.3, (1, 8))
    seen = np.tile(random.random((12_000, 1)) < 0.6, (1, 8))
    data = data_of(network, weights=seen, offset=offset)
    solution, _ = fit(data, PoissonExp(), 1e-3, dtype=torch.float64)
    design, frames = dense_design(data)
    rows = seen[frames, 0]
    everything = np.ones(40, dtype=bool)
    kept = frames[rows]
    expected = [newton(design[rows], network.counts[kept, unit], 1e-3, everything, offset[kept, 0]) for unit in UNITS]
    np.testing.assert_allclose(solution.coefficients.numpy(), expected, atol=1e-6)


def test_certificate_bounds_the_distance_to_the_minimum(network):
    exact, _ = fit(data_of(network), PoissonExp(), 1e-4, dtype=torch.float64)
    for tolerance in (1e-4, 1e-6, 1e-8):
        early, _ = fit(data_of(network), PoissonExp(), 1e-4, dtype=torch.float64, tolerance=tolerance)
        gap = early.objective - exact.objective
        assert early.converged.all() and early.sweeps < exact.sweeps
        assert (gap >= -1e-14).all() and (gap < 3 * early.decrement).all()


def test_one_units_fit_does_not_depend_on_which_others_are_fitted(network):
    # NeMoS issue 392: neither the other units' number nor their counts may move this one's fit.
    counts = np.concatenate([network.counts, 5 * network.counts[:, :1] + 1], axis=1)
    for dtype, difference, excess in ((torch.float64, 1e-6, 1e-13), (torch.float32, 1e-4, 5e-8)):
        together, _ = fit(data_of(network), PoissonExp(), 1e-4, dtype=dtype)
        alone, _ = fit(data_of(network, receivers=np.array([3])), PoissonExp(), 1e-4, dtype=dtype)
        beside, _ = fit(data_of(network, counts=counts, receivers=np.array([3, 8])), PoissonExp(), 1e-4, dtype=dtype)
        for other, row in ((together, 3), (beside, 0)):
            np.testing.assert_allclose(alone.coefficients[0], other.coefficients[row], atol=difference)
            assert abs(float(alone.objective[0] - other.objective[row])) < excess


def test_segments_are_never_crossed(network):
    changed = network.counts.copy()
    changed[1510:1565] += 3  # between segments, before the history of the next
    for segments in (SEGMENTS, SEGMENTS[::-1]):
        before = fit(data_of(network, segments), PoissonExp(), 1e-3)[0]
        after = fit(data_of(network, segments, counts=changed), PoissonExp(), 1e-3)[0]
        torch.testing.assert_close(before.coefficients, after.coefficients, rtol=0, atol=0)
    changed[1570:1600] += 3  # the history of the second segment
    after = fit(data_of(network, counts=changed, segments=SEGMENTS), PoissonExp(), 1e-3)[0]
    assert not torch.equal(before.coefficients, after.coefficients)


def test_a_bin_of_several_spikes_is_a_bin_with_one_to_a_bernoulli_unit(network):
    several = network.counts[:3000].copy()
    several[::7, 2] += 3
    once = several.copy()
    once[:, 2] = np.minimum(once[:, 2], 1)
    found = []
    for counts in (several, once):
        data = data_of(network, np.array([[30, 3000]]), counts=counts, senders=UNITS[:1], receivers=UNITS[2:3])
        solution, problem = fit(data, observation_model("bernoulli"), 1e-3)
        score = log_likelihood(problem.design, problem.observation, solution.coefficients)
        found.append((solution.coefficients, solution.loss, score))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_equal_trials_fit_like_the_dense_design(network):
    starts = np.arange(30, 11_800, 150)
    segments = np.stack([starts, starts + 110], axis=1)
    design = Design(data_of(network, segments))
    assert len(design.blocks) == len(segments) and design.blocks.size <= 150  # one block a trial
    solution, _ = fit(data_of(network, segments), PoissonExp(), 1e-3, dtype=torch.float64)
    matrix, frames = dense_design(data_of(network, segments))
    expected = newton(matrix, network.counts[frames, 2], 1e-3, np.ones(40, dtype=bool))
    np.testing.assert_allclose(solution.coefficients[2].numpy(), expected, atol=1e-6)


def test_shifting_time_changes_nothing(network):
    shifted = np.concatenate([np.full((77, 8), 9, dtype=np.uint8), network.counts])
    before = fit(data_of(network, SEGMENTS), PoissonExp(), 1e-3, dtype=torch.float64)[0]
    after = fit(data_of(network, SEGMENTS + 77, counts=shifted), PoissonExp(), 1e-3, dtype=torch.float64)[0]
    torch.testing.assert_close(before.coefficients, after.coefficients, rtol=0, atol=1e-9)


def test_renaming_units_renames_couplings(network):
    order = np.random.default_rng(6).permutation(8)
    before = fit(data_of(network), PoissonExp(), 1e-3, dtype=torch.float64)[0].coefficients
    after = fit(data_of(network, counts=network.counts[:, order]), PoissonExp(), 1e-3, dtype=torch.float64)[
        0
    ].coefficients
    expected = before[order].clone()
    expected[:, 1:] = before[order][:, 1:].reshape(8, 8, 5)[:, order].reshape(8, 40)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-7)


def test_too_many_columns_for_one_metric_still_give_the_minimum(network, monkeypatch):
    monkeypatch.setattr("pipeline_lib.models.glm.precondition.LARGEST_SHARED", 10)
    data = data_of(network, features=features_of(network))
    blockwise, problem = fit(data, PoissonExp(), 1e-3, dtype=torch.float64)
    assert problem.covariance.blockwise and blockwise.converged.all()
    design, frames = dense_design(data)
    expected = newton(design, network.counts[frames, 0], 1e-3, np.ones(42, dtype=bool))
    np.testing.assert_allclose(blockwise.coefficients[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("model", [key for key in OBSERVATIONS if key != ("poisson", "exp")])
def test_other_observation_models_reach_a_stationary_point(network, model):
    observation = observation_model(*model, dispersion=0.5)
    solution, problem = fit(data_of(network), observation, 1e-3, dtype=torch.float64)
    points = solution.coefficients.clone()
    points[:, 0] += points[:, 1:] @ problem.mean
    _, gradient = problem.objective(points, torch.arange(8), torch.full((8,), 1e-3, dtype=torch.float64))
    assert solution.converged.all() and gradient.abs().max() < 1e-6


def test_odd_units_get_finite_answers_and_spoil_nothing(network):
    odd = np.zeros((12_000, 3), dtype=np.uint8)
    odd[7000, 1] = 1  # a unit with one spike; unit 8 is silent
    odd[:, 2] = network.counts[:, 0]  # a copy
    counts = np.concatenate([network.counts, odd], axis=1)
    features = np.concatenate([features_of(network), np.full((12_000, 1), 4.0)], axis=1)
    everyone = np.arange(11)
    for strength in (1e-3, 0.0):
        data = data_of(network, counts=counts, senders=everyone, receivers=everyone, features=features)
        solution, problem = fit(data, PoissonExp(), strength)
        found = solution.coefficients
        assert torch.isfinite(found).all() and torch.isfinite(solution.objective).all()
        assert (found[8, 1:] == 0).all() and not problem.fitted[8]
        assert float(found[8, 0]) == pytest.approx(np.log(0.5 / (12_000 - 30)))
        assert float(solution.loss[8]) == pytest.approx(0.5 / (12_000 - 30))
        assert (found[:, 3] == 0).all(), "a constant feature"
        assert (found[:, 1 + 3 + 8 * 5 : 1 + 3 + 9 * 5] == 0).all(), "couplings from a silent unit"
        assert problem.covariance.rank_deficiency() == 5, "the copy is reported, and nothing else"


def test_a_copy_of_a_unit_shares_its_weight(network):
    counts = np.concatenate([network.counts, network.counts[:, :1]], axis=1)
    alone, _ = fit(data_of(network), PoissonExp(), 0.0, dtype=torch.float64)
    shared, _ = fit(data_of(network, counts=counts, senders=np.arange(9)), PoissonExp(), 0.0, dtype=torch.float64)
    assert shared.converged.all()
    torch.testing.assert_close(shared.objective, alone.objective, rtol=0, atol=1e-12)
    weights = shared.coefficients[:, 1:].reshape(8, 9, 5)
    torch.testing.assert_close(weights[:, 0], weights[:, 8], rtol=0, atol=1e-7)
    torch.testing.assert_close(weights[:, 0] + weights[:, 8], alone.coefficients[:, 1:6], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"segments": np.array([[29, 200]])}, "row 0"),
        ({"segments": np.array([[30, 30]])}, "row 0"),
        ({"segments": np.array([[30, 13_000]])}, "row 0"),
        ({"segments": np.empty((0, 2))}, "rows"),
        ({"segments": np.array([[30, 200], [199, 300]])}, "overlap"),
        ({"senders": np.array([8])}, "senders"),
        ({"features": np.full((12_000, 1), np.nan)}, "features, frame 30, column 0"),
        ({"features": np.ones((100, 1))}, "features"),
        ({"weights": np.full((12_000, 8), -1.0)}, "weights"),
    ],
)
def test_bad_data_is_named(network, changes, field):
    with pytest.raises(InputError) as error:
        data_of(network, **changes)
    assert error.value.field == field


def test_bad_settings_are_named(network):
    with pytest.raises(InputError, match="strength"):
        fit(data_of(network), PoissonExp(), -1.0)
    with pytest.raises(InputError, match="allowed"):
        fit(data_of(network), PoissonExp(), 1.0, np.ones((8, 3)))
    for arguments in (("poisson", "logistic"), ("possion",), ("poisson", "exp", 0.0)):
        with pytest.raises(InputError):
            observation_model(*arguments)


def test_a_problem_can_be_solved_again_without_new_passes_over_the_spectra(network):
    problem = Problem(Design(data_of(network), torch.float64), PoissonExp())
    strong = problem.solve(1e-1)
    warm = problem.solve(1e-2, problem.start(point=strong.coefficients))
    cold = problem.solve(1e-2)
    torch.testing.assert_close(warm.coefficients, cold.coefficients, rtol=0, atol=1e-6)
    again = problem.solve(1e-2, problem.start(point=cold.coefficients))
    assert again.sweeps == 1, "the minimum is where it began"
