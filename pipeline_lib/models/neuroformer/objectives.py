"""Training that keeps the best weights of several objectives: tasks learned together peak at different steps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.training.checkpoint import Tensors
from pipeline_lib.training.engine import Training, copied


class ObjectiveTraining(Training):
    """A training that also keeps, for each term of the loss in `objectives`, the weights of its lowest validation.

    `kept` are those weights by term; without validation, or where there is no such term, the first weights.
    """

    def __init__(self, objectives: Sequence[str], *args: Any) -> None:
        super().__init__(*args)
        # Finite, as all that a checkpoint holds.
        self.lowest = {term: torch.tensor(sys.float_info.max, dtype=torch.float64) for term in objectives}
        self.kept = {term: copied(self.network.state_dict()) for term in objectives}

    def _validation_losses(self) -> dict[str, float]:
        terms = super()._validation_losses()
        for term in self.kept.keys() & terms.keys():
            if terms[term] < self.lowest[term]:
                self.lowest[term].fill_(terms[term])
                self.kept[term] = copied(self.network.state_dict())
        return terms

    def _groups(self) -> dict[str, Tensors]:
        kept: dict[str, dict[str, Tensor]] = {f"kept:{term}": weights for term, weights in self.kept.items()}
        return super()._groups() | {"lowest": self.lowest} | kept
