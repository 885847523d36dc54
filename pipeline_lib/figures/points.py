"""Points in rows: scores and costs of models or stages, each row named by words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from pipeline_lib.figures.palette import FAINT, QUIET
from pipeline_lib.figures.style import SMALL_SIZE

MOST_BARS = 12
"""Points of a row beyond which their intervals would be one block, and are left out."""
FEW = 5
"""Points of a row beyond which they are smaller and farther apart, or they and their intervals would be one block."""
FAR = 1.5
"""Scores further below 0 than this many times the best lies from it are drawn at the edge."""
Row = tuple[str, str, float]
"""Block, model ("" for the heading of the block), place on the axis."""


def side_by_side(count: int) -> np.ndarray:
    """Places between -0.5 and 0.5 that keep `count` points of a row apart: golden steps, the same every time.

    >>> side_by_side(3).round(2).tolist()
    [-0.5, 0.12, -0.26]
    """
    return (np.arange(count) * 0.618) % 1 - 0.5


def below_each_other(count: int, reach: float) -> np.ndarray:
    """Places of the `count` points of a row, in their order, `reach` to each side; of many, twice as far.

    >>> below_each_other(2, 0.2).tolist(), below_each_other(1, 0.2).tolist()
    ([-0.2, 0.2], [0.0])
    """
    if count == 1:
        return np.zeros(1)
    return np.linspace(-reach, reach, count) * (1 if count <= FEW else 2)


def rows_in_blocks(blocks: Mapping[str, Sequence[str]]) -> list[Row]:
    """A row a model of each of `blocks`, below the heading of the block where it has a name.

    >>> rows_in_blocks({"day1": ["glm", "ndt"], "day2": ["glm"]})
    [('day1', '', 0.0), ('day1', 'glm', 1.0), ('day1', 'ndt', 2.0), ('day2', '', 3.5), ('day2', 'glm', 4.5)]
    """
    rows: list[Row] = []
    first = 0.0
    for block, models in blocks.items():
        names = ["", *models] if block else models
        rows += [(block, model, first + k) for k, model in enumerate(names)]
        first += len(names) + 0.5
    return rows


def name_rows(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Write the names of rows beside them, headings in bold."""
    places = [place for _, _, place in rows]
    axes.set_yticks(places, names)
    axes.set_ylim(max(places) + 0.7, -0.7)
    for label, (_, model, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if model else "bold")


def word_rows(axes: Axes) -> None:
    """Rows that words name need no axis at the left; faint lines lead the eye down to the numbers."""
    axes.grid(axis="x", color=FAINT, lw=0.4)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def lowest_shown(scores: ArrayLike, least: float) -> float:
    """Where an axis of `scores` ends below: `FAR` times as far from 0 as the best, or `least`, lies.

    Lower ones stand at the edge, where they hide no difference between the others; if the best is below 0 it does not.

    >>> lowest_shown([2.0, -30.0], 0.2), lowest_shown([-2.0, -30.0], 0.2)
    (-3.0, -3.0)
    """
    return -FAR * max(abs(float(np.nanmax(scores))), least)


def scored_points(
    axes: Axes, scores: pd.DataFrame, heights: np.ndarray, colour: str, floor: float, hollow: bool = False
) -> None:
    """A point a score at its height, with its interval; those below `floor` are arrows at the edge, with
    their values beside.

    Columns of `scores`: value, ci_low, ci_high (NaN: no interval).
    """
    values = scores["value"].to_numpy()
    inside = values >= floor
    low, high = (scores[end].fillna(scores["value"]).clip(lower=floor).to_numpy() for end in ("ci_low", "ci_high"))
    width, size = (1.0, 3.0) if len(scores) <= FEW else (0.6, 2.2)
    if len(scores) <= MOST_BARS:
        axes.hlines(heights[inside], low[inside], high[inside], color=colour, lw=width)
    look: dict[str, Any] = {"mfc": "white", "mec": colour} if hollow else {"mec": "white", "mew": 0.3}
    axes.plot(values[inside], heights[inside], "o", ms=size, color=colour, **look)
    axes.plot(np.full((~inside).sum(), floor), heights[~inside], "<", ms=3.5, color=colour)
    if not inside.all():
        outside = values[~inside]
        shown = [f"{value:.2g}".replace("-", "\u2212") for value in (outside.min(), outside.max())]
        text = shown[0] if shown[0] == shown[1] else " to ".join(shown)
        note: dict[str, Any] = {"va": "center", "color": QUIET, "fontsize": SMALL_SIZE}
        axes.annotate(text, (floor, heights[~inside].mean()), (4, 0), textcoords="offset points", **note)
