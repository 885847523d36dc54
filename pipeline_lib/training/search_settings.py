"""What a search tries: ranges of hyper-parameters, and the trials that follow from them. Settings only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.registry import check_config
from pipeline_lib.parsing import parse
from pipeline_lib.training.run import FitError
from pipeline_lib.yaml_text import read_yaml

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
        if not -math.inf < low < high < math.inf or (self.log_uniform and low <= 0):
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
        """`value` times a number within 1 +- `width`, kept within the ends; a choice is drawn anew that often.

        Integers may always move by 1: small ones would else stay what they are.
        """
        if self.limits is None:
            return self.draw(random) if random.random() < width else value
        way = max(abs(value) * width, 1 if self.integers is not None else 0)
        changed = min(max(value + way * random.uniform(-1, 1), self.limits[0]), self.limits[1])
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
    score: str = "validation_loss"
    """Column of history.csv that decides, the lower the better: what the model itself keeps its best weights by. For
    LFADS that is validation_nll, since the search may weigh other terms of the loss. What is searched must not change
    what is judged: LFADS has `evaluated_dropout` for that, the NDT `evaluated_ratio`."""
    width: float = 0.2
    """By how much a population changes settings, as a share."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("members", 1 if self.kind == "random" else 2), ("generations", 1)):
            if getattr(self, name) < least:
                raise InputError("search", name, getattr(self, name), f"at least {least}")
        if not 0 < self.width < 1:
            raise InputError("search", "width", self.width, "above 0 and below 1")
        if self.seed < 0:
            raise InputError("search", "seed", self.seed, "a whole number from 0 on")
        if not self.space:
            raise InputError("search", "space", "nothing", "a range for at least one hyper-parameter")
        for trial in self.first():
            check_config(self.model, self.config(trial), "search")

    @classmethod
    def read(cls, path: Path | str) -> SearchSettings:
        """Read from a YAML file; InputError names what is wrong in it."""
        settings: SearchSettings = parse(cls, read_yaml(path), str(path))
        return settings

    def _draw(self, member: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, member])
        return {name: each.draw(random) for name, each in self.space.items()}

    def config(self, trial: Trial) -> dict[str, Any]:
        """Hyper-parameters of a trial. A population scores the weights that it goes on from: the last."""
        return self.fixed | trial.searched | ({"keep": "last"} if self.kind == "population" else {})

    @property
    def rounds(self) -> int:
        """Generations that there will be; a random search has one."""
        return self.generations if self.kind == "population" else 1

    def first(self) -> list[Trial]:
        """The trials of a random search; the first generation of a population."""
        return [Trial(0, member, None, self._draw(member)) for member in range(self.members)]

    def next(self, trials: list[Trial], scores: Sequence[float]) -> list[Trial]:
        """The generation after `trials`, given their scores.

        Raises
        ------
        FitError : all of them failed.
        """
        generation = trials[0].generation + 1
        random = np.random.default_rng([self.seed, generation, 1])
        following = []
        able = successful(trials, scores)
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


def successful(trials: Sequence[Trial], scores: Sequence[float]) -> list[int]:
    """Members whose trials did not fail; FitError where all of a generation did."""
    members = [trial.member for trial, score in zip(trials, scores, strict=True) if math.isfinite(score)]
    if not members:
        raise FitError(f"all {len(trials)} trials of generation {trials[0].generation} failed")
    return members


def place(out: Path, generation: int, member: int) -> Path:
    """The folder of a fit."""
    return out / f"generation{generation:02d}" / f"member{member:02d}"
