"""A training as named arrays and back. Nothing is pickled."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.training.run import State

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


def pack(progress: Progress, **groups: Tensors) -> State:
    """`progress` and groups of tensors as arrays, named `{group}/{name}`."""
    arrays = {
        f"{group}/{name}": tensor.detach().cpu().numpy() for group in groups for name, tensor in groups[group].items()
    }
    return arrays | {"progress": np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)}


def unpack(state: State, **groups: Tensors) -> Progress:
    """Copy the arrays of `pack` into tensors of the same groups and names; returns the progress."""
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            tensor.detach().copy_(torch.from_numpy(state[f"{group}/{name}"].copy()))
    return Progress(**json.loads(state["progress"].tobytes()))
