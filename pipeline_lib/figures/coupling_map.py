"""Couplings between all units before and after a mask: what was fitted, and what is left of it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.coupling import STRENGTH, coupling_matrix
from pipeline_lib.figures.fits import DISCOVERY, fit_tables
from pipeline_lib.figures.palette import model_label
from pipeline_lib.figures.style import COLUMN_WIDTHS, LETTERS, colour_bar, new_figure, panel_title, styled
from pipeline_lib.figures.units import region_blocks

MOST_UNITS = 120
"""Above it the units with the strongest couplings are shown, which keeps the CSV under 2 MB."""

CAPTION = (
    "Couplings of a coupled GLM before and after a mask, units grouped by region: how a spike of the sender (column) "
    "changes the log-rate of the receiver (row), summed over lags; orange excites, blue inhibits. Before: all "
    "couplings of the fit. After: only those whose test holds at a false-discovery rate of 5 % where the fit made "
    "tests, otherwise only those that the configured mask allows. Grey is left out (a unit's own history always is). "
    "Look for blocks that stay: a map that the mask empties held noise. Of more than 120 units those with the "
    "strongest couplings are shown."
)


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """A row an ordered pair: model, sender, receiver (unit_id), sender_region, receiver_region, strength, after (bool).

    `after`: the pair is left by the mask, see `CAPTION`. Raises NothingToDrawError where no fit has couplings, or
    none made tests or left pairs out.
    """
    tables = []
    for model, table in fit_tables(recording, fits, "couplings").items():
        size = table["strength"].abs()
        total = size.groupby(table["sender"]).sum().add(size.groupby(table["receiver"]).sum(), fill_value=0)
        shown = total.sort_values(ascending=False, kind="stable").index[:MOST_UNITS]
        table = table[table["sender"].isin(shown) & table["receiver"].isin(shown)]
        tested = table["q"].notna().any()
        after = (table["q"] < DISCOVERY) if tested else table["allowed"]
        tables.append(table.assign(model=model, after=after.astype(bool), tested=bool(tested)))
    columns = ["model", "sender", "receiver", "sender_region", "receiver_region", "strength", "after", "tested"]
    every = pd.concat(tables, ignore_index=True)[columns]
    if every["after"].all():
        text = "No pair was tested or left out: after the mask all couplings are as before (see the figure Couplings)."
        raise NothingToDrawError(text)
    return every


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a model: before on the left, after on the right, one colour scale."""
    models = table["model"].drop_duplicates().tolist()
    side = (COLUMN_WIDTHS["double"] - 40) / 2
    figure = new_figure("double", len(models) * (side + 16))
    grid = figure.subplots(len(models), 2, squeeze=False)
    letters = iter(LETTERS)
    for row, model in zip(grid, models, strict=True):
        own = table[table["model"] == model]
        limit = float(own["strength"].abs().quantile(0.99)) or 1.0
        name = "" if len(models) == 1 else f"{model_label(str(model))}. "
        left = f"q < {DISCOVERY}" if own["tested"].any() else "allowed by the mask"
        kept = int(own["after"].sum())
        titles = (f"{name}Before, {len(own):,} pairs", f"{name}After ({left}), {kept:,} pairs")
        receivers, senders = _regions(own, "receiver"), _regions(own, "sender")
        blocks = region_blocks(receivers.to_numpy()), region_blocks(senders.to_numpy())
        for axes, rows, title in zip(row, (own, own[own["after"]]), titles, strict=True):
            cells = rows.pivot(index="receiver", columns="sender", values="strength")
            cells = cells.reindex(index=receivers.index, columns=senders.index).astype(float)
            image = coupling_matrix(axes, cells, *blocks, side, limit)
            panel_title(axes, next(letters), title)
        colour_bar(image, row, STRENGTH, shrink=0.8, aspect=25, pad=0.015, extend="both")
    return figure


def _regions(own: pd.DataFrame, role: str) -> pd.Series:
    """Region of each unit of a role, by unit, in the order of the axis: by region, then as in the table."""
    # Senders come in the recording's order; receivers do not, for a unit is never its own receiver.
    units = pd.unique(pd.concat([own["sender"], own["receiver"]]))
    regions = own.drop_duplicates(role).set_index(role)[f"{role}_region"].astype(str)
    return regions.reindex([unit for unit in units if unit in regions.index]).sort_values(kind="stable")
