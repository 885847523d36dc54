"""Batches of windows, binned on the fly from sessions that live in memory.

A session takes 6 bytes a spike, so it stays resident and a batch is one vectorised call: no worker processes, which
would spend ten times the binning on handing the result over. On a GPU the events live there and so is the batch made.

For training loops of one's own: the networks of this package hold their windows, binned once (`training.batches`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.errors import InputError
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.sessions import Sessions, session_of
from pipeline_lib.trains.settings import MEMORY_BUDGET
from pipeline_lib.trains.signals import interpolated
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Windows of one session. Arrays are numpy's, or torch tensors on the loader's device where it has one.

    Axes: B windows, T bins of the longest of them, H bins of history, N units of the session, D dimensions of a signal.
    Nothing is hidden: held-out units and forward bins are among the counts.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20, history=0.1), SplitSettings(), cohort="demo")
    >>> batch = next(iter(Loader([trains], split, part="test")))
    >>> batch.counts.shape, batch.history.shape, bool(batch.mask.all())
    ((4, 50, 29), (4, 5, 29), True)
    """

    session: str
    sample: "Array"
    """[B] int64, sample ids: rows of `Split.samples`."""
    trial: "Array"
    """[B] int64, row of the trials table; -1 for windows of continuous time."""
    counts: "Array"
    """[B, T, N] spikes per bin, uint8 or wider (torch: uint8 or int32); 0 after the end of a shorter window."""
    mask: "Array"
    """[B, T, N] bool: False where a bin was not recorded or lies after the end of a shorter window."""
    history: "Array"
    """[B, H, N] spikes per bin in the history before the window; to be read, never to be scored."""
    history_mask: "Array"
    """[B, H, N] bool: False where a bin of history was not recorded."""
    signals: dict[str, "Array"] = field(default_factory=dict)
    """By name [B, T, D] float32, linearly interpolated to the middle of each bin; NaN before and after its samples and
    in gaps between them."""


class Loader:
    """Iterate over the batches of one part of a split, epoch after epoch, in an order that the seed fixes.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(), cohort="demo")
    >>> for batch in Loader([trains], split, part="train", batch_size=8, seed=0, device="cpu"):
    ...     batch.session, tuple(batch.counts.shape)  # tensors of torch; without a device, arrays of numpy
    ('demo', (6, 50, 29))
    ('demo', (8, 50, 29))

    Parameters
    ----------
    trains : open sessions, or their directories, in any order; directories are opened when they are needed.
    part : "train", "validation" or "test".
    shuffle : a new order every epoch; else samples come session by session in the order of the split.
    mixed : each step yields a list of batches, `batch_size` windows drawn from all sessions, a Batch a session; else
        one Batch of one session, sessions taking turns in the seeded order.
    signals : names of signals to add to every batch.
    device : a torch device; None for numpy arrays, without importing torch.
    memory_budget : bytes of events that may be resident. A cohort that needs more is streamed: sessions follow one
        another in the seeded order, and a thread opens the next while one is in use (those two always are resident).

    Raises
    ------
    InputError : a session of the split is missing, the part is empty, or a mixed cohort exceeds the budget.
    """

    def __init__(
        self,
        trains: Sequence[Trains | Path],
        split: Split,
        part: str = "train",
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        mixed: bool = False,
        signals: Sequence[str] = (),
        device: "str | torch.device | None" = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self.split, self.part, self.batch_size, self.device = split, part, batch_size, device
        self.shuffle, self.seed, self.mixed, self.signals = shuffle, seed, mixed, tuple(signals)
        self._samples = {column: split.samples[column].to_numpy() for column in ("start_tick", "bins", "trial")}
        self._ids = np.flatnonzero(split.samples["split"] == part)
        self._session = split.samples["session"].to_numpy(dtype=object)
        if not len(self._ids):
            raise InputError(f"split of cohort {split.cohort}", "split", f"no sample in {part}", "at least one")
        sources = {session_of(source): source for source in trains}
        missing = [session for session in split.sessions if session not in sources]
        if missing:
            raise InputError(f"split of cohort {split.cohort}", "session", missing[0], "a session among the trains")
        self.sessions = Sessions([sources[session] for session in split.sessions], self._resident, memory_budget)
        self.streamed = not self.sessions.fit
        if self.streamed and mixed:
            accepted = f"a memory_budget of at least the cohort's events (it is {memory_budget} bytes)"
            raise InputError(f"cohort {split.cohort}", "mixed", "a cohort that has to be streamed", accepted)
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._plan(self.epoch))

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: the batch that comes next."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch that came next when `state` was taken."""
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Any]:
        """Yield the rest of this epoch: Batch, or list of Batch where `mixed`."""
        plan = self._plan(self.epoch)
        upcoming = [step[0][0] for step in [*plan, self._plan(self.epoch + 1)[0]]]
        for number in range(self.position, len(plan)):
            batches = [self._make(session, samples) for session, samples in plan[number]]
            if self.streamed:
                self._prefetch(upcoming[number:])
            # The state points to the next batch from the moment this one is handed over.
            self.position = number + 1
            if self.position == len(plan):
                self.epoch, self.position = self.epoch + 1, 0
            yield batches if self.mixed else batches[0]

    def _plan(self, epoch: int) -> list[list[tuple[str, np.ndarray]]]:
        """The steps of an epoch: for each, the sessions and the ids of their samples. A function of seed and epoch."""
        random = np.random.default_rng([self.seed, epoch])
        ids, session = self._ids, self._session[self._ids]
        arrange = random.permutation if self.shuffle else np.asarray
        if self.mixed:
            order = arrange(ids)
            cuts = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
            owner = self._session
            return [[(name, cut[owner[cut] == name]) for name in self.sessions if name in owner[cut]] for cut in cuts]
        runs: list[list[list[tuple[str, np.ndarray]]]] = []
        for name in self.sessions:
            own = arrange(ids[session == name])
            firsts = range(0, len(own), self.batch_size)
            runs.append([[(name, own[first : first + self.batch_size])] for first in firsts])
        if self.streamed:
            return [step for run in arrange(np.arange(len(runs))) for step in runs[run]]
        steps = [step for run in runs for step in run]
        return [steps[number] for number in arrange(np.arange(len(steps)))]

    def _prefetch(self, upcoming: list[str]) -> None:
        """Have the session that follows the first of the `upcoming` ones opened meanwhile."""
        for session in upcoming:
            if session != upcoming[0]:
                self.sessions.prefetch(session)
                return

    def _resident(self, trains: Trains) -> "_Resident":
        return _Resident(trains, self.device, self.signals)

    def _make(self, session: str, ids: np.ndarray) -> Batch:
        starts, bins, trial = (column[ids] for column in self._samples.values())
        return self.sessions[session].batch(ids, starts, bins, trial, self.split)


