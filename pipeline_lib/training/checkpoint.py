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
        return row | {f"validation_{name}": value for name, value in terms.items() if len(terms) > 1}

    def judge(self, terms: Mapping[str, float], selects: str | None, settings: TrainingSettings) -> bool:
        """Whether the weights are the best so far by the term `selects` of the validation loss (None: their sum).

        Without validation the last are the best. Schedule and patience follow from the answer.

        Raises
        ------
        InputError : there is no such term.
        """
        if terms and selects is not None and selects not in terms:
            raise InputError("network", "selects", repr(selects), f"a term of the loss: {', '.join(terms)}")
        score = -self.step if not terms else math.fsum(terms.values()) if selects is None else terms[selects]
        better = score < self.best
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        if settings.schedule == "plateau" and not better and self.stale % settings.decay_patience == 0:
            self.factor *= settings.decay
        return better


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
