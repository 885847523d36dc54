"""Couplings between regions as a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import DISCOVERY, fit_tables
from pipeline_lib.figures.names import short_names
from pipeline_lib.figures.palette import EXCITATION, INHIBITION, QUIET, model_label, region_colours
from pipeline_lib.figures.style import SMALL_SIZE, new_figure, styled

STRONGEST = 0.1
"""Share of all pairs that count as coupled where the fit made no tests."""
MOST_REGIONS, MOST_NUMBERED = 9, 2
"""Regions that are shown, and up to how many of them carry numbers: more would lie on the arrows."""

CAPTION = (
    "Couplings between regions. A circle is a region, larger where it has more units; an arrow is as wide as the "
    "share of pairs of units that are coupled from one region to another (found at a false-discovery rate of 5 %; "
    "without tests, among the 10 % of all pairs with the strongest couplings), orange where more of them excite, blue "
    "where more inhibit. The ring around a circle, and the number below it, are the share within the region. Look for "
    "arrows that are wider one way than the other, and remember that units which were not recorded couple too. Of "
    "more than 9 regions those with most units are shown."
)

RING = 1.5
"""Area of the ring around a circle, of that of the circle."""
BEND = 0.22
"""How far an arrow leaves the straight line, of its length: there and back do not lie on each other."""


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """A row an ordered pair of regions, of the `MOST_REGIONS` with most units.

    Columns: model, sender_region, receiver_region, senders, receivers (units), pairs, coupled (pairs), share, exciting
    (share of the coupled pairs), tested (bool). Raises NothingToDrawError where no fit has couplings, or all units lie
    in one region.
    """
    tables = []
    for model, table in fit_tables(recording, fits, "couplings").items():
        table = table.assign(
            sender_region=table["sender_region"].astype(str), receiver_region=table["receiver_region"].astype(str)
        )
        tested = bool(table["q"].notna().any())
        size = table["strength"].abs()
        coupled = table["q"] < DISCOVERY if tested else (size >= size.quantile(1 - STRONGEST)) & (size > 0)
        units = table.drop_duplicates("receiver")["receiver_region"].value_counts()
        shown = table["sender_region"].isin(units.index[:MOST_REGIONS])
        shown &= table["receiver_region"].isin(units.index[:MOST_REGIONS])
        marked = table.assign(coupled=coupled, exciting=coupled & (table["strength"] > 0))[shown]
        grouped = marked.groupby(["sender_region", "receiver_region"], as_index=False).agg(
            pairs=("strength", "size"),
            coupled=("coupled", "sum"),
            exciting=("exciting", "sum"),
            senders=("sender", "nunique"),
            receivers=("receiver", "nunique"),
        )
        grouped["exciting"] = grouped["exciting"] / grouped["coupled"].clip(lower=1)
        tables.append(grouped.assign(model=model, share=grouped["coupled"] / grouped["pairs"], tested=tested))
    columns = ["model", "sender_region", "receiver_region", "senders", "receivers", "pairs", "coupled", "share"]
    every = pd.concat(tables, ignore_index=True)[[*columns, "exciting", "tested"]]
    if every["receiver_region"].nunique() < 2:
        raise NothingToDrawError("All units lie in one region: between regions there is nothing to draw.")
    return every


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a model, regions on a circle."""
    models = table["model"].drop_duplicates().tolist()
    height = 34 if table["receiver_region"].nunique() == 2 else 84
    figure = new_figure("single" if len(models) == 1 else "double", height)
    largest = float(table["share"].max()) or 1.0
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        own = table[table["model"] == model]
        _network(axes, own, largest)
        if len(models) > 1:
            axes.set_title(model_label(str(model)))
    return figure


