"""Poisson regression with a ridge penalty, for many targets that share their inputs, all at once.

Each target has its own convex problem; what is shared is the Gram matrix of the inputs. It is decomposed once and
preconditions every target's descent (after the quadratic approximation of Zoltowski & Pillow 2018, here used only to
choose directions, so that the optimum is exact), which then takes some ten passes over the data instead of hundreds.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline_lib.models.mean_rate import mean_rates

ROWS = 8192
"""Rows of a block: its log-rates stay in the processor's cache."""
MEMORY = 8
"""Pairs of steps that L-BFGS remembers."""
MOST_PASSES = 200
"""Passes over the data after which a fit stops anyway."""


@dataclass
class Problem:
    """Inputs and targets of a fit.

    `inputs` float32 [R, H]; `counts` unsigned [R, N], 0 where not observed; `observed` bool [R, N] or None where all
    are; `own` int64 [N]: the input that is the target itself and may not predict it, or -1.
    """

    inputs: np.ndarray
    counts: np.ndarray
    observed: np.ndarray | None
    own: np.ndarray

    def __post_init__(self) -> None:
        self.spikes = self.counts.sum(axis=0, dtype=np.float64)
        if self.observed is None:
            self.bins = np.full(self.counts.shape[1], float(len(self.counts)))
        else:
            self.bins = self.observed.sum(axis=0, dtype=np.float64)
        self.cross = np.zeros((self.inputs.shape[1], self.counts.shape[1]))
        gram = np.zeros((self.inputs.shape[1],) * 2)
        total = np.zeros(self.inputs.shape[1])
        for rows in self.blocks():
            block = self.inputs[rows]
            self.cross += block.T @ self.counts[rows].astype(np.float32)
            gram += block.T @ block
            total += block.sum(axis=0, dtype=np.float64)
        mean = total / len(self.inputs)
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(gram / len(self.inputs) - np.outer(mean, mean))

    def blocks(self) -> Iterator[slice]:
        """Slices over the rows."""
        return (slice(start, start + ROWS) for start in range(0, len(self.inputs), ROWS))


def fit_poisson_ridge(
    problem: Problem, ridge: float, start: np.ndarray | None = None, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of every target, exp(inputs @ weights + bias) being its expected count.

    Minimised for each target: sum over its observed rows of (rate - count * log rate) + ridge / 2 * |weights|^2. The
    bias is not penalised; it is solved for exactly at every step and leaves the problem. Preconditioned L-BFGS with a
    line search of its own for every target, so that no target's result depends on which others are fitted.

    Parameters
    ----------
    problem : see `Problem`.
    ridge : 1 / variance of a Gaussian prior on the weights, above 0.
    start : float64 [H, N] weights to start from.
    tolerance : a target is done when a step is expected to gain less than this, nats a spike.

    Returns
    -------
    weights float64 [H, N] (exactly 0 at `own`), bias float64 [N].
    """
    targets = np.arange(problem.counts.shape[1])
    weights = np.zeros((problem.inputs.shape[1], len(targets))) if start is None else start.copy()
    _exclude(weights, problem.own)
    bias = np.log(mean_rates(problem.spikes, problem.bins))
    active = targets[problem.spikes > 0]
    weights[:, problem.spikes == 0] = 0
    descent = _Descent(problem, ridge, active)
    value, gradient, bias[active] = _evaluate(problem, ridge, active, weights[:, active], bias[active])
    direction = descent.direction(gradient)
    size = np.ones(len(active))
    for _ in range(MOST_PASSES):
        slope = (gradient * direction).sum(axis=0)
        going = -slope > 2 * tolerance * problem.spikes[active]
        if not going.all():
            descent.keep(going)
            active, value, slope, size = active[going], value[going], slope[going], size[going]
            gradient, direction = gradient[:, going], direction[:, going]
        if len(active) == 0:
            break
        trial = weights[:, active] + size * direction
        new_value, new_gradient, new_bias = _evaluate(problem, ridge, active, trial, bias[active])
        # Float32 sums: below this a difference says nothing, and a step may be taken.
        noise = 1e-6 * problem.spikes[active]
        better = new_value <= value + 1e-4 * size * slope + noise
        taken = active[better]
        weights[:, taken], bias[taken] = trial[:, better], new_bias[better]
        descent.remember((size * direction), new_gradient - gradient, better)
        value = np.where(better, new_value, value)
        gradient = np.where(better, new_gradient, gradient)
        size = np.where(better, 1.0, size / 4)
        direction = np.where(better, descent.direction(gradient), direction)
    else:
        warnings.warn(f"{len(active)} of {len(targets)} targets not converged in {MOST_PASSES} passes", stacklevel=2)
    return weights, bias


def nll_per_spike(logs: np.ndarray, counts: np.ndarray, mask: np.ndarray) -> float:
    """Poisson negative log-likelihood (nats, without the factorials) a spike of log-rates, over the bins of `mask`."""
    nll = np.where(mask, np.exp(logs) - counts * logs, 0).sum(dtype=np.float64)
    return float(nll / max(int(counts.sum()), 1))


def log_rates(inputs: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """inputs [..., H] @ weights [H, N] + bias [N], float32."""
    return inputs @ weights.astype(np.float32) + bias.astype(np.float32)


def _evaluate(
    problem: Problem, ridge: float, active: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objective [A] and gradient [H, A] of the targets `active` at their best bias, and that bias [A].

    With the bias solved for, the sum of rates is the sum of spikes, and the objective is spikes * log(sum of
    exp(inputs @ weights)) - counts . (inputs @ weights) + penalty. `bias` only keeps the exponential in range.
    """
    narrow = weights.astype(np.float32)
    total = np.zeros(len(active))
    moment = np.zeros(weights.shape)
    for rows in problem.blocks():
        with np.errstate(over="ignore"):
            rate = np.exp(log_rates(problem.inputs[rows], narrow, bias))
        if problem.observed is not None:
            rate *= problem.observed[rows][:, active]
        total += rate.sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            moment += problem.inputs[rows].T @ rate
    spikes, cross = problem.spikes[active], problem.cross[:, active]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        best_bias = bias + np.log(spikes / total)
        value = -spikes * best_bias - (cross * weights).sum(axis=0) + 0.5 * ridge * (weights**2).sum(axis=0)
        gradient = moment * (spikes / total) - cross + ridge * weights
    lost = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=0))
    value[lost] = np.inf  # a step too far: the line search turns back
    _exclude(gradient, problem.own[active])
    return value, gradient, best_bias


