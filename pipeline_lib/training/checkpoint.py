"""A training as named arrays and back: weights, best weights, running mean, optimiser, progress. Nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.training.run import State

Weights = dict[str, Tensor]


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
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last evaluation."""


def pack(progress: Progress, optimiser: Mapping[str, Any], **weights: Weights) -> State:
    """Arrays by name: `{group}/{name}` of each group of `weights`, `optimiser/{number}/{name}`, `progress`.

    `optimiser` is the state_dict of a torch optimiser.
    """
    moments = {f"{number}/{name}": value for number, each in optimiser["state"].items() for name, value in each.items()}
    arrays = {
        f"{group}/{name}": value.detach().cpu().numpy()
        for group, values in (weights | {"optimiser": moments}).items()
        for name, value in values.items()
    }
    return arrays | {"progress": np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)}


def unpack(state: State, groups: list[dict[str, Any]]) -> tuple[Progress, dict[str, Any], dict[str, Weights]]:
    """What `pack` was given. `groups`: the `param_groups` of the optimiser's state_dict, which are not saved."""
    weights: dict[str, Weights] = {}
    for path, array in state.items():
        if path != "progress":
            group, _, name = path.partition("/")
            weights.setdefault(group, {})[name] = torch.from_numpy(array.copy())
    moments: dict[int, Weights] = {}
    for path, value in weights.pop("optimiser", {}).items():
        number, _, name = path.partition("/")
        moments.setdefault(int(number), {})[name] = value
    progress = Progress(**json.loads(state["progress"].tobytes()))
    return progress, {"state": moments, "param_groups": groups}, weights
