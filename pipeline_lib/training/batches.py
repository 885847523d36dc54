"""Windows of a cohort held in memory as tensors, and the order in which training walks through them.

A window takes a byte a bin and unit (two where something was not observed): 500 trials of 600 units and 200 bins are
60 MB. Batches are gathered where the tensors live, by one index operation. What is too much for memory: `streaming`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData

PIECE = 256
"""Windows that a pass over all of them takes at a time."""


@dataclass(frozen=True)
class Batch:
    """Windows of one session. B windows, L bins (history first, then the longest of these windows), N units.

    Attributes
    ----------
    session : its id.
    counts : spikes a bin [B, L, N], uint8 or int32; 0 where not observed.
    observed : what may be a target: bool [B, L, N]. False: not recorded, hidden, or past the end of the window.
    visible : what may be an input: bool [B, L, N]; `observed` without held-out units and forward bins.
    bins : bins of each window, history included, int64 [B].
    history : how many bins at the start are history: inputs, never scored.
    inputs : further arrays by name, [B, ...], that a model asked for.
    ragged : False only where every window has L bins. Known without asking the device.
    """

    session: str
    counts: Tensor
    observed: Tensor
    visible: Tensor
    bins: Tensor
    history: int
    inputs: dict[str, Tensor] = field(default_factory=dict)
    ragged: bool = True

    def tensors(self) -> dict[str, Tensor]:
        """All that is a row a window, by name."""
        own = {"counts": self.counts, "observed": self.observed, "visible": self.visible, "bins": self.bins}
        return own | {f"inputs/{name}": array for name, array in self.inputs.items()}

    def holding(self, tensors: dict[str, Tensor]) -> Batch:
        """This batch with other `tensors`."""
        counts, observed, visible, bins = (tensors[name] for name in ("counts", "observed", "visible", "bins"))
        inputs = {name: tensors[f"inputs/{name}"] for name in self.inputs}
        return Batch(self.session, counts, observed, visible, bins, self.history, inputs, self.ragged)

    def windows(self, rows: Tensor) -> Batch:
        """Some of the windows, as long as they are here."""
        return self.holding({name: array[rows] for name, array in self.tensors().items()})


class Batches(Protocol):
    """Training batches without end; number k is a function of k alone."""

    def __getitem__(self, number: int) -> Batch: ...


class Windows:
    """All windows of a part of a session (or any rows of it), resident on a device.

    Parameters
    ----------
    data, session, samples : as for `FitData.counts`.
    device : where the tensors live.
    inputs : further arrays [S, ...] by name, cut like the windows.
    """

    def __init__(
        self,
        data: FitData,
        session: str,
        samples: str | pd.DataFrame,
        device: str = "cpu",
        inputs: dict[str, np.ndarray] | None = None,
    ) -> None:
        self._describe(data, session, data.samples(session, samples) if isinstance(samples, str) else samples, device)
        counts, observed = data.read(session, samples)
        # torch computes with no unsigned type wider than a byte.
        self.counts = torch.as_tensor(counts if counts.dtype == np.uint8 else counts.astype(np.int32), device=device)
        self.observed = None if observed.all() else torch.as_tensor(observed, device=device)
        self.inputs = {name: torch.as_tensor(array, device=device) for name, array in (inputs or {}).items()}

    def _describe(self, data: FitData, session: str, rows: pd.DataFrame, device: str) -> None:
        """All that is known of windows that are not binned yet."""
        self.session, self.history, self.forward = session, data.split.history_bins, data.split.forward_bins
        self.lengths = rows["bins"].to_numpy(dtype=np.int64) + self.history  # of `bins`, where nobody waits for them
        self.bins = torch.as_tensor(self.lengths, device=device)
        self.ragged = rows["bins"].nunique() > 1
        heldin = np.zeros(data.trains[session].n_units, dtype=bool)
        heldin[data.heldin(session)] = True
        self.heldin = torch.as_tensor(heldin, device=device)

    def __len__(self) -> int:
        return len(self.bins)

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The windows `rows`, cut to the longest of them; the host waits for nothing that the device does."""
        length = int(self.lengths[rows].max()) if self.ragged else self.counts.shape[1]
        there = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.bins.device, non_blocking=True)
        bins = self.bins[there]
        counts = self.counts[there][:, :length]
        observed = torch.ones_like(counts, dtype=torch.bool) if self.observed is None else self.observed[there]
        observed = observed[:, :length]
        known = torch.arange(length, device=bins.device) < bins[:, None] - self.forward
        visible = observed & self.heldin & known[:, :, None]
        inputs = {name: array[there] for name, array in self.inputs.items()}
        return Batch(self.session, counts, observed, visible, bins, self.history, inputs, self.ragged)

    def pieces(self, size: int = PIECE) -> Iterator[Batch]:
        """All windows in their order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def mean_counts(self, counted: Callable[[Batch], Tensor] = lambda batch: batch.observed) -> Tensor:
        """Mean spikes a bin [N], over observed bins, or over those that are `counted` of a batch, bool [B, L, N].

        Half a spike is added to every unit, and the bins that it takes at the mean rate of all units: so none is 0, and
        one that was never observed has that mean rate.
        """
        spikes = torch.zeros(len(self.heldin), dtype=torch.float64, device=self.heldin.device)
        seen = torch.zeros_like(spikes)
        for batch in self.pieces():
            mask = counted(batch)
            spikes += (batch.counts * mask).sum(dim=(0, 1), dtype=torch.float64)
            seen += mask.sum(dim=(0, 1))
        overall = (spikes.sum() + 0.5) / (seen.sum() + 1)
        return ((spikes + 0.5) / (seen + 0.5 / overall)).float()

    def most(self) -> int:
        """The largest count of a bin."""
        return max((int(batch.counts.max()) for batch in self.pieces()), default=0)


class InOrder:
    """All windows of a cohort, session after session, `size` at a time; one can go through them again and again."""

    def __init__(self, windows: dict[str, Windows], size: int) -> None:
        self.windows, self.size = windows, size

    def __iter__(self) -> Iterator[Batch]:
        for each in self.windows.values():
            yield from each.pieces(self.size)


class Order(Batches):
    """Shuffled batches: batch k is a function of the seed and k alone, so there is no state to save.

    An epoch visits every window once. Its batches come from one session each, differ in size by one window at most,
    and are shuffled over the cohort. From which session batch k comes, and how large it is, is the same for all seeds:
    only so can trainings from several seeds go step by step together.

    Parameters
    ----------
    windows : the training windows of each session.
    size : windows in a batch, at most.
    seed : of the order.
    """

    def __init__(self, windows: dict[str, Windows], size: int, seed: int) -> None:
        self.windows, self.seed = windows, seed
        self.batches = {session: -(-len(each) // size) for session, each in windows.items() if len(each)}
        self._epoch, self._plan = -1, list[tuple[str, np.ndarray]]()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return sum(self.batches.values())

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`, counted from the start of training."""
        windows, rows = self.rows(number)
        return windows.batch(rows)

    def rows(self, number: int) -> tuple[Windows, np.ndarray]:
        """The windows that batch `number` comes from, and their rows."""
        epoch, position = divmod(number, len(self))
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._shuffle(epoch)
        session, rows = self._plan[position]
        return self.windows[session], rows

    def _shuffle(self, epoch: int) -> list[tuple[str, np.ndarray]]:
        draw = np.random.default_rng([self.seed, epoch])
        parts = [
            (session, rows)
            for session, count in self.batches.items()
            for rows in np.array_split(draw.permutation(len(self.windows[session])), count)
        ]
        return [parts[index] for index in np.random.default_rng(epoch).permutation(len(parts))]


def together(orders: Sequence[Order], number: int) -> Batch | None:
    """Batches `number` of orders over the same windows, one after the other; None where windows differ in length."""
    chosen = [order.rows(number) for order in orders]
    windows = chosen[0][0]
    if windows.ragged:
        return None
    return windows.batch(np.concatenate([rows for _, rows in chosen]))
