"""What each part of the GLM-Transformer is worth on test trials (Xin & Kass 2025, ablation table of the supplement)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import FAINT, MODEL_COLOURS, QUIET
from pipeline_lib.figures.score_table import primary_rows
from pipeline_lib.figures.style import new_figure, styled
from pipeline_lib.published import read_parquet

CAPTION = (
    "Bits per spike on the same test trials, of the GLM-Transformer with one part changed (a row), less the mean of "
    "the full model (0). Every row was fitted anew, a dot a seed, a bar their mean. What lies within the spread of the "
    "full model itself (grey) made no difference here. The CSV holds the scores."
)

NAME = 28
"""Letters of a cohort's name beside its row."""
MODEL, REFERENCE = "glm_transformer", "full"


def data(metrics: Path | str) -> pd.DataFrame:
    """Columns session, cohort, seed, value (bits/spike of the held-in units, test part) and difference (to the mean of
    the cohort `full` in that session); cohorts in the order of their mean difference.

    Raises
    ------
    NothingToDrawError : no cohort is called `full`, or no other shares a session with it.
    """
    scores = primary_rows(read_parquet(metrics))
    scores = scores[(scores["model"] == MODEL) & (scores["units"] == "heldin")]
    reference = scores[scores["cohort"] == REFERENCE].groupby("session")["value"].mean()
    scores = scores[scores["session"].isin(reference.index)]
    if scores["cohort"].nunique() < 2:
        raise NothingToDrawError("No cohort `full` that others share a session with: nothing was left out.")
    scores = scores.assign(difference=scores["value"] - scores["session"].map(reference))
    order = scores.groupby("cohort")["difference"].mean().sort_values(ascending=False).index
    place = {cohort: row for row, cohort in enumerate(order)}
    scores = scores.assign(place=scores["cohort"].map(place)).sort_values(["place", "session", "seed"], kind="stable")
    return scores[["session", "cohort", "seed", "value", "difference"]].reset_index(drop=True)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a cohort, best above."""
    cohorts = table["cohort"].drop_duplicates().tolist()
    figure = new_figure("single", 17 + 5 * len(cohorts))
    axes = figure.subplots()
    full = table.loc[table["cohort"] == REFERENCE, "difference"]
    axes.axvspan(full.min(), full.max(), color=FAINT, linewidth=0, zorder=0)
    axes.axvline(0, color=QUIET, lw=0.6, zorder=1)
    colour = MODEL_COLOURS[MODEL]
    for row, cohort in enumerate(cohorts):
        values = table.loc[table["cohort"] == cohort, "difference"].to_numpy()
        axes.scatter(values, np.full(len(values), row), s=9, color=colour, alpha=0.7, linewidths=0, zorder=3)
        axes.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=colour, lw=1.6, zorder=2)
    axes.set_yticks(range(len(cohorts)), told_apart([cohort.replace("_", " ") for cohort in cohorts], NAME))
    axes.set(ylim=(len(cohorts) - 0.4, -0.6), xlabel="Bits per spike on test trials,\nless those of the full model")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure
