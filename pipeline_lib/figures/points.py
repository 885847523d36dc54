"""Points in rows: scores and costs of models or stages, each row named by words."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline_lib.figures.style import FAINT, QUIET, SMALL_SIZE


def side_by_side(count: int) -> np.ndarray:
    """Places between -0.5 and 0.5 that keep `count` points of a row apart: golden steps, the same every time.

    >>> side_by_side(3).round(2).tolist()
    [-0.5, 0.12, -0.26]
    """
    return (np.arange(count) * 0.618) % 1 - 0.5


def word_rows(axes: Axes) -> None:
    """Rows that words name need no axis at the left; faint lines lead the eye down to the numbers."""
    axes.grid(axis="x", color=FAINT, lw=0.4)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


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
    axes.hlines(heights[inside], low[inside], high[inside], color=colour, lw=1.0)
    look: dict[str, Any] = {"mfc": "white", "mec": colour} if hollow else {"mec": "white", "mew": 0.3}
    axes.plot(values[inside], heights[inside], "o", ms=3.0, color=colour, **look)
    axes.plot(np.full((~inside).sum(), floor), heights[~inside], "<", ms=3.5, color=colour)
    if not inside.all():
        outside = values[~inside]
        shown = [f"{value:.2g}".replace("-", "\u2212") for value in (outside.min(), outside.max())]
        text = shown[0] if shown[0] == shown[1] else " to ".join(shown)
        note: dict[str, Any] = {"va": "center", "color": QUIET, "fontsize": SMALL_SIZE}
        axes.annotate(text, (floor, heights[~inside].mean()), (4, 0), textcoords="offset points", **note)
