"""Proximal quasi-Newton descent for many independent problems with a penalty that has a kink at zero.

Each sweep minimises, for every problem, a model of the objective around its point: the covariance of the columns times
the problem's curvature, improved by BFGS updates (Lee, Sun & Saunders, 2014), plus the penalty itself. The model costs
no pass over the data. Step lengths, memories and stopping are each problem's own, as in `optimiser`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.models.glm.descent import SUFFICIENT, UNKNOWN, Descent, Evaluate
from pipeline_lib.models.glm.penalties import Kink

INNER = 400
"""Most steps on the model; each is one product with the covariance."""

Multiply = Callable[[Tensor, Tensor], Tensor]


@dataclass
class SparseDescent(Descent):
    """See `Descent`; `value` and `slope` include the penalty, `gradient` does not.

    `up`, `down` (m, n, d): BFGS updates of the model's Hessian, H v + sum up (up . v) - down (down . v).
    """

    up: Tensor
    down: Tensor

    @classmethod
    def _memory_shapes(cls, memory: int, n: int, d: int) -> dict[str, tuple[int, ...]]:
        return {"up": (memory, n, d), "down": (memory, n, d)}


@dataclass
class Surrogate:
    """What a sweep minimises in the place of the objective: a quadratic about each point, and the penalty.

    `multiply` (vectors (k, d), rows (k,)) -> approximate Hessians times them; `largest` (n,) bounds on their
    eigenvalues; `kink` and `strength` (n,) of the penalty on all coordinates but the first; `allowed` (n, d - 1) bool.
    """

    multiply: Multiply
    largest: Tensor
    kink: Kink
    strength: Tensor
    allowed: Tensor


def sparse_sweep(state: SparseDescent, evaluate: Evaluate, model: Surrogate, tolerance: float, noise: float) -> None:
    """Try one step of every running problem; accept it or halve it. Arguments as `optimiser.sweep`."""
    rows = state.running
    trial = state.point[rows] + state.step[rows, None] * state.direction[rows]
    smooth, gradient = evaluate(trial, rows)
    value = smooth + model.kink.value(trial[:, 1:], model.strength[rows])
    old, first = state.value[rows], state.value[rows] == UNKNOWN
    enough = old + SUFFICIENT * state.step[rows] * state.slope[rows] + noise * old.abs()
    accept = torch.isfinite(value) & torch.isfinite(gradient).all(1) & (first | (value <= enough))
    refused, taken = rows[~accept], rows[accept]
    state.reject(refused, 0.5 * state.step[refused])
    if len(taken):
        moved = accept & ~first
        _remember(state, rows[moved], trial[moved], gradient[moved], model)
        state.move(taken, trial[accept], value[accept], gradient[accept])
        _aim(state, taken, model, tolerance)
        state.judge(taken, tolerance)
    state.sweep += 1


def _hessian(state: SparseDescent, rows: Tensor, vectors: Tensor, model: Surrogate) -> Tensor:
    product = model.multiply(vectors, rows)
    for updates, sign in ((state.up, 1.0), (state.down, -1.0)):
        for update in updates:
            part = update[rows]
            product += sign * part * (part * vectors).sum(1, keepdim=True)
    return product


def _remember(state: SparseDescent, rows: Tensor, point: Tensor, gradient: Tensor, model: Surrogate) -> None:
    """BFGS update of the model's Hessian; a full memory starts afresh."""
    full = state.remembered[rows] == len(state.up)
    for updates in (state.up, state.down):
        updates[:, rows[full]] = 0.0
    state.remembered[rows[full]] = 0
    step, change = point - state.point[rows], gradient - state.gradient[rows]
    inner, expected = (step * change).sum(1), _hessian(state, rows, step, model)
    along = (step * expected).sum(1)
    good = (inner > 1e-12 * step.norm(dim=1) * change.norm(dim=1)) & (along > 0)
    rows, slot = rows[good], state.remembered[rows[good]]
    state.up[slot, rows] = (change / inner.sqrt()[:, None])[good]
    state.down[slot, rows] = (expected / along.sqrt()[:, None])[good]
    state.remembered[rows] += 1


def _aim(state: SparseDescent, rows: Tensor, model: Surrogate, tolerance: float) -> None:
    """Minimise the model by accelerated proximal steps, restarted where they overshoot (O'Donoghue & Candes, 2015)."""
    point, gradient, strength = state.point[rows], state.gradient[rows], model.strength[rows]
    bound = model.largest[rows] + (state.up[:, rows] ** 2).sum(2).sum(0)
    allowed, before = model.allowed[rows], model.kink.value(point[:, 1:], strength)
    current, ahead, momentum = point.clone(), point.clone(), torch.ones_like(bound)
    promised = torch.zeros_like(bound)
    for number in range(INNER):
        slope = gradient + _hessian(state, rows, ahead - point, model)
        forward = ahead - slope / bound[:, None]
        following = forward.clone()
        following[:, 1:] = model.kink.shrink(forward[:, 1:], strength / bound) * allowed
        step = following - current
        overshot = ((ahead - following) * step).sum(1) > 0
        momentum = torch.where(overshot, 1.0, momentum)
        larger = 0.5 * (1 + torch.sqrt(1 + 4 * momentum**2))
        ahead = following + ((momentum - 1) / larger)[:, None] * step
        momentum, current = larger, following
        if number % 20 == 19 or number == INNER - 1:
            direction = current - point
            quadratic = 0.5 * (direction * _hessian(state, rows, direction, model)).sum(1)
            change = (gradient * direction).sum(1) + model.kink.value(current[:, 1:], strength) - before
            gained = promised - (change + quadratic)
            promised = change + quadratic
            # Precise enough when twenty steps gain little of what the whole model promises.
            if bool((gained.abs() <= 0.01 * promised.abs().clamp(min=tolerance)).all()):
                break
    state.direction[rows] = current - point
    state.slope[rows] = change.clamp(max=0.0)
    state.decrement[rows] = -promised.clamp(max=0.0)
