"""Behaviour read out of spikes, beside the behaviour, with how well it was read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import first_with
from pipeline_lib.figures.names import shortened
from pipeline_lib.figures.palette import BEHIND, INK, model_colours, model_label
from pipeline_lib.figures.style import LETTERS, new_figure, panel_title, styled, with_unit
from pipeline_lib.trains.signals import signal_unit
from pipeline_lib.trains.store import Trains

CAPTION = (
    "Variables that the model reads out of the spikes of each window, over the first test windows (gaps between blocks "
    "are left out). Black, measured; coloured, read out. R2 compares the squared error with that of the mean (below 0: "
    "worse than the mean), r forgives a wrong scale; of labels, the share that was right, classes weighed alike. "
    "Numbers are in the unit of the recording's signal, which the axis names where the recording knows it. "
    "Scores are of all test windows, which the model has not seen in training."
)

SHOWN_SECONDS, ROW_HEIGHT = 60.0, 30.0
TITLE, LABEL = 32, 12
"""Letters of the name of a signal above its row, and of its column beside it."""
SCORES = {"r2": "r2", "r": "r", "accuracy": "balanced_accuracy"}
"""Columns of the table, and what the model calls these scores."""


def data(trains: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Traces of the first model that reads anything out: model, variable, time (s since the first shown window, gaps
    left out), true, predicted, signal_unit ("" where it is not known), and the scores of all test windows, r2, r
    (regression) or accuracy (labels).

    Raises
    ------
    NothingToDrawError : no model reads a variable out (`decode` of the Neuroformer), or the session has no test window.
    """
    opened = Trains.open(trains)
    session = opened.session
    nothing = "No model reads behaviour out of spikes: set `decode` of the Neuroformer."
    fit = first_with(fits, "decoding", nothing)
    wrote = (fit.table(name, session) for name in ("decoding", "scores"))
    table, scores = (rows[rows["split"] == "test"] for rows in wrote)
    if table.empty:
        raise NothingToDrawError(f"Session {session} has no window in the test part.")
    tables, scored = [], scores.set_index("metric")["value"]
    for variable, rows in table.sort_values("time", kind="stable").groupby("variable"):
        step = np.median(np.diff(rows["time"])) if len(rows) > 1 else SHOWN_SECONDS
        shown = rows.iloc[: round(SHOWN_SECONDS / step)]
        place = {"model": fit.model, "variable": variable, "time": np.arange(len(shown)) * step}
        place["signal_unit"] = signal_unit(opened, str(variable))
        for column, metric in SCORES.items():
            place[column] = scored.get(f"decoding_{metric} {variable}", np.nan)
        tables.append(shown[["true", "predicted"]].assign(**place))
    columns = ["model", "variable", "time", "true", "predicted", "signal_unit", *SCORES]
    return pd.concat(tables, ignore_index=True)[columns]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a variable."""
    variables = list(table["variable"].unique())
    model = table["model"].iloc[0]
    colours = {"true": INK, "predicted": model_colours([model])[model]}
    figure = new_figure("wide", 8 + ROW_HEIGHT * len(variables))
    grid = figure.subplots(len(variables), 1, sharex=True, squeeze=False)[:, 0]
    for letter, variable, axes in zip(LETTERS, variables, grid, strict=False):
        rows = table[table["variable"] == variable]
        first = rows.iloc[0]
        scored = f"R² = {first['r2']:.2f}, r = {first['r']:.2f}".replace("-", "\N{MINUS SIGN}")
        if np.isfinite(first["accuracy"]):
            scored = f"balanced accuracy = {first['accuracy']:.2f}"
            _strips(axes, rows, colours)
        else:
            axes.plot(rows["time"], rows["true"], **BEHIND)
            axes.plot(rows["time"], rows["predicted"], color=colours["predicted"], lw=0.8)
        signal, _, column = variable.partition("/")
        panel_title(axes, letter, f"{shortened(signal.capitalize(), TITLE)}: {scored}")
        axes.set_ylabel(with_unit(shortened(column.capitalize(), LABEL), first["signal_unit"]))
    grid[-1].set_xlabel("Time in test windows (s)")
    names = {"true": "Measured", "predicted": f"Read out by {model_label(model)}"}
    looks = {"true": BEHIND, "predicted": {"color": colours["predicted"]}}
    handles = [Line2D([], [], label=name, **looks[column]) for column, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _strips(axes: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """Labels, measured above and read out below, as high as they are large: lines of both would hide each other."""
    low, high = rows["true"].min(), rows["true"].max()
    for bottom, column in ((1.0, "true"), (0.0, "predicted")):
        height = 0.8 * (rows[column] - low) / max(high - low, 1e-9)
        axes.fill_between(rows["time"], bottom, bottom + height, step="mid", color=colours[column], lw=0)
        axes.axhline(bottom, color=colours[column], lw=0.4)
    axes.set_yticks([0.4, 1.4], ["Read out", "Measured"])
