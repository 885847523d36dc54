"""How scores grow with the data: with the units that a session has, and with how much of it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.palette import FAINT, model_colours, model_key, model_line, model_mark, model_order
from pipeline_lib.figures.points import lowest_shown
from pipeline_lib.figures.score_table import PANELS, primary_rows
from pipeline_lib.figures.style import legend_below, log_axis, new_figure, panel_title, styled
from pipeline_lib.published import read_parquet
from pipeline_lib.trains.manifest import read_manifest
from pipeline_lib.trains.splits import Split

CAPTION = (
    "Bits per spike on the test part against the units that were inputs and against the time that trained, a point a "
    "session and cohort. Lines join cohorts of the same sessions that differ in this alone (of several such lines, "
    "those with most of the other are shown): scaling curves. Look for models that go on rising where others have "
    "levelled off. Where fewer units are inputs, others are scored, so compare models at a point before points of a "
    "model. Points of different sessions differ in more than size (region, rate, task): a trend over them is a hint "
    "and no proof. Arrows are scores below the axis."
)

SAME = 0.05
"""Amounts of data are the same if they differ by less than this share: windows are whole."""
AXES = {"units": "Units given to the models", "minutes": "Training data (minutes)"}


def data(metrics: Path | str, trains: Sequence[Path | str], split: Sequence[Path | str]) -> pd.DataFrame:
    """A row a cohort, session, model and kind of units scored.

    Columns: cohort, session, model, scored ("heldin" or "heldout"), units (inputs), minutes (of training windows,
    summed over the cohort's sessions), value (bits/spike, the mean over seeds).

    Raises
    ------
    NothingToDrawError : no model has a finite score, or all points have the same size.
    """
    units = {str(about["session"]): int(about["units"]) for about in map(read_manifest, trains)}
    sizes = []
    for path in split:
        parts = Split.read(path)
        train = parts.samples[parts.samples["split"] == "train"]
        minutes = float(train["bins"].sum()) * parts.bin_ticks / TICKS_PER_SECOND / 60
        for session, heldout in parts.heldout.items():
            heldin = units[session] - len(heldout)
            sizes.append({"cohort": parts.cohort, "session": session, "units": heldin, "minutes": minutes})
    scores = primary_rows(read_parquet(metrics))
    scores = scores[scores["units"].isin(list(PANELS))].rename(columns={"units": "scored"})
    means = scores.groupby(["cohort", "session", "model", "scored"], as_index=False)["value"].mean()
    table = means.merge(pd.DataFrame(sizes), on=["cohort", "session"])
    if table.empty:
        raise NothingToDrawError("No model has a finite bits/spike on a test part.")
    sizes_of = table.assign(size=list(zip(table["units"], table["minutes"], strict=True))).groupby("scored")["size"]
    table = table[sizes_of.transform("nunique") > 1]
    if table.empty:
        raise NothingToDrawError(
            "Every session has as many units and as much training data: scores cannot be set against either."
        )
    return table[["cohort", "session", "model", "scored", "units", "minutes", "value"]]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row for held-in units, one for held-out; units at the left, training time at the right."""
    scored = [kind for kind in PANELS if (table["scored"] == kind).any()]
    models = model_order(table["model"].unique())
    figure = new_figure("double", 46 * len(scored) + 4 + 3.2 * -(-len(models) // 7))
    grid = figure.subplots(len(scored), 2, squeeze=False, sharey="row")
    for place, kind in enumerate(scored):
        own = table[table["scored"] == kind]
        for side, (size, label) in enumerate(AXES.items()):
            axes = grid[place, side]
            _points(axes, own, size, models)
            axes.set_xlabel(label)
            panel_title(axes, "abcd"[2 * place + side], PANELS[kind])
        grid[place, 0].set_ylabel("Bits per spike")
    joined = table.groupby(["session", "model", "scored"]).size().max() > 1
    handles = model_key(models, ms=3.5, mew=0.3, **({} if joined else {"linestyle": ""}))
    for handle, model in zip(handles, models, strict=True):
        handle.set_marker(model_mark(model))
    legend_below(figure, handles)
    return figure


def _points(axes: Axes, table: pd.DataFrame, size: str, models: list[str]) -> None:
    colours = model_colours(models)
    floor = lowest_shown(table["value"], 0.1)
    (other,) = set(AXES) - {size}
    # More data of another session is no more of this one's: curves are of cohorts of the same sessions.
    together = table.groupby("cohort")["session"].transform(lambda names: " ".join(sorted({*names})))
    table = table.assign(together=together)
    most = table.groupby(["session", "together"])[other].transform("max")
    table = table[table[other] > (1 - SAME) * most]  # of one session, cohorts that differ in `size` alone
    log_axis(axes.xaxis, table[size])
    for model, of_model in table.groupby("model"):
        look: dict[str, Any] = {"mec": "white", "mew": 0.3, "color": colours[str(model)], "alpha": 0.85}
        inside = of_model["value"] >= floor
        axes.plot(of_model.loc[inside, size], of_model.loc[inside, "value"], model_mark(str(model)), ms=3.5, **look)
        axes.plot(of_model.loc[~inside, size], np.full((~inside).sum(), floor), "v", ms=4, **look)
        for _, curve in of_model.groupby(["session", "together"]):
            line = curve.groupby(size)["value"].mean().clip(lower=floor)
            if len(line) > 1:
                axes.plot(line.index, line, **{**model_line(str(model), colours[str(model)]), "lw": 0.6}, zorder=1)
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    if (table["value"] < floor).any():
        axes.set_ylim(bottom=1.05 * floor)
