"""How much coupling between populations the models see, session by session (Xin & Kass 2025, figure 4)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.palette import model_colours, model_key, model_order
from pipeline_lib.figures.style import COLUMN_WIDTHS, legend_columns, new_figure, styled
from pipeline_lib.published import read_parquet

CAPTION = (
    "Share of the variance of log-rates (test windows, own history left out) that coupling between populations makes "
    "up: (variance with it - variance without it) / variance with it. In simulations without synapses between the "
    "populations all of it is false: a model that mistakes shared background for coupling has a large share. A dot a "
    "session and seed, a bar their mean."
)

METRIC = "coupling_share"
SIGNS = {"percent": "%", "ms": "ms", "s": "s", "hz": "Hz"}
"""Units that the name of a cohort may end in before its number, as they are written."""


def data(metrics: Path | str) -> pd.DataFrame:
    """Columns cohort, session, model, seed, value: the rows of `METRIC`.

    Raises
    ------
    NothingToDrawError : no model reports it.
    """
    table = read_parquet(metrics)
    table = table[(table["metric"] == METRIC) & (table["split"] == "test")].dropna(subset=["value"])
    if len(table) == 0:
        raise NothingToDrawError("No model says how much of its log-rates is coupling between populations.")
    columns = ["cohort", "session", "model", "seed", "value"]
    return table[columns].sort_values(columns[:-1], kind="stable").reset_index(drop=True)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Cohorts along the axis, models side by side."""
    models = model_order(table["model"].unique())
    cohorts, ticks, what = _axis(table["cohort"].unique())
    colours, step = model_colours(models), 0.8 / len(models)
    column = "single" if len(cohorts) * len(models) <= 18 else "double"
    handles = model_key(models, marker="o", linestyle="", ms=3)
    columns = min(3, legend_columns([str(handle.get_label()) for handle in handles], COLUMN_WIDTHS[column]))
    figure = new_figure(column, 50 + 2.6 * -(-len(models) // columns))
    axes = figure.subplots()
    for place, cohort in enumerate(cohorts):
        for number, model in enumerate(models):
            values = 100 * table.loc[(table["cohort"] == cohort) & (table["model"] == model), "value"].to_numpy()
            x = place + (number - (len(models) - 1) / 2) * step
            if len(values):
                axes.bar(x, values.mean(), width=0.85 * step, color=colours[model], alpha=0.35, linewidth=0)
                axes.scatter(np.full(len(values), x), values, s=8, color=colours[model], linewidths=0, zorder=3)
    axes.set(xlabel=what, ylabel="Coupling between populations\n(% of variance)")
    tilted = max(map(len, ticks)) * len(ticks) > 60
    axes.set_xticks(range(len(cohorts)), ticks, rotation=30 if tilted else 0, ha="right" if tilted else "center")
    axes.axhline(0, color="black", lw=0.4)
    figure.legend(handles=handles, loc="outside upper right", ncols=columns)
    return figure


def _axis(cohorts: Iterable[str]) -> tuple[list[str], list[str], str]:
    """The cohorts in order, what stands below each, and below the axis.

    `strength_5`, `strength_10` are numbers, and those of `shared_input_percent_5` have a unit: "Shared input (%)".
    """
    known = sorted(cohorts)
    parts = [cohort.rpartition("_") for cohort in known]
    if len({name for name, _, _ in parts}) == 1 and parts[0][0] and all(number.isdigit() for _, _, number in parts):
        order = sorted(known, key=lambda cohort: int(cohort.rpartition("_")[2]))
        words = parts[0][0].split("_")
        unit = f" ({SIGNS[words.pop()]})" if words[-1] in SIGNS and words[1:] else ""
        return order, [cohort.rpartition("_")[2] for cohort in order], " ".join(words).capitalize() + unit
    return known, [cohort.replace("_", " ") for cohort in known], "Cohort"
