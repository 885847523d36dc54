"""The basis that a coupled GLM's filters are sums of."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline_lib.figures.fits import fit_tables
from pipeline_lib.figures.palette import model_label
from pipeline_lib.figures.style import new_figure, styled

CAPTION = (
    "Basis functions of the coupled GLM against the lag after a spike. Every coupling filter is a weighted sum of "
    "them: where they are narrow a filter can change fast, where they are wide it is smooth, and beyond the last it is "
    "zero. Look for lags that no function covers, and for functions narrower than a bin (a dot alone)."
)


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Columns model, function, lag (ms), value; raises NothingToDrawError where no fit has a table of its basis."""
    tables = fit_tables(recording, fits, "basis")
    return pd.concat([table.assign(model=model) for model, table in tables.items()], ignore_index=True)[
        ["model", "function", "lag", "value"]
    ]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a model, a line a function, dark (short lags) to light (long ones)."""
    models = table["model"].drop_duplicates().tolist()
    figure = new_figure("single", 4 + 34 * len(models))
    grid = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axes, model in zip(grid, models, strict=True):
        own = table[table["model"] == model]
        functions = sorted(own["function"].unique())
        colours = mpl.colormaps["viridis"]
        for place, function in enumerate(functions):
            line = own[own["function"] == function]
            colour = colours(0.85 * place / max(len(functions) - 1, 1))
            axes.plot(line["lag"], line["value"], color=colour, marker="o", ms=1.2)
        if len(models) > 1:
            axes.set_title(model_label(str(model)))
        axes.set(xlabel="Lag (ms)", ylabel="Basis function", xlim=(0, own["lag"].max() * 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    return figure
