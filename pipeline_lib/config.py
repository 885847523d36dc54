"""What a configuration file may say: typed definitions, and one clear line where a file says something else.

The JSON schemas in ``workflow/schemas/`` (which give editors completion) are generated from these definitions; a test
holds them together. Nothing heavy is imported here: the Snakefile loads this at every start.
"""

import difflib
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline_lib.errors import InputError
from pipeline_lib.trains.settings import SplitSettings, WindowSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


class Simulation(BaseModel):
    """A session with known truth, made by a simulator and written in the layout of a real source."""

    model_config = ConfigDict(extra="forbid")

    simulator: str
    """`eif` (two areas of coupled neurons), `lorenz` (Lorenz-driven Poisson units) or `glm` (coupled Poisson GLM)."""
    layout: Literal["allen", "ibl", "tables"] = "tables"
    """On-disk layout: an Allen ecephys NWB, an IBL ALF folder, or plain tables."""
    seed: int = 0
    settings: dict[str, Any] = {}
    """Settings of the simulator, as in `pipeline_lib/sources/simulate/`."""


class CohortConfig(BaseModel):
    """Sessions fitted together, or one session with settings of its own."""

    model_config = ConfigDict(extra="forbid")

    sessions: list[str] | None = None
    """Sessions of the sheet; null: the session that has the cohort's name."""
    windows: dict[str, Any] = {}
    """Keys of `windows` that differ in this cohort."""
    splits: dict[str, Any] = {}
    """Keys of `splits` that differ in this cohort."""
    models: list[str] | None = None
    """Models to fit to this cohort; null: all of `models`."""
    model_settings: dict[str, dict[str, Any]] = {}
    """Hyper-parameters that differ in this cohort, by model."""


class Evaluation(BaseModel):
    """How scores get their intervals."""

    model_config = ConfigDict(extra="forbid")

    resamples: int = Field(default=1000, ge=0)
    """Bootstrap resamples over trials behind each 95 % interval; 0: no intervals."""


class Config(BaseModel):
    """What to run. Every key has a default but `sessions`."""

    model_config = ConfigDict(extra="forbid")

    sessions: str
    """The session sheet: a tab-separated file, a row a session."""
    results: str = "results"
    """Folder for everything that is made."""
    data: str = "data"
    """Download cache, and the folder that relative locations of the sheet start from."""
    model_directory: str = "config/models"
    """Folder of the models' YAML files."""
    models: list[str] | dict[str, dict[str, Any]] = ["mean_rate", "psth", "smoothing", "glm"]
    """Models to fit, by the name of their YAML file; as a mapping, with hyper-parameters that differ from the file."""
    seeds: list[int] = [0]
    windows: WindowSettings = WindowSettings()
    splits: SplitSettings = SplitSettings()
    per_session: bool = True
    """Make every session a cohort of its own (besides the cohorts named below)."""
    cohorts: dict[str, CohortConfig] = {}
    simulations: dict[str, Simulation] = {}
    """Simulated sessions; the sheet refers to one as `simulated:NAME`."""
    sources: dict[str, dict[str, Any]] = {}
    """Reading options by source, for every session of it; the sheet's `options` go before them."""
    counts: list[float] = []
    """Bin sizes (ms) for which dense counts are stored too, for other tools; models bin the events themselves."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    figures: list[str] | None = None
    """Figures to draw; null: all that fit."""
    threads: int = Field(default=1, ge=1)
    """Threads of a fit."""


def known(name: str, names: Any) -> str:
    """What is accepted instead of the unknown `name`: the nearest of `names`, or all of them where they are few."""
    names = [str(each) for each in names]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return "one of " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def check_name(name: str, where: str, field: str) -> None:
    """Names become folders: refuse what could leave the results folder or confuse a wildcard."""
    if not NAME.fullmatch(name):
        raise InputError(
            where, field, repr(name), "letters, digits, '_', '-' and '+', beginning with a letter or digit"
        )


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas generated from the definitions above, by file name."""
    return {"config.schema.json": Config.model_json_schema()}


def parse(kind: Any, content: Any, where: str) -> Any:
    """`content` as an instance of the definition `kind`; InputError in one line, naming `where`, if it does not fit."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _explain(error, kind, where) from None


def _explain(error: ValidationError, kind: Any, where: str) -> InputError:
    """The first complaint of pydantic as one line; an InputError from a settings class passes as it is."""
    first = error.errors()[0]
    if isinstance(first.get("ctx", {}).get("error"), InputError):
        inner = first["ctx"]["error"]
        return InputError(where, inner.field, inner.found, inner.accepted)
    key = ".".join(str(part) for part in first["loc"]) or "content"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return InputError(where, key, "an unknown key", known(str(first["loc"][-1]), _keys(kind, first["loc"][:-1])))
    if first["type"] == "missing":
        return InputError(where, key, "nothing", "this key is required")
    return InputError(where, key, repr(first["input"]), first["msg"].lower())


def _keys(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Known keys of the definition at `location` inside `kind`, looked up in its JSON schema."""
    schema = TypeAdapter(kind).json_schema()
    node = schema
    for part in location:
        node = _dereference(node, schema)
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_dereference(node, schema).get("properties", {}))


def _dereference(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
