"""Search for hyper-parameters: random search, and population-based training (Jaderberg et al. 2017).

Every trial is a fit like any other, in a folder of its own. What a trial is follows from the seed and, in a population,
from the scores of the generation before; so a search that was killed goes on where it was, fits that are done are not
done again, and trials may run in several processes, or as jobs of a cluster (`run_trial`).

In a population every member trains for a generation from the weights that the last one left it (the optimiser starts
afresh); then members meet in random pairs, and the one with the higher validation loss goes on from the other's weights
with the other's settings, slightly changed. The validation part decides, never the test part.

    out/trials.csv        a row a fit: generation, member, parent, score, and what was searched
    out/best.yaml         settings of the best fit, ready for config/models (of a population, its last generation's)
    out/generation00/member00/...     the fits, and score.json, which declares each trial done, failed or not
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

import pandas as pd
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, atomic_file, exclusive, write_json
from pipeline_lib.models.registry import check_config, model_source
from pipeline_lib.published import read_manifest
from pipeline_lib.training.code_id import code_id
from pipeline_lib.training.fit import MODULE, fit
from pipeline_lib.training.processes import in_a_line
from pipeline_lib.training.publication import identity
from pipeline_lib.training.run import FitError, Interrupted, on_sigterm
from pipeline_lib.training.search_settings import SearchSettings, Trial, place, successful

SCORE = "score.json"


def search(
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    settings: SearchSettings,
    out_dir: Path | str,
    jobs: int = 1,
) -> pd.DataFrame:
    """Run a search, or what is left of it, and write its table and best settings.

    Parameters
    ----------
    trains_dirs, split_path : the data, as for `fit`.
    settings : what to search.
    out_dir : folder of the search.
    jobs : fits that run at once, each in a process of its own; 1: one after another in this one.

    Returns
    -------
    The table of trials.csv: generation, member, parent, score (what `settings.score` says of the weights that the fit
    kept; inf for a fit that failed) and the searched settings.

    Raises
    ------
    InputError : no fit at a time.
    FitError : every trial failed, or a process of one ended otherwise.
    Interrupted : the process was asked to end (SIGTERM); the fits are checkpointed.
    """
    if jobs < 1:
        raise InputError("search", "jobs", jobs, "at least 1")
    out = Path(out_dir)
    done: list[tuple[Trial, float]] = []
    with exclusive(out / LOCK):
        for generation in range(settings.rounds):
            trials = _trials(settings, out, generation)
            scores = _run(trials, trains_dirs, split_path, settings, out, jobs)
            done += zip(trials, scores, strict=True)
            table = _table(done)
            with atomic_file(out / "trials.csv") as part:
                table.to_csv(part, index=False)
            successful(trials, scores)
        best, _ = min(done, key=lambda each: each[1])
        with atomic_file(out / "best.yaml") as part:
            content = {"implementation": settings.model} | settings.fixed | best.searched
            note = f"# Best of {len(done)} fits: {best.folder(out).relative_to(out)}\n"
            if settings.rounds > 1:
                note += "# Settings of its last generation alone: the weights of that fit are what all have made.\n"
            part.write_text(note + yaml.safe_dump(content, sort_keys=False))
    return table


def run_trial(
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    settings: SearchSettings,
    out_dir: Path | str,
    generation: int,
    member: int,
) -> float:
    """Run one trial of a search, unless it is done; its score. The generations before it must be done.

    Raises
    ------
    InputError : no such trial in this search, or an unfinished generation before it.
    FitError : every trial of the generation before it failed.
    """
    if not (0 <= generation < settings.rounds and 0 <= member < settings.members):
        accepted = f"generation 0 to {settings.rounds - 1}, member 0 to {settings.members - 1}"
        raise InputError("search", "trial", f"generation {generation}, member {member}", accepted)
    trial = _trials(settings, Path(out_dir), generation)[member]
    return _fit(trial, trains_dirs, split_path, settings, Path(out_dir))


def _trials(settings: SearchSettings, out: Path, generation: int) -> list[Trial]:
    """The trials of a generation, which follow from the scores of those before it."""
    trials = settings.first()
    for _ in range(generation):
        trials = settings.next(trials, [_made(trial.folder(out) / SCORE) for trial in trials])
    return trials


def _run(
    trials: list[Trial],
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    settings: SearchSettings,
    out: Path,
    jobs: int,
) -> list[float]:
    """Fit all trials; their scores."""
    tasks = [(trial, list(trains_dirs), split_path, settings, out) for trial in trials]
    if jobs == 1:
        return [_fit(*task) for task in tasks]
    # Each has a process: left alone it ends with its trial, where the worker of a pool would wait for more for ever.
    new = get_context("spawn").Process
    _run_processes([new(target=in_a_line, args=(_fit, *task)) for task in tasks], jobs)
    return [_made(trial.folder(out) / SCORE) for trial in trials]


def _run_processes(waiting: list[BaseProcess], jobs: int) -> None:
    """Run processes, `jobs` at once; where one fails or this one is asked to end, the others are asked, too."""
    running: list[BaseProcess] = []
    try:
        with on_sigterm(_stop):
            while waiting or running:
                while waiting and len(running) < jobs:
                    process = waiting.pop(0)
                    process.start()
                    running.append(process)
                connection.wait([each.sentinel for each in running])
                ended = [each for each in running if each.exitcode is not None]
                running = [each for each in running if each not in ended]
                if failed := [each.exitcode for each in ended if each.exitcode]:
                    raise FitError(f"the process of a trial ended with code {failed[0]}")
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.join()


def _stop(*_: object) -> NoReturn:
    raise Interrupted("stopped as asked; the next run goes on from here")


def _fit(
    trial: Trial, trains_dirs: Sequence[Path | str], split_path: Path | str, settings: SearchSettings, out: Path
) -> float:
    """Fit a trial unless that is done; its score."""
    config, folder = settings.config(trial), trial.folder(out)
    if trial.parent is not None:
        config |= {"initial": str(place(out, trial.generation - 1, trial.parent) / "model.safetensors")}
    # A seed of its own for every fit: the batches and the noise of the generation before would else come again.
    seed = settings.seed + trial.generation * settings.members + trial.member
    checked, code = check_config(settings.model, config), code_id([MODULE, model_source(settings.model)])
    made = identity(trains_dirs, split_path, settings.model, checked, seed, code)
    what = {"key": made["key"], "column": settings.score}
    # A fit that is done would be recognised by `fit`; one that failed would be tried again.
    if what.items() <= (read_manifest(folder, SCORE) or {}).items():
        return _made(folder / SCORE)
    try:
        fit(trains_dirs, split_path, Path(settings.model).stem, settings.model, config, seed, folder)
        last = getattr(checked, "keep", "best") == "last"
        score = _score(folder / "history.csv", settings.score, last)
    except FitError as error:
        print(f"{folder}: {error}", file=sys.stderr, flush=True)
        score = math.inf
    write_json(folder / SCORE, what | {"score": score if math.isfinite(score) else None})
    return score


def _made(path: Path) -> float:
    """The score of a trial that is done; inf if it failed."""
    told = read_manifest(path.parent, path.name)
    if told is None:
        raise InputError(path, "score", "no such file", "a finished trial: each generation builds on the one before")
    score = told["score"]
    return math.inf if score is None else float(score)


def _score(history: Path, column: str, last: bool) -> float:
    """What `column` says of the weights that a fit kept: its lowest value, or its last."""
    with history.open() as lines:
        scores = [float(row[column]) for row in csv.DictReader(lines) if row.get(column)]
    if not scores:
        accepted = "a split with a validation part, and a column of its evaluations: a search selects by it"
        raise InputError(history, column, "nothing", accepted)
    scores = [score if math.isfinite(score) else math.inf for score in scores]
    return scores[-1] if last else min(scores)


def _table(done: Iterable[tuple[Trial, float]]) -> pd.DataFrame:
    rows = [
        {"generation": each.generation, "member": each.member, "parent": each.parent, "score": score, **each.searched}
        for each, score in done
    ]
    return pd.DataFrame(rows).astype({"parent": "Int64"})
