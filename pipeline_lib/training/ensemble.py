"""Several trainings of one network, from different seeds, as one: every step is one vectorised operation over all.

A small network leaves a GPU idle: launching its operations takes longer than computing them. Here an operation works on
the weights of all members, stacked. Each member has the batches, the noise, the schedule, the early end and the best
weights that it would have alone, and ends in the same weights but for the order of float sums: float32 products of
stacked matrices differ by 1e-6 or so, and a training carries such differences on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress, Tensors, pack, read_about, unpack
from pipeline_lib.training.engine import EVALUATION, UNJUDGED
from pipeline_lib.training.graphs import Prefetched, Recordings, put_gradients
from pipeline_lib.training.groups import Group, Source, grouped
from pipeline_lib.training.memory import give_back_freed_memory, keep_freed_memory
from pipeline_lib.training.network import Network
from pipeline_lib.training.noise import as_one, seed_noise
from pipeline_lib.training.optimiser import AdamW, move_towards
from pipeline_lib.training.run import FitError, Run, State
from pipeline_lib.training.schedule import averaging, decaying, learning_rate
from pipeline_lib.training.settings import TrainingSettings


@dataclass
class Member:
    """One of the trainings."""

    seed: int
    progress: Progress = field(default_factory=Progress)
    problem: str = ""
    """Why there is nothing to keep."""


class Ensemble:
    """The training of several networks.

    Parameters
    ----------
    networks : one of each member, where they are to be trained. Alike but for the values of their weights.
    batches : training batches of each member; those of one number are of one session and of equal size.
    validation : evaluated every `settings.evaluate_every` steps; empty: the last weights are kept.
    settings : how to train; `processes` and `compile` do not matter.
    seeds : of the members.
    run : takes progress, the history of all (column "seed" first) and checkpoints.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        batches: Sequence[Batches],
        validation: Iterable[Batch],
        settings: TrainingSettings,
        seeds: Sequence[int],
        run: Run,
    ) -> None:
        self.networks, self.network = networks, networks[0]
        self.validation, self.settings, self.run = validation, settings, run
        self.device = next(self.network.parameters()).device
        self.sources = {
            seed: Source(seed, each, torch.Generator(self.device)) for seed, each in zip(seeds, batches, strict=True)
        }
        self.members = [Member(seed) for seed in seeds]
        self.training = list(range(len(seeds)))
        """Members that are still in training; the tensors below hold a row of each, but `best` one of every member."""
        self.loss = Loss(self.network)
        each = [dict(Loss(network).named_parameters()) for network in networks]
        self.frozen = {name for name, weight in each[0].items() if not weight.requires_grad}
        self.weights = {name: torch.stack([own[name].detach() for own in each]) for name in each[0]}
        self.best = {name: weight.clone() for name, weight in self.weights.items()}
        self.mean = {name: self.weights[name].clone() for name in self._trained} if settings.average else {}
        self.optimiser = self._optimiser()
        self.at_once = len(seeds)
        self.recorded = settings.cuda_graphs and settings.accumulate == 1 and self.device.type == "cuda"
        self.recordings = Recordings()
        self.ahead = Prefetched[list[Group]]()

    def train(self) -> None:
        """Train every member to the end of its budget or patience, and leave in each network the weights to be kept.

        A member whose loss was not finite before there was anything to keep has a `problem`; the others go on.

        Raises
        ------
        Interrupted : the process was asked to end; the training is checkpointed.
        """
        settings = self.settings
        if self.device.type == "cpu":
            keep_freed_memory()
        self._resume()
        before = sum(member.progress.step for member in self.members)
        while self.training and (step := self._active[0].progress.step) < settings.steps:
            losses = self._step(step)
            for member, loss in zip(self._active, losses, strict=True):
                member.progress.step += 1
                member.progress.losses.append(loss)
            if self.training and ((step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps):
                self._evaluate()
                self._keep([row for row, member in enumerate(self._active) if member.progress.hopeful(settings)])
            self.run.progress(step + 1, settings.steps, math.fsum(losses) / max(len(losses), 1))
            self.run.checkpoint(self._state)
        for member in self.members:
            if settings.keep == "best" and math.isinf(member.progress.best) and not member.problem:
                member.problem = f"seed {member.seed}: {UNJUDGED}"
        if sum(member.progress.step for member in self.members) > before:
            self.run.checkpoint(self._state, force=True)  # publishing may be interrupted, too
        for number, network in enumerate(self.networks):
            Loss(network).load_state_dict({name: best[number] for name, best in self.best.items()}, strict=False)

    @property
    def _active(self) -> list[Member]:
        return [self.members[number] for number in self.training]

    @property
    def _trained(self) -> list[str]:
        return [name for name in self.weights if name not in self.frozen]

    def _optimiser(self) -> AdamW:
        settings, network = self.settings, self.network
        trained = {name: self.weights[name].requires_grad_() for name in self._trained}
        paces = {name: network.pace(name.removeprefix("network.")) for name in trained}
        return AdamW(trained, settings.betas, settings.epsilon, settings.weight_decay, paces)

    def _keep(self, rows: list[int]) -> None:
        """Go on with these rows of the members in training; the others have ended."""
        if len(rows) == len(self.training):
            return
        self.training = [self.training[row] for row in rows]
        state = self.optimiser.state
        self.weights = {name: weight.detach()[rows] for name, weight in self.weights.items()}
        self.mean = {name: mean[rows] for name, mean in self.mean.items()}
        self.optimiser, self.recordings = self._optimiser(), Recordings()
        self.ahead.forget()
        for name, tensor in state.items():
            self.optimiser.state[name] = tensor[rows] if tensor.ndim else tensor

    # A step

    def _step(self, step: int) -> list[float]:
        """One step of every member in training; the losses of those that go on."""
        if not self.network.training:  # torch walks through all of it each time
            self.network.train()
        losses, norms = self._changed(step).tolist()
        losses = [loss if math.isfinite(norm) else math.nan for loss, norm in zip(losses, norms, strict=True)]
        for member, loss in zip(self._active, losses, strict=True):
            if not math.isfinite(loss):
                self._diverged(member, loss)
        self._keep([row for row, loss in enumerate(losses) if math.isfinite(loss)])
        return [loss for loss in losses if math.isfinite(loss)]

    def _changed(self, step: int) -> Tensor:
        """Change the weights by a step; losses and norms of gradients [2, M]. No member has touched another's.

        Where memory runs out, half as many members are worked on at once from then on, and the step is made again.
        """
        while True:
            try:
                return self._attempt(step)
            except torch.OutOfMemoryError as error:
                problem = str(error).splitlines()[0]
            # Outside the handler: the error holds on to the tensors of the step.
            self.optimiser.clear()
            if self.at_once == 1:
                raise FitError(f"out of memory with a single member at a time ({problem}); train them one by one")
            self.at_once = -(-self.at_once // 2)
            self.recordings = Recordings()
            note = f"out of memory: {self.at_once} members at once from here ({problem})"
            print(f"step {step + 1}: {note}", file=sys.stderr)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _attempt(self, step: int) -> Tensor:
        now = self._now(step)
        if self.recorded:  # one batch a step
            groups = self.ahead.take(step, self._groups_of)
            return self._replayed(groups[0], now, step) if len(groups) == 1 else self._launched([groups], now)
        return self._launched((self._groups_of(step, part) for part in range(self.settings.accumulate)), now)

    def _now(self, step: int) -> Tensor:
        """Numbers of a step [M + 1 or M + 2]: learning rates of the members, the share that means move, and how far the
        weight decay is ramped, if it is. The host does not wait for what the device has to do before.
        """
        settings = self.settings
        rates = [learning_rate(settings, step, member.progress.factor) for member in self._active]
        decay = decaying(settings, step)
        numbers = [*rates, 1 - averaging(settings, step), *([] if decay is None else [decay])]
        return torch.tensor(numbers).to(self.device, non_blocking=True)

    def _groups_of(self, step: int, part: int = 0) -> list[Group]:
        """Batches of a step of the members in training; not prepared where that is a part of the recording."""
        number = step * self.settings.accumulate + part
        sources = [self.sources[member.seed] for member in self._active]
        later = self.recorded and self.network.prepares_alike and len(sources) <= self.at_once
        return grouped(self.network, sources, number, step, self.at_once, not later)

    def _launched(self, batches: Iterable[list[Group]], now: Tensor) -> Tensor:
        """A step over batches, each in its groups."""
        losses = torch.zeros(len(self.training), device=self.device)
        for groups in batches:
            for group in groups:
                found = self._loss(group, group.tensors)
                found.sum().backward()
                losses[group.rows] += found.detach()
        norms = self._clip()
        self._update(now)
        return torch.stack([losses, norms])

    def _replayed(self, group: Group, now: Tensor, step: int) -> Tensor:
        """A whole step as one CUDA graph; the host gets the next batches while the GPU is at work."""
        streams = [self.sources[member.seed].stream for member in self._active]

        def whole(tensors: Tensors) -> Tensor:
            ready = group.holding(tensors).prepare(self.network, streams, step)
            found = self._loss(ready, ready.tensors)
            put_gradients(found.sum(), [self.weights[name] for name in self._trained])
            norms = self._clip()
            self._update(tensors["now"])
            return torch.stack([found.detach(), norms])

        kind = group.batch.session, group.batch.ragged
        changed = [*self.weights.values(), *self.mean.values(), *self.optimiser.state.values()]
        made = self.recordings.run(kind, whole, group.tensors | {"now": now}, changed, streams)
        coming = self.ahead.prepare(step + 1, self._groups_of)
        if coming is not None and len(coming) == 1:
            self.recordings.load(coming[0].tensors)
        return made

    def _loss(self, group: Group, tensors: Tensors) -> Tensor:
        """The losses of a group, as their share of a step."""
        streams = [self.sources[self._active[row].seed].stream for row in group.rows]
        terms = self._losses(self._rows(group.rows), group.batch, tensors, streams)
        return torch.stack(list(terms.values())).sum(0) / self.settings.accumulate

    def _rows(self, rows: list[int]) -> Tensors:
        """The weights of some of the members in training."""
        everyone = len(rows) == len(self.training)
        return self.weights if everyone else {name: weight[rows] for name, weight in self.weights.items()}

    def _losses(
        self, weights: Tensors, batch: Batch, tensors: Tensors, streams: Sequence[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        """Terms of the loss [M] of M members, in training each of its own row of `tensors`, else all of the same."""

        def loss(own: Tensors, values: Tensors) -> dict[str, Tensor]:
            result: dict[str, Tensor] = functional_call(self.loss, own, (batch.holding(values),))
            return result

        half = self.settings.precision == "bfloat16" and streams is not None
        with as_one(streams or ()), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            # What an evaluation draws is the same for all members; in training none may draw but from its own stream.
            dims, randomness = ((0, None), "same") if streams is None else ((0, 0), "error")
            result: dict[str, Tensor] = torch.vmap(loss, dims, randomness=randomness)(weights, tensors)
        return result

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Scale gradients that are longer than `settings.clip` down to it; how long they were, by member."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(each.reshape(len(each), -1), dim=1) for each in gradients])
        norm = torch.linalg.vector_norm(norms, dim=0)
        share = (self.settings.clip / (norm + 1e-6)).clamp(max=1.0)
        for each in gradients:
            each *= along(share, each)
        return norm

    @torch.no_grad()
    def _update(self, now: Tensor) -> None:
        """Change the weights by their gradients, and their means, by the numbers `now` of the step."""
        count, apart = len(self.training), self.settings.schedule == "plateau"
        rates, share, decay = now[:count], now[count], now[count + 1] if len(now) > count + 1 else None
        before = {name: self.weights[name].clone() for name in self._trained} if apart else {}
        highest = rates.max()
        self.optimiser.step(highest, decay)
        for name, old in before.items():  # an update is proportional to its learning rate
            self.weights[name].copy_(old.lerp(self.weights[name], along(rates / highest, old)))
        if self.mean:
            move_towards(list(self.mean.values()), [self.weights[name].detach() for name in self.mean], share)

    def _diverged(self, member: Member, loss: float) -> None:
        step, settings = member.progress.step + 1, self.settings
        problem = f"seed {member.seed}: loss or gradient is {loss} at step {step}"
        if step <= settings.evaluate_every:
            member.problem = f"{problem}, before the first evaluation; lower the learning_rate"
        elif settings.keep == "best" and math.isinf(member.progress.best):
            member.problem = f"{problem}, and {UNJUDGED}"
        else:
            self.run.log({"seed": member.seed, "step": step, "stopped": f"loss or gradient {loss}"})
            print(f"{problem}; training ends with the {settings.keep} weights so far", file=sys.stderr)

    # Evaluation

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Log the losses of every member; keep its weights if they are its best so far."""
        settings, weights = self.settings, self.weights | self.mean
        losses = self._validation_losses(weights)
        for row, (number, member) in enumerate(zip(self.training, self._active, strict=True)):
            progress, terms = member.progress, {name: values[row] for name, values in losses.items()}
            rate = learning_rate(settings, progress.step - 1, progress.factor)
            more = self._monitor(number, {name: weight[row] for name, weight in weights.items()})
            if progress.judge(terms, self.network.selects, settings) or settings.keep == "last":
                for name, best in self.best.items():
                    best[number] = weights[name][row]
            self.run.log({"seed": member.seed} | progress.row(terms, rate) | more)
        if self.device.type == "cpu":
            give_back_freed_memory()

    def _monitor(self, number: int, weights: Tensors) -> dict[str, float]:
        """What the network of a member monitors, by itself."""
        network = self.networks[number].eval()
        if type(network).monitor is Network.monitor:
            return {}
        Loss(network).load_state_dict(weights, strict=False)
        return network.monitor()

    def _validation_losses(self, weights: Tensors) -> dict[str, list[float]]:
        """The terms of the loss of every member in training: their means over the validation windows."""
        self.network.eval()
        sums, windows = dict[str, Tensor](), 0
        for number, batch in enumerate(self.validation):
            seed_noise(EVALUATION, number)
            shown = self.network.prepare(batch, None)
            windows += len(batch.counts)
            for name, value in self._losses(weights, shown, shown.tensors()).items():
                sums[name] = sums.get(name, 0.0) + value.double() * len(batch.counts)
        return {name: (value / windows).tolist() for name, value in sums.items()}

    # Checkpoints

    def _groups(self) -> dict[str, Tensors]:
        """All tensors that are needed to go on from here."""
        return {"weights": self.weights, "best": self.best, "mean": self.mean, "optimiser": self.optimiser.state}

    def _state(self) -> State:
        members = [asdict(member) for member in self.members]
        return pack({"members": members, "training": self.training}, **self._groups())

    def _resume(self) -> None:
        state = self.run.resume()
        if state is not None:
            about = read_about(state)
            self.members = [Member(**each | {"progress": Progress(**each["progress"])}) for each in about["members"]]
            self._keep(about["training"])
            unpack(state, **self._groups())


class Loss(nn.Module):
    """A network called for its loss."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss of a prepared batch."""
        return self.network.loss(batch)


def along(values: Tensor, like: Tensor) -> Tensor:
    """`values` [M], to be multiplied with `like` [M, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def seeds_of(state: State) -> list[int]:
    """Seeds of the members in a checkpoint of an ensemble."""
    return [member["seed"] for member in read_about(state)["members"]]
