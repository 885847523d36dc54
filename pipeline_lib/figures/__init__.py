"""Figures by name: each is a module with `data(...)`, the tidy table behind it, and `draw(table)`, the figure.

A figure reads files (recordings, trains, predictions, metrics), never a model: torch is not imported.
"""

import ast
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import listed


@dataclass(frozen=True)
class FigureSpec:
    """What a rule must know of a figure before it runs.

    `scope`: one figure a "session" (from what is known before any fit), a "cohort" (one for each of its sessions, of
    its split and its fits) or for "all" of the results. `needs`: the paths that `make` takes, which are also the
    arguments of the module's `data`: `recording`, `trains` and `split` one path each, lists of them where the scope is
    "all"; `fits` a list of fit directories; `metrics` one file; `benchmarks` the folder of what Snakemake measured, and
    `jobs` the names of those that count.
    `model`: the only model that it is about, "" for one that shows them all. `option`: the reading option that makes it
    worth drawing; only sessions that are read with it get the figure, "" for all of them.

    >>> FIGURES["coupling"].scope, FIGURES["coupling"].needs
    ('cohort', ('recording', 'fits'))
    """

    module: str
    scope: Literal["session", "cohort", "all"]
    title: str
    needs: tuple[str, ...]
    model: str = ""
    option: str = ""

    def load(self) -> ModuleType:
        """Import the module, and matplotlib with it."""
        return importlib.import_module(f"pipeline_lib.figures.{self.module}")

    @cached_property
    def caption(self) -> str:
        """What to look for. Read from the module's text: who only wants words need not load matplotlib."""
        path = Path(__file__).with_name(f"{self.module}.py")
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "CAPTION":
                return str(ast.literal_eval(statement.value))
        raise AttributeError(f"{path} has no CAPTION that is a plain string")


_SPECS = (
    FigureSpec("session_overview", "session", "Session overview", ("recording",)),
    FigureSpec("raw_voltage", "session", "Raw voltage", ("recording", "source"), option="voltage"),
    FigureSpec("trains_check", "session", "Spike trains, checked", ("recording", "trains")),
    FigureSpec("raster_rates", "cohort", "Spikes and inferred rates", ("recording", "trains", "split", "fits")),
    FigureSpec("latents", "cohort", "Latents", ("split", "trains", "fits")),
    FigureSpec("psth", "cohort", "Average responses", ("trains", "split", "fits")),
    FigureSpec("coupling", "cohort", "Couplings", ("recording", "fits")),
    FigureSpec("coupling_map", "cohort", "Couplings, masked", ("recording", "fits"), model="glm"),
    FigureSpec("coupling_filters", "cohort", "Filters", ("recording", "fits"), model="glm"),
    FigureSpec("coupling_network", "cohort", "Network", ("recording", "fits"), model="glm"),
    FigureSpec("glm_features", "cohort", "Inputs of the GLM", ("recording", "fits"), model="glm"),
    FigureSpec("glm_basis", "cohort", "Basis of the GLM", ("recording", "fits"), model="glm"),
    FigureSpec("generation", "cohort", "Generated spikes", ("trains", "split", "fits"), model="neuroformer"),
    FigureSpec("behaviour_traces", "cohort", "Behaviour read out", ("trains", "fits"), model="neuroformer"),
    FigureSpec(
        "contrastive_latents", "cohort", "Contrastive features", ("trains", "split", "fits"), model="neuroformer"
    ),
    FigureSpec(
        "attention_connectivity", "cohort", "Attention and couplings", ("recording", "fits"), model="neuroformer"
    ),
    FigureSpec("finetuning", "all", "Fine-tuning", ("fits",), model="neuroformer"),
    FigureSpec(
        "glm_transformer_recovery", "cohort", "Recovery", ("recording", "split", "fits"), model="glm_transformer"
    ),
    FigureSpec(
        "glm_transformer_components",
        "cohort",
        "Parts of log-rates",
        ("recording", "split", "fits"),
        model="glm_transformer",
    ),
    FigureSpec(
        "glm_transformer_areas",
        "cohort",
        "Couplings of areas",
        ("recording", "split", "fits"),
        model="glm_transformer",
    ),
    FigureSpec("score_table", "all", "Scores", ("metrics",)),
    FigureSpec("model_comparison", "all", "Model comparison", ("metrics",)),
    FigureSpec("truth_recovery", "all", "The truth, recovered", ("metrics",)),
    FigureSpec(
        "glm_transformer_false_coupling", "all", "Coupling that models see", ("metrics",), model="glm_transformer"
    ),
    FigureSpec("glm_transformer_ablation", "all", "What parts are worth", ("metrics",), model="glm_transformer"),
    FigureSpec("score_scaling", "all", "Scores and data", ("metrics", "trains", "split")),
    FigureSpec("decoding", "all", "Decoding", ("metrics",)),
    FigureSpec("search", "all", "Searches for hyper-parameters", ("searches",)),
    FigureSpec("training_curves", "all", "Training curves", ("fits",)),
    FigureSpec("speed", "all", "Time and memory", ("fits", "benchmarks", "jobs")),
)
FIGURES = {spec.module: spec for spec in _SPECS}
"""In the order in which a reader meets them."""


class NothingToDrawError(Exception):
    """The inputs are right but hold nothing for this figure; the message says why, and takes the figure's place."""


def make(name: str, paths: Mapping[str, Path | str | Sequence[Path | str]], stem: Path | str) -> None:
    """Write {stem}.pdf, {stem}.png and {stem}.csv of the figure `name`.

    Where there is nothing to draw (no coupled model, no trials), the figure says so in a sentence, and its CSV holds
    that sentence in its only column, `nothing_to_draw`.

    Raises
    ------
    InputError : no figure of that name, a path it needs is not given, or a file is missing or broken.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo").write("recordings/demo")
    >>> make("session_overview", {"recording": "recordings/demo"}, "figures/overview")
    >>> sorted(path.name for path in Path("figures").iterdir())
    ['overview.csv', 'overview.pdf', 'overview.png']
    """
    import pandas as pd

    from pipeline_lib.figures.style import notice, save

    spec = figure_spec(name)
    missing = [need for need in spec.needs if need not in paths]
    if missing:
        raise InputError(f"figure {name}", missing[0], "no path", f"paths of {', '.join(spec.needs)}")
    module = spec.load()
    arguments = {need: _argument(spec, need, paths[need]) for need in spec.needs}
    try:
        table = module.data(**arguments)
        figure = module.draw(table)
    except NothingToDrawError as reason:
        table, figure = pd.DataFrame({"nothing_to_draw": [str(reason)]}), notice(str(reason))
    save(figure, table, stem)


def _argument(spec: FigureSpec, need: str, given: Any) -> Any:
    """A path, or a list of them where `data` takes one (of which one may be given by itself)."""
    if need == "fits":
        return listed(given)
    if spec.scope != "all" and not isinstance(given, str | Path):
        raise InputError(f"figure {spec.module}", need, f"{len(given)} paths", "one path: it shows one session")
    if need == "metrics" and not Path(given).is_file():
        raise InputError(given, need, "no such file", "a table of scores")
    return given


def figure_spec(name: str) -> FigureSpec:
    """The entry of a figure; InputError, with the nearest name, where there is none.

    >>> figure_spec("couplings")
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: ...'coupling'...
    """
    if name not in FIGURES:
        raise InputError("config", "figures", repr(name), suggest(name, FIGURES))
    return FIGURES[name]
