"""What a coupled GLM sees: an excerpt of its inputs, column by column."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures.fits import fit_tables
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import QUIET, diverging_map, rate_map
from pipeline_lib.figures.style import colour_bar, new_figure, styled

CAPTION = (
    "Inputs of the coupled GLM during the first bins of training: a row an input, each scaled to its own largest value "
    "(white zero; where some are negative, orange positive and blue negative). Above are inputs that are not spikes: "
    "time in the trial, signals, events. Below is the recent past of a few sender units, each seen through every "
    "function of the basis: a spike shows first in the functions that look back briefly, then in those that look back "
    "long. No row may begin before the spike that causes it."
)

MOST_ROWS = 60
ROW_HEIGHT = 1.6
FEW_ROWS, FEWEST_ROWS = 16, 12
"""Of fewer rows than these the figure is too low for the axis' name in one line, and for that of the colours."""
LONG_NAME = 16


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """The excerpt of the first model that wrote its inputs: row, column (its name), group, time (s), value.

    A group is what its columns were made from: a signal, the baseline, a sender. Beyond `MOST_ROWS` columns are left
    out. Raises NothingToDrawError where no fit has a table of its inputs.
    """
    table = next(iter(fit_tables(recording, fits, "inputs").values()))
    names = table["column"].drop_duplicates().tolist()
    # Columns that say nothing about this excerpt (another condition's baseline) make room for the others.
    largest = table.groupby("column", sort=False)["value"].agg(lambda values: values.abs().max())
    shown = [name for name in names if largest[name] > 0][:MOST_ROWS]
    table = table[table["column"].isin(shown)]
    groups = {name: name.split(",")[0].split("[")[0] for name in shown}
    rows = {name: row for row, name in enumerate(shown)}
    placed = table.assign(row=table["column"].map(rows), group=table["column"].map(groups))
    placed = placed.sort_values(["row", "time"], ignore_index=True)
    return placed[["row", "column", "group", "time", "value"]]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """One image, groups of rows named and separated."""
    cells = table.pivot(index="row", columns="time", values="value")
    scaled = cells.div(cells.abs().max(axis=1).replace(0, 1), axis=0).to_numpy()
    figure = new_figure("single", 18 + ROW_HEIGHT * max(len(cells), FEWEST_ROWS))
    axes = figure.subplots()
    time = cells.columns.to_numpy(dtype=float)
    step = time[1] - time[0] if len(time) > 1 else 1.0
    extent = (time[0], time[-1] + step, len(cells) - 0.5, -0.5)
    low = -1 if (scaled < 0).any() else 0
    colours = diverging_map() if low else rate_map()
    image = axes.imshow(scaled, aspect="auto", cmap=colours, vmin=low, vmax=1, extent=extent, interpolation="nearest")
    groups = table.drop_duplicates("row").groupby("group", sort=False)["row"].agg(["min", "max"])
    for first in groups["min"][1:]:
        axes.axhline(first - 0.5, color=QUIET, lw=0.4)
    long = [name for name in groups.index.astype(str) if len(name) > LONG_NAME]
    names = dict(zip(long, told_apart(long, LONG_NAME), strict=True))
    axes.set_yticks((groups["min"] + groups["max"]) / 2, [names.get(name, name) for name in groups.index.astype(str)])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(True)
    label = "Input (sender unit, signal)" if len(cells) >= FEW_ROWS else "Input (sender\nunit, signal)"
    axes.set(xlabel="Time in the session (s)", ylabel=label)
    axes.locator_params(axis="x", nbins=5)
    colour_bar(image, axes, "Value (of its largest)", shrink=0.6, aspect=25, pad=0.02, ticks=range(low, 2))
    return figure
