"""What the report says, gathered from a results folder."""

import csv
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet
import yaml

from pipeline_lib import __version__
from pipeline_lib.errors import InputError
from pipeline_lib.figures import FIGURES, FigureSpec
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.files import read_json
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.published import ANEW, read_manifest
from pipeline_lib.report.failures import Failure, find_failures
from pipeline_lib.report.partition import Partition
from pipeline_lib.report.scores import ScoreTable, read_scores

Made = TypeVar("Made")

SHOWN_FILES, SHOWN_CHECKSUMS = 20, 200
"""Source files listed with their checksums, a session and altogether; all of them are in recording.json."""
CITED = ("source", "release", "licence", "citation")
FEW_WINDOWS = 6
"""Windows below which a 95 % interval holds the truth less than 93 times in 100."""
SHOWN_FAILURES, SHOWN_RUNS, SHOWN_SESSIONS = 60, 800, 800
"""Failures with the ends of their logs, fits, and sessions on the page."""
RUN_COLUMNS = {
    "device": "Device",
    "wall_seconds": "Time (s)",
    "cpu_seconds": "CPU time (s)",
    "peak_memory_mb": "Peak memory (MB)",
    "gpu_name": "GPU",
    "gpu_peak_memory_mb": "GPU memory (MB)",
    "gpu_use_percent": "GPU use (%)",
}


@dataclass(frozen=True)
class Session:
    """A recording, as the page's table of sessions shows it."""

    session: str
    units: int
    spikes: int
    trials: int
    about: dict[str, Any]
    """The content of recording.json."""
    trains_hash: str

    @property
    def files(self) -> list[tuple[str, str]]:
        """Names and SHA-256 of the first source files."""
        return sorted(self.about["files"].items())[:SHOWN_FILES]


@dataclass(frozen=True)
class Release:
    """What to cite: sessions of one source, release, licence and citation."""

    source: str
    release: str
    licence: str
    citation: str
    sessions: list[Session]


@dataclass(frozen=True)
class Figure:
    """A figure on disk. `of` is the session or cohort it shows, "" for all; `nothing` why it is empty, if it is."""

    number: int
    name: str
    of: str
    png: Path
    spec: FigureSpec
    nothing: str

    @property
    def anchor(self) -> str:
        """Its id in the page."""
        return f"figure-{self.of}-{self.name}" if self.of else f"figure-{self.name}"

    @property
    def alt(self) -> str:
        """What a reader who cannot see it is told."""
        return f"{self.spec.title}{f' of {self.of}' if self.of else ''}. {self.spec.caption.split('. ')[0]}."


