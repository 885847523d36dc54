"""What the selection of units did, measure by measure: histograms of those kept and those left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline_lib.figures.palette import FAINT, INHIBITION
from pipeline_lib.figures.style import log_axis
from pipeline_lib.sources.candidates import REFRACTORY

QUALITIES = {
    "rate": ("Rates before and after", "Mean rate (spikes/s)"),
    "presence": ("Presence", "Present in the session (%)"),
    "violations": ("Refractory violations", f"Intervals below {1000 * REFRACTORY:g} ms (%)"),
}
"""Measures of quality in `candidates.parquet`, with the titles of their panels and axes."""
QUALITY_BINS, LEAST_RATE = 24, 1e-3
"""Bins of a histogram; spikes/s that a silent unit is drawn at."""


def quality_histograms(recording: Path) -> list[pd.DataFrame]:
    """Histograms of the units before and after the selection; none where it left no unit out.

    Each has the columns panel ("rate before" and so on), value (middle of a bin, spikes/s or per cent), kept and of
    (units kept, and all of them, in the regions of which some were kept).
    """
    path = recording / "candidates.parquet"
    if not path.exists():
        return []
    units = pd.read_parquet(path)
    units = units[units["region"].isin(units.loc[units["kept"], "region"])]
    if units["kept"].all():
        return []
    tables = []
    for name in QUALITIES:
        known = units[units[name].notna()]
        if known.empty:
            continue
        value = known[name].clip(lower=LEAST_RATE) if name == "rate" else 100 * known[name]
        edges = _edges(name, value.to_numpy())
        counts = [np.histogram(values, edges)[0] for values in (value[known["kept"]], value)]
        middles = np.sqrt(edges[1:] * edges[:-1]) if name == "rate" else (edges[1:] + edges[:-1]) / 2
        tables.append(pd.DataFrame({"panel": f"{name} before", "value": middles, "kept": counts[0], "of": counts[1]}))
    return tables


def _edges(name: str, values: np.ndarray) -> np.ndarray:
    """Bins of a histogram that hold all `values`: even in the logarithm for rates, from 0 on for shares."""
    if name == "rate":
        low, high = float(values.min()), float(values.max())
        return np.geomspace(low / 1.01, max(high, 2 * low) * 1.01, QUALITY_BINS + 1)
    return np.linspace(0.0, 100.0 if name == "presence" else max(float(values.max()), 1.0), QUALITY_BINS + 1)


def draw_quality(axes: Axes, units: pd.DataFrame, name: str) -> None:
    """Kept units before all units, as stacked bars of one histogram."""
    middles = units["value"].to_numpy()
    if name == "rate":
        half = np.sqrt(middles[1] / middles[0])
        left, right = middles / half, middles * half
        log_axis(axes.xaxis, [left[0], right[-1]])
    else:
        half = (middles[1] - middles[0]) / 2
        left, right = middles - half, middles + half
        axes.set_xlim(left[0], right[-1])
    look: dict[str, Any] = {"align": "edge", "lw": 0}
    axes.bar(left, units["of"], right - left, color=FAINT, label="left out", **look)
    axes.bar(left, units["kept"], right - left, color=INHIBITION, label="kept", **look)
    axes.set_xlabel(QUALITIES[name][1])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
