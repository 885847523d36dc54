"""What the engine trains, and a model of the contract built around it gives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pipeline_lib.training.batches import Batch


class Network(nn.Module):
    """A torch module with a loss.

    `forward(batch, step)` gives the loss as named terms, whose sum is minimised; `step` is None in an evaluation.
    What belongs to a session lives in `self.sessions`, a ModuleDict by session id.
    """

    selects: ClassVar[str | None] = None
    """The term of the loss by which weights are chosen; None: the sum."""
    has_latents: ClassVar[bool] = False

    def pace(self, name: str) -> float:
        """By what the learning rate of the weight `name` is multiplied."""
        return 1.0

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N], of all units and bins."""
        raise NotImplementedError

    def latents(self, batch: Batch) -> Tensor:
        """Latent trajectories [B, L, dimensions], of a network that `has_latents`."""
        raise NotImplementedError
