"""What can be found wrong before any job starts, found before any job starts.

Hyper-parameters are checked against the models; local recordings are read, validated, cut and split in memory. What
was found right is remembered by size and time of its files: a second run pays nothing. A wrong input writes nothing.
"""

import hashlib
import json
import sys
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import write_json
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Cohort, ModelPlan, Plan
from pipeline_lib.session_sheet import Session
from pipeline_lib.sources import session_files

if TYPE_CHECKING:
    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains

ABILITIES = ("uses_gpu", "random")
"""Attributes of models that planning asks for; remembered, because importing the models costs seconds."""
OF_DATA = "of_data"
Checked = dict[str, dict[str, list[str]]]
"""What was found right, by a key of all that was looked at: of models those that have each ability, of a cohort the
names of its "signal"s and "column"s of trials; of models, too, which of their settings must go with the data."""
LARGE = 1_000_000_000
"""Bytes of a session above which its job checks it, and not the start of every run."""


def preflight(plan: Plan, where: str) -> dict[str, set[str]]:
    """Check models, figures and local recordings of a plan; note on stderr which of its settings have no effect.

    Returns
    -------
    By ability ("uses_gpu", "random"), the implementations of the plan that have it (see `Model`).

    Raises
    ------
    InputError : the first mistake, in one line.
    """
    from pipeline_lib.figures import FIGURES

    for figure in plan.config.figures or []:
        if figure not in FIGURES:
            raise InputError(where, "figures", repr(figure), suggest(figure, FIGURES))
    if plan.without_effect:
        keys = ", ".join(plan.without_effect)
        print(f"note: {where}: without effect, because the model is not fitted there: {keys}", file=sys.stderr)
    for cohort in plan.cohorts.values():
        # What a file or a column says of each window is not in the settings.
        drawn = cohort.splits.scheme in ("auto", "trials", "blocks")
        if cohort.models and drawn and not any(cohort.splits.fractions[1:]):
            found = "all windows train, none is for validation or test"
            print(f"note: {where}: cohort {cohort.cohort}: {found}: its fits have no scores", file=sys.stderr)
    if plan.unused:
        print(f"note: {where}: without effect on any session: {', '.join(plan.unused)}", file=sys.stderr)
    memory = _memory(where)
    before = _remembered(memory)
    models = _check_models(plan, before, where)
    _check_initial(plan, where)
    (able,) = models.values()
    of_data = set(able[OF_DATA])
    cohorts = [_check_cohort(plan, cohort, of_data, before, where) for cohort in plan.cohorts.values()]
    if all(cohorts) and plan.fits:
        _check_decoding(plan, cohorts, where)
    checked = dict(ChainMap(models, *cohorts))
    if not checked.keys() <= before.keys():
        with suppress(OSError):  # where nothing may be written: it is only looked at once more
            write_json(memory, checked)
    return {ability: set(able[ability]) for ability in ABILITIES}


def _check_models(plan: Plan, before: Checked, where: str) -> Checked:
    """Importing the models costs seconds (torch), so it is done once for all, when any setting or code changed."""
    from pipeline_lib.models.registry import model_source
    from pipeline_lib.training.code_id import code_id

    models = {}
    for each in plan.cohorts.values():
        cut = asdict(each.windows), each.splits.forward
        for name, model in each.models.items():
            models[_text([name, model.implementation, model.settings, model.ensemble, *cut])] = each.cohort, name, model
    sources = {}
    for cohort, name, model in models.values():
        with _blamed(plan, cohort, name, where):
            sources[model.implementation] = model_source(model.implementation)
    sources |= {each.model: model_source(each.model) for each in plan.searches.values()}
    # By name, too: the code of one model may hold that of another.
    key = _key("models", sorted(models), sorted(sources), code_id(sources[name] for name in sorted(sources)))
    if key in before:
        return {key: before[key]}
    from pipeline_lib.models.registry import check_config, load_model
    from pipeline_lib.training.fit_ensemble import check_ensemble

    for cohort, name, model in models.values():
        with _blamed(plan, cohort, name, where):
            config, of = check_config(model.implementation, model.settings), plan.cohorts[cohort]
            load_model(model.implementation).check_windows(config, of.windows, of.splits.forward)
        if model.ensemble:
            check_ensemble(model.implementation, f"{where}: models.{name}")
    loaded = {implementation: load_model(implementation) for implementation in sources}
    able = {each: [name for name, model in loaded.items() if getattr(model, each)] for each in ABILITIES}
    return {key: able | {OF_DATA: [f"{name}.{each}" for name, model in loaded.items() for each in model.of_data]}}


