"""Models against each other, paired by session: differences, their intervals, and whether chance explains them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.evaluation.settings import AVERAGED
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.paired import bootstrap_interval, by_session, holm, sign_flip_p
from pipeline_lib.figures.palette import (
    FAINT,
    INK,
    QUIET,
    diverging_map,
    model_colours,
    model_labels,
    model_order,
)
from pipeline_lib.figures.points import lowest_shown
from pipeline_lib.figures.score_table import PANELS, primary_rows
from pipeline_lib.figures.style import SMALL_SIZE, colour_bar, new_figure, panel_title, styled
from pipeline_lib.published import read_parquet

SIGNIFICANT = 0.05
"""Chance below which a difference carries a star."""

CAPTION = (
    "Models paired by session. Above, bits per spike on the test part: a grey line a session, points the means over "
    "its seeds, bars the mean over sessions; a model is better than another where lines agree on the way they go, not "
    "where clouds are apart. Below, the mean difference over sessions, row minus column: orange where the row is "
    "better, a dash where no session has both. A star marks differences that chance does not explain (sign flips over "
    "sessions, Holm's correction over pairs of fits and, apart, over pairs with an average over seeds, p < 0.05), "
    "which takes at least six sessions for one pair and more for many: without a star nothing is shown to be equal. "
    "The CSV holds every p-value and, from 5 sessions on, 95 % intervals; over five sessions, 92 of 100 hold the "
    "truth."
)

NUMBERED, ROOMY = 10, 8
"""With more models than these, the matrix has a scale of colours, having no room for numbers; names stand upright. With
more than the second, numbers are short."""
COLUMNS = ["kind", "units", "session", "model", "other", "value", "ci_low", "ci_high", "n", "p", "p_holm"]


def data(metrics: Path | str) -> pd.DataFrame:
    """Scores of sessions and differences between models.

    Rows by `kind`: "score" (session, model, value = bits/spike, the mean over seeds; see `by_session` for a session in
    several cohorts) and "difference" (model, other, value = mean over the n sessions that both were scored in, in the
    same cohort, of model minus other, ci_low and ci_high from five sessions on, p, and p_holm corrected over all pairs
    of fits of these `units`, or over all with an average over seeds: who asks for averages asks the fits no more).

    Raises
    ------
    NothingToDrawError : fewer than two models have a finite score.
    """
    scores = primary_rows(read_parquet(metrics))
    tables = []
    for units in PANELS:
        own = scores[scores["units"] == units]
        grid = own.groupby(["session", "cohort", "model"])["value"].mean().unstack("model")
        models = model_order(grid.columns)
        if len(models) < 2:
            continue
        long = by_session(grid).reset_index().melt("session", var_name="model", value_name="value").dropna()
        tables.append(long.assign(kind="score", units=units))
        tables.append(_differences(grid, models).assign(units=units))
    if not tables:
        raise NothingToDrawError("Fewer than two models have a finite bits/spike: nothing to compare.")
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)


def _differences(grid: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Of scores [(session, cohort), model]; a pair is compared in the cohorts that have both."""
    rows = []
    for model, other in itertools.combinations(reversed(models), 2):
        differences = (grid[model] - grid[other]).groupby("session").mean().dropna().to_numpy()
        if not len(differences):
            continue
        low, high = bootstrap_interval(differences)
        found = {"value": differences.mean(), "ci_low": low, "ci_high": high, "n": len(differences)}
        rows.append({"model": model, "other": other, **found, "p": sign_flip_p(differences)})
    table = pd.DataFrame(rows, columns=["model", "other", "value", "ci_low", "ci_high", "n", "p"])
    averaged = table["model"].str.endswith(AVERAGED) | table["other"].str.endswith(AVERAGED)
    for own in (averaged, ~averaged):
        table.loc[own, "p_holm"] = holm(table.loc[own, "p"].tolist())
    return table.assign(kind="difference")


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A column for held-in units, one for held-out: sessions above, differences below."""
    panels = [units for units in PANELS if (table["units"] == units).any()]
    models = model_order(table.loc[table["kind"] == "score", "model"].unique())
    column = "double" if len(panels) == 2 else "wide"
    figure = new_figure(column, 50 + 7.0 * len(models) + 22)
    grid = figure.subplots(2, len(panels), squeeze=False, height_ratios=(44, 7.0 * len(models) + 6))
    largest = table.loc[table["kind"] == "difference", "value"].abs().max()
    for place, units in enumerate(panels):
        own = table[table["units"] == units]
        _sessions(grid[0, place], own[own["kind"] == "score"], models)
        sessions = own["session"].nunique()
        title = f"{PANELS[units]}, {sessions} session{'s' * (sessions != 1)}"
        panel_title(grid[0, place], "ab"[place], title)
        _matrix(grid[1, place], own[own["kind"] == "difference"], models, max(float(largest), 1e-6))
        panel_title(grid[1, place], "cd"[place] if len(panels) == 2 else "b", "Row minus column (bits per spike)")
    return figure


def _tilt(models: list[str]) -> dict[str, Any]:
    """How names of models stand below an axis."""
    crowded = len(models) > NUMBERED or any(model.endswith(AVERAGED) for model in models)
    upright = {"rotation": 90, "va": "center"} if crowded else {"rotation": 30}
    return {"ha": "right", "rotation_mode": "anchor", **upright}


def _names(models: list[str]) -> list[str]:
    """Their labels, those of averages in two lines: in one they take the room of the numbers."""
    return [label.replace(", ", ",\n") for label in model_labels(models).values()]


def _number(difference: float, limit: float, models: int) -> str:
    """A difference, with more decimals where all are small; a cell of many models has no room for a leading zero."""
    decimals = int(np.clip(1 - np.floor(np.log10(limit)), 2, 4))
    number = f"{difference:+.{decimals}f}".replace("-", "\u2212")
    return number.replace("0.", ".", 1) if models > ROOMY and abs(difference) < 1 else number


def _sessions(axes: Axes, scores: pd.DataFrame, models: list[str]) -> None:
    """A line a session over the models; what lies far below 0 is drawn at the edge as an arrow."""
    colours = model_colours(models)
    grid = scores.pivot(index="session", columns="model", values="value").reindex(columns=models)
    floor = lowest_shown(grid, 0.1)
    places = np.arange(len(models))
    alpha = float(np.clip(8 / len(grid), 0.08, 0.7))
    axes.plot(places, grid.clip(lower=floor).to_numpy().T, color=QUIET, lw=0.5, alpha=alpha, zorder=1)
    for place, model in enumerate(models):
        values = grid[model].dropna()
        inside = values >= floor
        look: dict[str, Any] = {"color": colours[model], "mec": "white", "mew": 0.2, "ls": "", "alpha": max(alpha, 0.3)}
        axes.plot(np.full(inside.sum(), place), values[inside], "o", ms=2.6, **look)
        axes.plot(np.full((~inside).sum(), place), np.full((~inside).sum(), floor), "v", ms=3.5, **look)
        if len(values):
            mean = max(float(values.mean()), floor)
            axes.hlines(mean, place - 0.22, place + 0.22, color=colours[model], lw=2.4, alpha=0.55, zorder=1)
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    axes.set_xticks(places, _names(models), **_tilt(models))
    axes.set(xlim=(-0.5, len(models) - 0.5), ylabel="Bits per spike")


def _matrix(axes: Axes, differences: pd.DataFrame, models: list[str], limit: float) -> None:
    """Mean differences, the best baseline at the top; each pair stands once."""
    row = {model: place for place, model in enumerate(models)}
    values = np.full((len(models), len(models)), np.nan)
    places = [(row[model], row[other]) for model, other in zip(differences["model"], differences["other"], strict=True)]
    found = differences[["value", "p_holm"]].to_numpy(dtype=float)
    for place, (value, _) in zip(places, found, strict=True):
        values[place] = value
    masked = np.ma.masked_invalid(values)
    colours = diverging_map().with_extremes(bad="white")
    image = axes.imshow(masked, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    if len(models) > NUMBERED:
        colour_bar(image, axes, "Bits per spike", aspect=25, pad=0.02)
    for (down, across), (value, p) in zip(places, found, strict=True):
        number = _number(value, limit, len(models)) if len(models) <= NUMBERED else ""
        text = number + ("*" if p < SIGNIFICANT else "")
        colour = "white" if abs(value) > 0.6 * limit else INK
        axes.annotate(text, (across, down), ha="center", va="center", fontsize=SMALL_SIZE, color=colour)
    for down, across in np.argwhere(np.tril(np.isnan(values), -1)):
        axes.annotate("\u2013", (across, down), ha="center", va="center", fontsize=SMALL_SIZE, color=QUIET)
    names = _names(models)
    axes.set_xticks(range(len(models) - 1), names[:-1], **_tilt(models))
    axes.set_yticks(range(1, len(models)), names[1:])
    axes.set(xlim=(-0.5, len(models) - 1.5), ylim=(len(models) - 0.5, 0.5))
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
