"""Fitting many units' GLMs to the same inputs: the objective, its metric and the loop around the optimiser.

Objective of unit j, nats per bin, M_j the sum of its weights::

    (1 / M_j) sum_t weight_tj loss(eta_tj, count_tj) + strength_j sum_c scale_c penalty(w_cj)

The intercept is not penalised. The objective is convex for every observation model here.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.descent import CONVERGED, STATUS, Descent
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.observation import Canonical, Observation, weighted_sum
from pipeline_lib.models.glm.optimiser import SmoothDescent, sweep
from pipeline_lib.models.glm.penalties import Penalty, kink
from pipeline_lib.models.glm.precondition import Covariance, Preconditioner
from pipeline_lib.models.glm.sparse import SparseDescent, Surrogate, sparse_sweep

# Rounding error of a mean loss relative to its value, and the decrement that precision can certify.
NOISE = {torch.float32: 2e-7, torch.float64: 1e-14}
TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-15}
REMEMBERED = 8
"""Pairs of vectors in the curvature memory of a unit."""


@dataclass
class Solution:
    """What a fit found.

    `coefficients` (units, columns) float64, see `design`; `loss` (units,) mean loss in nats per bin without penalty;
    `objective` (units,) with it; `decrement` (units,) estimated distance of the objective from its minimum; `status`
    (units,) a key of `descent.STATUS`; `sweeps` passes over the data.
    """

    coefficients: Tensor
    loss: Tensor
    objective: Tensor
    decrement: Tensor
    status: Tensor
    sweeps: int

    @property
    def converged(self) -> Tensor:
        """Which units' decrement came below the tolerance (units,)."""
        return self.status == CONVERGED

    def describe(self) -> str:
        """One line: how many units ended how, and the largest decrement."""
        ends = {text: int((self.status == code).sum()) for code, text in STATUS.items()}
        counts = [f"{number} {text}" for text, number in ends.items() if number]
        largest = f"largest decrement {float(self.decrement.max()):.1e} nats/bin after {self.sweeps} passes"
        return f"{', '.join(counts)}; {largest}"