@contextmanager
def _blamed(plan: Plan, cohort: str, name: str, where: str) -> Iterator[None]:
    """A mistake in a cohort's settings of a model is told with the place that says them: it, the models, or their file.

    One in the Python file of a model is told as it is, with that file.
    """
    try:
        yield
    except InputError as error:
        if error.where.endswith(".py"):
            raise
        key, models = error.field.split(".")[0], plan.config.models
        place = f"{plan.config.model_directory}/{name}.yaml"
        if isinstance(models, dict) and key in models[name]:
            place = f"{where}: models.{name}"
        if cohort in plan.config.cohorts and key in plan.config.cohorts[cohort].model_settings.get(name, {}):
            place = f"{where}: cohorts.{cohort}.model_settings.{name}"
        if key in ("windows", "splits"):
            place = f"{where}: cohort {cohort}, model {name}"
        if error.where.startswith("session "):
            place = f"{place}, {error.where}"
        raise InputError(place, error.field, error.found, error.accepted) from None


def _check_initial(plan: Plan, where: str) -> None:
    """The weights that a fit starts from are there, or of a fit that can be made before it."""
    before = plan.following(Paths(plan.config.results))
    for fit, weights in plan.initial.items():
        with _blamed(plan, *fit[:2], where):
            if fit not in before and not Path(weights).is_file():
                raise InputError("", "initial", f"no file {weights}", "weights that are there, or of a fit to be made")
            line = [fit]
            while line[-1] in before:
                line.append(before[line[-1]])
                if line[-1] in line[:-1]:
                    found = f"{weights}, which would start from itself"
                    raise InputError("", "initial", found, "weights that are made without this model and cohort")


def _check_cohort(plan: Plan, cohort: Cohort, of_data: set[str], before: Checked, where: str) -> Checked:
    """Read the cohort's sessions, cut and split those to be fitted, and look there for what models and decoding name of
    them; nothing where they are not here yet, or large. `of_data`: settings of models that name it."""
    sessions = [plan.sessions[name] for name in cohort.sessions]
    if any(session.simulation or not Path(session.location).exists() for session in sessions):
        return {}
    files = [_files(session) for session in sessions]
    if sum(size for listed in files for _, size, _ in listed) > LARGE:
        return {}
    splits = asdict(cohort.splits)
    if cohort.splits.file:
        splits["file"] = _describe_split(cohort, where)
    fitted = bool(cohort.models) or cohort.cohort in {name for _, name in plan.searched}
    cut = [asdict(cohort.windows), splits] if fitted else []
    key = _key("cohort, contents", [asdict(session) for session in sessions], files, cut)

    @cache
    def read() -> "tuple[list[Trains], Split | None]":
        trains = _read(sessions)
        return trains, _split_in_memory(trains, cohort, where) if fitted else None

    checked = {key: before[key] if key in before else _names(read()[0])}
    named = {name: own for name, model in cohort.models.items() if (own := _of_data(model, of_data))}
    decoding = plan.config.evaluation.decoding.items()
    timing = {name: asdict(target) for name, target in decoding if target.timing in checked[key]["column"]}
    if cohort.models and (named or timing):
        of_settings = _key("cohort, settings", key, named, timing)
        if of_settings not in before:
            _check_data(plan, cohort, list(named), *read(), where)
        checked[of_settings] = {}
    return checked


def _names(trains: "list[Trains]") -> dict[str, list[str]]:
    known = {
        "signal": {name for each in trains for name in each.signals},
        "column": {str(name) for each in trains for name in each.trials},
    }
    return {kind: sorted(names) for kind, names in known.items()}


