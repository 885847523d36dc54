"""What was expected of a run and is not there, and what its log says last."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError

SHOWN_LINES = 12


@dataclass(frozen=True)
class Failure:
    """A result that is missing: the `stage` that should have made it, of what, what is known, and the log's end."""

    stage: str
    of: str
    state: str
    log: str


def find_failures(
    results: Path, config: dict[str, Any], finished: set[tuple[str, str, int]]
) -> tuple[int, list[Failure]]:
    """How many fits the configuration expects, and every recording, store, fit and score that is missing.

    Without a configuration nothing is known to be missing: the fits expected are those `finished`.
    """
    from pipeline_lib.paths import Paths
    from pipeline_lib.plan import Plan, resolve

    if not config:
        return len(finished), []
    try:
        plan: Plan = resolve(config)
    except InputError as error:
        return len(finished), [Failure("configuration", "", str(error), "")]
    paths = Paths(str(results))

    def stages() -> Iterator[tuple[str, str, str, str]]:
        for session in plan.sessions:
            yield "recording", session, paths.recording(session), paths.log("record", session)
            yield "trains", session, paths.trains(session), paths.log("convert", session)
        for cohort in plan.cohorts:
            yield "split", cohort, paths.split(cohort), paths.log("split", cohort)
        for cohort, model, seed in plan.fits:
            of = f"{cohort}, {model}, seed {seed}"
            yield "fit", of, paths.fit(cohort, model, seed), paths.log("fit", cohort, model, f"seed{seed}")
        for cohort in plan.scored:
            yield "scores", cohort, paths.scores(cohort), paths.log("evaluate", cohort)

    missing = [
        Failure(stage, of, _state(Path(path), Path(log)), _tail(Path(log)))
        for stage, of, path, log in stages()
        if not Path(path).exists()
    ]
    return len(plan.fits), missing


def _state(path: Path, log: Path) -> str:
    """Running or stopped at some step, failed, or never begun."""
    progress = path.parent / ".resume" / "progress.json"
    if progress.is_file():
        about = json.loads(progress.read_text())
        total = f" of {about['total']}" if about.get("total") else ""
        return f"not finished: last seen at step {about.get('step')}{total}; the next run goes on from there"
    return "failed" if log.is_file() else "not begun (something before it is missing)"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]) if log.is_file() else ""
