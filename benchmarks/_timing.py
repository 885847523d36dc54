"""How benchmarks of models measure: seconds of this process's processor time, or on the clock where a GPU works."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from pipeline_lib.training.graphs import Recordings
from pipeline_lib.training.run import Run


def seconds(device: str = "cpu") -> float:
    """Now: processor time, which other work on the machine does not lengthen, or the clock once a GPU has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def change_device() -> None:
    """Let the next training take another device: accelerate keeps to the first one of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def timed_in_turns(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", warm_up: int = 3
) -> dict[str, float]:
    """Seconds of each call, the median of `repeats` rounds after some to warm up.

    All take turns, so that whatever else the machine does meets all of them.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + warm_up):
        for name, function in functions.items():
            start = seconds(device)
            function()
            spent[name].append(seconds(device) - start)
    return {name: statistics.median(each[warm_up:]) for name, each in spent.items()}


def median_seconds(function: Callable[[], object], repeats: int = 5, device: str = "cpu", warm_up: int = 1) -> float:
    """Seconds of one call, as in `timed_in_turns`."""
    return timed_in_turns({"": function}, repeats, device, warm_up)[""]


def kernel_times(function: Callable[[], object], repeats: int = 20) -> dict[str, tuple[float, float]]:
    """Seconds and launches in a call of each kernel that it makes a GPU run, by name, the longest first.

    Where there is no GPU: of each operation of torch on the CPU, those within it left out.
    """
    on_gpu = torch.cuda.is_available()
    activity, device = (
        each.CUDA if on_gpu else each.CPU for each in (torch.profiler.ProfilerActivity, torch.autograd.DeviceType)
    )
    function()
    with torch.profiler.profile(activities=[activity]) as profile:
        for _ in range(repeats):
            function()
        if on_gpu:
            torch.cuda.synchronize()
    found: dict[str, tuple[float, float]] = {}
    for event in profile.events():
        if event.device_type == device and not event.is_user_annotation:  # those span kernels
            spent, launches = found.get(event.name, (0.0, 0.0))
            more = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            found[event.name] = spent + more / repeats / 1e6, launches + 1 / repeats
    return dict(sorted(found.items(), key=lambda each: -each[1][0]))


class Unlaunched(Recordings):
    """Recorded steps that are not launched: what is left of a step is the host's part.

    Parameters
    ----------
    shape : of what a step makes; all of it is 1.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.ones = torch.ones(shape).tolist()
        self.launched = self.meanwhile = 0.0

    def run(self, *step: Any) -> Any:
        """A launch; what it makes is there as soon as `tolist` asks for it."""
        self.launched = time.process_time()
        return self

    def tolist(self) -> list:
        """Here a host would wait for the GPU."""
        self.meanwhile += time.process_time() - self.launched
        return self.ones

    def host_time(self, step: Callable[[int], object], repeats: int = 1000) -> tuple[float, float]:
        """CPU-microseconds of a step of which these are the recordings (`step` is told its number): in all, and of them
        while a GPU is at work.
        """
        step(0)
        self.meanwhile, start = 0.0, time.process_time()
        for number in range(1, repeats + 1):
            step(number)
        return (time.process_time() - start) / repeats * 1e6, self.meanwhile / repeats * 1e6


class Curve(Run):
    """A run that prints scores now and then as it learns, and does not count the time that takes."""

    def __init__(self, directory: Path, scores: Callable[[], str], every: float) -> None:
        """`scores` writes what stands in a row of the table after the CPU-seconds; `every` so many of them."""
        super().__init__(directory)
        self.scores, self.every, self.due = scores, every, every
        self.start = time.process_time()

    @property
    def spent(self) -> float:
        """CPU-seconds of learning."""
        return time.process_time() - self.start

    def checkpoint(self, state: object, force: bool = False) -> None:
        """Nothing is kept; a row is printed where one is due."""
        if (spent := self.spent) > self.due:
            print(f"| {spent:.0f} | {self.scores()} |", flush=True)
            self.due += self.every
            self.start += self.spent - spent
