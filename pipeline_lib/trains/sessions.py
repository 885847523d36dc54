"""The sessions of a cohort, open as far as memory allows."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline_lib.trains.events import tick_type
from pipeline_lib.trains.manifest import read_manifest
from pipeline_lib.trains.settings import MEMORY_BUDGET
from pipeline_lib.trains.store import Trains

ALWAYS = 2
"""Sessions that may be resident whatever they take: the one in use, and the one that comes next."""

Source = Trains | Path
T = TypeVar("T")


class Sessions(Mapping[str, T], Generic[T]):
    """What is made of each session, by its id: made when first asked for, and let go of when others need the memory.

    The least recently used goes first. Threads may share it.

    Parameters
    ----------
    sources : open sessions, or the folders of their stores, in any order.
    make : what to hold of a session, given its open Trains.
    memory_budget : bytes of events that may be resident; beyond it two sessions still may.
    """

    def __init__(
        self, sources: Sequence[Source], make: Callable[[Trains], T], memory_budget: int = MEMORY_BUDGET
    ) -> None:
        self.sources = {session_of(source): source for source in sources}
        self.bytes = {session: bytes_of(source) for session, source in self.sources.items()}
        self.make, self.memory_budget = make, memory_budget
        self._made: OrderedDict[str, Future[T]] = OrderedDict()
        self._lock, self._thread = threading.Lock(), ThreadPoolExecutor(max_workers=1)

    @property
    def fit(self) -> bool:
        """Whether all sessions fit into the budget."""
        return sum(self.bytes.values()) <= self.memory_budget

    def __getitem__(self, session: str) -> T:
        """What was made of a session; waits while it is opened."""
        future = self.prefetch(session)
        try:
            return future.result()
        except BaseException:
            with self._lock:
                self._made.pop(session, None)
            raise

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def prefetch(self, session: str) -> Future[T]:
        """Have a session opened by another thread, if it is not open yet."""
        with self._lock:
            if session not in self._made:
                self._made[session] = self._thread.submit(self._open, self.sources[session])
            self._made.move_to_end(session)
            while len(self._made) > ALWAYS and sum(map(self.bytes.__getitem__, self._made)) > self.memory_budget:
                self._made.popitem(last=False)
            return self._made[session]

    @property
    def resident(self) -> list[str]:
        """Ids of the sessions that are open, or being opened; the last used comes last."""
        return list(self._made)

    def _open(self, source: Source) -> T:
        return self.make(source if isinstance(source, Trains) else Trains.open(source))


def session_of(source: Source) -> str:
    """The id of a session, open or not."""
    return source.session if isinstance(source, Trains) else str(read_manifest(source)["session"])


def bytes_of(source: Source) -> int:
    """Bytes of the resident events; a session that is open already costs nothing more."""
    if isinstance(source, Trains):
        return 0
    manifest: dict[str, Any] = read_manifest(source)
    return int(manifest["spikes"]) * (tick_type(manifest["duration_ticks"]).itemsize + 2)
