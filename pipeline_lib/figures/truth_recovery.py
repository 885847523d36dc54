"""How near the models of simulated sessions come to the truth: to its rates, and to the latents behind them."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.names import shortened
from pipeline_lib.figures.palette import QUIET, model_colours, model_labels, model_order
from pipeline_lib.figures.points import name_rows, rows_in_blocks, scored_points, side_by_side, word_rows
from pipeline_lib.figures.style import new_figure, panel_title, styled
from pipeline_lib.published import read_parquet

MOST_SESSIONS = 6
"""With more sessions than these, a row is a model and a point a session."""

CAPTION = (
    "Where a simulation knows the truth: which share of its variance (R\u00b2) each model explains, in the windows of "
    "the test part. Rates are compared as they are, unit by unit, and averaged over units; held-out units were hidden "
    "from the models. Latents are compared after the affine map that fits one half of the windows best, on the other "
    "half; a model without latents has no point. Points are seeds (with more than 6 sessions, those of all), bars 95 "
    "% bootstrap intervals (of up to 12 points a row). 1 is the truth, 0 as good as its mean: look for models that "
    "know more of single trials than smoothing shows."
)

PANELS = {
    ("rate_r2", "heldin"): "Rates, held-in units",
    ("rate_r2", "heldout"): "Rates, held-out units",
    ("latent_r2", "all"): "Latents",
}
FLOOR = -0.25
"""Least R2 on the axis; below it, a point is an arrow at the edge."""
COLUMNS = ["session", "model", "seed", "metric", "units", "value", "ci_low", "ci_high"]


def data(metrics: Path | str) -> pd.DataFrame:
    """Rows of the metrics table that compare with a simulation's truth: session (with its cohort, where that has
    another name), model, seed, metric ("rate_r2" or "latent_r2"), units, value, ci_low, ci_high.

    Raises NothingToDrawError where no session knows its truth.
    """
    table = read_parquet(metrics)
    kinds = table["metric"] + " " + table["units"]
    chosen = (table["split"] == "test") & table["value"].notna() & kinds.isin([" ".join(kind) for kind in PANELS])
    found = table[chosen]
    if found.empty:
        raise NothingToDrawError("No session of these results knows its true rates or latents.")
    session, cohort = found["session"].astype(str), found["cohort"].astype(str)
    found = found.assign(session=session.where(session == cohort, session + ", " + cohort))
    return found[COLUMNS].sort_values(["session", "metric", "units", "model", "seed"], ignore_index=True)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel for rates of held-in units, of held-out units, and for latents; a row a session and model."""
    models = model_order(table["model"].unique())
    sessions = table["session"].drop_duplicates().tolist()
    found = {session: set(table.loc[table["session"] == session, "model"]) for session in sessions}
    blocks = {session: [model for model in models if model in found[session]] for session in sessions}
    rows = rows_in_blocks(blocks if len(sessions) <= MOST_SESSIONS else {"": models})
    panels = [kind for kind in PANELS if ((table["metric"] == kind[0]) & (table["units"] == kind[1])).any()]
    figure = new_figure("double" if len(panels) > 1 else "wide", 3.7 * rows[-1][2] + 18)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colours = model_colours(models)
    for axes, letter, (metric, units) in zip(grid, "abc", panels, strict=False):
        own = table[(table["metric"] == metric) & (table["units"] == units)]
        for block, model, place in (row for row in rows if row[1]):
            chosen = own[(own["model"] == model) & ((own["session"] == block) | (block == ""))]
            heights = place + 0.5 * side_by_side(len(chosen)) * (len(chosen) > 1)
            scored_points(axes, chosen, heights, colours[model], FLOOR)
        panel_title(axes, letter, PANELS[metric, units])
        axes.set(xlabel="R\u00b2 with the truth", xlim=(min(0.0, *_shown(table)) - 0.02, 1.0))
        axes.axvline(0, color=QUIET, lw=0.6, zorder=0)
        word_rows(axes)
    names = model_labels(models)
    name_rows(grid[0], rows, [names[model] if model else shortened(block, 24) for block, model, _ in rows])
    return figure


def _shown(table: pd.DataFrame) -> np.ndarray:
    return table[["value", "ci_low"]].min(axis=1).clip(lower=FLOOR).to_numpy()
