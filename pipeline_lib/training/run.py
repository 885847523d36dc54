"""What a model being fitted tells the world, and what it needs to go on after it was killed.

Everything lives in ``{directory}/.resume/`` until the fit is published::

    progress.json            step, loss, estimate to the end: read by `python -m pipeline_lib status`
    history.jsonl            the rows of history.csv so far, for who wants to watch: a checkpoint holds its own
    {key}.safetensors        the last checkpoint
    {key}.previous.safetensors    the one before, should the last be unreadable
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from pipeline_lib.errors import Failure
from pipeline_lib.files import atomic_file, write_json
from pipeline_lib.training.gpu_use import use_of
from pipeline_lib.trains.settings import MEMORY_BUDGET

RESUME = ".resume"
PROGRESS = "progress.json"
HISTORY = "history.jsonl"
PROGRESS_SECONDS = 1.0
State = dict[str, np.ndarray]


class Interrupted(SystemExit):
    """The process was asked to end (SIGTERM) and has saved what it had; it exits with 143, as shells expect."""

    def __init__(self, message: str) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = message


class FitError(Failure):
    """A fit gave rates or weights that are not numbers, or that are impossible. Nothing is published."""


class Run:
    """One fit in progress: its progress, its history, its checkpoints.

    Parameters
    ----------
    directory : the run's output directory; `.resume` is made in it.
    key : names the fit; a checkpoint of another key is not resumed but removed.
    labels : what `status` shows of the run: cohort, model, seed.
    checkpoint_seconds : the least time between two checkpoints.
    device : "cpu" or "cuda".
    memory_budget : bytes of windows that may be resident; what needs more is streamed, to the same result.
    """

    def __init__(
        self,
        directory: Path | str,
        key: str = "fit",
        labels: dict[str, Any] | None = None,
        checkpoint_seconds: float = 60.0,
        device: str = "cpu",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self.memory_budget = memory_budget
        self.directory = Path(directory) / RESUME
        self.key, self.labels, self.device = key, labels or {}, device
        self.gpu_use = use_of(device)
        self.rows: list[dict[str, Any]] = []
        self._checkpoint_seconds = checkpoint_seconds
        self._started = time.time()  # for people; intervals are measured on a clock that nobody can set
        self._checkpointed, self._shown = time.monotonic(), -math.inf
        self._first: tuple[int, float] | None = None
        self._told: dict[str, Any] = {"step": 0, "total": None, "loss": math.nan, "seconds_left": None}
        self._history: io.TextIOBase | None = None
        self._asked_to_stop = False
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def _checkpoints(self) -> tuple[Path, Path]:
        """The last checkpoint and the one before it."""
        return self.directory / f"{self.key}.safetensors", self.directory / f"{self.key}.previous.safetensors"

    def progress(self, step: int, total: int | None, loss: float, **extra: Any) -> None:
        """Say how far the fit is. Cheap: the file is written once a second at most, and at the first and last step."""
        now = time.monotonic()
        if self._first is None and total is not None:
            self._first = step, now
        if now - self._shown < PROGRESS_SECONDS and step != total:
            return
        self._shown = now
        if step:  # before the first step, nothing has been asked of the GPU
            self.gpu_use.sample()
        left = None
        if self._first is not None and total is not None and step > self._first[0]:
            left = (now - self._first[1]) / (step - self._first[0]) * (total - step)
        self._told = {"step": int(step), "total": total, "loss": float(loss), "seconds_left": left, **extra}
        self._tell()

    def _tell(self, **more: Any) -> None:
        """Write what was last told of the progress, and `more`."""
        now = {"host": socket.gethostname(), "started": self._started, "updated": time.time()}
        content = self.labels | now | self._told | more
        write_json(self.directory / PROGRESS, {name: _plain(value) for name, value in content.items()})

    def log(self, row: dict[str, Any]) -> None:
        """Add a row to history.csv. Rows may have different columns; leave times out, they are in run.json."""
        self.rows.append({name: _scalar(value) for name, value in row.items()})
        if self._history is None:
            # Opened late: what a killed attempt wrote stays until it is known where this one goes on.
            self._history = (self.directory / HISTORY).open("w")
            self._history.writelines(json.dumps(line) + "\n" for line in self.rows)
        else:
            self._history.write(json.dumps(self.rows[-1]) + "\n")
        self._history.flush()

    def checkpoint(self, state: State | Callable[[], State], force: bool = False) -> None:
        """A safe point: save `state`, all that is needed to go on from here, if it is time to.

        Parameters
        ----------
        state : arrays by name, or a function that makes them, called only when they are saved.
        force : save now, however recent the last checkpoint.

        Raises
        ------
        Interrupted : the process was asked to end; `state` has been saved.
        FitError : `state` holds a number that is not finite. The checkpoint before stays.
        """
        if not (force or self._asked_to_stop or time.monotonic() - self._checkpointed >= self._checkpoint_seconds):
            return
        arrays = state() if callable(state) else state
        require_finite(arrays, f"checkpoint of {self.labels or self.key}")
        last, previous = self._checkpoints
        history = json.dumps(self.rows)  # as text, which keeps the order of columns
        with atomic_file(last) as part:
            write_arrays(part, arrays, {"history": history, "digest": _digest(arrays, history)})
            if last.exists():
                os.replace(last, previous)
        self._checkpointed = time.monotonic()
        self.stop_if_asked()

    def resume(self) -> State | None:
        """The state of the last readable checkpoint, or None for a fresh start; `rows` goes back to it too."""
        others = set(self.directory.glob("[!.]*.safetensors")) - set(self._checkpoints)
        if others:
            print(f"{self.directory}: checkpoint of other settings, data or code: removed", file=sys.stderr, flush=True)
        for path in others:
            path.unlink(missing_ok=True)
        for path in self._checkpoints:
            if not path.exists():
                continue
            try:
                state, about = read_arrays(path)
                if _digest(state, about["history"]) != about["digest"]:
                    raise ValueError("its checksum does not match")
            except Exception as error:  # whatever a damaged file makes a reader raise
                print(f"{path}: unreadable, going back to the one before ({error})", file=sys.stderr, flush=True)
                path.unlink(missing_ok=True)  # else the next checkpoint would push it over the good one
                continue
            self.rows = json.loads(about["history"])
            return state
        return None

    def history_csv(self) -> str:
        """All rows logged, as CSV; the columns in the order in which they first appeared."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def stop_if_asked(self) -> None:
        """Raise Interrupted if the process was asked to end."""
        if self._asked_to_stop:
            message = f"{self.directory.parent}: stopped as asked; the next run goes on from here"
            print(message, file=sys.stderr, flush=True)
            raise Interrupted(message)

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """While open, SIGTERM asks the run to stop at its next checkpoint; a second SIGTERM stops it at once.

        What makes the run fail is told to `status`.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if self._asked_to_stop:
                self.stop_if_asked()
            self._asked_to_stop = True

        with on_sigterm(ask):
            try:
                yield
            except Exception as error:
                with contextlib.suppress(OSError):  # a full disk, say, which may be what it failed for
                    self._tell(problem=[*str(error).splitlines(), type(error).__name__][0])
                raise

    def close(self) -> None:
        """Close the history; its rows stay in `rows`."""
        if self._history is not None:
            self._history.close()


@contextlib.contextmanager
def on_sigterm(asked: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """While open, SIGTERM calls `asked`; in the main thread alone, as no other may listen to signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_arrays(path: Path | str, arrays: State, about: dict[str, Any] | None = None) -> None:
    """Write arrays by name, and a JSON description, as safetensors: the same content gives the same bytes."""
    from safetensors.numpy import save

    # One metadata entry: the library writes several in an order that changes from run to run.
    metadata = {"about": json.dumps(about, sort_keys=True)} if about else None
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)
    Path(path).write_bytes(content)  # of a full disk the library's own writer raises no OSError


def read_arrays(path: Path | str) -> tuple[State, dict[str, Any]]:
    """Read what `write_arrays` wrote."""
    from safetensors import safe_open

    with safe_open(str(path), "numpy") as file:
        about = json.loads((file.metadata() or {}).get("about", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a dictionary


def require_finite(arrays: State, what: str) -> None:
    """Raise FitError at the first array with a value that is not a finite number."""
    for name, array in arrays.items():
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise FitError(f"{what}: {name}{list(bad)} is {values[bad]}, not a finite number; nothing was published")


def _digest(arrays: State, history: str) -> str:
    """SHA-256 over the history and names, types, shapes and values: a flipped bit in a checkpoint is found."""
    digest = hashlib.sha256(history.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    """A value strict JSON can hold: None for a number that is not finite."""
    value = _scalar(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