class _Resident:
    """One session where its batches are made."""

    def __init__(self, trains: Trains, device: "str | torch.device | None", signals: Sequence[str]) -> None:
        self.trains, self.device = trains, device
        self.signals = {name: _signal(trains, name) for name in signals}
        self.events = None
        if device is not None and not str(device).startswith("cpu"):
            from pipeline_lib.trains.device import DeviceEvents

            self.events = DeviceEvents(trains, device)

    def batch(self, ids: np.ndarray, starts: np.ndarray, bins: np.ndarray, trial: np.ndarray, split: Split) -> Batch:
        """The windows that start at `starts`; the history of a window is binned with it, in one call."""
        history, width = split.history_bins, split.bin_ticks
        longest = int(bins.max())
        begin = starts - history * width
        mask = observed_windows(self.trains, begin, history + longest, width)
        inside = None
        if bins.min() < longest:
            inside = (np.arange(-history, longest) < bins[:, None])[:, :, None]
            mask = mask & inside
        if self.events is None:
            counts = self._place(bin_windows(self.trains, begin, history + longest, width))
        else:
            counts = self.events.bin_windows(begin, history + longest, width)
        if inside is not None:
            counts *= self._place(inside)
        mask = self._place(mask)
        return Batch(
            session=self.trains.session,
            sample=self._place(ids),
            trial=self._place(trial.astype(np.int64)),
            counts=counts[:, history:],
            mask=mask[:, history:],
            history=counts[:, :history],
            history_mask=mask[:, :history],
            signals={
                name: self._place(_signal_in_bins(*signal, starts, bins, longest, width))
                for name, signal in self.signals.items()
            },
        )

    def _place(self, array: np.ndarray) -> Any:
        """The array as it is, or as a tensor on the device; torch lacks arithmetic on wide unsigned types."""
        if self.device is None:
            return array
        import torch

        if array.dtype in (np.uint16, np.uint32):
            array = array.astype(np.int32)
        if not array.flags.writeable:
            # A mask that repeats itself: move the part that does not, and repeat it there.
            base = array[tuple(slice(None) if stride else slice(1) for stride in array.strides)].copy()
            return torch.from_numpy(base).to(self.device, non_blocking=True).expand(array.shape)
        return torch.from_numpy(array).to(self.device, non_blocking=True)


def _signal(trains: Trains, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) and values [sample, dimension] of a signal."""
    if f"signals/{name}" not in trains.tables:
        known = [table.removeprefix("signals/") for table in trains.tables if table.startswith("signals/")]
        raise InputError(f"session {trains.session}", "signals", name, f"one of {', '.join(known) or 'none'}")
    frame = trains.tables[f"signals/{name}"]
    return frame["time"].to_numpy(dtype=float), frame.drop(columns="time").to_numpy(dtype=float)


def _signal_in_bins(
    time: np.ndarray, values: np.ndarray, starts: np.ndarray, bins: np.ndarray, longest: int, width: int
) -> np.ndarray:
    """A signal at the middle of each bin [window, bin, dimension], float32."""
    middle = (starts[:, None] + (np.arange(longest) + 0.5) * width) / TICKS_PER_SECOND
    binned = interpolated(middle, time, values).astype(np.float32)
    binned[np.arange(longest) >= bins[:, None]] = np.nan
    return binned
