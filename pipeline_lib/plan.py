"""From a validated configuration to a plan: sessions, cohorts, models, and every fit to make.

The Snakefile and the command line work from the plan alone. Nothing heavy is imported here.
"""

import math
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.clock import LONGEST, bin_ticks
from pipeline_lib.config import LARGEST_SEED, CohortConfig, Config, Simulation, check_name
from pipeline_lib.errors import InputError, suggest
from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.parsing import parse, with_numbers
from pipeline_lib.paths import Paths
from pipeline_lib.published import WEIGHTS
from pipeline_lib.session_sheet import Session, read_sessions
from pipeline_lib.trains.settings import UNREAD, SplitSettings, WindowSettings
from pipeline_lib.yaml_text import read_yaml

if TYPE_CHECKING:
    from pipeline_lib.training.search_settings import SearchSettings

REPOSITORY = Path(__file__).resolve().parents[1]
SHORTEST_BIN = 0.1
"""Milliseconds, longer than which a bin of a configuration must be."""


@dataclass(frozen=True)
class ModelPlan:
    """A model to fit: the implementation's name (or file) and its complete settings."""

    implementation: str
    settings: dict[str, Any]
    ensemble: bool = False
    """Train all seeds in one process."""


@dataclass(frozen=True)
class Cohort:
    """Sessions fitted together, with everything that a fit depends on."""

    cohort: str
    sessions: tuple[str, ...]
    windows: WindowSettings
    splits: SplitSettings
    models: dict[str, ModelPlan]


@dataclass(frozen=True)
class Plan:
    """The validated configuration, resolved: what the rules and the command line work from."""

    config: Config
    sessions: dict[str, Session]
    cohorts: dict[str, Cohort]
    searches: "dict[str, SearchSettings]" = field(default_factory=dict)
    """Searches by name; `config.searches` says for which cohorts."""

    @property
    def searched(self) -> list[tuple[str, str]]:
        """Every (search, cohort)."""
        return [(name, cohort) for name in self.searches for cohort in self.config.searches[name]]

    @property
    def ensembles(self) -> list[str]:
        """Models whose seeds are trained in one process, where there are several."""
        return self._of_several_seeds(lambda model: model.ensemble)

    def copied(self, random: Container[str]) -> list[str]:
        """Models whose fits no seed changes, where there are several seeds; `random`: implementations that draw."""
        return self._of_several_seeds(lambda model: model.implementation not in random)

    def _of_several_seeds(self, wanted: Callable[[ModelPlan], bool]) -> list[str]:
        """Models that are `wanted`, where there are several seeds."""
        if len(self.config.seeds) == 1:
            return []
        plans = (each for cohort in self.cohorts.values() for each in cohort.models.items())
        return sorted({name for name, model in plans if wanted(model)})

    @property
    def unused(self) -> list[str]:
        """Keys of the configuration that say something of no session or cohort there is: shared defaults, or a slip."""
        sources, simulated = ({getattr(each, of) for each in self.sessions.values()} for of in ("source", "simulation"))
        keys = [f"sources.{name}" for name in self.config.sources if name not in sources]
        keys += [f"simulations.{name}" for name in self.config.simulations if name not in simulated]
        for key in ("before", "after", "length", "align", "conditions"):
            default = WindowSettings.__dataclass_fields__[key].default
            changed = [each.windows for each in self.cohorts.values() if getattr(each.windows, key) != default]
            if changed and all(key in UNREAD[windows.mode] for windows in changed):
                keys.append(f"windows.{key}")
        return keys

    @property
    def without_effect(self) -> list[str]:
        """Keys of the configuration about models that are not fitted there: shared defaults, or a slip."""
        fitted = {model for cohort in self.cohorts.values() for model in cohort.models}
        keys = [f"models.{model}" for model in self.config.models if model not in fitted]
        return keys + [
            f"cohorts.{name}.model_settings.{model}"
            for name, entry in self.config.cohorts.items()
            for model in entry.model_settings
            if model not in self.cohorts[name].models
        ]

    @property
    def scored(self) -> list[str]:
        """Cohorts with a model."""
        return [name for name, cohort in self.cohorts.items() if cohort.models]

    @property
    def fits(self) -> list[tuple[str, str, int]]:
        """Every (cohort, model, seed) to fit."""
        seeds = self.config.seeds
        return [
            (name, model, seed) for name, cohort in self.cohorts.items() for model in cohort.models for seed in seeds
        ]

    @property
    def initial(self) -> dict[tuple[str, str, int], str]:
        """The weights that a fit starts from, of those that start from any."""
        settings = {fit: self.cohorts[fit[0]].models[fit[1]].settings for fit in self.fits}
        return {fit: own["initial"] for fit, own in settings.items() if own.get("initial")}

    def following(self, paths: Paths) -> dict[tuple[str, str, int], tuple[str, str, int]]:
        """Of each fit that starts from the weights of another one of this plan: that one."""
        if not (initial := self.initial):
            return {}
        made = {Path(paths.fit(*fit)).with_name(WEIGHTS): fit for fit in self.fits}
        return {fit: made[Path(weights)] for fit, weights in initial.items() if Path(weights) in made}

    @property
    def averaged(self) -> list[str]:
        """Models whose rates are averaged over the seeds, where there are several."""
        return self.config.average_seeds if len(self.config.seeds) > 1 else []

    @property
    def averages(self) -> list[tuple[str, str]]:
        """Every (cohort, model) whose rates are averaged over the seeds."""
        cohorts = self.cohorts.items()
        return [(name, model) for name, cohort in cohorts for model in self.averaged if model in cohort.models]

    def predicted(self, cohort: str) -> list[tuple[str, str, int | str]]:
        """Every (cohort, model, seed) of a cohort that is scored: its fits, and "mean" of those that are averaged."""
        seeds: list[int | str] = [*self.config.seeds]
        of_all = {model: [*seeds, MEAN] if model in self.averaged else seeds for model in self.cohorts[cohort].models}
        return [(cohort, model, seed) for model, own in of_all.items() for seed in own]


