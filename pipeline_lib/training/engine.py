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

import torch
from torch import Tensor

from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress, Tensors, pack, unpack
from pipeline_lib.training.gradients import Gradients, seed_noise
from pipeline_lib.training.network import Network
from pipeline_lib.training.optimiser import AdamW
from pipeline_lib.training.run import FitError, Run, State
from pipeline_lib.training.schedule import learning_rate_factor
from pipeline_lib.training.settings import TrainingSettings

EVALUATION = 2**31
"""Seeds the noise of every evaluation: the same, so that losses differ by the weights alone."""


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
        self.settings, self.seed, self.run = settings, seed, run
        self.trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        paces = {name: network.pace(name) for name in self.trained}
        self.optimiser = AdamW(self.trained, settings.betas, settings.epsilon, settings.weight_decay, paces)
        self.gradients = Gradients(network, batches, settings, seed, run)
        self.progress = Progress()
        self.mean = copied(self.trained) if settings.average else {}
        self.best = copied(network.state_dict())

    def train(self) -> None:
        """Train to the end of the budget or of the patience, and leave the weights to be kept in the network.

        Raises
        ------
        FitError : the loss was not finite before there was anything to keep.
        Interrupted : the process was asked to end; the training is checkpointed.
        """
        settings = self.settings
        self._resume()
        progress = self.progress
        while progress.step < settings.steps and progress.stale < (settings.patience or math.inf):
            loss = self._step()
            if not math.isfinite(loss):
                self._diverged(loss)
                break
            progress.step += 1
            progress.losses.append(loss)
            if progress.step % settings.evaluate_every == 0 or progress.step == settings.steps:
                self._evaluate()
            self.run.progress(progress.step, settings.steps, loss)
            self.run.checkpoint(self._state)
        self.network.load_state_dict(self.best)

    def _step(self) -> float:
        """One optimiser step; the loss, or a number that is not finite, and then the weights are as before."""
        loss = self.gradients.compute(self.progress, self.trained.values())
        if math.isfinite(loss):
            self.optimiser.step(self._learning_rate(self.progress.step))
            if self.mean:
                # A young mean forgets its start: the decay rises from 0 to what was asked for.
                decay = min(self.settings.average, (self.progress.step + 1) / (self.progress.step + 10))
                torch._foreach_lerp_(list(self.mean.values()), [w.detach() for w in self.trained.values()], 1 - decay)
        self.optimiser.clear()
        return loss

    def _learning_rate(self, step: int) -> float:
        settings = self.settings
        factor = learning_rate_factor(settings.schedule, step, settings.steps, settings.warmup, settings.final_rate)
        return settings.learning_rate * factor * self.progress.factor

    def _evaluate(self) -> None:
        """Log the losses; keep the weights if they are the best so far."""
        progress, settings = self.progress, self.settings
        row = {"step": progress.step, "loss": math.fsum(progress.losses) / len(progress.losses)}
        row["learning_rate"] = self._learning_rate(progress.step - 1)
        progress.losses = []
        with self._averaged():
            terms = self._validation_losses()
            row |= {f"validation_{name}": value for name, value in terms.items()}
            score = terms[self.network.selects or "loss"] if terms else -progress.step
            better = score < progress.best
            if better or settings.keep == "last":
                self.best = copied(self.network.state_dict())
        progress.best, progress.stale = (score, 0) if better else (progress.best, progress.stale + 1)
        if settings.schedule == "plateau" and not better and progress.stale % settings.decay_patience == 0:
            progress.factor *= settings.decay
        self.run.log(row)

    @torch.no_grad()
    def _validation_losses(self) -> dict[str, float]:
        """The loss and, where it has several, its terms: their means over the validation windows."""
        self.network.eval()
        sums, windows = dict[str, float](), 0
        for number, batch in enumerate(self.validation):
            seed_noise(EVALUATION, number)
            terms = {name: value.item() for name, value in self.network(batch, None).items()}
            windows += len(batch.counts)
            for name, value in ({"loss": math.fsum(terms.values())} | (terms if len(terms) > 1 else {})).items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.counts)
        return {name: value / windows for name, value in sums.items()}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The running mean of the weights in their place, where there is one."""
        own = copied(self.trained) if self.mean else {}
        self.network.load_state_dict(self.mean, strict=False)
        yield
        self.network.load_state_dict(own, strict=False)

    def _diverged(self, loss: float) -> None:
        step = self.progress.step + 1
        if math.isinf(self.progress.best):
            problem = f"loss or gradient is {loss} at step {step}, before the first evaluation"
            raise FitError(f"{problem}; lower the learning_rate")
        self.run.log({"step": step, "stopped": f"loss or gradient {loss}"})
        print(f"step {step}: loss or gradient is {loss}; training ends with the best weights so far", file=sys.stderr)

    def _groups(self) -> dict[str, Tensors]:
        """All tensors that are needed to go on from here."""
        network = self.network.state_dict()
        return {"network": network, "best": self.best, "mean": self.mean, "optimiser": self.optimiser.state}

    def _state(self) -> State:
        return pack(self.progress, **self._groups())

    def _resume(self) -> None:
        state = self.run.resume()
        if state is not None:
            self.progress = unpack(state, **self._groups())


def copied(weights: Mapping[str, Tensor]) -> Tensors:
    """Copies that do not change with the network."""
    return {name: value.detach().clone() for name, value in weights.items()}
