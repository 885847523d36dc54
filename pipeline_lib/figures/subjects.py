"""Which figures a plan asks for, and the files behind each: what the workflow's rules look up."""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline_lib.config import NAME
from pipeline_lib.errors import InputError, suggest
from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.figures import FIGURES, figure_spec, make
from pipeline_lib.files import atomic_file
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan

FOLDERS = ("recording", "trains", "fits")
"""Needs whose declared file completes a folder, which is what the figure reads."""

FOUND = ("benchmarks", "jobs")
"""Needs that no rule declares: a folder that is read as it is found, and which jobs in it are of this plan."""

Files = dict[str, str | list[str]]


@dataclass(frozen=True)
class FigureSet:
    """The figures that one job draws: all of a scope, for the subjects that have the same ones."""

    rule: str
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    pattern: str
    """Of the subjects, as a regular expression; not one name by one where all subjects of the scope are meant."""


@dataclass(frozen=True)
class FigureFiles:
    """The figures of a plan, each by its name and its subject.

    The subject is a session, a cohort, a session within a cohort of several ("cohort/session"), or "" for a figure of
    all results; a figure lies in a folder of that name.
    """

    plan: Plan
    paths: Paths

    @cached_property
    def stems(self) -> list[str]:
        """Every figure without its ending; where there is a list `config.figures`, those that it names."""
        of_one = [self.paths.figure(name, of) for each in self.sets for name in each.names for of in each.subjects]
        return of_one + [self.paths.figure(name) for name in self.of_all]

    @cached_property
    def of_all(self) -> list[str]:
        """The figures of all results; without those of searches, decoding, simulations where there are none of them."""
        config = self.plan.config
        asked: dict[str, object] = {"search": self.plan.searched, "truth_recovery": config.simulations}
        asked["decoding"] = config.evaluation.decoding
        fitted = {model.implementation for cohort in self.plan.cohorts.values() for model in cohort.models.values()}
        return [name for name in self._chosen("all") if asked.get(name, True) and _fits_suffice(name, fitted)]

    @cached_property
    def sets(self) -> list[FigureSet]:
        """The figures of sessions and of cohorts, a job a subject: starting Python takes longer than drawing.

        Left out is what could only say that it has nothing to draw: a figure of a model that a cohort does not fit, or
        of an option that a session is not read with.
        """
        grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        sessions, cohorts = self._chosen("session"), self._chosen("cohort")
        for session in self.subjects("session"):
            options = self.plan.sessions[session].options
            names = (name for name in sessions if not FIGURES[name].option or options.get(FIGURES[name].option))
            grouped.setdefault(("session", tuple(names)), []).append(session)
        for of, (cohort, _) in self._in_cohorts.items():
            fitted = {model.implementation for model in self.plan.cohorts[cohort].models.values()}
            names = (name for name in cohorts if _fits_suffice(name, fitted))
            grouped.setdefault(("cohort", tuple(names)), []).append(of)
        drawn = [(scope, names, subjects) for (scope, names), subjects in grouped.items() if names]
        scopes = [scope for scope, _, _ in drawn]
        anyone = {"session": NAME.pattern, "cohort": f"{NAME.pattern}(/{NAME.pattern})?"}
        return [
            FigureSet(
                f"figures_of_{scope}{scopes[:place].count(scope) or ''}",
                names,
                tuple(subjects),
                anyone[scope] if scopes.count(scope) == 1 else "|".join(map(re.escape, subjects)),
            )
            for place, (scope, names, subjects) in enumerate(drawn)
        ]

    def _chosen(self, scope: str) -> list[str]:
        """In the order of the registry: in another, Snakemake would take them for other figures and draw all anew."""
        asked = self.plan.config.figures
        chosen = {figure_spec(name) for name in (FIGURES if asked is None else asked)}
        return [name for name, spec in FIGURES.items() if spec.scope == scope and spec in chosen]

    def subjects(self, scope: str) -> list[str]:
        """The subjects of figures of a `scope`, "session", "cohort" (one a session of each cohort) or "all"."""
        if scope == "all":
            return [""]
        return list(self.plan.sessions) if scope == "session" else list(self._in_cohorts)

    def declared(self, names: Iterable[str], of: str) -> Files:
        """The declared files behind figures of the subject `of`, by what the figures call them.

        A figure of a cohort shows the fits of the first seed. One of all results waits for the table of scores, which
        is made from everything that it reads: a list of thousands of files for every such figure would double the time
        of planning. (An object store has to be asked for the files themselves.) What Snakemake measured (`benchmarks`)
        is a folder that is read as it is found and declared by no rule: a lost measurement must not refit anything.
        """
        specs = [figure_spec(name) for name in names]
        if not of and not self.paths.folders:
            files = {need for spec in specs for need in spec.needs if need not in FOUND}
            return {need: self._of_all[need] for need in {"metrics", *files & {"searches"}}}
        return {need: self._file(need, spec.scope, of) for spec in specs for need in spec.needs if need not in FOUND}

    def arguments(self, name: str, of: str) -> Files:
        """What `make` wants: those files, and the folder where a file completes one."""
        spec, wanted = figure_spec(name), Files()
        for need in spec.needs:
            if need in FOUND:
                wanted[need] = self._found[need]
                continue
            given = self._file(need, spec.scope, of)
            if need == "source":
                given = self.plan.sessions[of].location
            wanted[need] = _read_as(need, given) if isinstance(given, str) else [_read_as(need, file) for file in given]
        return wanted

    def draw(self, names: Iterable[str], of: str) -> None:
        """Draw figures of the subject `of` from what the workflow has made."""
        for name in names:
            make(name, self.arguments(name, of), self.paths.figure(name, of))

    def _file(self, need: str, scope: str, of: str) -> str | list[str]:
        if scope == "all":
            return self._of_all[need]
        if of not in self._known[scope]:
            raise InputError("figures", scope, repr(of), suggest(of, self._known[scope]))
        cohort, session = self._in_cohorts[of] if scope == "cohort" else ("", of)
        if need == "fits":
            seed = self.plan.config.seeds[0]
            return [self.paths.fit(cohort, model, seed) for model in self.plan.cohorts[cohort].models]
        if need == "split":
            return self.paths.split(cohort)
        if need == "source":
            remote = self.plan.sessions[session].remote
            return self.paths.fetched(str(remote.folder(""))) if remote else self.plan.sessions[session].location
        return self.paths.recording(session) if need == "recording" else self.paths.trains(session)

    @cached_property
    def _of_all(self) -> Files:
        return {
            "metrics": self.paths.metrics,
            "trains": [self.paths.trains(session) for session in self.plan.sessions],
            "split": [self.paths.split(cohort) for cohort in self.plan.cohorts],
            "fits": [self.paths.fit(*fit) for fit in self.plan.fits],
            "searches": [self.paths.search(*search) for search in self.plan.searched],
        }

    @cached_property
    def _found(self) -> Files:
        """The folder of what Snakemake measured, and what the jobs of this plan are called in it."""
        plan = self.plan
        drawn = [f"{of}/{each.rule}" for each in self.sets for of in each.subjects]
        fits = [f"{cohort}/{model}/seed{seed}" for cohort, model, seed in plan.fits]
        averages = [f"{cohort}/{model}/{of}" for cohort, model in plan.averages for of in (MEAN, "training")]
        fitted = [*plan.sessions, *plan.cohorts, *fits, *averages]
        jobs = ["all", *plan.config.simulations, *fitted, *self.of_all, *drawn]
        return {"benchmarks": self.paths.benchmark("any").rpartition("/")[0], "jobs": jobs}

    @cached_property
    def _known(self) -> dict[str, set[str]]:
        return {scope: set(self.subjects(scope)) for scope in ("session", "cohort")}

    @cached_property
    def _in_cohorts(self) -> dict[str, tuple[str, str]]:
        """Cohort and session by subject: a cohort of one session is its own subject."""
        return {
            name if len(cohort.sessions) == 1 else f"{name}/{session}": (name, session)
            for name, cohort in self.plan.cohorts.items()
            for session in cohort.sessions
        }


def _fits_suffice(name: str, fitted: Set[str]) -> bool:
    """Whether these implementations are what a figure shows; without any, there are no fits and no scores to show."""
    spec = FIGURES[name]
    return spec.model in {"", *fitted} and (bool(fitted) or not {"fits", "metrics"} & set(spec.needs))


def caption_file(name: str) -> str:
    """Path of a file that holds the caption of a figure: Snakemake's report takes captions from files only."""
    path = Path(".snakemake", "captions", f"{name}.rst").absolute()
    module = Path(__file__).with_name(f"{FIGURES[name].module}.py")
    if not path.is_file() or path.stat().st_mtime < module.stat().st_mtime:
        with atomic_file(path) as part:
            part.write_text(FIGURES[name].caption)
    return str(path)


def _read_as(need: str, file: str) -> str:
    return file.rpartition("/")[0] if need in FOLDERS else file