def load_config(path: Path | str) -> Plan:
    """Read a YAML configuration file and resolve it (see `resolve`)."""
    return resolve(read_yaml(path), str(path))


def resolve(content: Any, where: str = "config") -> Plan:
    """Validate a configuration and work out its sessions, cohorts and models.

    Raises
    ------
    InputError : an unknown key (the nearest known one is suggested), a wrong type, a missing file, a duplicate or
        unknown session, an unknown source, simulator, model, option or hyper-parameter.
    """
    config = _with_shipped_folders(parse(Config, content, where))
    in_range = all(0 <= seed <= LARGEST_SEED for seed in config.seeds)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or not in_range:
        raise InputError(where, "seeds", config.seeds, f"at least one seed, from 0 to {LARGEST_SEED}, each once")
    _each_once(config.evaluation.few_shot, where, "evaluation.few_shot")
    for name, folder in (("results", config.results), ("data", config.data)):
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(where, name, f"the file {folder}", "a folder")
        for place in (Path(folder), *Path(folder).parents):
            if place.is_symlink() and not place.exists():
                found = f"{place}, a link to {place.readlink()}, which is not there"
                raise InputError(where, name, found, "a folder (is its disk mounted?)")
    ledger, cache = config.downloads.ledger, config.downloads.cache
    if ledger and Path(ledger).is_dir():
        raise InputError(where, "downloads.ledger", f"the folder {ledger}", "a file (it need not be there yet)")
    if cache and Path(cache).is_file():
        raise InputError(where, "downloads.cache", f"the file {cache}", "a folder")
    for bin_size in config.counts:
        try:
            bin_ticks(bin_size)
        except InputError as error:
            raise InputError(where, "counts", error.found, error.accepted) from None
        _check_milliseconds(bin_size, where, "counts")
    sessions = read_sessions(config, where)
    for name, simulation in config.simulations.items():
        _check_simulation(name, simulation, where)
    models = _read_models(config, where)
    for model in config.average_seeds:
        if model not in models:
            raise InputError(where, "average_seeds", repr(model), suggest(model, models))
    _each_once(config.average_seeds, where, "average_seeds")
    cohorts = {}
    for name, entry in _cohort_entries(config, sessions, where).items():
        cohorts[name] = _cohort(name, entry, config, sessions, models, f"{where}: cohorts.{name}")
    return Plan(config, sessions, cohorts, _read_searches(config, cohorts, where))


def _with_shipped_folders(config: Config) -> Config:
    """The repository's models and searches, where none are named and the folder that the run starts in has none."""
    keys = {"model_directory", "search_directory"} - config.model_fields_set
    shipped = {key: REPOSITORY / getattr(config, key) for key in keys if not Path(getattr(config, key)).is_dir()}
    return config.model_copy(update={key: str(folder) for key, folder in shipped.items() if folder.is_dir()})


def _cohort(
    name: str,
    entry: CohortConfig,
    config: Config,
    sessions: dict[str, Session],
    models: dict[str, ModelPlan],
    where: str,
) -> Cohort:
    members = tuple(entry.sessions or [name])
    for session in members:
        if session not in sessions:
            found = repr(session) if entry.sessions else f"none, and no session is called {session!r}"
            raise InputError(where, "sessions", found, suggest(session, sessions))
    _each_once(members, where, "sessions")
    for key, names in (("models", entry.models or []), ("model_settings", entry.model_settings)):
        for model in names:
            if model not in models:
                raise InputError(where, key, repr(model), suggest(model, models))
    chosen = {model: models[model] for model in (models if entry.models is None else entry.models)}
    for model, changes in entry.model_settings.items():
        if model in chosen:
            plan = chosen[model]
            chosen[model] = _with_numbers(replace(plan, settings=plan.settings | changes))
    windows = _override(WindowSettings, config.windows, entry.windows, f"{where}: windows")
    _check_milliseconds(windows.bin_size, f"{where}: windows", "bin_size")
    splits = _override(SplitSettings, config.splits, entry.splits, f"{where}: splits")
    return Cohort(name, members, windows, splits, chosen)


