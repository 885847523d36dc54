"""L-BFGS for many independent convex problems at once, in a metric that is already nearly right.

All problems share each sweep (one call of `evaluate`), but each has its own step length, curvature memory and stopping
rule, and leaves the sweep once it is done. What one problem does never touches another (joint steps do: NeMoS issue
392).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

RUNNING, CONVERGED, STALLED = 0, 1, 2
STATUS = {
    RUNNING: "not converged",
    CONVERGED: "converged",
    STALLED: "no further progress (rounding, or no finite minimum)",
}

SUFFICIENT = 1e-4
"""Armijo's constant: the share of the predicted decrease that a step must reach."""
MOST_REJECTIONS = 30
UNKNOWN = 1e300
"""Stands for a value not yet computed; finite, because a checkpoint takes only finite numbers."""
PATIENCE = 6
"""Accepted steps without halving the best decrement after which a problem near its optimum is called stalled."""

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Precondition = Callable[[Tensor, Tensor], Tensor]


class Arrays:
    """A dataclass of tensors, as numpy arrays and back."""

    def arrays(self) -> dict[str, np.ndarray]:
        """By name."""
        return {field.name: getattr(self, field.name).cpu().numpy() for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """What `arrays` gave."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        tensors = {name: torch.from_numpy(np.array(arrays[name])).to(device) for name in names}
        tensors["sweep"] = tensors["sweep"].cpu()
        return cls(**tensors)


@dataclass
class Descent(Arrays):
    """Everything the optimiser knows, so that writing it down and reading it back changes nothing.

    n problems, d coordinates, m remembered steps, all float64 unless said: `point` (n, d) the best so far, `value`
    (n,), `gradient` (n, d) there; `direction` (n, d), `slope` (n,) along it, `step` (n,) to try next; `steps`,
    `changes` (m, n, d) of point and gradient, `inner` (m, n) their products (0: no entry); `decrement` (n,) estimated
    distance of `value` from its minimum; `best` (n,) and `waited` (n,) int64 for stalling; `rejected` (n,) int64;
    `status` (n,) int64; `sweep` (1,) int64.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    slope: Tensor
    step: Tensor
    steps: Tensor
    changes: Tensor
    inner: Tensor
    decrement: Tensor
    best: Tensor
    waited: Tensor
    rejected: Tensor
    status: Tensor
    sweep: Tensor

    @classmethod
    def start(cls, point: Tensor, memory: int) -> "Descent":
        """Before the first sweep."""
        n, d = point.shape

        def full(value: float, *shape: int) -> Tensor:
            return torch.full(shape, value, dtype=torch.float64, device=point.device)

        def integers() -> Tensor:
            return torch.zeros(n, dtype=torch.int64, device=point.device)

        return cls(
            point=point.to(torch.float64).clone(),
            value=full(UNKNOWN, n),
            gradient=full(0, n, d),
            direction=full(0, n, d),
            slope=full(0, n),
            step=full(1, n),
            steps=full(0, memory, n, d),
            changes=full(0, memory, n, d),
            inner=full(0, memory, n),
            decrement=full(UNKNOWN, n),
            best=full(UNKNOWN, n),
            waited=integers(),
            rejected=integers(),
            status=integers(),
            sweep=torch.zeros(1, dtype=torch.int64),
        )

    @property
    def running(self) -> Tensor:
        """Rows of the problems that still run."""
        return (self.status == RUNNING).nonzero()[:, 0]


def sweep(state: Descent, evaluate: Evaluate, precondition: Precondition, tolerance: float, noise: float) -> None:
    """Try one step of every running problem; accept it or shorten it.

    Parameters
    ----------
    evaluate : (points (k, d), rows (k,)) -> values (k,), gradients (k, d); not finite means too far.
    precondition : (gradients (k, d), rows (k,)) -> approximate inverse Hessians times them.
    tolerance : a problem is done when its Newton decrement, g' H g / 2, is below this.
    noise : relative rounding error of a value: below it, gradients decide instead of values.
    """
    rows = state.running
    step, direction = state.step[rows], state.direction[rows]
    trial = state.point[rows] + step[:, None] * direction
    value, gradient = evaluate(trial, rows)
    accept = _acceptable(state, rows, value, gradient, noise)
    _shorten(state, rows[~accept], value[~accept])
    taken = rows[accept]
    if len(taken):
        first = state.value[taken] == UNKNOWN
        _remember(state, taken[~first], trial[accept][~first], gradient[accept][~first])
        state.point[taken], state.value[taken], state.gradient[taken] = trial[accept], value[accept], gradient[accept]
        state.rejected[taken], state.step[taken] = 0, 1.0
        _aim(state, taken, precondition)
        _judge(state, taken, tolerance)
    state.sweep += 1


def _acceptable(state: Descent, rows: Tensor, value: Tensor, gradient: Tensor, noise: float) -> Tensor:
    old, slope = state.value[rows], state.slope[rows]
    finite = torch.isfinite(value) & torch.isfinite(gradient).all(1)
    decrease = value <= old + SUFFICIENT * state.step[rows] * slope
    # Hager & Zhang (2005): where differences of values are rounding, the slope at the new point tells instead.
    new_slope = (gradient * state.direction[rows]).sum(1)
    flat = (value <= old + noise * old.abs()) & (new_slope <= (2 * SUFFICIENT - 1) * slope)
    return finite & ((old == UNKNOWN) | decrease | flat)


def _shorten(state: Descent, rows: Tensor, value: Tensor) -> None:
    """The minimum of the parabola through what is known, between a tenth and a half of the rejected step."""
    step, slope = state.step[rows], state.slope[rows]
    parabola = -slope * step**2 / (2 * (value - state.value[rows] - slope * step))
    parabola = torch.where(torch.isfinite(parabola), parabola, 0.1 * step)
    state.step[rows] = torch.minimum(torch.maximum(parabola, 0.1 * step), 0.5 * step)
    state.rejected[rows] += 1
    state.status[rows[state.rejected[rows] >= MOST_REJECTIONS]] = STALLED


def _remember(state: Descent, rows: Tensor, point: Tensor, gradient: Tensor) -> None:
    step, change = point - state.point[rows], gradient - state.gradient[rows]
    inner = (step * change).sum(1)
    # A convex function gives a positive product; one lost in rounding would spoil the memory.
    good = inner > 1e-12 * step.norm(dim=1) * change.norm(dim=1)
    rows, step, change, inner = rows[good], step[good], change[good], inner[good]
    for memory, newest in ((state.steps, step), (state.changes, change), (state.inner, inner)):
        memory[:-1, rows] = memory[1:, rows]
        memory[-1, rows] = newest


def _aim(state: Descent, rows: Tensor, precondition: Precondition) -> None:
    """Two-loop recursion (Nocedal & Wright, algorithm 7.4) with `precondition` as the initial inverse Hessian."""
    gradient = state.gradient[rows]
    inverse = torch.where(state.inner[:, rows] > 0, 1.0 / state.inner[:, rows], 0.0)
    vector, weights = gradient.clone(), []
    for k in reversed(range(len(inverse))):
        weights.append(inverse[k] * (state.steps[k, rows] * vector).sum(1))
        vector -= weights[-1][:, None] * state.changes[k, rows]
    vector = precondition(vector, rows)
    for k, weight in enumerate(reversed(weights)):
        back = inverse[k] * (state.changes[k, rows] * vector).sum(1)
        vector += (weight - back)[:, None] * state.steps[k, rows]
    state.direction[rows] = -vector
    state.slope[rows] = -(gradient * vector).sum(1)


def _judge(state: Descent, rows: Tensor, tolerance: float) -> None:
    decrement = -state.slope[rows] / 2
    better = decrement < 0.5 * state.best[rows]
    state.decrement[rows] = decrement
    state.best[rows] = torch.where(better, decrement, state.best[rows])
    state.waited[rows] = torch.where(better, 0, state.waited[rows] + 1)
    near = (decrement < 1e-6) & (state.waited[rows] >= PATIENCE)
    state.status[rows[near]] = STALLED
    state.status[rows[decrement <= tolerance]] = CONVERGED
