"""Batches of the members of an ensemble, prepared and stacked for one vectorised operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pipeline_lib.training.batches import Batch, Batches, Order, together
from pipeline_lib.training.checkpoint import Tensors
from pipeline_lib.training.network import Network
from pipeline_lib.training.noise import as_one, catch_up, seed_noise, seed_stream


@dataclass(frozen=True)
class Source:
    """Where the batches and the noise of a member come from."""

    seed: int
    batches: Batches
    stream: torch.Generator


@dataclass(frozen=True)
class Group:
    """Members whose batches have the same shape.

    Attributes
    ----------
    rows : which members.
    batch : of the session and the kind of theirs.
    tensors : theirs, stacked: [members, windows, ...].
    prepared : whether the network has prepared them.
    """

    rows: list[int]
    batch: Batch
    tensors: Tensors
    prepared: bool = True

    @classmethod
    def of(cls, rows: list[int], batch: Batch, prepared: bool) -> Group:
        """Of a batch that holds the windows of these members one after the other."""
        tensors = {name: each.unflatten(0, (len(rows), -1)) for name, each in batch.tensors().items()}
        return cls(rows, batch, tensors, prepared)

    def holding(self, tensors: Tensors) -> Group:
        """This group with other `tensors`."""
        return replace(self, tensors={name: tensors[name] for name in self.tensors})

    def prepare(self, network: Network, streams: Sequence[torch.Generator], step: int) -> Group:
        """Prepared by one operation for all, if it is not yet; each member's share of the noise is of its stream."""
        if self.prepared:
            return self
        batch = self.batch.holding({name: each.flatten(0, 1) for name, each in self.tensors.items()})
        with as_one(streams):
            return Group.of(self.rows, network.prepare(batch, step), True)


def grouped(
    network: Network, sources: Sequence[Source], number: int, step: int, at_once: int, prepare: bool = True
) -> list[Group]:
    """Batches `number` of all members, in groups of `at_once` at most; streams are then where dropout goes on.

    Without `prepare` what one operation prepares for all is not prepared yet, and streams are where that goes on.
    """
    groups = []
    every = list(range(len(sources)))
    if network.prepares_together:
        for start in range(0, len(every), at_once):
            rows = every[start : start + at_once]
            group = _together(rows, [sources[row] for row in rows], number)
            if group is None:
                break
            streams = [sources[row].stream for row in rows]
            groups.append(group.prepare(network, streams, step) if prepare else group)
        else:
            return groups
    return _one_by_one(network, sources, number, step, at_once)


def _together(rows: list[int], sources: list[Source], number: int) -> Group | None:
    """The group of some members, got by one operation for all; None where their batches may differ in shape."""
    orders = [source.batches for source in sources if isinstance(source.batches, Order)]
    batch = together(orders, number) if len(orders) == len(sources) else None
    if batch is None:
        return None
    for source in sources:
        seed_stream(source.stream, source.seed, number)
    return Group.of(rows, batch, False)


def _one_by_one(network: Network, sources: Sequence[Source], number: int, step: int, at_once: int) -> list[Group]:
    alike: dict[tuple[str, bool, torch.Size], list[tuple[int, Batch]]] = {}
    for row, source in enumerate(sources):
        batch = source.batches[number]
        seed_noise(source.seed, number)
        batch = network.prepare(batch, step)
        catch_up(source.stream)
        alike.setdefault((batch.session, batch.ragged, batch.counts.shape), []).append((row, batch))
    groups = []
    for members in alike.values():
        for start in range(0, len(members), at_once):
            rows, batches = zip(*members[start : start + at_once], strict=True)
            each = [batch.tensors() for batch in batches]
            groups.append(
                Group(list(rows), batches[0], {name: torch.stack([one[name] for one in each]) for name in each[0]})
            )
    return groups