def _each_once(listed: Sequence[Any], where: str, field: str) -> None:
    for each in listed:
        if listed.count(each) > 1:
            raise InputError(where, field, f"{each!r} twice", "each once")


def _check_milliseconds(bin_size: float, where: str, field: str) -> None:
    """Refuse seconds: a bin of 0.01 ms would be asked for by nobody, and no machine could hold the counts."""
    if not SHORTEST_BIN < bin_size <= LONGEST * 1000:
        accepted = f"milliseconds, more than {SHORTEST_BIN} (a bin of 0.01 s is 10), at most {LONGEST * 1000:g}"
        raise InputError(where, field, bin_size, accepted)


def _override(kind: type, base: Any, changes: dict[str, Any], where: str) -> Any:
    """`base` with some keys changed; the same object where there are none (a thousand cohorts share it)."""
    return parse(kind, asdict(base) | changes, where) if changes else base


def _check_simulation(name: str, simulation: Simulation, where: str) -> None:
    from pipeline_lib.sources.simulate import check_settings

    check_name(name, where, "simulations")
    try:
        check_settings(simulation.simulator, simulation.settings)
    except InputError as error:
        raise InputError(where, f"simulations.{name}.{error.field}", error.found, error.accepted) from None


def _read_models(config: Config, where: str) -> dict[str, ModelPlan]:
    overrides = config.models if isinstance(config.models, dict) else {name: {} for name in config.models}
    directory = Path(config.model_directory)
    if overrides and not directory.is_dir():
        raise InputError(where, "model_directory", f"no folder {directory}", "the folder of the models' YAML files")
    plans = {}
    for name, changes in overrides.items():
        path = _yaml_file(directory, name, where, "models")
        settings = read_yaml(path) or {}
        if not isinstance(settings, dict):
            raise InputError(path, "content", type(settings).__name__, "a mapping of hyper-parameters")
        settings = settings | (changes or {})
        implementation, ensemble = settings.pop("implementation", name), settings.pop("ensemble", False)
        if not isinstance(implementation, str):
            raise InputError(where, f"models.{name}.implementation", repr(implementation), "a model's name or file")
        if not isinstance(ensemble, bool):
            raise InputError(where, f"models.{name}.ensemble", repr(ensemble), "true or false")
        plans[name] = _with_numbers(ModelPlan(implementation, settings, ensemble))
    return plans


def _with_numbers(model: ModelPlan) -> ModelPlan:
    """The numbers among its settings that YAML left as text; what is wrong with them is told later."""
    if not _has_number(list(model.settings.values())):
        return model  # as nearly always: importing the model takes half a second
    from pipeline_lib.models.registry import check_config

    with suppress(InputError):
        made = check_config(model.implementation, model.settings)
        return replace(model, settings=with_numbers(model.settings, made, ""))
    return model


def _has_number(content: Any) -> bool:
    """Whether a text in `content` reads as a number."""
    if isinstance(content, dict | list):
        return any(map(_has_number, content.values() if isinstance(content, dict) else content))
    with suppress(ValueError):
        return isinstance(content, str) and math.isfinite(float(content))
    return False


def _yaml_file(directory: Path, name: str, where: str, field: str) -> Path:
    """The file of a model or search; InputError where there is none of its name."""
    check_name(name, where, field)
    path = directory / f"{name}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in directory.glob("*.yaml"))
        raise InputError(where, field, f"{name!r} (no file {path})", suggest(name, names))
    return path


def _read_searches(config: Config, cohorts: dict[str, Cohort], where: str) -> "dict[str, SearchSettings]":
    searches = {}
    for name, chosen in config.searches.items():
        from pipeline_lib.training.search_settings import SearchSettings

        path = _yaml_file(Path(config.search_directory), name, where, "searches")
        for cohort in chosen:
            if cohort not in cohorts:
                raise InputError(where, f"searches.{name}", repr(cohort), suggest(cohort, cohorts))
        _each_once(chosen, where, f"searches.{name}")
        searches[name] = SearchSettings.read(path)
    return searches


def _cohort_entries(config: Config, sessions: dict[str, Session], where: str) -> dict[str, CohortConfig]:
    """Named cohorts, and one for every session where `per_session` asks for it; a named one goes before."""
    default = CohortConfig()
    entries = dict.fromkeys(sessions, default) if config.per_session else {}
    for name, entry in config.cohorts.items():
        check_name(name, where, "cohorts")
        if entry.sessions == ["*"]:
            entry = entry.model_copy(update={"sessions": list(sessions)})
        entries[name] = entry
    if not entries:
        raise InputError(where, "cohorts", "none", "a cohort, or `per_session: true`")
    return entries
