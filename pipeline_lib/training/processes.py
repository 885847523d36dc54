"""Several processes for one fit, a GPU each: `processes: 2` in a model's settings, or any launcher of torch.

All run the same call of `fit`. The process of rank 0 holds the lock, writes history and checkpoints, and publishes; the
others help it to make the gradients and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline_lib.errors import Failure, InputError
from pipeline_lib.training import gpu
from pipeline_lib.training.run import FitError, Interrupted, Run, State, on_sigterm

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""How long processes that were asked to end may take to save what they have."""
PROGRAM = "import json, sys; from pipeline_lib.training.processes import member; member(json.loads(sys.argv[1]))"


def rank() -> int | None:
    """The number of this process among those of its fit; None where it works alone."""
    return int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", 1)) > 1 else None


class Helper(Run):
    """The run of a process that only helps: it resumes where rank 0 does, and writes nothing."""

    def progress(self, step: int, total: int | None, loss: float, **extra: Any) -> None:
        """Rank 0 says how far the fit is."""

    def log(self, row: dict[str, Any]) -> None:
        """Rank 0 writes the history."""

    def checkpoint(self, state: State | Callable[[], State], force: bool = False) -> None:
        """Rank 0 saves, and decides whether to stop."""


def launch(processes: int, arguments: dict[str, Any], uses_gpu: bool) -> None:
    """Run `fit` with `arguments` in so many processes, and wait for them.

    Raises
    ------
    InputError : there are GPUs, but fewer than processes.
    FitError : a process failed; the others were ended.
    Interrupted : this process was asked to end, and its processes have saved what they had.
    """
    candidates = gpu.candidates() if uses_gpu else []
    if candidates and len(candidates) < processes:
        raise InputError("config", "processes", processes, f"at most {len(candidates)}, the GPUs there are")
    with gpu.slots(processes if candidates else 0) as gpus, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = os.environ | {
            "WORLD_SIZE": str(processes),
            "LOCAL_RANK": "0",  # each sees its own GPU only
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
        }
        free.close()
        command = [sys.executable, "-c", PROGRAM, json.dumps(arguments)]
        members = []
        for number in range(processes):
            own = {gpu.VISIBLE: gpus[number]} if gpus else {"ACCELERATE_USE_CPU": "true"}
            members.append(subprocess.Popen(command, env=common | own | {"RANK": str(number)}))
        try:
            _wait(members)
        finally:
            _end(members)


def _wait(members: list[subprocess.Popen]) -> None:
    """Wait until rank 0 is done; raise as soon as any process fails, or this one is asked to end."""
    asked = threading.Event()
    with on_sigterm(lambda *_: asked.set()):
        while members[0].poll() is None and not asked.is_set():
            failed = [number for number in range(1, len(members)) if members[number].poll()]
            if failed:
                raise FitError(f"process {failed[0]} of {len(members)} ended with code {members[failed[0]].returncode}")
            time.sleep(POLL_SECONDS)
    if asked.is_set() or members[0].returncode == 128 + signal.SIGTERM:
        raise Interrupted("stopped as asked; the next run goes on from here")
    if members[0].returncode:
        raise FitError(f"process 0 of {len(members)} ended with code {members[0].returncode}")


def _end(members: list[subprocess.Popen]) -> None:
    """Ask rank 0 to end and make it after a while; then end the others, which have nothing to save."""
    members[0].terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        members[0].wait(GRACE_SECONDS)
    for member in members:
        member.kill()
        member.wait()


def member(arguments: dict[str, Any]) -> None:
    """What a launched process does: `fit`."""
    from pipeline_lib.training.fit import fit

    if rank():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 decides after which step all of them stop
    in_a_line(fit, **arguments)


def in_a_line(work: Callable[..., object], *arguments: Any, **named: Any) -> None:
    """Work in a process of its own: what was wrong is printed in a line, and the process ends with the code for it."""
    try:
        work(*arguments, **named)
    except (InputError, Failure) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
