"""Paired comparison over sessions, against SciPy and against what must hold."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from pipeline_lib.figures.paired import bootstrap_interval, by_session, holm, sign_flip_p


def test_p_is_that_of_scipys_permutation_of_pairs() -> None:
    differences = np.random.default_rng(4).normal(0.3, 0.5, 9)
    theirs = permutation_test(
        (differences, np.zeros(9)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue)
    many = np.random.default_rng(5).normal(0.15, 0.5, 40)
    z = permutation_test(
        (many, np.zeros(40)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=99_999,
        vectorized=True,
        rng=0,
    )
    assert sign_flip_p(many) == pytest.approx(z.pvalue, abs=0.01)


def test_few_sessions_never_show_much() -> None:
    for n in range(1, 8):
        assert sign_flip_p(np.linspace(1, 2, n)) == pytest.approx(2 / 2**n)
    assert sign_flip_p(np.zeros(5)) == 1.0 and np.isnan(sign_flip_p(np.array([])))
    assert np.isnan(bootstrap_interval(np.ones(4))[0])


def test_p_of_no_difference_is_uniform() -> None:
    rng = np.random.default_rng(0)
    p = np.array([sign_flip_p(rng.standard_normal(8)) for _ in range(300)])
    assert 0.02 < np.mean(p < 0.05) < 0.09 and 0.4 < p.mean() < 0.6


@pytest.mark.parametrize("sessions", [6, 40])
def test_interval_holds_the_mean_as_often_as_it_says(sessions: int) -> None:
    rng = np.random.default_rng(1)
    found = [bootstrap_interval(rng.normal(0.2, 1, sessions)) for _ in range(300)]
    assert 0.91 < np.mean([low < 0.2 < high for low, high in found]) < 0.985


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    p = np.array([0.004, 0.03, 0.031, 0.011])  # times 2 and times 1: the order must not turn

    def closed(k: int) -> float:
        others = [j for j in range(4) if j != k]
        subsets = [(k, *rest) for size in range(4) for rest in itertools.combinations(others, size)]
        return max(min(1.0, len(subset) * p[list(subset)].min()) for subset in subsets)

    assert np.allclose(holm(p), [closed(k) for k in range(4)])
    with_missing = holm([0.01, np.nan, 0.04])
    assert with_missing[0] == pytest.approx(0.02) and np.isnan(with_missing[1])


def test_p_is_never_nothing() -> None:
    assert sign_flip_p(np.ones(40)) == pytest.approx(1e-4), "the signs that were found count, too"


def test_each_session_counts_by_its_own_fullest_cohorts() -> None:
    rows = pd.MultiIndex.from_tuples(
        [("a", "a"), ("a", "easy"), ("b", "b"), ("b", "easy")], names=["session", "cohort"]
    )
    glm, psth, ndt = [0.1, 0.5, 0.2, 0.8], [0.1, np.nan, 0.3, np.nan], [0.4, np.nan, np.nan, np.nan]
    found = by_session(pd.DataFrame({"glm": glm, "psth": psth, "ndt": ndt}, rows))
    assert found["glm"].tolist() == [0.1, 0.2] and found["psth"].tolist() == [0.1, 0.3]
    assert found.loc["a", "ndt"] == 0.4 and np.isnan(found.loc["b", "ndt"])


def test_averages_have_no_say_in_which_cohorts_of_a_session_count() -> None:
    """Of two cohorts that two models share, one has an average more."""
    rows = pd.MultiIndex.from_tuples([("a", "one"), ("a", "other")], names=["session", "cohort"])
    scores = pd.DataFrame({"glm": [0.1, 0.5], "ndt": [0.2, np.nan], "psth": [np.nan, 0.4]}, rows)
    found = by_session(scores.assign(**{"ndt:mean": [0.3, np.nan]}))
    assert found["glm"].item() == by_session(scores)["glm"].item() == pytest.approx(0.3)
    assert found["ndt:mean"].item() == pytest.approx(0.3)
