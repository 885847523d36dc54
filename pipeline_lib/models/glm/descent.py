"""What descents of many independent problems have in common: what they know, how they move, when they stop.

All problems share each sweep (one evaluation of all that still run), but each has its own step length, curvature memory
and stopping rule, and leaves the sweep once it is done. What one problem does never touches another (joint steps do:
NeMoS issue 392). `optimiser` has the smooth problems, `sparse` those whose penalty has a kink.
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
NEAR, PATIENCE = 1e-6, 6
"""Decrement of a problem near its optimum, and the accepted steps in which it must halve there: else it is stalled."""

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(points (k, d), rows (k,)) -> values (k,), gradients (k, d); not finite means too far."""


@dataclass
class Descent:
    """Everything an optimiser knows, so that writing it down and reading it back changes nothing.

    n problems, d coordinates, all float64 unless said: `point` (n, d) the best so far, `value` (n,), `gradient` (n, d)
    there; `direction` (n, d), `slope` (n,) change that it promises (negative), `step` (n,) to try next; `decrement`
    (n,) estimated distance of `value` from its minimum; `best` (n,) and `waited` (n,) int64 for stalling; `rejected`
    (n,) int64; `remembered` (n,) int64 pairs of vectors in the curvature memory; `status` (n,) int64; `sweep` (1,)
    int64.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    slope: Tensor
    step: Tensor
    decrement: Tensor
    best: Tensor
    waited: Tensor
    rejected: Tensor
    remembered: Tensor
    status: Tensor
    sweep: Tensor

    @classmethod
    def start(cls, point: Tensor, memory: int) -> Self:
        """Before the first sweep, with room for `memory` pairs of vectors."""
        n, d = point.shape
        shapes = {"gradient": (n, d), "direction": (n, d), "sweep": (1,)} | cls._memory_shapes(memory, n, d)
        filled = {"step": 1.0, "value": UNKNOWN, "decrement": UNKNOWN, "best": UNKNOWN}
        whole = ("waited", "rejected", "remembered", "status", "sweep")
        tensors = {
            name: torch.full(
                shapes.get(name, (n,)),
                filled.get(name, 0),
                dtype=torch.int64 if name in whole else torch.float64,
                device="cpu" if name == "sweep" else point.device,
            )
            for name in cls._names()
            if name != "point"
        }
        return cls(point=point.to(torch.float64).clone(), **tensors)

    @property
    def running(self) -> Tensor:
        """Rows of the problems that still run."""
        return (self.status == RUNNING).nonzero()[:, 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name."""
        return {name: getattr(self, name).cpu().numpy() for name in self._names()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """What `arrays` gave."""
        tensors = {name: torch.from_numpy(np.array(arrays[name])).to(device) for name in cls._names()}
        return cls(**tensors | {"sweep": tensors["sweep"].cpu()})

    def reject(self, rows: Tensor, step: Tensor) -> None:
        """Try a shorter `step` of these problems in the next sweep."""
        self.step[rows] = step
        self.rejected[rows] += 1
        self.status[rows[self.rejected[rows] >= MOST_REJECTIONS]] = STALLED

    def move(self, rows: Tensor, point: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Accept new points of these problems; the next step is tried in full."""
        self.point[rows], self.value[rows], self.gradient[rows] = point, value, gradient
        self.rejected[rows], self.step[rows] = 0, 1.0

    def judge(self, rows: Tensor, tolerance: float) -> None:
        """Which of these problems are done, or get no further, by their new decrements."""
        decrement = self.decrement[rows]
        better = decrement < 0.5 * self.best[rows]
        self.best[rows] = torch.where(better, decrement, self.best[rows])
        self.waited[rows] = torch.where(better, 0, self.waited[rows] + 1)
        self.status[rows[(decrement < NEAR) & (self.waited[rows] >= PATIENCE)]] = STALLED
        self.status[rows[decrement <= tolerance]] = CONVERGED

    @classmethod
    def _memory_shapes(cls, memory: int, n: int, d: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the fields that a kind of descent adds for its curvature memory."""
        return {}

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]
