"""What the engine trains, and a model of the contract built around it gives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pipeline_lib.training.batches import Batch


class Network(nn.Module):
    """A torch module with a loss.

    `forward(batch, step)` gives the loss as named terms, whose sum is minimised; `step` is None in an evaluation.
    What belongs to a session lives in `self.sessions`, a ModuleDict by session id.

    A network may give `prepare` and `loss` in the place of `forward`. Where memory runs out, a batch is then cut in
    pieces behind `prepare`, and `counted` says how they make it up (`gradients`). If it says that it `vectorises`, too,
    its steps can be those of many networks at once (`ensemble`), and be captured as CUDA graphs (`graphs`).

    >>> import torch
    >>> class Rate(Network):  # one rate for each of three units
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.sessions = nn.ModuleDict({"demo": nn.ParameterDict({"log": torch.zeros(3)})})
    ...     def rates(self, batch):
    ...         return self.sessions[batch.session]["log"].exp().expand(batch.counts.shape)
    ...     def forward(self, batch, step=None):
    ...         rates = self.rates(batch)
    ...         return {"nll": ((rates - batch.counts * rates.log()) * batch.observed).mean()}
    >>> sum(weight.numel() for weight in Rate().parameters())
    3
    """

    selects: ClassVar[str | None] = None
    """The term of the loss by which weights are chosen; None: the sum."""
    has_latents: ClassVar[bool] = False
    vectorises: ClassVar[bool] = False
    """`forward` is the `loss` of what `prepare` gives, and that is tensor operations alone, none of whose values
    decides which come next; operations with gradients of their own go through `training.members`."""

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        """The loss as named terms, whose sum is minimised; `step` is None in an evaluation."""
        return self.loss(self.prepare(batch, step))

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        """All that is random or depends on the step, as `inputs` of a batch; made without the weights.

        Of several training batches of equal shape the results have equal shapes, too.
        """
        raise NotImplementedError

    @property
    def prepares_together(self) -> bool:
        """Whether `prepare` of the batches of several trainings, one after the other, is that of each: all that differs
        is drawn for windows, by `training.noise`.
        """
        return False

    @property
    def prepares_alike(self) -> bool:
        """Whether `prepare` is the same tensor operations in every training step, none of whose values decides which
        come next: it is then a part of what is captured.
        """
        return False

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss of what `prepare` gave. Noise comes from `training.noise`."""
        raise NotImplementedError

    def counted(self, batch: Batch) -> dict[str, Tensor]:
        """How many things terms of the `loss` of a prepared batch are means over, at least 1; windows, where a term is
        not named. By it a batch that memory has no room for is put together from its pieces.
        """
        return {}

    def pace(self, name: str) -> float:
        """By what the learning rate of the weight `name` is multiplied."""
        return 1.0

    def monitor(self) -> dict[str, float]:
        """Further numbers for history.csv, asked for at every evaluation of a training, with the weights evaluated in
        place and without gradients; none of them selects.
        """
        return {}

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N], of all units and bins."""
        raise NotImplementedError

    def latents(self, batch: Batch) -> Tensor:
        """Latent trajectories [B, L, dimensions], of a network that `has_latents`."""
        raise NotImplementedError
