"""Loss against training step, for every fit that keeps a history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import Fit
from pipeline_lib.figures.palette import QUIET, model_colours, model_labels, model_order
from pipeline_lib.figures.style import SMALL_SIZE, new_figure, panel_grid, styled

CAPTION = (
    "Loss of every fit as training went on, a panel a model, a line a session and seed; full lines are the training "
    "part, dashed ones the validation part where the model evaluates it. Look for curves that have flattened (one that "
    "still falls was stopped early; what lies far above all others is cut off) and for validation curves that turn up "
    "(overfitting); where units are held out, they count the others alone and lie lower. Losses of different models "
    "are in different units: compare shapes here, and scores in the model comparison. A GLM's curve falls in steps, "
    "one a penalty, and ends with the penalty that the validation part chose, whose training loss may be higher."
)

SHOWN_STEPS, SHOWN_POINTS = 400, 40_000
"""Points of a curve, and of all of them together: the CSV of hundreds of fits stays below 2 MB."""
PANELS_A_ROW, ROW_HEIGHT = 4, 40.0
FAR = 20
"""So many times as far from the lowest loss as nine tenths of all lie, a loss is beyond the axis."""
NAMED_COHORTS, LEAST_GAP = 6, 0.09
"""Curves of up to so many cohorts carry their names, where they end so far apart (share of the axis)."""


def data(fits: Sequence[Path | str]) -> pd.DataFrame:
    """Losses of all fits, thinned evenly to `SHOWN_STEPS` points a curve, fewer where they are many; the last is kept.

    Columns: cohort, model, seed, part ("training" or "validation"), step, loss. A fit without the columns `step` and
    `loss`, or with a single row (solved at once), has no curve. Raises NothingToDrawError where none has one.
    """
    tables, most = [], max(10, min(SHOWN_STEPS, SHOWN_POINTS // max(2 * len(fits), 1)))
    for fit in sorted((Fit.at(directory) for directory in fits), key=lambda fit: (fit.model, fit.cohort, fit.seed)):
        history = _history(fit)
        if not {"step", "loss"} <= set(history.columns):
            continue
        parts = {"training": "loss", "validation": "validation_loss"}
        for part, column in parts.items():
            if column not in history:
                continue
            curve = history[["step", column]].dropna().rename(columns={column: "loss"})
            if len(curve) < 2:
                continue
            every = -(-len(curve) // most)
            kept = curve.iloc[sorted({*range(0, len(curve), every), len(curve) - 1})]
            tables.append(kept.assign(cohort=fit.cohort, model=fit.model, seed=fit.seed, part=part))
    if not tables:
        raise NothingToDrawError("No fit keeps a history of its loss: each was solved at once.")
    return pd.concat(tables, ignore_index=True)[["cohort", "model", "seed", "part", "step", "loss"]]


def _history(fit: Fit) -> pd.DataFrame:
    """history.csv of a fit; a model that logs nothing leaves it empty."""
    try:
        return pd.read_csv(fit.directory / "history.csv")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a model, a thin line a session and seed."""
    models = model_order(table["model"].unique())
    colours, labels = model_colours(models), model_labels(models)
    columns = min(PANELS_A_ROW, len(models))
    rows = -(-len(models) // columns)
    figure = new_figure({1: "single", 2: "wide"}.get(columns, "double"), rows * ROW_HEIGHT + 6)
    for place, (model, axes) in enumerate(zip(models, panel_grid(figure, len(models), columns), strict=True)):
        curves = table[table["model"] == model].groupby(["cohort", "seed", "part"])
        width, alpha = (0.8, 0.75) if len(curves) < 30 else (0.4, 0.3)
        look: dict[str, Any] = {"color": colours[model], "lw": width, "alpha": alpha}
        for (_, _, part), curve in curves:
            dashes = "-" if part == "training" else (0, (3, 1.5))
            alone: dict[str, Any] = {"marker": "o", "ms": 1.5} if len(curve) < 12 else {}
            axes.plot(curve["step"], curve["loss"], ls=dashes, **look, **alone)
        axes.set_title(labels[model])
        axes.set_xlabel("Step")
        if place % columns == 0:
            axes.set_ylabel("Loss (as minimised)")
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.03)
        axes.set_ylim(_ends(table.loc[table["model"] == model, "loss"]))
        _name_cohorts(axes, table[table["model"] == model])
    handles = [
        Line2D([], [], color=QUIET, lw=0.8, ls=dashes, label=part.capitalize())
        for part, dashes in (("training", "-"), ("validation", (0, (3, 1.5))))
        if (table["part"] == part).any()
    ]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _ends(losses: pd.Series) -> tuple[float, float] | None:
    """Ends of the axis where a few points far up, as of first steps, would hide how curves end; None: at all losses."""
    low, most = losses.min(), losses.quantile(0.9)
    reach = float(most - low)
    return (float(low) - 0.1 * reach, float(low) + 2 * reach) if losses.max() - low > FAR * reach > 0 else None


def _name_cohorts(axes: Axes, curves: pd.DataFrame) -> None:
    """Each cohort's name above the end of its curve, where there are few and their ends lie apart."""
    # Of the curves of the training and of the validation part, the upper one.
    ends = curves.sort_values(["step", "loss"]).groupby("cohort").tail(1).sort_values("loss")
    low, high = axes.get_ylim()
    if not 1 < len(ends) <= NAMED_COHORTS or ends["loss"].diff().min() < LEAST_GAP * (high - low):
        return
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": SMALL_SIZE}
    look["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}  # curves may pass behind
    for end in ends.itertuples():
        axes.annotate(str(end.cohort), (end.step, end.loss), (0, 3), **look)
