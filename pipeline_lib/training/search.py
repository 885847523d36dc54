"""Search for hyper-parameters: random search, and population-based training (Jaderberg et al. 2017).

Every trial is a fit like any other, in a folder of its own. What a trial is follows from the seed and, in a population,
from the scores of the generation before; so a search that was killed goes on where it was, fits that are done are not
done again, and trials may run in several processes, or as jobs of a cluster (`run_trial`).

In a population every member trains for a generation from the weights that the last one left it (the optimiser starts
afresh); then members meet in random pairs, and the one with the higher validation loss goes on from the other's weights
with the other's settings, slightly changed. The validation part decides, never the test part.

    out/trials.csv        a row a fit: generation, member, parent, score, and what was searched
    out/best.yaml         settings of the best fit, ready for config/models
    out/generation00/member00/...     the fits, and score.json, which declares each trial done, failed or not
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, atomic_file, exclusive, sha256_file, write_json
from pipeline_lib.models.registry import model_source
from pipeline_lib.training.code_id import code_id
from pipeline_lib.training.fit import MODULE, fit
from pipeline_lib.training.run import FitError
from pipeline_lib.training.search_settings import Range, SearchSettings, Trial, place

__all__ = ["SCORE", "Range", "SearchSettings", "Trial", "place", "run_trial", "search"]

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
    FitError : every trial failed.
    """
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
            if not np.isfinite(scores).any():
                raise FitError(f"{out}: all {len(trials)} trials failed")
        best, _ = min(done, key=lambda each: each[1])
        with atomic_file(out / "best.yaml") as part:
            content = {"implementation": settings.model} | settings.fixed | best.searched
            fitted = best.folder(out).relative_to(out)
            part.write_text(f"# Best of {len(done)} fits: {fitted}\n{yaml.safe_dump(content, sort_keys=False)}")
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
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(pool.map(_fit, *zip(*tasks, strict=True)))


def _fit(
    trial: Trial, trains_dirs: Sequence[Path | str], split_path: Path | str, settings: SearchSettings, out: Path
) -> float:
    """Fit a trial unless that is done; its score."""
    config = settings.fixed | trial.searched
    seed = settings.seed + trial.member
    if settings.kind == "population":
        config |= {"keep": "last"}
        if trial.parent is not None:
            config |= {"initial": str(place(out, trial.generation - 1, trial.parent) / "model.safetensors")}
    folder = trial.folder(out)
    data = [sha256_file(split_path), *(sha256_file(Path(each) / "manifest.json") for each in trains_dirs)]
    identity = {"config": config, "seed": seed, "data": data, "code": code_id([MODULE, model_source(settings.model)])}
    # A fit that is done would be recognised by `fit`; one that failed would be tried again.
    if (folder / SCORE).is_file() and _same(folder / SCORE, identity):
        return _made(folder / SCORE)
    try:
        fit(trains_dirs, split_path, Path(settings.model).stem, settings.model, config, seed, folder)
        score = _score(folder / "history.csv", settings.score, last=settings.kind == "population")
    except FitError as error:
        print(f"{folder}: {error}", flush=True)
        score = math.inf
    write_json(folder / SCORE, {"score": score if math.isfinite(score) else None, "trial": identity})
    return score


def _same(path: Path, identity: dict[str, Any]) -> bool:
    return json.loads(path.read_text())["trial"] == json.loads(json.dumps(identity))


def _made(path: Path) -> float:
    """The score of a trial that is done; inf if it failed."""
    if not path.is_file():
        raise InputError(path, "score", "no such file", "a finished trial: each generation builds on the one before")
    score = json.loads(path.read_text())["score"]
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
