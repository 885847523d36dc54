"""What was expected of a run and is not there, and what its log says last."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product, starmap
from pathlib import Path

from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.figures import FIGURES
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan

SHOWN_LINES = 12
SILENT = "not finished: it said nothing (the run was stopped, or the job was killed)"
NOT_BEGUN = "not begun (the run ended before it, or something before it is missing)"
OUTDATED = "made with other settings or data; the next run makes it anew (figures may show it still)"
ERRORS = ("error: ", "Traceback ")
"""How the lines begin by which a job says that it failed; one that was killed says nothing."""

Stage = tuple[str, str, str, list[str], bool]
"""A result: the stage that makes it, of what, its file, the logs that may say why it is missing, and whether something
waits for it."""


@dataclass(frozen=True)
class Failure:
    """A result that is missing: the `stage` that should have made it, of what, what is known, and the log's end."""

    stage: str
    of: str
    state: str
    log: str


def find_failures(figures: FigureFiles, outdated: Collection[tuple[str, str, int | str]] = ()) -> list[Failure]:
    """Every result up to the scores that a plan needs and is missing: first where a log says why, last what was not
    begun. Of searches, of figures, and of what is in the plan but not needed, only what was begun. Fits (cohort, model,
    seed) that are `outdated` are missing, too.
    """
    # Once each: two sessions may be read from one download.
    missing = dict.fromkeys(filter(None, starmap(_missing, _stages(figures))))
    for cohort, model, seed in sorted(outdated, key=str):
        missing[Failure("fit", f"{cohort}, {model}, seed {seed}", OUTDATED, "")] = None
    return sorted(missing, key=lambda each: (each.state == NOT_BEGUN, not each.log))


def _stages(figures: FigureFiles) -> Iterator[Stage]:
    """Every result of a plan. (Of searches and figures there may be hundreds; nothing waits for them.)"""
    yield from _of_sessions(figures)
    yield from _of_cohorts(figures.plan, figures.paths)
    yield from _of_searches(figures.plan, figures.paths)
    yield from _of_figures(figures)


def _of_sessions(figures: FigureFiles) -> Iterator[Stage]:
    """Downloads and simulations, which are needed only until their session is recorded; recordings, trains, splits."""
    plan, paths = figures.plan, figures.paths
    split = {*plan.scored, *(cohort for _, cohort in plan.searched)}
    converted = {session for cohort in split for session in plan.cohorts[cohort].sessions} | _drawn(figures, "trains")
    needed = converted | _drawn(figures, "recording")
    for session, source in plan.sessions.items():
        recorded, wanted = Path(paths.recording(session)).exists(), session in needed
        if source.simulation and not recorded:
            made = paths.simulation(source.simulation)
            yield "simulation", source.simulation, made, [paths.log("simulate", source.simulation)], wanted
        if source.remote and not recorded:
            folder = str(source.remote.folder(""))
            yield "download", source.remote.text, paths.fetched(folder), [paths.log("fetch", folder)], wanted
        yield "recording", session, paths.recording(session), [paths.log("record", session)], wanted
        yield "trains", session, paths.trains(session), [paths.log("convert", session)], session in converted
    for cohort in plan.cohorts:
        yield "split", cohort, paths.split(cohort), [paths.log("split", cohort)], cohort in split


def _of_cohorts(plan: Plan, paths: Paths) -> Iterator[Stage]:
    """Fits, their averages and scores; predictions of training parts, which are needed until their cohort is scored."""
    asked = bool(plan.config.evaluation.decoding)
    decoded = {cohort for cohort in plan.scored if asked and not Path(paths.scores(cohort)).exists()}
    for cohort, model, seed in plan.fits:
        of = f"{cohort}, {model}, seed {seed}"
        yield "fit", of, paths.fit(cohort, model, seed), paths.fit_logs(cohort, model, seed), True
        if cohort in decoded:
            log = paths.log("predict", cohort, model, f"seed{seed}")
            yield "predictions", of, paths.predictions(cohort, model, seed), [log], True
    for cohort, model in plan.averages:
        of = f"{cohort}, {model}"
        yield "average", of, paths.fit(cohort, model, MEAN), paths.fit_logs(cohort, model, MEAN), True
        if cohort in decoded:
            log = paths.log("average", cohort, model, "training")
            yield "average of predictions", of, paths.predictions(cohort, model, MEAN), [log], True
    for cohort in plan.scored:
        yield "scores", cohort, paths.scores(cohort), [paths.log("evaluate", cohort)], True


def _of_searches(plan: Plan, paths: Paths) -> Iterator[Stage]:
    """Searches; the logs of trials that are there say nothing of why one is missing."""
    for search, cohort in plan.searched:
        logs = [paths.log("search", search, cohort, "search")]
        trials = product(range(plan.searches[search].rounds), range(plan.searches[search].members))
        names = [(f"{generation:02d}", f"{member:02d}") for generation, member in trials]
        logs += [
            paths.log("search", search, cohort, f"generation{generation}", f"member{member}")
            for generation, member in names
            if not Path(paths.trial(search, cohort, generation, member)).exists()
        ]
        yield "search", f"{cohort}, {search}", paths.search(search, cohort), logs, False


def _of_figures(figures: FigureFiles) -> Iterator[Stage]:
    paths = figures.paths
    for name in figures.of_all:
        yield "figure", name, f"{paths.figure(name)}.png", [paths.log("figures", name)], False
    for each in figures.sets:
        for of, name in product(each.subjects, each.names):
            log = paths.log("figures", of, each.rule)
            yield "figure", f"{of}, {name}", f"{paths.figure(name, of)}.png", [log], False


def _drawn(figures: FigureFiles, need: str) -> set[str]:
    """Sessions of whose own figures one needs this."""
    of_sessions = (each for each in figures.sets if FIGURES[each.names[0]].scope == "session")
    return {
        of for each in of_sessions if any(need in FIGURES[name].needs for name in each.names) for of in each.subjects
    }


def _missing(stage: str, of: str, path: str, logs: list[str], wanted: bool) -> Failure | None:
    """A result that is not there, with the first of its logs that is; None where it is there or not looked for."""
    log = next((log for log in map(Path, logs) if log.is_file()), None)
    if Path(path).exists() or (log is None and not wanted):
        return None
    return Failure(stage, of, _state(Path(path), log), _tail(log))


def _state(path: Path, log: Path | None) -> str:
    """Interrupted at some step, failed, or never begun."""
    progress = path.parent / ".resume" / "progress.json"
    if not progress.is_file():
        if log is None:
            return NOT_BEGUN
        return "failed" if log.stat().st_size else SILENT
    about = json.loads(progress.read_text())
    seen = f"last seen at step {about.get('step')}" + (f" of {about['total']}" if about.get("total") else "")
    if log and any(line.startswith(ERRORS) for line in log.read_text(errors="replace").splitlines()):
        return f"failed: {seen}"
    return f"not finished: {seen}; the next run goes on from there"


def _tail(log: Path | None) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]) if log else ""
