"""Scores of all models on the test part, with their intervals, session by session."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.names import shortened
from pipeline_lib.figures.palette import QUIET, model_colours, model_labels, model_order
from pipeline_lib.figures.points import (
    Row,
    below_each_other,
    lowest_shown,
    name_rows,
    rows_in_blocks,
    scored_points,
    side_by_side,
    word_rows,
)
from pipeline_lib.figures.style import new_figure, panel_title, styled
from pipeline_lib.published import read_parquet

MOST_COHORTS = 8
"""With more cohorts than these, a row is a model and a point a cohort."""

CAPTION = (
    "Bits per spike on the test part, pooled over units: how much better each model predicts the measured spikes than "
    "a constant rate, the one each unit turned out to have in the test part (so that a mean learned in training falls "
    "a little below 0). Points are seeds (and cohorts, of more than 8), bars their 95 % bootstrap intervals over test "
    "windows; of more than 8 sessions, points are sessions and bars medians. Held-in units are those whose spikes the "
    "models were given; held-out units were hidden at test time, so that only shared activity can predict them. "
    "Compare models that see the same (legend): to read a bin's own future or its condition is an advantage, not "
    "skill. Rows called likelihood (open) are of models that write spikes one after the other: the exact probability "
    "of the very spikes measured, in the same unit, against the same null; the other row is of rates one bin ahead."
)

METRIC, AGGREGATION, NULL = "bits_per_spike", "pooled", "evaluated mean"
"""The score of the Neural Latents Benchmark; against the training mean it stands in the metrics table, too."""
TOKENS = "token_bits_per_spike"
"""That of the likelihood of whole sequences of spikes, of models that have one."""
LIKELIHOOD = ": likelihood"
"""What follows the name of a model in the row of its `TOKENS`."""
NULL_NAME = "each unit's mean in the test part"
PANELS = {"heldin": "Held-in units", "heldout": "Held-out units (co-smoothing)"}
LEAST_ROWS = 5
"""Of less height than that of these rows, names would lie over each other."""
LABEL = 140
"""Letters in a line of the legend."""
COLUMNS = ["cohort", "session", "model", "seed", "units", "metric", "value", "ci_low", "ci_high", "n", "null", "sees"]


def data(metrics: Path | str) -> pd.DataFrame:
    """Rows of the metrics table that are pooled bits/spike of the test part, for held-in and held-out units, of rates
    and, where a model has one, of its likelihood of sequences of spikes.

    Columns as in the metrics table: cohort, session, model, seed, units, metric, value, ci_low, ci_high (bits/spike),
    n, null, sees. Raises NothingToDrawError where no such row is finite.
    """
    table = read_parquet(metrics)
    scores = pd.concat([primary_rows(table), primary_rows(table, TOKENS)])
    scores = scores.loc[scores["units"].isin(list(PANELS)), COLUMNS]
    if scores.empty:
        raise NothingToDrawError("No model has a finite bits/spike on a test part.")
    return scores.sort_values(["cohort", "session", "units", "model", "metric", "seed"], ignore_index=True)


def primary_rows(table: pd.DataFrame, metric: str = METRIC) -> pd.DataFrame:
    """Rows of the metrics table by which models are ranked: finite, pooled bits/spike of the test part.

    Their null model is the mean of the very data that is scored, which is hard on every model: a constant rate learned
    from the training part scores below 0.
    """
    chosen = (table["metric"] == metric) & (table["split"] == "test") & table["value"].notna()
    return table[chosen & (table["aggregation"] == AGGREGATION) & (table["null"] == NULL)]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel for held-in units, one for held-out; rows are models within each session, points are seeds."""
    models = model_order(table["model"].unique())
    colours = model_colours(models)
    sees = table.groupby("model")["sees"].unique().map("; or ".join)  # settings of a cohort may let a model see more
    written = table["metric"] == TOKENS
    table = table.assign(model=table["model"].where(~written, table["model"] + LIKELIHOOD))
    shown = [row for model in models for row in (model, model + LIKELIHOOD) if (table["model"] == row).any()]
    colours |= {model + LIKELIHOOD: colour for model, colour in colours.items()}
    panels = [units for units in PANELS if (table["units"] == units).any()]
    headings = _headings(table)
    if headings.nunique() <= MOST_COHORTS:
        table = table.assign(session=headings)
    sessions = table["session"].astype(str).drop_duplicates().tolist()
    scored = dict(iter(table.groupby(table["session"].astype(str))["model"])) if len(sessions) <= MOST_COHORTS else {}
    rows = rows_in_blocks({each: [row for row in shown if row in set(scored[each])] for each in scored} or {"": shown})
    names = model_labels(models)
    labels = {model: shortened(f"{names[model]}: sees {sees[model]}", LABEL) for model in models}
    columns = 2 if max(map(len, labels.values())) <= LABEL // 2 else 1
    legend_rows = -(-len(models) // columns)
    figure = new_figure("double", max(rows[-1][2], LEAST_ROWS) * 3.7 + 16 + legend_rows * 3.2)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, (axes, units) in enumerate(zip(grid, panels, strict=True)):
        of_units = table[table["units"] == units]
        if len(sessions) <= MOST_COHORTS:
            _seed_points(axes, of_units, rows, colours)
        else:
            _session_points(axes, of_units, rows, colours)
        panel_title(axes, "ab"[place], PANELS[units])
        axes.set_xlabel(f"Bits per spike (0: {NULL_NAME})")
        axes.axvline(0, color=QUIET, lw=0.6, zorder=0)
        word_rows(axes)
    name_rows(grid[0], rows, [_row_name(session, model, names) for session, model, _ in rows])
    point: dict[str, Any] = {"marker": "o", "ms": 3.5, "ls": ""}
    handles = [Line2D([], [], color=colours[model], label=label, **point) for model, label in labels.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def _headings(table: pd.DataFrame) -> pd.Series:
    """The session of each row, with the cohort where the session is in several."""
    session, cohort = table["session"].astype(str), table["cohort"].astype(str)
    alone = cohort.groupby(session).transform("nunique") == 1
    return session.where(alone, session + ", " + cohort)


def _row_name(session: str, model: str, names: dict[str, str]) -> str:
    if model.endswith(LIKELIHOOD):
        return names[model.removesuffix(LIKELIHOOD)] + ", likelihood"
    if model:
        return names[model]
    return session if len(session) <= 32 else f"{session[:20]}\u2026{session[-11:]}"


def _seed_points(axes: Axes, table: pd.DataFrame, rows: list[Row], colours: dict[str, str]) -> None:
    """A point a seed, with its interval; a score far below the null is an arrow at the edge, with its value."""
    places = {(session, model): place for session, model, place in rows}
    floor = _floor(table)
    for (session, model), seeds in table.groupby(["session", "model"]):
        heights = places[str(session), str(model)] + below_each_other(len(seeds), 0.18)
        scored_points(axes, seeds, heights, colours[str(model)], floor, hollow=str(model).endswith(LIKELIHOOD))


def _session_points(axes: Axes, table: pd.DataFrame, rows: list[Row], colours: dict[str, str]) -> None:
    """A light point a session (mean over seeds), the median as a bar; far below the null an arrow at the edge."""
    places, floor = {model: place for _, model, place in rows}, _floor(table)
    for model, scores in table.groupby("model"):
        values = scores.groupby("session")["value"].mean().to_numpy()
        place, colour = places[str(model)], colours[str(model)]
        heights, inside = place + 0.5 * side_by_side(len(values)), values >= floor
        look: dict[str, Any] = {"color": colour, "alpha": 0.45, "mew": 0, "ls": ""}
        axes.plot(values[inside], heights[inside], "o", ms=2.2, **look)
        axes.plot(np.full((~inside).sum(), floor), heights[~inside], "<", ms=3.5, **look)
        axes.vlines(max(float(np.median(values)), floor), place - 0.38, place + 0.38, color=colour, lw=2.0)


def _floor(table: pd.DataFrame) -> float:
    """Where the axis ends: a score far below the null, and below the best, would hide how all others differ."""
    return lowest_shown(table["value"], 0.2)