def _network(axes: Axes, own: pd.DataFrame, largest: float) -> None:
    units = {str(region): int(rows["receivers"].max()) for region, rows in own.groupby("receiver_region")}
    regions = sorted(units)
    colours, names = region_colours(regions), short_names(regions, 12)
    numbered = len(regions) <= MOST_NUMBERED
    # Two regions stand side by side, more of them go round from the top.
    angle = (np.pi if len(regions) == 2 else np.pi / 2) - 2 * np.pi * np.arange(len(regions)) / len(regions)
    place = dict(zip(regions, np.stack([np.cos(angle), np.sin(angle)], axis=1), strict=True))
    area = {region: 60 + 340 * units[region] / max(units.values()) for region in regions}
    for row in own.to_dict("records"):
        sender, receiver = str(row["sender_region"]), str(row["receiver_region"])
        share = float(row["share"])
        colour = QUIET if not row["coupled"] else EXCITATION if row["exciting"] >= 0.5 else INHIBITION
        width = 4.0 * share / largest
        if sender == receiver:
            x, y = place[sender]
            axes.scatter(x, y, s=area[sender] * RING, facecolor="none", edgecolor=colour, lw=width)
            continue
        ends = place[sender], place[receiver]
        if row["coupled"]:
            style = f"-|>,head_width={1.5 + width},head_length={2.5 + width}"
            look: dict[str, Any] = {"connectionstyle": f"arc3,rad={BEND}", "lw": width, "color": colour}
            look |= {"joinstyle": "miter", "capstyle": "butt", "mutation_scale": 1.0}
            look |= {"shrinkA": _radius(area[sender]), "shrinkB": _radius(area[receiver]) + 3}
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle=style, **look))
        if numbered:
            across, up = ends[1] - ends[0]
            length = float(np.hypot(across, up))
            # Where the arrow bends to; a number needs more room beside than above.
            side = np.array([up, -across]) / length
            x, y = (ends[0] + ends[1]) / 2 + side * (BEND / 2 * length + 0.1 + 0.12 * abs(side[0]))
            axes.text(x, y, _percent(share), ha="center", va="center", fontsize=SMALL_SIZE, color=colour)
    within = own[own["sender_region"] == own["receiver_region"]].set_index("receiver_region")["share"]
    for region, (x, y) in place.items():
        axes.scatter(x, y, s=area[region], color=colours[region], zorder=3)
        text = names[region]
        text += f"\n{_percent(within[region])} within" if numbered and region in within else ""
        _name(axes, place[region], _radius(area[region]), text, colours[region])
    kind = f"found at q < {DISCOVERY}" if own["tested"].any() else f"among the strongest {_percent(STRONGEST)}"
    widest = "" if numbered else f", at most {_percent(own['share'].max())}"
    note = f"Share of pairs {kind}{widest}\norange: mostly exciting, blue: mostly inhibiting"
    axes.text(0.5, 0.0, note, transform=axes.transAxes, ha="center", va="bottom", fontsize=SMALL_SIZE, color=QUIET)
    low, high = (-0.88, 0.48) if len(regions) == 2 else (-2.0, 1.55)
    axes.set(xlim=(-1.75, 1.75), ylim=(low, high), aspect="equal")
    axes.axis("off")


def _name(axes: Axes, place: np.ndarray, radius: float, text: str, colour: str) -> None:
    """Write beside a circle, away from the middle of the ring; below it where two stand side by side."""
    away = np.array([0.0, -1.0]) if abs(place[1]) < 1e-9 else place.round(1)
    across = {-1: "right", 0: "center", 1: "left"}[int(np.sign(away[0]))]
    down = {-1: "top", 0: "center", 1: "bottom"}[int(np.sign(away[1]))]
    x, y = (radius + 3) * away
    look: dict[str, Any] = {"ha": across, "va": down, "fontsize": SMALL_SIZE, "color": colour}
    axes.annotate(text, (float(place[0]), float(place[1])), (x, y), textcoords="offset points", **look)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _radius(area: float) -> float:
    """Of the ring around a circle of `area` square points, in points."""
    return (RING * area) ** 0.5 / 2 + 2
