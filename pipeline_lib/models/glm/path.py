"""Choosing the ridge strength: down a path from strong to weak, each fit starting from the last one's answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.glm.descent import Descent
from pipeline_lib.models.glm.engine import TOLERANCE, Problem, Solution
from pipeline_lib.models.glm.optimiser import SmoothDescent
from pipeline_lib.models.glm.sparse import SparseDescent

PATH_TOLERANCE = 1e-6
"""Decrement, nats a bin, at which the next strength is tried: finer than validation can tell apart."""
WORSE = 2
"""Strengths in a row with a lower validation score after which the path ends: it has passed its best."""


@dataclass
class Path:
    """How far the path has come; `arrays` and `from_arrays` carry it through a restart.

    `strengths` (k,) from strong to weak; `scores` one a strength done, held-out log-likelihood, more is better; `best`
    (units, columns) coefficients of the best strength so far; `descent` within the strength being fitted; `polishing`:
    the best strength is being fitted to full precision. `current`, the coefficients of the last strength, only starts
    the next descent and is not carried: a checkpoint is always within a descent.
    """

    strengths: np.ndarray
    scores: list[float] = field(default_factory=list)
    best: Tensor | None = None
    current: Tensor | None = None
    descent: Descent | None = None
    polishing: bool = False

    @property
    def strength(self) -> float:
        """The strength to fit now: the next one, or the best when polishing."""
        return float(self.strengths[int(np.argmax(self.scores)) if self.polishing else len(self.scores)])

    @property
    def ended(self) -> bool:
        """Every strength was tried, or the last few made it worse."""
        done = len(self.scores)
        return done == len(self.strengths) or done - 1 - int(np.argmax(self.scores or [0.0])) >= WORSE

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name."""
        arrays = {"strengths": self.strengths, "scores": np.array(self.scores), "polishing": np.array([self.polishing])}
        if self.best is not None:
            arrays["best"] = self.best.cpu().numpy()
        if self.descent is not None:
            arrays |= {f"descent/{name}": array for name, array in self.descent.arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], device: str) -> "Path":
        """What `arrays` gave."""
        kind = SparseDescent if "descent/up" in arrays else SmoothDescent
        descent = {
            name.removeprefix("descent/"): value for name, value in arrays.items() if name.startswith("descent/")
        }
        return cls(
            strengths=np.array(arrays["strengths"]),
            scores=[float(score) for score in arrays["scores"]],
            best=torch.from_numpy(np.array(arrays["best"])).to(device) if "best" in arrays else None,
            descent=kind.from_arrays(descent, device) if descent else None,
            polishing=bool(arrays["polishing"][0]),
        )


def default_strengths(problem: Problem, judges: np.ndarray) -> np.ndarray:
    """Half decades, strong to weak, for the units `judges` (rows): held-out units have no say, not even in the choice.

    Ridge: from 10 times the mean curvature of the loss along a coupling weight to a 1e-4th of it. Sparse penalties:
    from the strength that leaves no coupling to a thousandth of it.
    """
    units = torch.as_tensor(judges, device=problem.fitted.device)
    units = units[problem.fitted[units]]
    if not len(units):
        return np.array([1.0])
    if problem.penalty.sparse:
        return max(problem.largest_strength(units), 1e-12) * np.logspace(0.0, -3.0, 7)
    middle = float(problem.curvature[units].median()) * problem.covariance.mean_variance
    return max(middle, 1e-12) * np.logspace(1.0, -4.0, 11)


def follow(
    problem: Problem,
    path: Path,
    score: Callable[[Tensor], float] | None,
    tolerance: float | None,
    max_sweeps: int,
    after_sweep: Callable[[Path], None],
    after_strength: Callable[[float, float | None, Solution], None],
) -> Solution:
    """Fit the strengths of `path` until validation gets worse, then the best one to full precision.

    `score` gives the held-out log-likelihood of coefficients; None: there is a single strength. `after_sweep` is
    called after every pass (checkpoint), `after_strength` with every strength, its score (None: the final fit) and fit.
    """
    final = TOLERANCE[problem.design.dtype] if tolerance is None else tolerance
    while score is not None and not path.polishing:
        strength = path.strength
        solution = _fit(problem, path, max(final, PATH_TOLERANCE), max_sweeps, after_sweep)
        path.scores.append(score(solution.coefficients))
        path.current, path.descent = solution.coefficients, None
        if int(np.argmax(path.scores)) == len(path.scores) - 1:
            path.best = solution.coefficients
        after_strength(strength, path.scores[-1], solution)
        path.polishing = path.ended
    if not path.polishing:
        path.scores, path.polishing = [0.0], True
    if path.descent is None:
        path.current = path.best
    solution = _fit(problem, path, final, max_sweeps, after_sweep)
    after_strength(path.strength, None, solution)
    return solution


def _fit(
    problem: Problem, path: Path, tolerance: float, max_sweeps: int, after_sweep: Callable[[Path], None]
) -> Solution:
    if path.descent is None:
        path.descent = problem.start(path.current)
    return problem.solve(path.strength, path.descent, tolerance, max_sweeps, lambda descent: after_sweep(path))
