"""Which figures a plan asks for, and the files behind each: what the workflow's rule looks up."""

from dataclasses import dataclass
from functools import cached_property

from pipeline_lib.figures import FIGURES, figure_spec
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan
from pipeline_lib.sources.remote import MANIFEST

FOLDERS = ("recording", "trains", "fits")
"""Needs whose declared file completes a folder, which is what the figure reads."""

Files = dict[str, str | list[str]]


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
        """Every figure without its ending; those of `config.figures` where it names some.

        Left out is what could only say that it has nothing to draw: a figure of a model that a cohort does not fit, of
        an option that a session is not read with, of searches or of decoding where the configuration names none.
        """
        chosen = {name: figure_spec(name) for name in self.plan.config.figures or FIGURES}
        return [
            self.paths.figure(name, of)
            for name, spec in chosen.items()
            for of in self.subjects(spec.scope)
            if not spec.option or self.plan.sessions[of].options.get(spec.option)
            if "searches" not in spec.needs or self.plan.searched
            if name != "decoding" or self.plan.config.evaluation.decoding
            if not spec.model or spec.model in self._models(spec.scope, of)
        ]

    def _models(self, scope: str, of: str) -> set[str]:
        """Implementations of the models that are fitted to a cohort, or to any of them."""
        cohorts = self.plan.cohorts
        chosen = [cohorts[self._in_cohorts[of][0]]] if scope == "cohort" else list(cohorts.values())
        return {model.implementation for cohort in chosen for model in cohort.models.values()}

    def subjects(self, scope: str) -> list[str]:
        """The subjects of figures of a `scope`, "session", "cohort" (one a session of each cohort) or "all"."""
        if scope == "all":
            return [""]
        return list(self.plan.sessions) if scope == "session" else list(self._in_cohorts)

    def declared(self, name: str, of: str) -> Files:
        """The declared files behind the figure `name` of the subject `of`, by what the figure calls them.

        A figure of a cohort shows the fits of the first seed. What Snakemake measured (`benchmarks`) is a folder that
        is read as it is found and declared by no rule: a lost measurement must not make a fit run again.
        """
        spec = figure_spec(name)
        return {need: self._file(need, spec.scope, of) for need in spec.needs if need != "benchmarks"}

    def arguments(self, name: str, files: Files) -> Files:
        """What `make` wants of these declared files: the folder, where a file completes one."""
        wanted: Files = {}
        for need in figure_spec(name).needs:
            if need == "benchmarks":
                wanted[need] = self.paths.benchmark("any").rpartition("/")[0]
                continue
            given = files[need]
            wanted[need] = _read_as(need, given) if isinstance(given, str) else [_read_as(need, file) for file in given]
        return wanted

    def _file(self, need: str, scope: str, of: str) -> str | list[str]:
        if scope == "all":
            return self._of_all[need]
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
            "recording": [self.paths.recording(session) for session in self.plan.sessions],
            "trains": [self.paths.trains(session) for session in self.plan.sessions],
            "split": [self.paths.split(cohort) for cohort in self.plan.cohorts],
            "fits": [self.paths.fit(*fit) for fit in self.plan.fits],
            "searches": [self.paths.search(*search) for search in self.plan.searched],
        }

    @cached_property
    def _in_cohorts(self) -> dict[str, tuple[str, str]]:
        """Cohort and session by subject: a cohort of one session is its own subject."""
        return {
            name if len(cohort.sessions) == 1 else f"{name}/{session}": (name, session)
            for name, cohort in self.plan.cohorts.items()
            for session in cohort.sessions
        }


def _read_as(need: str, file: str) -> str:
    return file.rpartition("/")[0] if need in FOLDERS or file.endswith(f"/{MANIFEST}") else file
