"""What changes over the steps of a training: the learning rate, and ramps. Pure functions of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_lib.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int, factor: float) -> float:
    """The learning rate at `step` (0 is the first), where plateaus have left `factor` of it."""
    return settings.learning_rate * _share(settings, step) * factor


def averaging(settings: TrainingSettings, step: int) -> float:
    """Decay of the running mean of the weights: a young mean forgets its start, so it rises to what was asked for."""
    return min(settings.average, (step + 1) / (step + 10))


def decaying(settings: TrainingSettings, step: int) -> float | None:
    """Share of the weight decay at `step`; None where it is not ramped."""
    ramped = settings.weight_decay and settings.weight_decay_ramp[1]
    return ramp(step, *settings.weight_decay_ramp) if ramped else None


def _share(settings: TrainingSettings, step: int) -> float:
    """Of the learning rate at `step`, after a linear warm-up: `cosine` falls from 1 to `final_rate` at the last step,
    `inverse_root` is 1 over the root of the step in units of the warm-up; `plateau` is lowered by what training sees.
    """
    warmup, floor = settings.warmup, settings.final_rate
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "cosine":
        done = (step - warmup) / max(settings.steps - warmup, 1)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if settings.schedule == "inverse_root":
        return math.sqrt(max(warmup, 1) / max(step + 1, warmup, 1))
    return 1.0


def ramp(step: int, start: int, stop: int) -> float:
    """0 before `start`, 1 from `stop` on, linear between; with `stop` <= `start`, a jump at `start`."""
    if step < start:
        return 0.0
    return min((step - start) / (stop - start), 1.0) if stop > start else 1.0
