"""Units along an axis: grouped by region, ordered by rate, the regions named beside them."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from pipeline_lib.figures.names import short_names, shortened
from pipeline_lib.figures.palette import HIDDEN, QUIET, region_colours
from pipeline_lib.figures.style import MM, SMALL_SIZE

POINT = 1 / 72 / MM
"""Millimetres in a point."""
BAR = 2.0
"""Width of a region's bar, and its distance from the axis, in points."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows `start` to `stop` (excluded) of one region."""

    region: str
    start: int
    stop: int


def unit_order(regions: np.ndarray, rates: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Rows of units [N], grouped by region (alphabetical), fastest first within each.

    With a `limit`, each region keeps its fastest units in proportion to its size, at least one.
    """
    order = np.lexsort((np.arange(len(rates)), -rates, regions.astype(str)))
    if limit is None or len(order) <= limit:
        return order
    blocks = region_blocks(regions[order])
    kept = [order[b.start : b.start + max(1, (b.stop - b.start) * limit // len(order))] for b in blocks]
    return np.concatenate(kept)


def region_blocks(regions: np.ndarray) -> list[Block]:
    """Runs of equal regions [N], in order."""
    regions = regions.astype(str)
    edges = [0, *(np.flatnonzero(regions[1:] != regions[:-1]) + 1).tolist(), len(regions)]
    return [Block(str(regions[start]), start, stop) for start, stop in itertools.pairwise(edges)]


def hidden_runs(seen: np.ndarray, units: np.ndarray) -> pd.DataFrame:
    """When units were not observed: unit, first and stop (bins), a row a run of False in seen [T, len(units)]."""
    padded = np.pad(~seen, ((1, 1), (0, 0))).astype(np.int8)
    step = np.diff(padded, axis=0).T
    column, first = np.nonzero(step == 1)
    return pd.DataFrame({"unit": units[column], "first": first, "stop": np.nonzero(step == -1)[1]})


def draw_hidden(axes: Axes, hidden: pd.DataFrame) -> None:
    """Grey bars over the rows of a raster, where `hidden` (row, time, value = length) says a unit was not observed."""
    axes.barh(hidden["row"], hidden["value"], left=hidden["time"], height=1, color=HIDDEN, lw=0, zorder=0)


def unit_title(unit: Any, region: Any, heldout: Any, between: str = ", ") -> str:
    """Title of a panel about one unit; `between` stands after its number."""
    about = [shortened(str(region))] * (region not in ("", "unknown")) + ["held out"] * bool(heldout)
    return between.join([f"Unit {unit:.0f}", ", ".join(about)]) if about else f"Unit {unit:.0f}"


def name_regions(axes: Axes, blocks: list[Block], length: float, axis: str = "y") -> None:
    """Write each region beside its block along the `axis` ("x" or "y"), over a bar of its colour.

    `length` is about how long the axis is on paper, in mm: a block too short for its name keeps the bar only, since
    labels on top of each other help nobody. Thin lines separate the blocks.
    """
    colours = region_colours(block.region for block in blocks)
    names = short_names(list(colours))
    vertical = axis == "y"
    beside = (-BAR / 72, 0.0) if vertical else (0.0, -BAR / 72)
    along = axes.get_yaxis_transform() if vertical else axes.get_xaxis_transform()
    along = along + ScaledTranslation(*beside, axes.figure.dpi_scale_trans)
    draw_line = axes.axhline if vertical else axes.axvline
    named = []
    for block in blocks:
        span, edge = (block.start - 0.5, block.stop - 0.5), (0, 0)
        x, y = (edge, span) if vertical else (span, edge)
        axes.plot(x, y, transform=along, color=colours[block.region], lw=BAR, clip_on=False)
        if block.start:
            draw_line(block.start - 0.5, color=QUIET, lw=0.4)
        needed = SMALL_SIZE * POINT * (1.1 if vertical else 0.62 * len(names[block.region]) + 0.5)
        if (block.stop - block.start) / blocks[-1].stop * length >= needed:
            named.append(block)
    set_ticks = axes.set_yticks if vertical else axes.set_xticks
    set_ticks([(block.start + block.stop - 1) / 2 for block in named], [names[block.region] for block in named])
    axes.tick_params(axis="y" if vertical else "x", length=0, pad=2 * BAR + 0.5)
    labels = axes.get_yticklabels() if vertical else axes.get_xticklabels()
    for text, block in zip(labels, named, strict=True):
        text.set_color(colours[block.region])
