"""A step of a training: a gradient, an update of the weights, and of their running mean."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from pipeline_lib.errors import InputError
from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress, Tensors
from pipeline_lib.training.gradients import Gradients
from pipeline_lib.training.graphs import Prefetched, Recordings, put_gradients
from pipeline_lib.training.network import Network
from pipeline_lib.training.noise import seed_noise
from pipeline_lib.training.optimiser import AdamW, move_towards
from pipeline_lib.training.run import Run
from pipeline_lib.training.schedule import averaging, decaying, learning_rate
from pipeline_lib.training.settings import TrainingSettings


class Steps:
    """Changes the weights of a network that require gradients.

    Attributes
    ----------
    trained : these weights, by name.
    mean : their running means, if the settings ask for them.
    optimiser : with its state.

    Raises
    ------
    InputError : the batches of a step cannot be shared evenly between the processes; the steps of this network cannot
        be recorded.
    """

    def __init__(self, network: Network, batches: Batches, settings: TrainingSettings, seed: int, run: Run) -> None:
        self.network, self.batches, self.settings, self.seed = network, batches, settings, seed
        self.trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        paces = {name: network.pace(name) for name in self.trained}
        self.optimiser = AdamW(self.trained, settings.betas, settings.epsilon, settings.weight_decay, paces)
        self.gradients = Gradients(network, batches, settings, seed, run)
        self.mean = {name: weight.detach().clone() for name, weight in self.trained.items()} if settings.average else {}
        self.ahead = Prefetched[Batch]()
        self.recordings: Recordings | None = None
        one_batch = settings.accumulate == 1  # and so one process
        if settings.cuda_graphs and one_batch and self.gradients.accelerator.device.type == "cuda":
            if not network.vectorises:
                raise InputError("config", "cuda_graphs", True, "false: values decide what this network computes")
            self.recordings = Recordings()

    def make(self, progress: Progress) -> float:
        """One step; the loss, or a number that is not finite, and then the weights are worth nothing."""
        if self.recordings is not None:
            try:
                return self._replay(self.recordings, progress)
            except torch.OutOfMemoryError as error:
                note = f"out of memory: steps are not recorded from here ({str(error).splitlines()[0]})"
            self.recordings = None
            self.optimiser.clear()
            print(f"step {progress.step + 1}: {note}", file=sys.stderr)
            torch.cuda.empty_cache()
        loss = self.gradients.compute(progress, self.trained.values())
        if math.isfinite(loss):
            self._update(*self._now(progress))
        return loss

    def _now(self, progress: Progress) -> tuple[float, float, float | None]:
        """Of a step the learning rate, the share that means move, and how far the weight decay is ramped, if it is."""
        settings, step = self.settings, progress.step
        return learning_rate(settings, step, progress.factor), 1 - averaging(settings, step), decaying(settings, step)

    def _update(
        self,
        rate: float | Tensor,
        share: float | Tensor,
        decay: float | Tensor | None = None,
        *,
        shrink: Tensor | None = None,
    ) -> None:
        """Change the weights by their gradients over `shrink`, and their mean by a share of the difference."""
        self.optimiser.step(rate, decay, shrink)
        if self.mean:
            move_towards(list(self.mean.values()), [weight.detach() for weight in self.trained.values()], share)

    def _replay(self, recordings: Recordings, progress: Progress) -> float:
        """All of a step as one CUDA graph; the host gets the next batch while the GPU is at work."""
        step, network = progress.step, self.network
        if not network.training:  # torch walks through all of it each time
            network.train()
        batch = self.ahead.take(step, self.batches.__getitem__)
        seed_noise(self.seed, step)
        within = network.prepares_alike
        batch = batch if within else network.prepare(batch, step)
        now = torch.tensor([number for number in self._now(progress) if number is not None])
        now = now.to(batch.bins.device, non_blocking=True)
        changed = [*self.trained.values(), *self.mean.values(), *self.optimiser.state.values()]

        def whole(tensors: Tensors) -> Tensor:
            held = batch.holding(tensors)
            return self._whole(network.prepare(held, step) if within else held, tensors)

        made = recordings.run((batch.session, batch.ragged), whole, batch.tensors() | {"now": now}, changed)
        coming = self.ahead.prepare(step + 1, self.batches.__getitem__)
        if coming is not None and within:
            recordings.load(coming.tensors())
        loss, norm = made.tolist()
        return loss if math.isfinite(norm) else math.nan

    def _whole(self, prepared: Batch, tensors: Tensors) -> Tensor:
        """Make a step; its loss and the norm of its gradient [2]."""
        loss = self.gradients.total(self.network.loss, prepared)
        put_gradients(loss, list(self.trained.values()))
        norm = get_total_norm([weight.grad for weight in self.trained.values() if weight.grad is not None])
        shrink = (norm / self.settings.clip).clamp(min=1.0)
        self._update(*tensors["now"].unbind(), shrink=shrink.float())  # the kernel takes no other type
        return torch.stack([loss.detach(), norm])
