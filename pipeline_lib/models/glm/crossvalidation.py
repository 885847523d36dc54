"""Cross-validation over contiguous folds, which share spectra and metric: a fold is but another weighting."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem
from pipeline_lib.models.glm.observation import Observation, weighted_sum


@dataclass
class CrossValidated:
    """`strengths` (k,) from strong to weak; `scores` (k, units) mean log-likelihood of a held-out bin, nats."""

    strengths: np.ndarray
    scores: np.ndarray


def cross_validate(
    problem: Problem,
    strengths: np.ndarray,
    folds: int = 5,
    tolerance: float = 1e-6,
    max_sweeps: int = 200,
    after_fit: Callable[[], None] | None = None,
) -> CrossValidated:
    """Score `strengths` on stretches of time left out in turn, each fold down a warm-started path.

    The counts of a held-out stretch are still the history of the bins after it (inputs, never targets). `after_fit` is
    called after every fit.

    Raises
    ------
    InputError : fewer than two folds, more folds than bins, or no strength.
    """
    strengths = np.sort(np.asarray(strengths, dtype=np.float64))[::-1]
    design = problem.design
    if not 2 <= folds <= design.frames:
        raise InputError("cross-validation", "folds", folds, f"2 to {design.frames}, the number of bins")
    if len(strengths) == 0:
        raise InputError("cross-validation", "strengths", "none", "at least one")
    scores = torch.zeros(len(strengths), design.n_receivers, dtype=torch.float64)
    weight = torch.zeros(design.n_receivers, dtype=torch.float64)
    for fold in range(folds):
        heldout = fold_of_bins(problem, folds) == fold
        training, testing = problem.reweighted(~heldout), design.reweighted(heldout)
        coefficients = None
        for row, strength in enumerate(strengths):
            start = training.start(point=coefficients)
            coefficients = training.solve(float(strength), start, tolerance, max_sweeps).coefficients
            scores[row] += log_likelihood(testing, problem.observation, coefficients)
            if after_fit is not None:
                after_fit()
        weight += testing.total_weight().cpu()
    return CrossValidated(strengths, (scores / weight.clamp(min=1e-12)).numpy())


def fold_of_bins(problem: Problem, folds: int) -> Tensor:
    """Number of the fold of every bin of every block (blocks, 1, bins); -1 where none is scored."""
    design = problem.design
    scored = design.scored()
    place = scored.flatten().cumsum(0).reshape(scored.shape) - 1
    return torch.where(scored, place * folds // design.frames, -1)[:, None]


def log_likelihood(design: Design, observation: Observation, coefficients: Tensor) -> Tensor:
    """Weighted log-likelihood of each unit (units,), nats, float64."""
    return design.evaluate(
        coefficients, lambda eta, counts, weights: weighted_sum(observation.log_likelihood(eta, counts), weights)
    )
