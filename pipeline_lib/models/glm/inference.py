"""How sure a fit is: standard errors, a test for every coupling, false-discovery control.

The information of unit j is I_j = X' diag(weight x curvature_j) X, summed over bins, and the covariance of its ridge
estimate the sandwich (I_j + R)^-1 I_j (I_j + R)^-1, R the penalty's share (White, 1982; without penalty it is the usual
inverse). A ridge shrinks estimates towards zero: where there is no coupling tests keep their level, elsewhere they lose
power. Tests therefore belong to a weak ridge, not to one chosen for prediction.

The mean of a count says its variance, but for a Gaussian, whose likelihood takes it for 1: there it is estimated.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import chdtrc
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.engine import Problem, Solution
from pipeline_lib.models.glm.observation import Gaussian, weighted_sum

UNITS_AT_ONCE = 16
"""Information matrices held together: the design matrix is made once for each such group of units."""
ROWS_BYTES = 64 << 20


@dataclass
class Inference:
    """What the data say about each coefficient and each coupling.

    `standard_errors` (units, columns) float64, of the coefficients as in `Solution` (NaN where nothing was fitted);
    `filter_errors` (senders, units, lags) of the filters; `wald` (senders, units) the statistic of "no coupling",
    chi-squared with a degree of freedom a fitted basis function; `p` its p-value. NaN where not fitted.
    """

    standard_errors: np.ndarray
    filter_errors: np.ndarray
    wald: np.ndarray
    p: np.ndarray


def infer(problem: Problem, solution: Solution, strength: float | Tensor) -> Inference:
    """Standard errors and Wald tests of a fit at its `strength`; costs bins x columns^2 x units operations."""
    design = problem.design
    strengths = torch.as_tensor(strength, dtype=torch.float64, device=design.device).expand(design.n_receivers)
    pairs = (design.n_senders, design.n_receivers)
    errors = np.full((design.n_receivers, design.columns), np.nan)
    filter_errors, wald = np.full((*pairs, design.history), np.nan), np.full(pairs, np.nan)
    fitted = (problem.allowed & problem.fitted[:, None]).cpu().numpy()[:, design.n_features :]
    freedom = fitted.reshape(pairs[1], pairs[0], design.n_basis).sum(axis=2).T
    variance = _variance(problem, solution)
    for units in torch.arange(design.n_receivers, device=design.device).split(UNITS_AT_ONCE):
        information = _information(problem, solution.coefficients, units)
        for row, unit in enumerate(units.tolist()):
            if problem.fitted[unit]:
                kept = torch.nn.functional.pad(problem.allowed[unit], (1, 0), value=True)
                penalty = problem.total[unit] * strengths[unit] * problem.scale
                covariance = variance[unit] * _sandwich(information[row], kept, penalty)
                errors[unit] = covariance.diagonal().sqrt().cpu().numpy()
                blocks = _blocks(covariance, 1 + design.n_features, design.n_basis)
                kernel = torch.as_tensor(design.data.kernel, device=design.device)
                of_filters = torch.einsum("kb,sbc,kc->sk", kernel, blocks, kernel).clamp(min=0.0)
                filter_errors[:, unit] = of_filters.sqrt().cpu().numpy()
                wald[:, unit] = _wald(solution.coefficients[unit, 1 + design.n_features :], blocks)
    filter_errors[freedom == 0] = wald[freedom == 0] = np.nan
    return Inference(errors, filter_errors, wald, chdtrc(np.maximum(freedom, 1), wald))


def likelihood_ratio(
    problem: Problem, solution: Solution, tolerance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Likelihood-ratio statistics and p-values (senders, units): each sender is left out in turn, all units refitted.

    Without a ridge (the statistic is chi-squared only then); one warm-started fit a sender. NaN where not allowed.

    >>> from pipeline_lib.models.glm.data import Data
    >>> from pipeline_lib.models.glm.engine import fit
    >>> from pipeline_lib.models.glm.observation import PoissonExp
    >>> counts = np.random.default_rng(0).poisson(0.5, (2000, 2))
    >>> counts[1:, 1] += counts[:-1, 0]  # a spike of unit 0 makes unit 1 fire in the next bin
    >>> units = np.arange(2)
    >>> solution, problem = fit(Data(counts, np.array([[2, 2000]]), np.eye(2), units, units), PoissonExp(), 0.0)
    >>> (likelihood_ratio(problem, solution)[1] < 0.001).tolist()  # [sender][receiver]
    [[False, True], [False, False]]
    """
    design, basis = problem.design, problem.design.n_basis
    statistic = np.full((design.n_senders, design.n_receivers), np.nan)
    freedom = np.ones(statistic.shape)
    full = (solution.loss * problem.total).cpu().numpy()
    variance = _variance(problem, solution).cpu().numpy()
    for sender in range(design.n_senders):
        start = design.n_features + sender * basis
        allowed = problem.allowed.clone()
        tested = (allowed[:, start : start + basis].any(1) & problem.fitted).cpu().numpy()
        freedom[sender] = np.maximum(allowed[:, start : start + basis].sum(1).cpu().numpy(), 1)
        allowed[:, start : start + basis] = False
        reduced = problem.restricted(allowed)
        without = reduced.solve(0.0, reduced.start(point=solution.coefficients), tolerance)
        lost = 2 * ((without.loss * problem.total).cpu().numpy() - full) / variance
        statistic[sender, tested] = np.maximum(lost, 0.0)[tested]
    return statistic, chdtrc(freedom, statistic)


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Benjamini & Hochberg (1995) adjusted p-values, of the shape of `p`; NaN stay NaN and do not count as tests.

    >>> false_discovery_rate(np.array([0.01, 0.04, 0.5, np.nan])).round(3).tolist()
    [0.03, 0.06, 0.5, nan]
    """
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    values = p[tested]
    order = np.argsort(values)
    ratios = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.minimum.accumulate(ratios[::-1])[::-1], 1.0)
    q[tested] = adjusted
    return q


def coupling_table(
    filters: np.ndarray,
    bin_size: float,
    units: pd.DataFrame,
    p: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> pd.DataFrame:
    """A row a fitted coupling, a unit's own history left out.

    Parameters
    ----------
    filters : (sender, receiver, lag), NaN where not fitted; lag k is k + 1 bins.
    bin_size : ms.
    units : the session's table (`unit_id`, `region`).
    p : (sender, receiver) of a test, where there is one; NaN for what is no part of the family of tests.
    allowed : (sender, receiver) bool, which couplings were fitted and not fixed at zero; None: all.

    Returns
    -------
    sender, receiver (unit_id), sender_region, receiver_region, allowed, strength (sum over lags, log rate per spike),
    peak (value of largest size), peak_lag (ms), p,
    q (the smallest false-discovery rate at which a coupling would count as found).

    Raises
    ------
    InputError : `filters` are of another number of units than `units`.
    """
    if filters.shape[:2] != (len(units), len(units)):
        raise InputError("coupling table", "filters", f"shape {filters.shape}", f"({len(units)}, {len(units)}, lags)")
    fitted = np.isfinite(filters).all(2) & ~np.eye(len(units), dtype=bool)
    sender, receiver = np.nonzero(fitted)
    values = filters[sender, receiver]
    lag = np.abs(values).argmax(1)
    ids, regions = units["unit_id"].to_numpy(), units["region"].to_numpy()
    table = {
        "sender": ids[sender],
        "receiver": ids[receiver],
        "sender_region": regions[sender],
        "receiver_region": regions[receiver],
        "allowed": True if allowed is None else allowed[sender, receiver],
        "strength": values.sum(1),
        "peak": values[np.arange(len(lag)), lag],
        "peak_lag": (lag + 1) * bin_size,
    }
    p = np.full(fitted.shape, np.nan) if p is None else p
    return pd.DataFrame(table | {"p": p[sender, receiver], "q": false_discovery_rate(p)[sender, receiver]})


def _variance(problem: Problem, solution: Solution) -> Tensor:
    """Of the counts around a Gaussian fit, by the bins that its coefficients leave over; else 1 (units,)."""
    if not isinstance(problem.observation, Gaussian):
        return torch.ones_like(problem.total)
    squares = problem.design.evaluate(
        solution.coefficients, lambda eta, counts, weights: weighted_sum((counts - eta) ** 2, weights)
    )
    left = problem.total - 1 - problem.allowed.sum(1)
    return (squares.to(problem.total) / left.clamp(min=1.0)).clamp(min=1e-12)


def _information(problem: Problem, coefficients: Tensor, units: Tensor) -> Tensor:
    """Information matrices (units, columns, columns), float64, of all scored bins."""
    design = problem.design
    shape = (len(units), design.columns, design.columns)
    total = torch.zeros(shape, dtype=torch.float64, device=design.device)
    step = max(1, ROWS_BYTES // (design.blocks.scored * design.columns * design.dtype.itemsize))
    for first in range(0, len(design.blocks), step):
        last = min(first + step, len(design.blocks))
        matrix = design.matrix(first, last)
        eta = matrix @ coefficients[units].T.to(design.dtype)
        offset, weights = design.offset(first, last, units), design.weights(first, last, units)
        if offset is not None:
            eta += offset.transpose(1, 2)
        weight = problem.observation.of(units).curvature(eta.transpose(1, 2)).transpose(1, 2)
        if weights is not None:
            weight = torch.where(weights.transpose(1, 2) > 0, weight * weights.transpose(1, 2), 0.0)
        rows = matrix.reshape(-1, design.columns)
        for row, root in enumerate(weight.sqrt().reshape(-1, len(units)).T):
            weighted = rows * root[:, None]
            total[row] += (weighted.T @ weighted).to(torch.float64)
    return total


def _sandwich(information: Tensor, kept: Tensor, penalty: Tensor) -> Tensor:
    """Covariance of the coefficients, NaN where not `kept`; 0 in directions without information (pseudo-inverse)."""
    index = kept.nonzero()
    inner = information[index, index[:, 0]]
    ridge = torch.nn.functional.pad(penalty, (1, 0))[kept]
    values, vectors = torch.linalg.eigh(inner + torch.diag(ridge))
    inverse = torch.where(values > values.max() * 1e-12, 1.0 / values, 0.0)
    bread = (vectors * inverse) @ vectors.T
    covariance = torch.full_like(information, torch.nan)
    covariance[index, index[:, 0]] = bread @ inner @ bread
    return covariance


def _blocks(covariance: Tensor, first: int, basis: int) -> Tensor:
    """Covariance of every sender's weights (senders, basis, basis), 0 where they were not fitted."""
    parts = torch.arange(first, len(covariance), device=covariance.device).reshape(-1, basis)
    return covariance[parts[:, :, None], parts[:, None, :]].nan_to_num(nan=0.0)


def _wald(weights: Tensor, blocks: Tensor) -> np.ndarray:
    """Statistic of every sender's weights being zero (senders,)."""
    weights = weights.reshape(len(blocks), -1)
    inverses = torch.linalg.pinv(blocks, hermitian=True)
    return torch.einsum("sb,sbc,sc->s", weights, inverses, weights).cpu().numpy()
