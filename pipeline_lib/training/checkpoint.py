"""A training as named arrays and back. Nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.training.run import State
from pipeline_lib.training.settings import TrainingSettings

Tensors = dict[str, Tensor]


@dataclass
class Progress:
    """Where a training is; saved as JSON, in which floats keep every bit."""

    step: int = 0
    best: float = math.inf
    """Lowest validation loss so far."""
    smoothed: float | None = None
    """The running mean of the validation loss, where one is asked for."""
    lowest: float = math.inf
    """Lowest running mean so far; without one, `best`."""
    stale: int = 0
    """Evaluations since then."""
    factor: float = 1.0
    """What plateaus have made of the learning rate."""
    pieces: int = 1
    """Into which a batch is cut, as memory asks for."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last evaluation."""

    def row(self, terms: Mapping[str, float], learning_rate: float) -> dict[str, Any]:
        """A row of the history: the mean loss since the last one, and the `terms` of the validation loss."""
        row = {"step": self.step, "loss": math.fsum(self.losses) / len(self.losses), "learning_rate": learning_rate}
        self.losses = []
        if terms:
            row["validation_loss"] = math.fsum(terms.values())
        if self.smoothed is not None:
            row["validation_smoothed"] = self.smoothed
        return row | {f"validation_{name}": value for name, value in terms.items() if len(terms) > 1}

    def judge(self, terms: Mapping[str, float], selects: str | None, settings: TrainingSettings) -> bool:
        """Whether the weights are the best so far by the term `selects` of the validation loss (None: their sum).

        Without validation the last are the best. Schedule and patience follow from the running mean of that term.

        Raises
        ------
        InputError : there is no such term.
        """
        if terms and selects is not None and selects not in terms:
            raise InputError("network", "selects", repr(selects), f"a term of the loss: {', '.join(terms)}")
        score = -self.step if not terms else math.fsum(terms.values()) if selects is None else terms[selects]
        better, share = score < self.best, settings.validation_smoothing
        self.best = score if better else self.best
        if share and terms and math.isfinite(score):
            self.smoothed = score if self.smoothed is None else share * self.smoothed + (1 - share) * score
        judged = score if self.smoothed is None else self.smoothed
        lower = judged < self.lowest
        self.lowest, self.stale = (judged, 0) if lower else (self.lowest, self.stale + 1)
        if settings.schedule == "plateau" and not lower and self.stale % settings.decay_patience == 0:
            self.factor = max(self.factor * settings.decay, settings.least_learning_rate / settings.learning_rate)
        return better

    def hopeful(self, settings: TrainingSettings) -> bool:
        """Whether the patience has not ended, of which no evaluation before its start takes any."""
        every = settings.evaluate_every
        counted = self.step // every - settings.patience_start // every
        return min(self.stale, counted) < (settings.patience or math.inf)


def pack(about: Any, **groups: Tensors) -> State:
    """`about`, which JSON can hold, and groups of tensors as arrays, named `{group}/{name}`."""
    arrays = {
        f"{group}/{name}": tensor.detach().cpu().numpy() for group in groups for name, tensor in groups[group].items()
    }
    return arrays | {"progress": np.frombuffer(json.dumps(about).encode(), np.uint8)}


def read_about(state: State) -> Any:
    """What `pack` was told beside the tensors."""
    return json.loads(state["progress"].tobytes())


def unpack(state: State, **groups: Tensors) -> None:
    """Copy the arrays of `pack` into tensors of the same groups and names."""
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            tensor.detach().copy_(torch.from_numpy(state[f"{group}/{name}"].copy()))
