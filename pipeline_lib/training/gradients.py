"""The gradient of one step: a mean over its batches, in as many processes and pieces as the machine makes of them.

Batch b of a training draws its windows and its noise from generators seeded with (seed, b). So a step is the same
whichever processes take which of its batches.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.network import Network
from pipeline_lib.training.noise import seed_noise
from pipeline_lib.training.run import FitError, Run
from pipeline_lib.training.settings import TrainingSettings


class Gradients:
    """Puts the gradient of a step into the weights of a network.

    Where memory runs out, the windows of a batch are taken in twice as many pieces from then on, and the step is made
    again: the gradient is then the mean over the pieces, of each term of the loss by what it is a mean over
    (`Network.counted`). Of a network that prepares its batches the pieces are cut from the prepared one, so that they
    hide what the batch hides. That is the gradient of the whole batch but for noise that is drawn in the loss
    (dropout), and for a loss that is no such mean: one that sets windows against each other, or goes by the largest
    entries.

    Parameters
    ----------
    network : whose weights; those that do not require a gradient are left alone.
    batches : training batches.
    settings, seed : of the training.
    run : knows the device, and is told what happened.

    Raises
    ------
    InputError : the batches of a step cannot be shared evenly between the processes.
    """

    def __init__(self, network: Network, batches: Batches, settings: TrainingSettings, seed: int, run: Run) -> None:
        self.network, self.batches, self.settings, self.seed, self.run = network, batches, settings, seed, run
        # A step of a cohort leaves the weights of most sessions alone.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Precision is a setting of the fit. Accelerate would take one from the environment, and its own `backward` a
        # number to divide by: neither would be known of the result.
        cpu = run.device == "cpu"
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[unused])
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        if settings.accumulate % self.processes:
            accepted = f"a multiple of the {self.processes} processes, which share the batches of a step"
            raise InputError("config", "accumulate", settings.accumulate, accepted)
        self.model = self.accelerator.prepare(network)
        if settings.compile:
            network.compile()

    def compute(self, progress: Progress, weights: Iterable[nn.Parameter]) -> float:
        """The loss of the step that `progress` is at; `weights` then hold its gradient, clipped.

        A number that is not finite where the loss or the gradient is not.
        """
        weights = list(weights)
        while True:
            try:
                loss = self._sum(progress.step, progress.pieces)
                break
            except torch.OutOfMemoryError as error:
                problem = str(error).splitlines()[0]
            # Outside the handler: the error holds on to the tensors of the step.
            for weight in weights:
                weight.grad = None
            self._halve(progress, problem)
        norm = self.accelerator.clip_grad_norm_(weights, self.settings.clip)
        return loss if math.isfinite(norm) else math.nan

    def _sum(self, step: int, pieces: int) -> float:
        """Add up the gradients of the batches of a step; their mean loss, over all processes."""
        if not self.network.training:  # torch walks through all of it each time
            self.network.train()
        own = self.settings.accumulate // self.processes
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(own):
            number = step * self.settings.accumulate + part * self.processes + self.rank
            batch = self.batches[number]
            seed_noise(self.seed, number)
            with contextlib.nullcontext() if part == own - 1 else self.accelerator.no_sync(self.model):
                for share in self._shares(batch, step, pieces):
                    loss = share * (1 / own)
                    loss.backward()
                    total += loss.detach()
        mean: Tensor = self.accelerator.reduce(total, "mean")
        return mean.item()

    def _shares(self, batch: Batch, step: int, pieces: int) -> Iterator[Tensor]:
        """The loss of a batch, as the shares that its pieces have in it, one after the other."""
        network = self.network
        if pieces == 1:
            yield self.total(self.model, batch, step)
        elif type(network).forward is Network.forward and self.processes == 1:
            batch = network.prepare(batch, step)
            counted = network.counted(batch)

            def terms(piece: Batch) -> dict[str, Tensor]:
                own, windows = network.counted(piece), len(piece.bins) / len(batch.bins)
                share = {name: own[name] / number for name, number in counted.items()}
                return {name: value * share.get(name, windows) for name, value in network.loss(piece).items()}

            for piece in cut(batch, pieces):
                yield self.total(terms, piece)
        else:  # what several processes share is called as a whole
            for piece in cut(batch, pieces):
                yield self.total(self.model, piece, step) * (len(piece.bins) / len(batch.bins))

    def agreed(self, numbers: dict[str, float]) -> dict[str, float]:
        """Of numbers that every process has computed, those of the first: GPUs need not round alike, and what follows
        from them (a plateau, the end of the patience) must be the same for all."""
        own = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(numbers, broadcast(own).tolist(), strict=True))

    def total(self, terms: Callable[..., dict[str, Tensor]], *arguments: object) -> Tensor:
        """The sum of the terms of a loss, computed in the precision that was asked for.

        InputError where nothing that it depends on is trained.
        """
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half):
            first, *others = terms(*arguments).values()
            total = torch.stack([first, *others]).sum() if others else first
        if not total.requires_grad:
            accepted = "patterns that leave something to train for the loss of every session"
            raise InputError("config", "freeze", list(self.settings.freeze), accepted)
        return total

    def _halve(self, progress: Progress, problem: str) -> None:
        """Cut batches into twice as many pieces, and say so."""
        if progress.pieces >= self.settings.batch:
            raise FitError(f"out of memory with a single window at a time ({problem})")
        if self.processes > 1:
            raise FitError(f"out of memory ({problem}); lower the batch and raise accumulate")
        progress.pieces *= 2
        note = f"out of memory: batches of {self.settings.batch} windows in {progress.pieces} pieces from here"
        self.run.log({"step": progress.step + 1, "note": note})
        print(f"step {progress.step + 1}: {note} ({problem})", file=sys.stderr)
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """The windows of a batch in at most so many pieces of nearly equal size."""
    rows = torch.arange(len(batch.bins), device=batch.bins.device).tensor_split(pieces)
    return [batch.windows(each) for each in rows if len(each)]
