"""L-BFGS for many independent smooth convex problems at once, in a metric that is already nearly right."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.models.glm.descent import SUFFICIENT, UNKNOWN, Descent, Evaluate

Precondition = Callable[[Tensor, Tensor], Tensor]


@dataclass
class SmoothDescent(Descent):
    """See `Descent`; beside it the pairs that are remembered, number k in slot k modulo m.

    `steps`, `changes` (m, n, d) of point and gradient; `inner` (m, n) their products (0: no entry).
    """

    steps: Tensor
    changes: Tensor
    inner: Tensor

    @classmethod
    def _memory_shapes(cls, memory: int, n: int, d: int) -> dict[str, tuple[int, ...]]:
        return {"steps": (memory, n, d), "changes": (memory, n, d), "inner": (memory, n)}


def sweep(state: SmoothDescent, evaluate: Evaluate, precondition: Precondition, tolerance: float, noise: float) -> None:
    """Try one step of every running problem; accept it or shorten it.

    Parameters
    ----------
    evaluate : see `Evaluate`.
    precondition : (gradients (k, d), rows (k,)) -> approximate inverse Hessians times them.
    tolerance : a problem is done when its Newton decrement, g' H g / 2, is below this.
    noise : relative rounding error of a value: below it, gradients decide instead of values.
    """
    rows = state.running
    trial = state.point[rows] + state.step[rows, None] * state.direction[rows]
    value, gradient = evaluate(trial, rows)
    accept = _acceptable(state, rows, value, gradient, noise)
    refused, taken = rows[~accept], rows[accept]
    state.reject(refused, _shortened(state, refused, value[~accept]))
    if len(taken):
        known = accept & (state.value[rows] != UNKNOWN)
        _remember(state, rows[known], trial[known], gradient[known])
        state.move(taken, trial[accept], value[accept], gradient[accept])
        _aim(state, taken, precondition)
        state.judge(taken, tolerance)
    state.sweep += 1


def _acceptable(state: SmoothDescent, rows: Tensor, value: Tensor, gradient: Tensor, noise: float) -> Tensor:
    old, slope = state.value[rows], state.slope[rows]
    finite = torch.isfinite(value) & torch.isfinite(gradient).all(1)
    decrease = value <= old + SUFFICIENT * state.step[rows] * slope
    # Hager & Zhang (2005): where differences of values are rounding, the slope at the new point tells instead.
    new_slope = (gradient * state.direction[rows]).sum(1)
    flat = (value <= old + noise * old.abs()) & (new_slope <= (2 * SUFFICIENT - 1) * slope)
    return finite & ((old == UNKNOWN) | decrease | flat)


def _shortened(state: SmoothDescent, rows: Tensor, value: Tensor) -> Tensor:
    """The minimum of the parabola through what is known, between a tenth and a half of the rejected step."""
    step, slope = state.step[rows], state.slope[rows]
    parabola = -slope * step**2 / (2 * (value - state.value[rows] - slope * step))
    parabola = torch.where(torch.isfinite(parabola), parabola, 0.1 * step)
    return torch.minimum(torch.maximum(parabola, 0.1 * step), 0.5 * step)


def _remember(state: SmoothDescent, rows: Tensor, point: Tensor, gradient: Tensor) -> None:
    step, change = point - state.point[rows], gradient - state.gradient[rows]
    inner = (step * change).sum(1)
    # A convex function gives a positive product; one lost in rounding would spoil the memory.
    good = inner > 1e-12 * step.norm(dim=1) * change.norm(dim=1)
    rows = rows[good]
    slot = state.remembered[rows] % len(state.inner)
    state.steps[slot, rows], state.changes[slot, rows], state.inner[slot, rows] = step[good], change[good], inner[good]
    state.remembered[rows] += 1


def _aim(state: SmoothDescent, rows: Tensor, precondition: Precondition) -> None:
    """Two-loop recursion (Nocedal & Wright, algorithm 7.4) with `precondition` as the initial inverse Hessian."""
    gradient, vector = state.gradient[rows], state.gradient[rows].clone()
    most = min(int(state.remembered[rows].max()), len(state.inner))
    pairs, weights = [], []
    for back in range(1, most + 1):
        slot = (state.remembered[rows] - back) % len(state.inner)
        inner = state.inner[slot, rows]
        pairs.append((state.steps[slot, rows], state.changes[slot, rows], torch.where(inner > 0, 1.0 / inner, 0.0)))
        step, change, inverse = pairs[-1]
        weights.append(inverse * (step * vector).sum(1))
        vector -= weights[-1][:, None] * change
    vector = precondition(vector, rows)
    for (step, change, inverse), weight in zip(reversed(pairs), reversed(weights), strict=True):
        vector += (weight - inverse * (change * vector).sum(1))[:, None] * step
    state.direction[rows] = -vector
    state.slope[rows] = -(gradient * vector).sum(1)
    state.decrement[rows] = -state.slope[rows] / 2
