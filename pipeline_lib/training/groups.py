"""Batches of the members of an ensemble, prepared and stacked for one vectorised operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Members whose prepared batches have the same shape.

    Attributes
    ----------
    rows : which members.
    batch : of the session and the kind of theirs.
    tensors : theirs, stacked: [members, windows, ...].
    """

    rows: list[int]
    batch: Batch
    tensors: Tensors


def prepared(network: Network, sources: Sequence[Source], number: int, step: int, at_once: int) -> list[Group]:
    """Batches `number` of all members, in groups of `at_once` at most; streams are then where dropout goes on."""
    groups = []
    every = list(range(len(sources)))
    if network.prepares_together:
        for start in range(0, len(every), at_once):
            rows = every[start : start + at_once]
            group = _together(network, rows, [sources[row] for row in rows], number, step)
            if group is None:
                break
            groups.append(group)
        else:
            return groups
    return _one_by_one(network, sources, number, step, at_once)


def _together(network: Network, rows: list[int], sources: list[Source], number: int, step: int) -> Group | None:
    """The group of some members, prepared by one operation for all; None where their batches may differ in shape."""
    orders = [source.batches for source in sources if isinstance(source.batches, Order)]
    batch = together(orders, number) if len(orders) == len(sources) else None
    if batch is None:
        return None
    for source in sources:
        seed_stream(source.stream, source.seed, number)
    with as_one([source.stream for source in sources]):
        made = network.prepare(batch, step)
    tensors = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in made.tensors().items()}
    return Group(rows, made, tensors)


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