class Problem:
    """One data set, ready to be fitted with any strength: spectra, feature means and metric are made once.

    Parameters
    ----------
    design : passes over the data.
    observation : how counts depend on the linear predictor.
    allowed : (units, columns - 1) bool, the coefficients that may differ from zero (None: all).
    scale : (columns - 1,) relative penalty of each coefficient (None: all one).
    penalty : its shape (None: ridge).
    """

    def __init__(
        self,
        design: Design,
        observation: Observation,
        allowed: Tensor | None = None,
        scale: Tensor | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        self.design, self.observation = design, observation
        # Without a column there is nothing to select: the mean rate is what a ridge gives.
        self.penalty = penalty if penalty is not None and design.columns > 1 else Penalty()
        shape = (design.n_receivers, design.columns - 1)
        allowed = torch.ones(shape, dtype=torch.bool) if allowed is None else torch.as_tensor(allowed)
        scale = torch.ones(shape[1]) if scale is None else torch.as_tensor(scale)
        if tuple(allowed.shape) != shape or tuple(scale.shape) != shape[1:]:
            found = tuple(allowed.shape), tuple(scale.shape)
            raise InputError("glm", "allowed, scale", found, f"{shape}, {shape[1:]}")
        sums = design.feature_sums()
        self.mean = sums[1:] / sums[0].clamp(min=1.0)
        self._count()
        self.covariance = Covariance(design, self.mean, float(sums[0]))
        self.constant = self._constant_columns()
        self.allowed = allowed.to(design.device) & ~self.constant
        self.scale = scale.to(design.device, torch.float64).clamp(min=1e-9)
        self.kink = kink(self.penalty, self.scale, design.n_features, design.n_basis)
        self.metric = Preconditioner(self.covariance, self.allowed, self.scale)

    def reweighted(self, chosen: Tensor) -> "Problem":
        """The same problem with bins left out (`chosen`, see `Design.reweighted`); centre and metric are shared."""
        other = copy.copy(self)
        other.design = self.design.reweighted(chosen)
        other._count()
        return other

    def restricted(self, allowed: Tensor) -> "Problem":
        """The same problem with fewer coefficients; what does not depend on them is shared."""
        other = copy.copy(self)
        other.allowed = self.allowed & allowed.to(self.allowed.device)
        other.metric = Preconditioner(self.covariance, other.allowed, self.scale)
        return other

    def start(self, point: Tensor | None = None) -> Descent:
        """The optimiser before its first pass: no coupling and the mean rate, or from `point` (units, columns)."""
        if point is None:
            point = torch.zeros(self.design.n_receivers, self.design.columns, dtype=torch.float64)
            point[:, 0] = self.start_eta
        else:
            point = point.clone()
            point[:, 1:] *= self.allowed
            point[:, 0] += point[:, 1:] @ self.mean
        kind = SparseDescent if self.penalty.sparse else SmoothDescent
        state = kind.start(point.to(self.design.device), REMEMBERED)
        state.status[~self.fitted] = CONVERGED
        state.decrement[~self.fitted] = 0.0
        return state

    def solve(
        self,
        strength: float | Tensor,
        state: Descent | None = None,
        tolerance: float | None = None,
        max_sweeps: int = 200,
        after_sweep: Callable[[Descent], None] | None = None,
    ) -> Solution:
        """Minimise the objective of every unit at a `strength` (or one a unit); `state` continues an earlier descent.

        `after_sweep` is called with the state after every pass (progress, checkpoints).

        InputError for a negative strength.
        """
        design = self.design
        strengths = torch.as_tensor(strength, dtype=torch.float64, device=design.device).expand(design.n_receivers)
        if not bool((torch.isfinite(strengths) & (strengths >= 0)).all()):
            raise InputError("glm", "strength", strength, "zero or more")
        state = self.start() if state is None else state
        tolerance, noise = TOLERANCE[design.dtype] if tolerance is None else tolerance, NOISE[design.dtype]
        ridge = strengths * self.penalty.ridge_share
        model = self._surrogate(strengths) if self.penalty.sparse else None

        def evaluate(points: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
            return self.objective(points, units, ridge[units])

        def precondition(gradient: Tensor, units: Tensor) -> Tensor:
            return self.metric.apply(gradient, units, self.curvature[units], ridge[units])

        while len(state.running) and int(state.sweep) < max_sweeps:
            if isinstance(state, SparseDescent) and model is not None:
                sparse_sweep(state, evaluate, model, tolerance, noise)
            elif isinstance(state, SmoothDescent):
                sweep(state, evaluate, precondition, tolerance, noise)
            if after_sweep is not None:
                after_sweep(state)
        return self._solution(state, strengths)

    def largest_strength(self, units: Tensor) -> float:
        """The strength from which on a sparse penalty leaves these fitted units (rows) no coupling.

        It follows from the gradient of a fit without any.
        """
        without = self.restricted(self._without_couplings())
        without.penalty = Penalty("ridge")
        alone = without.solve(0.0, tolerance=1e-6, max_sweeps=20)
        point = self.start(alone.coefficients).point
        gradient = self.objective(point[units], units, torch.zeros_like(self.curvature[units]))[1]
        return self.kink.largest(gradient[:, 1:]) / max(self.penalty.sparse_share, 1e-12)

    def objective(self, points: Tensor, units: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, columns) of some units at `points` in centred coordinates."""
        weights, coefficients = points[:, 1:], self.natural(points)
        if isinstance(self.observation, Canonical):
            cumulant_, linear = self.observation.cumulant_, self.linear[units]
            if self.design.plain and not bool(weights.any()):
                value, gradient = self._constant(coefficients[:, 0])
            else:
                value, gradient = self.design.pass_over(
                    coefficients, units, lambda eta, counts, weights: cumulant_(eta, weights), targets=False
                )
            value, gradient = value - (coefficients * linear).sum(1), gradient - linear
        else:
            value, gradient = self.design.pass_over(coefficients, units, self.observation.of(units).loss_)
        total = self.total[units]
        value, gradient = value / total, gradient / total[:, None]
        gradient[:, 1:] -= gradient[:, :1] * self.mean
        penalty = strengths[:, None] * self.scale * weights
        gradient[:, 1:] = (gradient[:, 1:] + penalty) * self.allowed[units]
        return value + 0.5 * (penalty * weights).sum(1), gradient

    def natural(self, points: Tensor) -> Tensor:
        """Coefficients whose intercept belongs to the columns as they are, from points in centred coordinates."""
        coefficients = points.clone()
        coefficients[:, 0] -= points[:, 1:] @ self.mean
        return coefficients

    def _constant(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """What a pass would give where eta (units,) is all there is, as at the start: products of sums, no pass."""
        mean, frames = eta.clone()[None, :, None], self.design.frames
        assert isinstance(self.observation, Canonical)
        value = frames * self.observation.cumulant_(mean, None)
        return value, frames * mean[0] * functional.pad(self.mean, (1, 0), value=1.0)

    def _surrogate(self, strengths: Tensor) -> Surrogate:
        """The approximate Hessian that sparse sweeps work on."""
        ridge = strengths * self.penalty.ridge_share
        variance = self.covariance.largest()
        # A little more curvature than estimated: the estimate may miss some, and a step must not rely on it.
        extra = 1e-4 * variance

        def multiply(vectors: Tensor, units: Tensor) -> Tensor:
            weights, curvature = vectors[:, 1:] * self.allowed[units], self.curvature[units, None]
            product = curvature * (self.covariance.multiply(weights) + extra * weights)
            product += ridge[units, None] * self.scale * weights
            return torch.cat([curvature * vectors[:, :1], product], dim=1)

        largest = self.curvature * max(1.05 * variance + extra, 1.0) + ridge * float(self.scale.max())
        sparse = strengths * self.penalty.sparse_share
        return Surrogate(multiply, largest, self.kink, sparse, self.allowed)

    def _without_couplings(self) -> Tensor:
        allowed = self.allowed.clone()
        allowed[:, self.design.n_features :] = False
        return allowed

    def _solution(self, state: Descent, strengths: Tensor) -> Solution:
        weights = state.point[:, 1:]
        ridge = 0.5 * strengths * self.penalty.ridge_share * (self.scale * weights**2).sum(1)
        penalty = ridge + self.kink.value(weights, strengths * self.penalty.sparse_share)
        value = torch.where(self.fitted, state.value, self._floored())
        loss = torch.where(self.fitted, value - penalty, value)
        return Solution(self.natural(state.point), loss, value, state.decrement, state.status, int(state.sweep))

    def _floored(self) -> Tensor:
        """Loss of a silent unit at its floor, half a spike in all observed bins."""
        eta, zero = self.start_eta.to(torch.float64), torch.zeros(1, dtype=torch.float64, device=self.design.device)
        return self.observation.loss_(eta.clone()[None, :, None], zero, None)

    def _count(self) -> None:
        """What depends on which bins count: weights, spikes, products of columns and counts, where to start."""
        design, observation = self.design, self.observation
        observed = observation.observed
        self.total, self.most = design.total_weight(), 0
        if isinstance(observation, Canonical):
            self.linear = design.count_products(observed)
        self.spikes, units = torch.zeros_like(self.total), torch.arange(design.n_receivers, device=design.device)
        for first, last in design.chunks(design.n_receivers):
            counts, weights = design.targets(first, last, units), design.weights(first, last, units)
            self.spikes += weighted_sum(observed(counts), weights)
            self.most = max(self.most, int(counts.max()))
        # A unit that never fired has no finite best fit; it gets a floor instead (see `_floored`). One that was never
        # seen is expected to fire like the others: half a spike in a single bin would be a high rate.
        self.fitted = (self.spikes > 0) & (self.total > 0)
        usual = self.spikes.sum().clamp(min=0.5) / self.total.sum().clamp(min=1.0)
        mean = torch.where(self.fitted, self.spikes, 0.5) / self.total.clamp(min=1.0)
        mean = torch.where(self.total > 0, mean, usual)
        if observation.link == "logistic":
            mean = mean.clamp(max=1 - 0.5 / self.total.clamp(min=1.0))
        self.start_eta = observation.inverse_mean(mean)
        self.curvature = observation.curvature(self.start_eta[:, None])[:, 0]

    def _constant_columns(self) -> Tensor:
        """Columns that never change (senders always silent, constant features): they could only mimic the intercept."""
        design = self.design
        return torch.cat(
            [design.unchanging("features"), design.unchanging("senders").repeat_interleave(design.n_basis)]
        )


def fit(
    data: Data,
    observation: Observation,
    strength: float | Tensor = 0.0,
    allowed: np.ndarray | Tensor | None = None,
    penalty: Penalty | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    memory: str = "fast",
    tolerance: float | None = None,
    max_sweeps: int = 200,
) -> tuple[Solution, Problem]:
    """Fit all receivers of `data` at one strength of `penalty` (None: ridge); `allowed`: see `Problem`."""
    problem = Problem(
        Design(data, dtype, device, memory),
        observation,
        None if allowed is None else torch.as_tensor(allowed),
        penalty=penalty,
    )
    return problem.solve(strength, tolerance=tolerance, max_sweeps=max_sweeps), problem
