"""The training loop: steps, evaluations, checkpoints, an early end.

Batches and noise come from generators seeded with the number of the batch (see `gradients`): nothing random has a
state that would have to be saved, and a run that was killed goes on from its last checkpoint to the same bytes as an
undisturbed one.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress, Tensors, pack, read_about, unpack
from pipeline_lib.training.memory import give_back_freed_memory, keep_freed_memory
from pipeline_lib.training.network import Network
from pipeline_lib.training.noise import seed_noise
from pipeline_lib.training.run import FitError, Run, State
from pipeline_lib.training.schedule import learning_rate
from pipeline_lib.training.settings import TrainingSettings
from pipeline_lib.training.steps import Steps

EVALUATION = 2**31
"""Seeds the noise of every evaluation: the same, so that losses differ by the weights alone."""
UNJUDGED = "the validation loss was never a finite number; lower the learning_rate"
"""Of a training none of whose weights could be called the best."""


class Training:
    """The training of a network.

    Parameters
    ----------
    network : where it is to be trained; weights that do not require gradients stay as they are.
    batches : training batches.
    validation : evaluated every `settings.evaluate_every` steps; empty: the last weights are kept.
    settings, seed : how to train.
    run : takes progress, history and checkpoints.
    """

    def __init__(
        self,
        network: Network,
        batches: Batches,
        validation: Iterable[Batch],
        settings: TrainingSettings,
        seed: int,
        run: Run,
    ) -> None:
        self.network, self.validation = network, validation
        self.settings, self.run = settings, run
        self.steps = Steps(network, batches, settings, seed, run)
        self.mean = self.steps.mean
        self.progress = Progress()
        self.best = copied(network.state_dict())

    def train(self) -> None:
        """Train to the end of the budget or of the patience, and leave the weights to be kept in the network.

        Raises
        ------
        FitError : the loss was not finite before there was anything to keep, or that of the validation part never was.
        Interrupted : the process was asked to end; the training is checkpointed.
        """
        settings = self.settings
        if self.run.device == "cpu":
            keep_freed_memory()
        self._resume()
        progress = self.progress
        while progress.step < settings.steps and progress.hopeful(settings):
            loss = self.steps.make(progress)
            if not math.isfinite(loss):
                self._diverged(loss)
                break
            progress.step += 1
            progress.losses.append(loss)
            if progress.step % settings.evaluate_every == 0 or progress.step == settings.steps:
                self._evaluate()
            self.run.progress(progress.step, settings.steps, loss)
            self.run.checkpoint(self._state)
        if settings.keep == "best" and math.isinf(progress.best):
            raise FitError(UNJUDGED)
        self.network.load_state_dict(self.best)

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Log the losses; keep the weights if they are the best so far."""
        progress, settings = self.progress, self.settings
        rate = learning_rate(settings, progress.step - 1, progress.factor)
        self.network.eval()
        with self._averaged():
            terms = self._validation_losses()
            more = self.network.monitor()
            if progress.judge(terms, self.network.selects, settings) or settings.keep == "last":
                self.best = copied(self.network.state_dict())
        self.run.log(progress.row(terms, rate) | more)
        if self.run.device == "cpu":
            give_back_freed_memory()

    def _validation_losses(self) -> dict[str, float]:
        """The terms of the loss: their means over the validation windows."""
        sums, windows = dict[str, float](), 0
        for number, batch in enumerate(self.validation):
            seed_noise(EVALUATION, number)
            windows += len(batch.counts)
            for name, value in self.network(batch, None).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(batch.counts)
        return self.steps.gradients.agreed({name: value / windows for name, value in sums.items()})

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The running mean of the weights in their place, where there is one."""
        own = copied(self.steps.trained) if self.mean else {}
        self.network.load_state_dict(self.mean, strict=False)
        yield
        self.network.load_state_dict(own, strict=False)

    def _diverged(self, loss: float) -> None:
        step, problem = self.progress.step + 1, f"loss or gradient is {loss}"
        if step <= self.settings.evaluate_every:
            raise FitError(f"{problem} at step {step}, before the first evaluation; lower the learning_rate")
        if self.settings.keep == "best" and math.isinf(self.progress.best):
            raise FitError(f"{problem} at step {step}, and {UNJUDGED}")
        self.run.log({"step": step, "stopped": f"loss or gradient {loss}"})
        print(f"step {step}: {problem}; training ends with the {self.settings.keep} weights so far", file=sys.stderr)

    def _groups(self) -> dict[str, Tensors]:
        """All tensors that are needed to go on from here."""
        network = self.network.state_dict()
        return {"network": network, "best": self.best, "mean": self.mean, "optimiser": self.steps.optimiser.state}

    def _state(self) -> State:
        return pack(asdict(self.progress), **self._groups())

    def _resume(self) -> None:
        state = self.run.resume()
        if state is not None:
            unpack(state, **self._groups())
            self.progress = Progress(**read_about(state))


def copied(weights: Mapping[str, Tensor]) -> Tensors:
    """Copies that do not change with the network."""
    return {name: value.detach().clone() for name, value in weights.items()}
