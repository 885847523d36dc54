"""Scores of what a failed run leaves: the fits that are there, of cohorts that could not be scored as a whole."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.outdated import Fit, outdated_fits
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan

PATIENCE = 60.0
"""Seconds that this may take after a failed run."""


def available_scores(plan: Plan, paths: Paths, folder: Path) -> Iterator[Path]:
    """Tables of all that is scored: of whole cohorts, and of the finished fits of those that have no table, or an older
    one, because a fit, or scoring it, failed. What is outdated is not among them.

    A cohort is scored in one job, so that a model that fails would take the scores of the others with it. They are
    scored here, one by one, into `folder`; a fit that was scored alone before (`snakemake scores`) is taken as it is.
    What takes longer than `PATIENCE` is left out, and it is said how to get it.
    """
    outdated = outdated_fits(plan, paths)
    until, left = time.monotonic() + PATIENCE, 0
    for cohort in plan.scored:
        fits, whole = plan.predicted(cohort), Path(paths.scores(cohort))
        if not all(file.exists() for file in _data(plan, paths, cohort)):
            continue  # these fits are of what was there before
        # When a fit fails to be made anew, its old scores lie about.
        if outdated.isdisjoint(fits) and _made_after(whole, [Path(paths.fit(*fit)) for fit in fits]):
            yield whole
            continue
        if not _failed(cohort, fits, paths, outdated):
            continue
        scoring = _scoring(plan, paths, cohort)
        for fit in fits:
            if fit in outdated:
                continue
            alone, made = Path(paths.scores_of_fit(*fit)), Path(paths.fit(*fit))
            if _made_after(alone, [made]):
                yield alone
            elif made.exists() and time.monotonic() > until:
                left += 1
            elif made.exists():
                table = folder / "-".join(map(str, (*fit, "scores.parquet")))
                if _score(scoring, fit, paths, table):
                    yield table
    if left:
        print(f"{left} finished fits are not scored yet: snakemake --cores all scores", file=sys.stderr)


def _score(scoring: Scoring, fit: Fit, paths: Paths, table: Path) -> bool:
    """Write the scores of a fit; whether they could be made. Why not is said, and takes no others' scores along."""
    made, training = Path(paths.fit(*fit)), Path(paths.predictions(*fit))
    try:
        if training.exists():
            evaluate(made.parent, scoring, table, training.parent)
        else:
            evaluate(made.parent, replace(scoring, decoding={}), table)
    except Exception as error:  # whatever a fit that failed half-way makes of it
        print(f"{', '.join(map(str, fit))}: not scored: {error!r}", file=sys.stderr)
        return False
    return True


def _made_after(table: Path, files: list[Path]) -> bool:
    if not table.exists() or not all(file.exists() for file in files):
        return False
    return table.stat().st_mtime_ns >= max(file.stat().st_mtime_ns for file in files)


def _data(plan: Plan, paths: Paths, cohort: str) -> list[Path]:
    sessions = plan.cohorts[cohort].sessions
    return [Path(paths.split(cohort)), *(Path(of(each)) for of in (paths.trains, paths.recording) for each in sessions)]


def _failed(cohort: str, fits: list[Fit], paths: Paths, outdated: set[Fit]) -> bool:
    """Whether a fit of the cohort, or its scoring, was begun and is not there, rather than never begun."""
    missing = [fit for fit in fits if fit in outdated or not Path(paths.fit(*fit)).exists()]
    logs = [log for fit in missing for log in paths.fit_logs(*fit)]
    return any(Path(log).exists() for log in [*logs, paths.log("evaluate", cohort)])


def _scoring(plan: Plan, paths: Paths, cohort: str) -> Scoring:
    sessions, how = plan.cohorts[cohort].sessions, plan.config.evaluation
    trains, recordings = ([Path(of(each)).parent for each in sessions] for of in (paths.trains, paths.recording))
    return Scoring(trains, Path(paths.split(cohort)), recordings, how.resamples, how.decoding, how.few_shot)
