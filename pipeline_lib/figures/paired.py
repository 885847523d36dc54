"""Are two models different over sessions? A paired test that assumes no distribution, and an interval."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline_lib.evaluation.bootstrap import interval
from pipeline_lib.evaluation.settings import AVERAGED

EXACT = 12
"""Up to this many sessions all signs are tried; beyond, `DRAWS` at random."""
DRAWS, RESAMPLES = 10_000, 4_000
LEAST_FOR_INTERVAL = 5
"""Sessions below which a bootstrap over them says nothing."""


def by_session(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores [session, model] of `scores` [(session, cohort), model], NaN where a model was not scored.

    A session in several cohorts counts once, by the mean over those in which most models were scored: models then
    stand on the same windows. A model that is in none of these stands on its own cohorts. Averages over seeds, where
    their model is, are not counted.

    >>> rows = pd.MultiIndex.from_tuples([("a", "a"), ("a", "easy")], names=["session", "cohort"])
    >>> by_session(pd.DataFrame({"glm": [0.1, 0.5], "psth": [0.1, np.nan]}, rows)).to_numpy().tolist()
    [[0.1, 0.1]]
    """
    models = scores.loc[:, ~scores.columns.str.endswith(AVERAGED)].notna().sum(axis="columns")
    fullest = scores[models == models.groupby("session").transform("max")]
    return fullest.groupby("session").mean().combine_first(scores.groupby("session").mean())


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p-value that the mean of paired `differences` (sessions,) is 0, by flipping their signs.

    If neither model is better, each session's difference might as well have had the other sign; p is the share of
    sign choices whose mean is at least as far from 0 as the one found (Fisher's randomisation test, 1935; Nichols and
    Holmes 2002). With n sessions it cannot be below 2 / 2^n: three sessions never give less than 0.25. NaN without any.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.15]))
    0.25
    """
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n == 0:
        return float("nan")
    if n <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(DRAWS - 1, n))
        signs = np.concatenate([np.ones((1, n)), drawn])  # the one found counts too: p is never 0
    means = np.abs(signs @ differences) / n
    return float(np.mean(means >= abs(differences.mean()) * (1 - 1e-12)))


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of `differences` (sessions,), sessions drawn anew; NaN for fewer than five.

    See `pipeline_lib.evaluation.bootstrap.interval`, which makes up for there being few.

    >>> low, high = bootstrap_interval(np.array([0.1, 0.12, 0.08, 0.11, 0.09]))
    >>> low < 0.1 < high
    True
    """
    n = len(differences)
    if n < LEAST_FOR_INTERVAL:
        return float("nan"), float("nan")
    means = differences[np.random.default_rng(0).integers(0, n, (RESAMPLES, n))].mean(axis=1)
    return interval(means, n)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values (tests,) corrected for their number by Holm's method (1979); NaN stays NaN and does not count.

    >>> [round(float(value), 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = [place for place in np.argsort(values, kind="stable") if np.isfinite(values[place])]
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[place]))
        corrected[place] = highest
    return corrected