def _check_decoding(plan: Plan, cohorts: list[Checked], where: str) -> None:
    """What is to be decoded is in one session at least, of all which were looked at."""
    for name, target in plan.config.evaluation.decoding.items():
        columns = (each for each in (target.choice, target.timing) if each is not None)
        first = ("column", next(columns)) if target.signal is None else ("signal", target.signal)
        for kind, wanted in (first, *(("column", column) for column in target.within)):
            there = {name for cohort in cohorts for known in cohort.values() for name in known.get(kind, ())}
            if wanted not in there:
                found = f"{kind} {wanted!r}, which no session has"
                raise InputError(where, f"evaluation.decoding.{name}", found, suggest(str(wanted), sorted(there)))


def _of_data(model: ModelPlan, of_data: set[str]) -> dict[str, Any]:
    """Its settings that must go with the data, by the implementation and their name."""
    own = {f"{model.implementation}.{name}": value for name, value in model.settings.items()}
    return {name: own[name] for name in sorted(own.keys() & of_data)}


def _check_data(
    plan: Plan, cohort: Cohort, named: list[str], trains: "list[Trains]", split: "Split | None", where: str
) -> None:
    """What models (those `named`) and decoding ask of the sessions is there, and what it should be."""
    from pipeline_lib.evaluation.readouts import check_timing
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.registry import check_config, load_model

    assert split is not None
    data = FitData({each.session: each for each in trains}, split, fitting=True)
    for name in named:
        model = cohort.models[name]
        with _blamed(plan, cohort.cohort, name, where):
            config = check_config(model.implementation, model.settings)
            load_model(model.implementation).check_data(config, data)
    for each in trains:
        try:
            check_timing(plan.config.evaluation.decoding, each, split)
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.field, error.found, error.accepted) from None


def _read(sessions: list[Session]) -> "list[Trains]":
    from pipeline_lib.sources import read_source
    from pipeline_lib.trains.store import Trains

    trains = []
    for session in sessions:
        recording = read_source(session.source, session.session, Path(session.location), session.options)
        recording.validate(session.location)
        trains.append(Trains.from_recording(recording))
    return trains


def _split_in_memory(trains: "list[Trains]", cohort: Cohort, where: str) -> "Split":
    import numpy as np

    from pipeline_lib.trains.splits import make_split

    try:
        split = make_split(trains, cohort.windows, cohort.splits, cohort.cohort)
    except InputError as error:
        raise InputError(f"{where}: cohort {cohort.cohort}", error.field, error.found, error.accepted) from None
    for each in trains:
        heldout = split.heldout[each.session]
        silent = int((np.bincount(each.unit, minlength=each.n_units)[heldout] == 0).sum())
        if silent:
            found = f"{silent} of {len(heldout)} held-out units of {each.session} never fire"
            advice = "there is nothing to predict of them (the option min_rate leaves them out)"
            print(f"note: {where}: cohort {cohort.cohort}: {found}: {advice}", file=sys.stderr)
    return split


def _files(session: Session) -> list[tuple[str, int, int]]:
    return [_describe(file) for file in session_files(session.source, session.location, session.options)]


def _describe_split(cohort: Cohort, where: str) -> tuple[str, int, int]:
    file = Path(str(cohort.splits.file))
    if not file.is_file():
        place = f"{where}: cohort {cohort.cohort}"
        raise InputError(place, "splits.file", f"no file {file}", "a path from the folder the run starts in")
    return _describe(file)


def _describe(file: Path) -> tuple[str, int, int]:
    if "{" in str(file) or "}" in str(file):
        raise InputError(file, "path", "a brace", "a path without braces: Snakemake takes them for a wildcard")
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


def _key(*parts: Any) -> str:
    return hashlib.sha256(_text(parts).encode()).hexdigest()


def _text(content: Any) -> str:
    """Content as text, dates of YAML among it."""
    return json.dumps(content, sort_keys=True, default=str)


def _memory(where: str) -> Path:
    """A file for each configuration: of two that run in turn, or at a time, each would else forget the other's."""
    return Path(".snakemake") / f"trainyard_checked_{_key(str(Path(where).absolute()))[:12]}.json"


def _remembered(memory: Path) -> Checked:
    try:
        return dict(json.loads(memory.read_text()))
    except (OSError, ValueError):
        return {}
