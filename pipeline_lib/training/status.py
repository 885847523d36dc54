"""The fits that run now: how far they are, and when they will be done."""

import json
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.training.run import PROGRESS, RESUME

STALE_SECONDS = 600.0
"""A process on another machine cannot be looked up: after so long without a word it is called silent."""


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
    """"running", "dead" (its process is gone; the next run goes on from its checkpoint), or "silent"."""


def statuses(results: Path | str) -> list[FitStatus]:
    """All unfinished fits under `results`, ordered by cohort, model and seed."""
    found = []
    fits = Path(results) / "fits"
    # Seeds that train together have one beside their folders. Deeper lie only the chunks of stores.
    for path in (*fits.glob(f"*/*/{RESUME}/{PROGRESS}"), *fits.glob(f"*/*/*/{RESUME}/{PROGRESS}")):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # it was published and removed while we looked
        cohort, model = path.relative_to(fits).parts[:2]
        found.append(
            FitStatus(
                cohort=cohort,
                model=model,
                seed=str(content.get("seed", "")),
                state=_state(content),
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
        if fit.state == "dead":
            left = "dead; the next run resumes it"
        elif fit.state == "silent":
            left = f"silent for {duration(now - fit.updated)}"
        rows.append((fit.cohort, fit.model, fit.seed, step, loss, duration(fit.updated - fit.started), left))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def watch(results: Path | str, repeat: bool = False, every: float = 2.0) -> None:
    """Print the table of the fits that run; with `repeat` again every `every` seconds, until interrupted."""
    while True:
        table = format_statuses(statuses(results))
        clear = "\033[2J\033[H" if repeat and sys.stdout.isatty() else ""
        print(f"{clear}{table}", flush=True)
        if not repeat:
            return
        time.sleep(every)


def duration(seconds: float) -> str:
    """Seconds as "42 s", "3 min 05 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _state(content: dict[str, Any]) -> str:
    if content["host"] != socket.gethostname():
        return "silent" if time.time() - content["updated"] > STALE_SECONDS else "running"
    return "running" if _alive(content["pid"], content["started"]) else "dead"


def _alive(pid: int, started: float) -> bool:
    """Whether the process that started a fit still runs; not another one that was given its number since."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= started + 1
    except psutil.NoSuchProcess:
        return False