@dataclass(frozen=True)
class FitRun:
    """What a fit took, from its run.json."""

    cohort: str
    model: str
    seed: int
    about: dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """Everything on the page."""

    version: str
    sessions: list[Session]
    partitions: list[Partition]
    scores: ScoreTable
    figures: list[Figure]
    runs: list[FitRun]
    expected: int
    failures: list[Failure]
    config: str
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """Sessions and cohorts that have a figure or a score of their own."""
        scored = [name for row in self.scores.rows for name in (row.session, row.cohort)]
        return list(dict.fromkeys([*(figure.of for figure in self.figures if figure.of), *scored]))

    @property
    def releases(self) -> list[Release]:
        """What the data are and how to cite them; checksums of the first files only."""
        grouped: dict[tuple[str, str, str, str], list[Session]] = {}
        for session in self.sessions:
            about = session.about
            source, release, licence, citation = (str(about.get(name) or "") for name in CITED)
            grouped.setdefault((source, release, licence, citation), []).append(session)
        return [Release(*key, sessions) for key, sessions in sorted(grouped.items())]

    @property
    def run_columns(self) -> list[tuple[str, str]]:
        """Keys of run.json that some run has, and their titles."""
        return [(key, title) for key, title in RUN_COLUMNS.items() if any(key in run.about for run in self.runs)]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Names and titles of the figures there are."""
        return list(dict.fromkeys((figure.name, figure.spec.title) for figure in self.figures))


def collect(
    results: Path, config: dict[str, Any], metrics: Path, outdated: Collection[tuple[str, str, int | str]] = ()
) -> Contents:
    """Read what a results folder holds, and its scores; whatever is missing or `outdated` is left out or becomes a
    failure.

    Of a configuration, what it asks for: the folder may hold sessions, models and figures that it once had. Without
    one, everything there is.

    Raises InputError where the folder does not exist.
    """
    if not results.is_dir():
        raise InputError(results, "results", "no such folder", "the folder that a run has written")
    sessions = sorted((results / "recordings").glob("*/recording.json"))
    splits = sorted((results / "splits").glob("[!.]*.parquet"))
    figures = [file for file in (results / "figures").glob("**/*.png") if file.stem in FIGURES]
    damaged: list[Failure] = []
    fits = sorted((results / "fits").glob("*/*/seed*/manifest.json"))
    runs = _whole(_run, (file for file in fits if file.parent.name.removeprefix("seed").isdigit()), damaged)
    expected, failures = len(runs), []
    try:
        if config:
            plan = resolve(config)
            asked = FigureFiles(plan, Paths(str(results), plan.config.data))
            stems, wanted = {Path(stem) for stem in asked.stems}, set(plan.fits).difference(outdated)
            sessions = [file for file in sessions if file.parent.name in plan.sessions]
            splits = [file for file in splits if file.stem in plan.cohorts]
            figures = [file for file in figures if file.with_suffix("") in stems]
            runs = [run for run in runs if (run.cohort, run.model, run.seed) in wanted]
            expected, failures = len(plan.fits), find_failures(asked, outdated)
    except InputError as error:
        failures = [Failure("configuration", "", str(error), "")]
    return Contents(
        version=__version__,
        sessions=_whole(_session, sessions, damaged),
        partitions=_whole(Partition.of, splits[:SHOWN_SESSIONS], damaged),
        scores=read_scores(metrics),
        figures=_figures(results / "figures", figures),
        runs=runs,
        expected=expected,
        failures=damaged + failures,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        versions=_versions(runs),
    )


def _whole(read: Callable[[Path], Made], files: Iterable[Path], damaged: list[Failure]) -> list[Made]:
    """What is read of `files`; one that is `damaged` is said to be, and the page is made without it."""
    made = []
    for file in files:
        try:
            made.append(read(file))
        except InputError as error:
            damaged.append(Failure("damaged file", "", str(error), ""))
    return made


def _session(description: Path) -> Session:
    directory, about = description.parent, read_json(description, ANEW)
    trains = read_manifest(directory.parents[1] / "trains" / directory.name) or {}
    units, spikes, trials = (_rows(directory / f"{table}.parquet") for table in ("units", "spikes", "trials"))
    return Session(directory.name, units, spikes, trials, about, str(trains.get("content_hash", "")))


def _rows(table: Path) -> int:
    try:
        return int(pyarrow.parquet.read_metadata(table).num_rows)
    except (OSError, ValueError) as error:
        raise InputError(table, "table", str(error).splitlines()[0], "a readable Parquet file") from None


def _figures(directory: Path, found: list[Path]) -> list[Figure]:
    """Figures found, those of all results first, then session by session in the order of the registry."""
    order = {name: place for place, name in enumerate(FIGURES)}
    figures: list[Figure] = []
    for file in sorted(found, key=lambda file: (file.parent != directory, str(file.parent), order[file.stem])):
        spec = FIGURES[file.stem]
        of = "" if file.parent == directory else file.parent.relative_to(directory).as_posix()
        figures.append(Figure(len(figures) + 1, file.stem, of, file, spec, _nothing(file.with_suffix(".csv"))))
    return figures


def _nothing(table: Path) -> str:
    """The sentence in the CSV of a figure that had nothing to draw, else ""."""
    if not table.is_file():
        return ""
    with table.open(newline="") as handle:
        lines = csv.reader(handle)
        return next(lines, [""])[0] if next(lines, []) == ["nothing_to_draw"] else ""


def _run(manifest: Path) -> FitRun:
    fit, about = manifest.parent, manifest.with_name("run.json")
    content = read_json(about, ANEW) if about.is_file() else {}
    return FitRun(fit.parent.parent.name, fit.parent.name, int(fit.name.removeprefix("seed")), content)


def _versions(runs: list[FitRun]) -> dict[str, str]:
    """Versions of the software behind the fits, and the commit; where fits differ, all that were used."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        found = {"Python": run.about.get("python"), **run.about.get("packages", {})}
        git = run.about.get("git") or {}
        found["commit"] = git.get("commit", "")[:12] + (" with local changes" if git.get("dirty") else "")
        for name, version in found.items():
            if version:
                versions.setdefault(name, set()).add(str(version))
    return {name: " and ".join(sorted(found)) for name, found in versions.items()}
