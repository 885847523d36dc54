"""Cross-validation gives what fits to the remaining bins alone would give, and finds a sensible strength."""

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.crossvalidation import cross_validate, fold_of_bins
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, fit
from pipeline_lib.models.glm.observation import PoissonExp
from pipeline_lib.models.glm.path import Path, default_strengths
from pipeline_lib.models.glm.penalties import Penalty
from tests.models.glm.networks import dense_design

SEGMENTS = np.array([[30, 4_000], [4_100, 9_000]])


def data_of(network, **changes) -> Data:
    units = np.arange(8)
    given = {"counts": network.counts, "segments": SEGMENTS, "kernel": network.kernel}
    return Data(**given | {"senders": units, "receivers": units} | changes)


def test_folds_are_contiguous_and_equal(network):
    problem = Problem(Design(data_of(network)), PoissonExp())
    folds = fold_of_bins(problem, 4)
    scored = folds[folds >= 0].numpy()
    assert (np.diff(scored) >= 0).all() and np.ptp(np.bincount(scored)) <= 1
    assert len(scored) == problem.design.frames


def test_a_part_of_a_design_weighs_as_many_bins_as_it_has(network):
    """Also where every bin of the whole counts once; a part of a part is in both."""
    design = Design(data_of(network))
    first = torch.rand(len(design.blocks), 1, design.blocks.scored) < 0.5
    second = torch.rand(first.shape) < 0.5
    assert design.plain and not design.reweighted(first).plain
    part = design.reweighted(first)
    assert (part.total_weight() == (first[:, 0] & design.scored()).sum()).all()
    whole = np.arange(30, 12_000 - 120, 120)[:, None] + [0, 120]  # blocks are full, so that no bin has a weight
    offset = Design(data_of(network, segments=whole, offset=np.zeros((12_000, 8))))
    assert not offset.plain and offset.weights(0, len(whole), torch.arange(8)) is None
    assert (offset.total_weight() == 120 * len(whole)).all()
    assert (part.reweighted(second).total_weight() == ((first & second)[:, 0] & design.scored()).sum()).all()


def test_scores_are_those_of_separate_fits(network):
    seen = np.random.default_rng(0).random((12_000, 8)) < 0.9
    data = data_of(network, weights=seen)
    problem = Problem(Design(data, torch.float64), PoissonExp())
    found = cross_validate(problem, np.array([1e-3, 1e-1]), folds=3, tolerance=1e-13)
    design, frames = dense_design(data)
    fold = np.arange(len(frames)) * 3 // len(frames)
    expected, weight = np.zeros((2, 8)), np.zeros(8)
    for number in range(3):
        training = np.zeros((12_000, 8), dtype=bool)
        training[frames[fold != number]] = seen[frames[fold != number]]
        rows = frames[fold == number]
        for row, strength in enumerate([1e-1, 1e-3]):
            solution, _ = fit(data_of(network, weights=training), PoissonExp(), strength, dtype=torch.float64)
            eta = torch.from_numpy(design[fold == number] @ solution.coefficients.numpy().T)
            likelihood = PoissonExp().log_likelihood(eta, torch.from_numpy(network.counts[rows])).numpy()
            expected[row] += (likelihood * seen[rows]).sum(0)
        weight += seen[rows].sum(0)
    np.testing.assert_allclose(found.strengths, [1e-1, 1e-3])
    np.testing.assert_allclose(found.scores, expected / weight, atol=1e-8)


def test_the_best_strength_is_neither_end_of_a_wide_grid(network):
    problem = Problem(Design(data_of(network)), PoissonExp())
    found = cross_validate(problem, np.logspace(1, -7, 9), folds=3)
    assert 1e-7 < found.strengths[np.argmax(found.scores.mean(1))] < 1


def test_default_strengths_span_the_curvature_of_those_who_judge(network):
    judges, half_decades = np.array([0, 2, 5]), np.logspace(1, -4, 11)
    data = data_of(network)
    problem = Problem(Design(data), PoissonExp())
    rate = np.median(network.counts[dense_design(data)[1]].mean(0)[judges])
    expected = rate * dense_design(data)[0][:, 1:].var(0).mean() * half_decades
    np.testing.assert_allclose(default_strengths(problem, judges), expected, rtol=0.03)
    silenced = network.counts.copy()
    silenced[:, 5] = 0  # a unit that is not fitted has no rate to judge by
    quiet = Problem(Design(data_of(network, counts=silenced)), PoissonExp())
    np.testing.assert_array_equal(default_strengths(quiet, judges), default_strengths(quiet, judges[:2]))
    assert default_strengths(quiet, judges[2:]).tolist() == [1.0]
    sparse = Problem(Design(data), PoissonExp(), penalty=Penalty("lasso"))
    largest = sparse.largest_strength(torch.from_numpy(judges))
    np.testing.assert_allclose(default_strengths(sparse, judges), largest * np.logspace(0, -3, 7))


def test_a_path_ends_when_two_strengths_in_a_row_are_worse():
    path = Path(np.logspace(1, -4, 11))
    for scores, ended in (([], False), ([1.0, 0.5], False), ([1.0, 0.5, 0.7], True), ([1.0, 0.5, 1.1, 0.2], False)):
        path.scores = scores
        assert path.ended == ended and path.strength == path.strengths[len(scores)]
    path.scores, path.polishing = [float(score) for score in range(11)], True
    assert path.ended and path.strength == path.strengths[-1]


def test_mistakes_are_named(network):
    problem = Problem(Design(data_of(network)), PoissonExp())
    for arguments in ((np.array([1.0]), 1), (np.array([]), 3), (np.array([1.0]), 10**6)):
        with pytest.raises(InputError):
            cross_validate(problem, *arguments)
