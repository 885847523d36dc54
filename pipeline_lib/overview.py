"""What is done and what is missing, in the terminal: `python -m pipeline_lib list`, `make list`."""

from pathlib import Path

from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan
from pipeline_lib.training.status import as_table, statuses

DONE, RUNNING, FAILED, STOPPED, MISSING = "done", "running", "failed", "stopped", "-"


def overview(plan: Plan) -> str:
    """Two tables as text: sessions with their stages, and cohorts with the fits done of each model."""
    paths = Paths(plan.config.results, plan.config.data)
    sessions = [["session", "source", "recording", "trains"]]
    for session in plan.sessions.values():
        stages = (paths.recording(session.session), paths.trains(session.session))
        sessions.append(
            [session.session, session.source, *(DONE if Path(path).exists() else MISSING for path in stages)]
        )
    unfinished: dict[tuple[str, str], set[str]] = {}
    seeds = set(map(str, plan.config.seeds))
    for fit in statuses(plan.config.results):
        if seeds & set(fit.seed.split(", ")):  # several where they are trained as one
            unfinished.setdefault((fit.cohort, fit.model), set()).add(fit.state)
    models = list(dict.fromkeys(model for _, model, _ in plan.fits))
    cohorts = [["cohort", "sessions", *models]]
    for name, cohort in plan.cohorts.items():
        cells = [
            _fits(paths, name, model, plan.config.seeds, unfinished.get((name, model), set()))
            if model in cohort.models
            else ""
            for model in models
        ]
        cohorts.append([name, str(len(cohort.sessions)), *cells])
    done = sum(Path(paths.fit(*fit)).exists() for fit in plan.fits)
    return f"{as_table(sessions)}\n\n{as_table(cohorts)}\n\n{done} of {len(plan.fits)} fits done"


def _fits(paths: Paths, cohort: str, model: str, seeds: list[int], states: set[str]) -> str:
    """What runs, has failed, or has stopped on its way, goes before what is done."""
    if states & {"running", "silent"}:
        return RUNNING
    if states:
        return FAILED if "failed" in states else STOPPED
    done = sum(Path(paths.fit(cohort, model, seed)).exists() for seed in seeds)
    if len(seeds) > 1:
        mean = f", {MEAN}" if Path(paths.fit(cohort, model, MEAN)).exists() else ""
        return f"{done}/{len(seeds)}{mean}"
    return DONE if done else MISSING
