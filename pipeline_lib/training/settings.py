"""How a network is trained: settings that every model on the engine shares. No torch here: a check is instant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pipeline_lib.errors import InputError


@dataclass(frozen=True)
class TrainingSettings:
    """Budget, optimiser, schedule, stopping. A model's `Config` inherits these keys and gives its own defaults.

    >>> TrainingSettings(steps=500, learning_rate=1e-3).batch > 0
    True
    >>> TrainingSettings(learning_rate=-1)
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: ...
    """

    steps: int = 5000
    """Budget: optimiser steps, at most."""
    batch: int = 64
    """Windows in a batch, all of one session."""
    accumulate: int = 1
    """Batches whose gradients are averaged into a step."""
    processes: int = 1
    """Processes that share the batches of a step, a GPU each: a divisor of `accumulate`. No result depends on it."""
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "inverse_root", "plateau"] = "cosine"
    """What follows the warm-up; `plateau` multiplies by `decay` after `decay_patience` evaluations without progress."""
    warmup: int = 100
    """Steps in which the learning rate rises from 0."""
    final_rate: float = 0.0
    """What the cosine ends at, as a share of `learning_rate`."""
    decay: float = 0.95
    decay_patience: int = 6
    least_learning_rate: float = 0.0
    """What plateaus never lower the learning rate below."""
    validation_smoothing: float = 0.0
    """Share of its last value in a running mean of the validation loss, by which plateaus and `patience` go (history:
    `validation_smoothed`); 0: the loss itself. The best weights are always those of the lowest loss itself."""
    weight_decay: float = 0.0
    weight_decay_ramp: tuple[int, int] = (0, 0)
    """Steps over which it rises from 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip: float = 200.0
    """Largest norm of the gradient; a longer one is scaled down."""
    average: float = 0.0
    """Evaluate and keep a running mean of the weights, of this decay a step; 0: the weights themselves."""
    evaluate_every: int = 50
    """Steps between evaluations of the validation part."""
    patience: int | None = None
    """Evaluations without a better validation loss after which training stops; null: the whole budget is used."""
    patience_start: int = 0
    """Step from which on such evaluations count, as the end of a ramp."""
    keep: Literal["best", "last"] = "best"
    """Which weights are published: of the best validation loss, or the last."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: products in bfloat16 where the device has it, weights in float32 (training only)."""
    compile: bool = False
    """torch.compile: minutes of compilation, for long fits."""
    cuda_graphs: bool = False
    """Launch a step as one CUDA graph, for small networks on a GPU; where a step is one batch, in one process."""
    initial: str | None = None
    """model.safetensors of another fit to start from, in the same bins: weights of the same name; a session it lacks
    starts afresh, one that both have holds out the same units. It must not have learned from windows to be tested."""
    freeze: tuple[str, ...] = ()
    """Patterns (`layers.*`, `*/read_in.*`) of the names of weights that stay as they start."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "processes", "evaluate_every", "decay_patience"):
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("learning_rate", "clip", "epsilon"):
            self.require(0 < getattr(self, name) < math.inf, name, "more than 0")
        for name in ("warmup", "weight_decay", "final_rate", "patience_start"):
            self.require(0 <= getattr(self, name) < math.inf, name, "not below 0")
        least = f"from 0 to the learning_rate, {self.learning_rate:g}"
        self.require(0 <= self.least_learning_rate <= self.learning_rate, "least_learning_rate", least)
        self.require(0 <= self.validation_smoothing < 1, "validation_smoothing", "from 0 to below 1")
        start, stop = self.weight_decay_ramp
        self.require(0 <= start <= stop, "weight_decay_ramp", "two steps, the first not after the second")
        self.require(self.accumulate % self.processes == 0, "processes", f"a divisor of accumulate, {self.accumulate}")
        self.require(self.patience is None or self.patience >= 1, "patience", "null or at least 1")
        self.require(0 <= self.average < 1, "average", "from 0 to below 1")
        self.require(0 < self.decay <= 1, "decay", "above 0, at most 1")
        self.require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers from 0 to below 1")

    def require(self, true: bool, field: str, accepted: Any) -> None:
        """Raise InputError about `field` unless `true`."""
        if not true:
            raise InputError("config", field, getattr(self, field), accepted)
