"""What is done and what is missing, in the terminal: `python -m pipeline_lib list`, `make list`."""

from pathlib import Path

from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.outdated import Fit, outdated_fits
from pipeline_lib.outdated_data import outdated_data
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan
from pipeline_lib.training.status import as_table, statuses

DONE, OUTDATED, RUNNING, FAILED, STOPPED, MISSING = "done", "outdated", "running", "failed", "stopped", "-"


def overview(plan: Plan) -> str:
    """Two tables as text: sessions with their stages, and cohorts with the fits done of each model.

    A fit that a change of the configuration has left behind is not done, and a recording or store is outdated.
    """
    paths = Paths(plan.config.results, plan.config.data)
    data = outdated_data(plan, paths)
    outdated = outdated_fits(plan, paths, data)
    sessions = [["session", "source", "recording", "trains"]]
    for name, session in plan.sessions.items():
        recording = _stage(paths.recording(name), name in data.recordings)
        sessions.append([name, session.source, recording, _stage(paths.trains(name), name in data.trains)])
    unfinished: dict[tuple[str, str], set[str]] = {}
    seeds = set(map(str, plan.config.seeds))
    for fit in statuses(plan.config.results):
        if seeds & set(fit.seed.split(", ")):  # several where they are trained as one
            unfinished.setdefault((fit.cohort, fit.model), set()).add(fit.state)
    models = list(dict.fromkeys(model for _, model, _ in plan.fits))
    cohorts = [["cohort", "sessions", *models]]
    for name, cohort in plan.cohorts.items():
        cells = [
            _fits(paths, name, model, plan.config.seeds, unfinished.get((name, model), set()), outdated)
            if model in cohort.models
            else ""
            for model in models
        ]
        cohorts.append([name, str(len(cohort.sessions)), *cells])
    done = sum(_is_done(paths, fit, outdated) for fit in plan.fits)
    told = f"{done} of {len(plan.fits)} fits done"
    if left := len(outdated.intersection(plan.fits)):
        told += f"; {left} more were made with other settings or data, and the next run makes them anew"
    return f"{as_table(sessions)}\n\n{as_table(cohorts)}\n\n{told}"


def _stage(path: str, outdated: bool) -> str:
    if not Path(path).exists():
        return MISSING
    return OUTDATED if outdated else DONE


def _is_done(paths: Paths, fit: Fit, outdated: set[Fit]) -> bool:
    return fit not in outdated and Path(paths.fit(*fit)).exists()


def _fits(paths: Paths, cohort: str, model: str, seeds: list[int], states: set[str], outdated: set[Fit]) -> str:
    """What runs, has failed, or has stopped on its way, goes before what is done."""
    if states & {"running", "silent"}:
        return RUNNING
    if states:
        return FAILED if "failed" in states else STOPPED
    done = sum(_is_done(paths, (cohort, model, seed), outdated) for seed in seeds)
    if len(seeds) > 1:
        mean = f", {MEAN}" if _is_done(paths, (cohort, model, MEAN), outdated) else ""
        return f"{done}/{len(seeds)}{mean}"
    return DONE if done else MISSING
