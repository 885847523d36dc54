"""Coupling filters of a GLM with their uncertainty."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline_lib.figures.fits import DISCOVERY, fit_tables
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import QUIET, model_colours, model_key, model_line, model_order
from pipeline_lib.figures.style import new_figure, styled

CAPTION = (
    "Filters of a coupled GLM with pointwise 95 % intervals where the fit made standard errors: how a spike of the "
    "sender changes the log-rate of the receiver as time passes. The upper row are own histories of single units (look "
    "for the dip of refractoriness), below are the strongest couplings, exciting ones first; units are named as in "
    "their source (unit_id). An interval that holds zero at every lag says that the data do not show this coupling; q "
    "is the false-discovery rate at which it counts as found."
)

OWN, EACH_SIGN, A_ROW = 3, 3, 3
INTERVAL = 1.96
COLUMNS = ["model", "sender", "receiver", "place", "own", "q", "lag", "value", "low", "high"]
LEAST_Q = 0.001
"""Below it, no journal writes more."""


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Columns model, sender, receiver (unit_id), place (of the panel), own (bool), q, lag (ms), value, low, high.

    low and high are NaN without standard errors. Raises NothingToDrawError where no fit has filters.
    """
    filters = fit_tables(recording, fits, "filters")
    couplings = fit_tables(recording, fits, "couplings")
    first = next(iter(couplings.values()))
    pairs = [(unit, unit) for unit in _own(next(iter(filters.values())))] + _strongest(first)
    tables = []
    for model, table in filters.items():
        text = table["sender"].astype(str) + "\0" + table["receiver"].astype(str)
        q = couplings[model].set_index(["sender", "receiver"])["q"].to_dict() if model in couplings else {}
        for place, (sender, receiver) in enumerate(pairs):
            line = table[text == f"{sender}\0{receiver}"]
            band = INTERVAL * line["error"]
            about: dict[str, Any] = {"model": model, "sender": sender, "receiver": receiver, "place": place}
            about |= {"own": sender == receiver, "q": q.get((sender, receiver), np.nan)}
            tables.append(line.assign(**about, low=line["value"] - band, high=line["value"] + band)[COLUMNS])
    return pd.concat(tables, ignore_index=True)


def _own(filters: pd.DataFrame) -> list[str]:
    """Units whose own history is largest."""
    own = filters[filters["sender"].astype(str) == filters["receiver"].astype(str)]
    size = own["value"].abs().groupby(own["sender"].astype(str)).sum()
    return size.sort_values(ascending=False, kind="stable").index[:OWN].tolist()


def _strongest(couplings: pd.DataFrame) -> list[tuple[str, str]]:
    """The most exciting pairs, then the most inhibiting ones, of those that tests found where there are any."""
    found = couplings[couplings["q"] < DISCOVERY]
    chosen = (found if len(found) else couplings).sort_values("strength", kind="stable")
    inhibiting = chosen[chosen["strength"] < 0].head(EACH_SIGN)
    exciting = chosen[chosen["strength"] > 0].tail(EACH_SIGN).iloc[::-1]
    both = pd.concat([exciting, inhibiting])
    return list(zip(both["sender"], both["receiver"], strict=True))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Own histories in the first row, couplings below, exciting and inhibiting; one scale a row."""
    places = table.drop_duplicates("place").sort_values("place")
    own, pairs = places[places["own"]], places[~places["own"]]
    columns = max(1, min(A_ROW, max(len(own), len(pairs))))
    rows = -(-len(own) // columns) + -(-len(pairs) // columns)
    figure = new_figure("wide", 12 + 25 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    panels = list(grid[: -(-len(own) // columns)].ravel())[: len(own)]
    panels += list(grid[-(-len(own) // columns) :].ravel())[: len(pairs)]
    for axes in grid.ravel():
        axes.set_visible(axes in panels)
    models = model_order(table["model"].unique())
    colours = model_colours(models)
    ordered = pd.concat([own, pairs])
    units = sorted({*ordered["sender"].astype(str), *ordered["receiver"].astype(str)})
    names = dict(zip(units, told_apart(units, 10), strict=True))
    for axes, (_, pair) in zip(panels, ordered.iterrows(), strict=True):
        axes.axhline(0, color=QUIET, lw=0.4)
        for model in models:
            line = table[(table["place"] == pair["place"]) & (table["model"] == model)]
            axes.fill_between(line["lag"], line["low"], line["high"], color=colours[model], alpha=0.25, lw=0)
            axes.plot(line["lag"], line["value"], **model_line(model, colours[model]))
        sender, receiver = names[str(pair["sender"])], names[str(pair["receiver"])]
        title = f"{sender}, own history" if pair["own"] else f"{sender} \u2192 {receiver}"
        if np.isfinite(pair["q"]):
            title += f", q = {pair['q']:.1g}" if pair["q"] >= LEAST_Q else f", q < {LEAST_Q}"
        axes.set_title(title)
        axes.set_xlim(0, None)
        axes.locator_params(axis="x", nbins=4)
        axes.locator_params(axis="y", nbins=4)
    for (row, column), axes in np.ndenumerate(grid):
        if column == 0:
            axes.set_ylabel("Filter (log-rate\nper spike)")
        if row == rows - 1 or not grid[row + 1, column].get_visible():
            axes.set_xlabel("Lag (ms)")
            axes.tick_params(labelbottom=True)
    handles: list[Line2D | Patch] = [*model_key(models)]
    if table["low"].notna().any():
        handles.append(Patch(color=colours[models[0]], alpha=0.25, lw=0, label="95 % interval"))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
