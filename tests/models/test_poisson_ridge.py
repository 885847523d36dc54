"""The Poisson regression of many targets: how few passes it takes, and what it may start from."""

import numpy as np
import pytest

from pipeline_lib.models import poisson_ridge
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge


def problem(mean: float = 0.0, observed: bool = False) -> Problem:
    """Inputs of very different variances, far from 0; a target that is an input itself, one silent, one of a spike."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((4000, 6)) @ (rng.standard_normal((6, 6)) * np.geomspace(0.05, 2, 6)) / 3
    counts = np.zeros((4000, 5), np.uint8)
    counts[:, :3] = rng.poisson(np.exp(spread @ rng.standard_normal((6, 3)) * 0.7 - 1))
    counts[7, 4] = 1
    seen = np.ones(counts.shape, dtype=bool) if observed else None
    return Problem((spread + mean).astype(np.float32), counts, seen, np.array([-1, 2, -1, -1, -1]))


@pytest.mark.parametrize("mean", [0.0, 2.0, 5.0])
def test_few_passes_are_enough_wherever_the_inputs_lie(mean: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain descent takes some fifty, and a covariance about 0 in the place of the mean some fifteen."""
    passes, evaluate = [], poisson_ridge._evaluate
    monkeypatch.setattr(poisson_ridge, "_evaluate", lambda *given: passes.append(given) or evaluate(*given))
    weights, _ = fit_poisson_ridge(problem(mean), 1.0)
    assert len(passes) <= 4
    passes.clear()
    again, _ = fit_poisson_ridge(problem(mean), 1.0, start=weights)
    assert len(passes) == 1
    np.testing.assert_array_equal(again, weights)


def test_what_it_starts_from_is_forgotten() -> None:
    """And left as it is; also where a weight may not be, and of a target that never fired."""
    given = np.full((6, 5), 0.3)
    first, second = (fit_poisson_ridge(problem(), 1.0, start, 1e-9) for start in (None, given))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    weights = second[0]
    assert weights[2, 1] == 0 and not weights[:, 3].any() and weights[:, 4].any()
    assert (given == 0.3).all()


def test_bins_that_are_all_observed_need_not_be_named() -> None:
    for one, other in zip(*(fit_poisson_ridge(problem(1.0, named), 1.0) for named in (False, True)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_of_any_size_give_the_same_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for how float32 sums are rounded, of which inputs that hardly vary show most."""
    whole = fit_poisson_ridge(problem(), 1.0, tolerance=1e-9)
    monkeypatch.setattr(poisson_ridge, "ROWS", 1111)
    for one, other in zip(whole, fit_poisson_ridge(problem(), 1.0, tolerance=1e-9), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_fit_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poisson_ridge, "MOST_PASSES", 1)
    with pytest.warns(UserWarning, match="4 of 5 targets not converged in 1 passes"):
        fit_poisson_ridge(problem(), 1.0)


@pytest.mark.parametrize(("seed", "most"), [(0, 18), (1, 36)])
def test_hard_targets_are_solved_too(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heavy tails and large weights, where steps go too far: at the end no weight that is free has a gradient."""
    rng, passes, evaluate = np.random.default_rng(seed), [], poisson_ridge._evaluate
    inputs = rng.standard_t(3, (2000, 6)) * np.geomspace(0.3, 3, 6)
    logs = np.clip(inputs @ rng.standard_normal((6, 4)) - 3, -20, 4)
    counts, own = rng.poisson(np.exp(logs)).astype(np.uint16), np.array([0, -1, 5, -1])
    monkeypatch.setattr(poisson_ridge, "_evaluate", lambda *given: passes.append(given) or evaluate(*given))
    weights, bias = fit_poisson_ridge(Problem(inputs.astype(np.float32), counts, None, own), 1.0)
    assert len(passes) <= most
    rates = np.exp(inputs @ weights + bias)
    np.testing.assert_allclose(rates.sum(axis=0), counts.sum(axis=0), rtol=1e-4)
    gradient = inputs.T @ (rates - counts) + weights
    assert weights[0, 0] == weights[5, 2] == 0 and np.abs(gradient[0, 0]) > 0.03 * counts[:, 0].sum()
    gradient[[0, 5], [0, 2]] = 0
    assert (np.abs(gradient).max(axis=0) < 0.02 * counts.sum(axis=0)).all()
