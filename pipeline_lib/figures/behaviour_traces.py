"""Behaviour read out of spikes, beside the behaviour, with how well it was read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.generation import first_table
from pipeline_lib.figures.style import INK, model_colours, model_name, new_figure, panel_title, styled

CAPTION = (
    "Variables that the model reads out of the spikes of each window, over the first test windows (gaps between blocks "
    "are left out). Black, measured; coloured, read out. R2 compares the squared error with that of the mean (below 0: "
    "worse than the mean), r forgives a wrong scale; of labels, the share that was right, classes weighed alike. "
    "Scores are of all test windows, which the model has not seen in training."
)

SHOWN_SECONDS, ROW_HEIGHT = 60.0, 30.0


def data(trains: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Traces of the first model that reads anything out: model, variable, time (s since the first shown window, gaps
    left out), true, predicted, and the scores of all test windows, r2, r (regression) or accuracy (labels).

    Raises
    ------
    NothingToDrawError : no model reads a variable out (`decode` of the Neuroformer).
    """
    from pipeline_lib.trains.store import Trains

    session = Trains.open(trains).session
    found = first_table(fits, "decoding")
    if found is None:
        raise NothingToDrawError("No model reads behaviour out of spikes: set `decode` of the Neuroformer.")
    model, path = found
    table = of_test(pd.read_parquet(path), session).sort_values("time", kind="stable")
    scores = of_test(pd.read_parquet(path.with_name("scores.parquet")), session)
    tables = []
    for variable, rows in table.groupby("variable"):
        step = np.median(np.diff(rows["time"]))
        shown = rows.iloc[: round(SHOWN_SECONDS / step)]
        named = {
            metric: scores.loc[scores["metric"] == f"decoding_{metric} {variable}", "value"]
            for metric in ("r2", "r", "balanced_accuracy")
        }
        given = {metric: values.iloc[0] if len(values) else np.nan for metric, values in named.items()}
        given["accuracy"] = given.pop("balanced_accuracy")
        place = {"model": model, "variable": variable, "time": np.arange(len(shown)) * step}
        tables.append(shown[["true", "predicted"]].assign(**place, **given))
    columns = ["model", "variable", "time", "true", "predicted", "r2", "r", "accuracy"]
    return pd.concat(tables, ignore_index=True)[columns]


def of_test(table: pd.DataFrame, session: str) -> pd.DataFrame:
    """Rows of a session's test part."""
    return table[(table["session"] == session) & (table["split"] == "test")]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a variable."""
    variables = list(table["variable"].unique())
    model = table["model"].iloc[0]
    colour = model_colours([model])[model]
    figure = new_figure("wide", 8 + ROW_HEIGHT * len(variables))
    grid = figure.subplots(len(variables), 1, sharex=True, squeeze=False)[:, 0]
    for letter, variable, axes in zip("ABCDEFGH", variables, grid, strict=False):
        rows = table[table["variable"] == variable]
        axes.plot(rows["time"], rows["true"], color=INK, lw=0.8, label="Measured")
        axes.plot(rows["time"], rows["predicted"], color=colour, lw=0.8, label=f"Read out by {model_name(model)}")
        first = rows.iloc[0]
        scored = f"R² = {first['r2']:.2f}, r = {first['r']:.2f}"
        if np.isfinite(first["accuracy"]):
            scored = f"balanced accuracy = {first['accuracy']:.2f}"
            axes.set_yticks(sorted(rows["true"].dropna().unique()))
        panel_title(axes, letter, f"{variable.partition('/')[0].capitalize()}: {scored}")
        axes.set_ylabel(variable.partition("/")[2].capitalize())
    grid[-1].set_xlabel("Time in test windows (s)")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
