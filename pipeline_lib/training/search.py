"""Search for hyper-parameters: random search, and population-based training (Jaderberg et al. 2017).

Every trial is a fit like any other, in a folder of its own. What a trial is follows from the seed and, in a population,
from the scores of the generation before; so a search that was killed goes on where it was, fits that are done are not
done again, and trials may run in several processes.

In a population every member trains for a generation from the weights that the last one left it (the optimiser starts
afresh); then members meet in random pairs, and the one with the higher validation loss goes on from the other's weights
with the other's settings, slightly changed. The lowest validation loss decides, of visible units only, never of test.

    out/trials.csv        a row a fit: generation, member, parent, score, and what was searched
    out/best.yaml         settings of the best fit, ready for config/models
    out/generation00/member00/...     the fits
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, atomic_file, exclusive
from pipeline_lib.models.registry import check_config
from pipeline_lib.parsing import parse
from pipeline_lib.training.fit import fit
from pipeline_lib.training.run import FitError

KINDS = ("uniform", "log_uniform", "integers", "choice")


@dataclass(frozen=True)
class Range:
    """Values a hyper-parameter may take: one of these."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integers: tuple[int, int] | None = None
    """Both ends included."""
    choice: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise InputError("search", "space", " and ".join(given) or "nothing", f"one of {', '.join(KINDS)}")
        low, high = self.limits or (0, 1)
        if not low < high or (self.log_uniform and low <= 0):
            raise InputError("search", f"space.{given[0]}", [low, high], "two rising numbers, above 0 for logs")
        if self.choice is not None and not self.choice:
            raise InputError("search", "space.choice", "[]", "at least one value")

    @property
    def limits(self) -> tuple[float, float] | None:
        """The ends, where there are any."""
        return self.uniform or self.log_uniform or self.integers

    def draw(self, random: np.random.Generator) -> Any:
        """A value, uniform over the range (of the logarithm)."""
        if self.choice is not None:
            return self.choice[random.integers(len(self.choice))]
        if self.integers is not None:
            return int(random.integers(self.integers[0], self.integers[1] + 1))
        if self.log_uniform is not None:
            return float(np.exp(random.uniform(*np.log(self.log_uniform))))
        low, high = self.uniform or (0.0, 1.0)
        return float(random.uniform(low, high))

    def change(self, value: Any, width: float, random: np.random.Generator) -> Any:
        """`value` times a number within 1 +- `width`, kept within the ends; a choice is drawn anew that often."""
        if self.limits is None:
            return self.draw(random) if random.random() < width else value
        changed = min(max(value * random.uniform(1 - width, 1 + width), self.limits[0]), self.limits[1])
        return round(changed) if self.integers is not None else changed


@dataclass(frozen=True)
class SearchSettings:
    """What to search, read from YAML."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    model: str
    """Implementation: the name of a registered model, or a Python file."""
    space: dict[str, Range]
    """Ranges by the name of the hyper-parameter."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Other hyper-parameters that differ from the model's defaults."""
    kind: Literal["random", "population"] = "random"
    members: int = 20
    """Trials of a random search; members of a population."""
    generations: int = 10
    """Of a population; a generation trains for the model's `steps`."""
    width: float = 0.2
    """By how much a population changes settings, as a share."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("members", 1 if self.kind == "random" else 2), ("generations", 1)):
            if getattr(self, name) < least:
                raise InputError("search", name, getattr(self, name), f"at least {least}")
        if not 0 < self.width < 1:
            raise InputError("search", "width", self.width, "above 0 and below 1")
        if not self.space:
            raise InputError("search", "space", "nothing", "a range for at least one hyper-parameter")
        check_config(self.model, self.fixed | self._draw(0), "search")

    @classmethod
    def read(cls, path: Path | str) -> SearchSettings:
        """Read from a YAML file; InputError names what is wrong in it."""
        settings: SearchSettings = parse(cls, yaml.safe_load(Path(path).read_text()), str(path))
        return settings

    def _draw(self, member: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, member])
        return {name: each.draw(random) for name, each in self.space.items()}

    def first(self) -> list[Trial]:
        """The trials of a random search; the first generation of a population."""
        return [Trial(0, member, None, self._draw(member)) for member in range(self.members)]

    def next(self, trials: list[Trial], scores: Sequence[float]) -> list[Trial]:
        """The generation after `trials`, given their scores."""
        generation = trials[0].generation + 1
        random = np.random.default_rng([self.seed, generation, 1])
        following = []
        able = [member for member, score in enumerate(scores) if math.isfinite(score)]
        for trial in trials:
            rivals = [member for member in able if member != trial.member] or able
            rival = rivals[random.integers(len(rivals))]
            parent, searched = trial.member, trial.searched
            if scores[rival] < scores[parent]:
                parent, searched = rival, trials[rival].searched
                searched = {name: each.change(searched[name], self.width, random) for name, each in self.space.items()}
            following.append(Trial(generation, trial.member, parent, searched))
        return following


@dataclass(frozen=True)
class Trial:
    """One fit of a search."""

    generation: int
    member: int
    parent: int | None
    """Member of the generation before whose weights it starts from."""
    searched: dict[str, Any]

    def folder(self, out: Path) -> Path:
        """Where the fit lies."""
        return place(out, self.generation, self.member)


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
    The table of trials.csv: generation, member, parent, score (lowest validation loss of the fit's kept weights; inf
    for a fit that failed) and the searched settings.

    Raises
    ------
    FitError : every trial failed.
    """
    out = Path(out_dir)
    done: list[tuple[Trial, float]] = []
    with exclusive(out / LOCK):
        trials, scores = settings.first(), list[float]()
        generations = settings.generations if settings.kind == "population" else 1
        for generation in range(generations):
            if generation:
                trials = settings.next(trials, scores)
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


def place(out: Path, generation: int, member: int) -> Path:
    """The folder of a fit."""
    return out / f"generation{generation:02d}" / f"member{member:02d}"


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
    """Fit a trial unless it is fitted; its score."""
    config = settings.fixed | trial.searched
    seed = settings.seed + trial.member
    if settings.kind == "population":
        config |= {"keep": "last"}
        if trial.parent is not None:
            config |= {"initial": str(place(out, trial.generation - 1, trial.parent) / "model.safetensors")}
    folder = trial.folder(out)
    try:
        fit(trains_dirs, split_path, Path(settings.model).stem, settings.model, config, seed, folder)
    except FitError as error:
        print(f"{folder}: {error}", flush=True)
        return math.inf
    return _score(folder / "history.csv", last=settings.kind == "population")


def _score(history: Path, last: bool) -> float:
    """The validation loss of the weights that a fit kept."""
    with history.open() as lines:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(lines) if row.get("validation_loss")]
    if not losses:
        raise InputError(
            history, "validation_loss", "nothing", "a split with a validation part: a search selects by it"
        )
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return losses[-1] if last else min(losses)


def _table(done: Iterable[tuple[Trial, float]]) -> pd.DataFrame:
    rows = [
        {"generation": each.generation, "member": each.member, "parent": each.parent, "score": score, **each.searched}
        for each, score in done
    ]
    return pd.DataFrame(rows).astype({"parent": "Int64"})
