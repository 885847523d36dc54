"""A GPU for each job: slots held by file locks.

Snakemake counts GPUs but never says which one a job may use. Here a job takes a slot by locking a file, and the kernel
gives the slot back when the job's process ends in any way, `kill -9` included.
"""

import contextlib
import fcntl
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline_lib.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
JOBS_PER_GPU = "TRAINYARD_JOBS_PER_GPU"
"""Environment variable: how many fits may share a GPU."""
JOB = "SLURM_JOB_ID"
POLL_SECONDS = 0.5
_started_on = ""
"""The GPU that CUDA was started on in this process: the only one that it will ever show here."""


def candidates(devices: Path = Path("/dev")) -> list[str]:
    """GPUs that this process may use, as CUDA names them.

    CUDA_VISIBLE_DEVICES goes first (SLURM sets it; empty or -1 means none), then every GPU that has a device file. CUDA
    counts the GPUs it finds from 0, whatever their files are called: a container may hold only nvidia3, which is GPU 0
    in it.
    """
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    files = [file for file in devices.glob("nvidia*") if file.name.removeprefix("nvidia").isdigit()]
    return [str(number) for number in range(len(files))]


@contextlib.contextmanager
def slot() -> Iterator[str]:
    """Hold a GPU, waiting for a free one, and make it the only one that CUDA shows to this process.

    How many jobs may share it, the environment variable `JOBS_PER_GPU` says; by default 1.

    Enter before CUDA is initialised; the next slot of a process in which it was is of the same GPU. Jobs of other users
    are not known: the locks are the user's own.

    Yields
    ------
    "cuda", or "cpu" where there is no GPU.

    Raises
    ------
    InputError : the environment variable is no such number.
    """
    global _started_on
    names = candidates()
    names = [_started_on] if _started_on in names else names
    with slots(min(1, len(names)), names, _jobs_per_gpu()) as held:
        if not held:
            yield "cpu"
            return
        before = {name: os.environ.get(name) for name in (VISIBLE, "CUDA_DEVICE_ORDER")}
        os.environ[VISIBLE] = held[0]
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of the device files and of nvidia-smi
        try:
            yield "cuda"
        finally:
            if _cuda_started():
                _started_on = _started_on or held[0]
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def slots(count: int, gpus: Sequence[str] | None = None, jobs_per_gpu: int = 1) -> Iterator[list[str]]:
    """Hold `count` GPUs, waiting until so many are free at once; their names.

    Lock files lie in a folder of the user's in the machine's temporary directory, in a SLURM job of the job's: each job
    may call the GPUs that it was given 0, 1, ..., whatever others call theirs.

    Parameters
    ----------
    gpus : names to choose from; None: all `candidates`.
    jobs_per_gpu : how many jobs may share a GPU.
    """
    if not count:
        yield []
        return
    folder = Path(tempfile.gettempdir()) / f"trainyard-gpu-{os.getuid()}" / os.environ.get(JOB, "")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Every GPU's first slot before any second one: jobs spread out before they share.
    names = candidates() if gpus is None else gpus
    named = [(gpu, folder / f"{gpu.replace('/', '_')}.{k}.lock") for k in range(jobs_per_gpu) for gpu in names]
    with contextlib.ExitStack() as held:
        yield _take(named, count, held)


def _cuda_started() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _jobs_per_gpu() -> int:
    text = os.environ.get(JOBS_PER_GPU, "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError("environment", JOBS_PER_GPU, repr(text), "a whole number from 1")
    return int(text)


def _take(slots: list[tuple[str, Path]], count: int, held: contextlib.ExitStack) -> list[str]:
    """Lock the first `count` free slots, all or none, waiting until there are so many; `held` keeps them."""
    waiting = False
    while True:
        taken: list[str] = []
        with contextlib.ExitStack() as attempt:
            for gpu, path in slots:
                if len(taken) < count and _lock(path, attempt):
                    taken.append(gpu)
            if len(taken) == count:
                held.push(attempt.pop_all())
                return taken
        if not waiting:
            print(f"waiting for a GPU: all {len(slots)} slots are taken", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(POLL_SECONDS * (1 + random.random()))  # two that each hold what the other needs should part


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Lock a file if it is free; `held` keeps it."""
    handle = held.enter_context(path.open("a"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
