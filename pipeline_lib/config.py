"""What a configuration file may say: typed definitions, and one clear line where a file says something else.

The JSON schemas in ``workflow/schemas/`` (which give editors completion) are generated from these definitions; a test
holds them together. Nothing heavy is imported here: the Snakefile loads this at every start.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.trains.settings import SplitSettings, WindowSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
NAME_LENGTH = 150
"""Letters of a name: file systems allow 255 for that of a file."""
SHA256 = re.compile("[0-9a-fA-F]{64}")
LARGEST_SEED = 2**32 - 1


def _local_path(text: str) -> str:
    """A path as Snakemake spells it: no slash twice or at the end, no `./` before it. `~` is the home folder."""
    if not text.strip() or "{" in text or "}" in text:
        raise ValueError("a path without braces")
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError("a path, or `~` for a home folder that there is") from None


def _sha256(text: str) -> str:
    if not SHA256.fullmatch(text):
        raise ValueError("a SHA-256: 64 of 0-9 and a-f")
    return text


Sha256 = Annotated[str, AfterValidator(_sha256)]
LocalPath = Annotated[str, AfterValidator(_local_path)]


class Simulation(BaseModel):
    """A session with known truth, made by a simulator and written in the layout of a real source."""

    model_config = ConfigDict(extra="forbid")

    simulator: str
    """`eif` (two areas of coupled neurons), `lorenz` (Lorenz-driven Poisson units), `glm` (coupled Poisson GLM),
    `glm_factors` (areas coupled beside a background of factors), `chaotic_rnn` (Poisson units of a chaotic rate
    network) or `video` (visual cortex of an animal that runs)."""
    layout: Literal["allen", "ibl", "tables"] = "tables"
    """On-disk layout: an Allen ecephys NWB, an IBL ALF folder, or plain tables."""
    seed: int = Field(default=0, ge=0)
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


class Downloads(BaseModel):
    """How sessions that are not here are fetched."""

    model_config = ConfigDict(extra="forbid")

    ledger: LocalPath | None = None
    """Ledger of what files without a published checksum hashed to when they were fetched first; null: in `data`."""
    accept: list[Sha256] = []
    """SHA-256 of files to take although they do not match what is published (some published checksums are stale)."""
    sdk: bool = False
    """Fetch sessions of Allen Visual Coding through AllenSDK instead of from the public bucket."""
    parallel: int = Field(default=4, ge=1)
    """Files that one session fetches at a time."""
    cache: LocalPath | None = None
    """Folder of downloads that several projects share: looked into before the network is asked, and never written."""


class Evaluation(BaseModel):
    """What is scored beside the spikes, and how scores get their intervals."""

    model_config = ConfigDict(extra="forbid")

    resamples: int = Field(default=1000, ge=0, le=1_000_000)
    """Bootstrap resamples over trials behind each 95 % interval; 0: no intervals."""
    decoding: dict[str, Target] = {}
    """What to decode from rates and latents, by the name it gets in the table of scores."""
    few_shot: list[Annotated[int, Field(ge=1)]] = []
    """Numbers of windows from which held-out units are read out anew (few-shot co-smoothing)."""


class Config(BaseModel):
    """What to run. Every key has a default but `sessions`."""

    model_config = ConfigDict(extra="forbid")

    sessions: LocalPath
    """The session sheet: a tab-separated file, a row a session."""
    results: LocalPath = "results"
    """Folder for everything that is made."""
    data: LocalPath = "data"
    """Download cache, and the folder that relative locations of the sheet start from."""
    model_directory: LocalPath = "config/models"
    """Folder of the models' YAML files."""
    models: list[str] | dict[str, dict[str, Any]] = ["mean_rate", "psth", "smoothing", "glm"]
    """Models to fit, by the name of their YAML file; as a mapping, with hyper-parameters that differ from the file."""
    search_directory: LocalPath = "config/searches"
    """Folder of the searches' YAML files."""
    searches: dict[str, list[str]] = {}
    """Searches for hyper-parameters: the name of a file of `search_directory`, and the cohorts it is run for."""
    seeds: list[int] = [0]
    average_seeds: list[str] = []
    """Models of which the mean over the seeds' rates is scored, too, where there are several seeds."""
    windows: WindowSettings = WindowSettings()
    splits: SplitSettings = SplitSettings()
    per_session: bool = True
    """Make every session a cohort of its own (besides the cohorts named below)."""
    cohorts: dict[str, CohortConfig] = {}
    simulations: dict[str, Simulation] = {}
    """Simulated sessions; the sheet refers to one as `simulated:NAME`."""
    sources: dict[str, dict[str, Any]] = {}
    """Reading options by source, for every session of it; the sheet's `options` go before them."""
    downloads: Downloads = Field(default_factory=Downloads)
    counts: list[float] = []
    """Bin sizes (ms) for which dense counts are stored too, for other tools; models bin the events themselves."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    figures: list[str] | None = None
    """Figures to draw; null: all that fit."""
    threads: int = Field(default=1, ge=1)
    """Threads of a fit."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, content: Any) -> Any:
        """A key with nothing behind it, as is left when its lines are taken out, is one that is not given."""
        if not isinstance(content, dict):
            return content
        given = {key: value for key, value in content.items() if value is not None}
        for key in ("models", "cohorts"):
            if isinstance(given.get(key), dict):
                given[key] = {name: {} if entry is None else entry for name, entry in given[key].items()}
        return given


def check_name(name: str, where: str, field: str) -> None:
    """Names become folders: refuse what could leave the results folder or confuse a wildcard.

    Raises
    ------
    InputError : another sign than letters, digits, '_', '-' and '+', or more than `NAME_LENGTH` of them.
    """
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        accepted = f"up to {NAME_LENGTH} letters, digits, '_', '-' and '+', beginning with a letter or digit"
        raise InputError(where, field, repr(name), accepted)


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas generated from the definitions above, by file name."""
    return {"config.schema.json": Config.model_json_schema()}