def _exclude(arrays: np.ndarray, own: np.ndarray) -> None:
    """Set to 0, in place, the entry of each column [H, A] that belongs to the target itself."""
    columns = np.flatnonzero(own >= 0)
    arrays[own[columns], columns] = 0


class _Descent:
    """L-BFGS for several targets side by side, preconditioned by ridge + spikes * covariance of the inputs."""

    def __init__(self, problem: Problem, ridge: float, active: np.ndarray) -> None:
        self.basis = problem.eigenvectors
        self.curvature = np.maximum(problem.eigenvalues, 0)[:, None] * problem.spikes[active] + ridge
        self.own = problem.own[active]
        self.steps: list[np.ndarray] = []
        self.changes: list[np.ndarray] = []
        self.scales: list[np.ndarray] = []
        # The column of the inverse that belongs to the excluded input; taking it out keeps that weight at 0.
        columns = np.flatnonzero(self.own >= 0)
        self.pull = np.zeros_like(self.curvature)
        if len(columns):
            column = self.basis @ (self.basis[self.own[columns]].T / self.curvature[:, columns])
            self.pull[:, columns] = column / np.sqrt(column[self.own[columns], np.arange(len(columns))])

    def keep(self, going: np.ndarray) -> None:
        """Drop the targets that are done."""
        self.curvature, self.own, self.pull = self.curvature[:, going], self.own[going], self.pull[:, going]
        self.steps = [step[:, going] for step in self.steps]
        self.changes = [change[:, going] for change in self.changes]
        self.scales = [scale[going] for scale in self.scales]

    def remember(self, step: np.ndarray, change: np.ndarray, taken: np.ndarray) -> None:
        """Learn from a step [H, A] and the change of gradient along it, for the targets that took it."""
        product = (step * change).sum(axis=0)
        useful = taken & (product > 0)
        self.steps = [*self.steps, np.where(useful, step, 0)][-MEMORY:]
        self.changes = [*self.changes, np.where(useful, change, 0)][-MEMORY:]
        self.scales = [*self.scales, np.divide(1, product, out=np.zeros_like(product), where=useful)][-MEMORY:]

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        """Where to go from here: minus the approximate inverse Hessian times the gradient, [H, A]."""
        rest, factors = gradient.copy(), []
        for step, change, scale in zip(
            reversed(self.steps), reversed(self.changes), reversed(self.scales), strict=True
        ):
            factors.append(scale * (step * rest).sum(axis=0))
            rest -= factors[-1] * change
        result = self._precondition(rest)
        for step, change, scale in zip(self.steps, self.changes, self.scales, strict=True):
            result += step * (factors.pop() - scale * (change * result).sum(axis=0))
        _exclude(result, self.own)
        return -result

    def _precondition(self, vectors: np.ndarray) -> np.ndarray:
        result = self.basis @ ((self.basis.T @ vectors) / self.curvature)
        inside = np.take_along_axis(self.pull, np.maximum(self.own, 0)[None], axis=0)[0]
        own = np.take_along_axis(result, np.maximum(self.own, 0)[None], axis=0)[0]
        return result - self.pull * np.divide(own, inside, out=np.zeros_like(own), where=inside > 0)
