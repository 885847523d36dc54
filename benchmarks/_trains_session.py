"""The session that spike-train benchmarks share, and how they measure. Needs numpy only, as peers import it too."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

SECONDS, UNITS, BIN = 9000.0, 600, 0.005
PART = 1500.0
"""Seconds of the session that dense counts are compared on: the peers' whole session would take 9 GB."""
WINDOW, BATCH = 1.0, 64


def cpu(function: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of a call: the least of `repeats`."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def each(function: Callable[..., object], items: Iterable[object]) -> None:
    """Call `function` with every item and keep nothing."""
    deque(map(function, items), maxlen=0)


def peak() -> int:
    """Most memory this process has held, bytes. (`getrusage` would count what the parent held when it started us.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def make_session(folder: Path, spikes: int) -> None:
    """Poisson units, rates log-normal around 2 Hz up to 62 Hz; per unit and time-sorted."""
    random = np.random.default_rng(0)
    rates = np.minimum(2 * np.exp(1.11 * random.standard_normal(UNITS)), 62)
    counts = random.multinomial(spikes, rates / rates.sum())
    times = np.concatenate([np.sort(random.uniform(0, SECONDS, count)) for count in counts])
    order = np.argsort(times, kind="stable")
    np.save(folder / "times.npy", times)
    np.save(folder / "stops.npy", np.cumsum(counts))
    np.save(folder / "sorted_times.npy", times[order])
    np.save(folder / "sorted_unit.npy", np.repeat(np.arange(UNITS), counts)[order])


def per_unit(folder: Path) -> list[np.ndarray]:
    return np.split(np.load(folder / "times.npy"), np.load(folder / "stops.npy")[:-1])


def time_sorted(folder: Path, stop: float = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    times, unit = np.load(folder / "sorted_times.npy"), np.load(folder / "sorted_unit.npy")
    count = np.searchsorted(times, stop)
    return times[:count].copy(), unit[:count].copy()


def window_starts(batches: int) -> np.ndarray:
    """Starts (s) of random windows [batch, window]."""
    return np.random.default_rng(1).uniform(0, SECONDS - WINDOW, (batches, BATCH))
