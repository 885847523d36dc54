"""The fits that run now: how far they are, and when they will be done."""

import fcntl
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.files import LOCK
from pipeline_lib.training.run import PROGRESS, RESUME

STALE_SECONDS = 600.0
"""Locks of another machine may not be seen from here: after so long without a word a fit there is called silent."""


@dataclass(frozen=True)
class FitStatus:
    """One unfinished fit, as its progress.json last told. Times in seconds since the epoch."""

    cohort: str
    model: str
    seed: str
    """Several where they are trained as one."""
    step: int
    total: int | None
    loss: float | None
    seconds_left: float | None
    started: float
    updated: float
    state: str
    """"running", "failed", "dead" (its process is gone), or "silent"."""
    note: str
    """Why it failed; what the next run makes of a dead one."""


def statuses(results: Path | str) -> list[FitStatus]:
    """All unfinished fits under `results`, ordered by cohort, model and seed."""
    found = []
    fits = Path(results) / "fits"
    for path in fits.glob(f"*/*/*/{RESUME}/{PROGRESS}"):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # it was published and removed while we looked
        cohort, model = path.relative_to(fits).parts[:2]
        state, note = _state(content, path.parent)
        found.append(
            FitStatus(
                cohort=cohort,
                model=model,
                seed=str(content.get("seed", "")),
                state=state,
                note=note,
                **{name: content[name] for name in ("step", "total", "loss", "seconds_left", "started", "updated")},
            )
        )
    return sorted(found, key=lambda fit: (fit.cohort, fit.model, len(fit.seed), fit.seed))


def format_statuses(fits: list[FitStatus], now: float | None = None) -> str:
    """A table of fits, a line each."""
    if not fits:
        return "no fit is running"
    now = time.time() if now is None else now
    rows = [("cohort", "model", "seed", "step", "loss", "running for", "time left")]
    for fit in fits:
        step = f"{fit.step}" if fit.total is None else f"{fit.step}/{fit.total}"
        loss = "-" if fit.loss is None else f"{fit.loss:.5g}"
        left = "-" if fit.seconds_left is None else duration(max(fit.seconds_left - (now - fit.updated), 0))
        if fit.state in ("failed", "dead"):
            left = f"{fit.state}: {fit.note}"
        elif fit.state == "silent":
            left = f"silent for {duration(now - fit.updated)}"
        # A clock may have been set back since.
        rows.append((fit.cohort, fit.model, fit.seed, step, loss, duration(max(fit.updated - fit.started, 0)), left))
    return as_table(rows)


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of text, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def watch(results: Path | str, repeat: bool = False) -> None:
    """Print the table of the fits that run; with `repeat` again every two seconds, until interrupted."""
    while True:
        there = Path(results).is_dir()  # else nothing was run yet, or another folder is meant
        table = format_statuses(statuses(results)) if there else f"no fit is running: there is no folder {results}"
        clear = "\033[2J\033[H" if repeat and sys.stdout.isatty() else ""
        print(f"{clear}{table}", flush=True)
        if not repeat:
            return
        time.sleep(2.0)


def duration(seconds: float) -> str:
    """Seconds as "42 s", "3 min 05 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _state(content: dict[str, Any], resume: Path) -> tuple[str, str]:
    """State and note of the fit whose .resume this is."""
    if _locked(resume.parent / LOCK):
        return "running", ""
    if "problem" in content:
        return "failed", content["problem"]
    if content["host"] != socket.gethostname():
        return ("silent" if time.time() - content["updated"] > STALE_SECONDS else "running"), ""
    saved = any(resume.glob("[!.]*.safetensors"))
    return "dead", "the next run goes on from its checkpoint" if saved else "the next run starts it again"


def _locked(path: Path) -> bool:
    """Whether a process holds a lock file; the kernel frees it when that ends in any way."""
    try:
        with path.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none was made, or this file system has none
        return False
    return False
