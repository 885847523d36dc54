"""Figures by name: each is a module with `data(...)`, the tidy table behind it, and `draw(table)`, the figure.

A figure reads files (recordings, trains, predictions, metrics), never a model: torch is not imported.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipeline_lib.errors import InputError, suggest


@dataclass(frozen=True)
class FigureSpec:
    """What a rule must know of a figure before it runs.

    `scope`: one figure a "session" (from its recording alone), a "cohort" (a session of it, its split and fits) or for
    "all" of the results. `needs`: the paths that `make` takes, which are also the arguments of the module's `data`:
    `recording`, `trains` and `split` one path each, `metrics` one file, `fits` a list of fit directories.
    """

    module: str
    scope: Literal["session", "cohort", "all"]
    title: str
    needs: tuple[str, ...]

    def load(self) -> ModuleType:
        """Import the module, and matplotlib with it."""
        return importlib.import_module(f"pipeline_lib.figures.{self.module}")


FIGURES: dict[str, FigureSpec] = {
    "session_overview": FigureSpec("session_overview", "session", "Session overview", ("recording",)),
    "raster_rates": FigureSpec("raster_rates", "cohort", "Spikes and inferred rates", ("trains", "split", "fits")),
    "psth": FigureSpec("psth", "cohort", "Average responses", ("trains", "split", "fits")),
    "coupling": FigureSpec("coupling", "cohort", "Couplings", ("recording", "fits")),
    "score_table": FigureSpec("score_table", "all", "Model comparison", ("metrics",)),
    "training_curves": FigureSpec("training_curves", "all", "Training curves", ("fits",)),
}
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
    """
    import pandas as pd

    from pipeline_lib.figures.style import notice, save

    spec = figure_spec(name)
    missing = [need for need in spec.needs if need not in paths]
    if missing:
        raise InputError(f"figure {name}", missing[0], "no path", f"paths of {', '.join(spec.needs)}")
    module = spec.load()
    arguments: dict[str, Any] = {need: paths[need] for need in spec.needs}
    try:
        table = module.data(**arguments)
        figure = module.draw(table)
    except NothingToDrawError as reason:
        table, figure = pd.DataFrame({"nothing_to_draw": [str(reason)]}), notice(str(reason))
    save(figure, table, stem)


def figure_spec(name: str) -> FigureSpec:
    """The entry of a figure; InputError, with the nearest name, where there is none."""
    if name not in FIGURES:
        raise InputError("config", "figures", repr(name), suggest(name, FIGURES))
    return FIGURES[name]
