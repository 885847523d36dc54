"""Whether a session's spike trains are what was recorded: sums, intervals between spikes, drift, and bins."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.clock import TICKS_PER_SECOND, bin_ticks, to_seconds, to_ticks
from pipeline_lib.figures.names import short_names
from pipeline_lib.figures.palette import EXCITATION, FAINT, INHIBITION, INK, QUIET, region_colours
from pipeline_lib.figures.style import (
    colour_bar,
    log_axis,
    new_figure,
    panel_title,
    signed_image,
    stacked,
    styled,
)
from pipeline_lib.figures.units import name_regions, region_blocks, unit_order
from pipeline_lib.sources.candidates import REFRACTORY
from pipeline_lib.sources.presence import presence, while_present
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.store import Trains

BLOCKS, BLOCK_SECONDS, COURSE_BINS, SHOWN_UNITS, MOST_A_BIN, NAMED_REGIONS = 20, 5.0, 60, 150, 4, 6

CAPTION = (
    "The stored spike trains, checked. (a) Spikes of every unit, counted twice: those of the recording against the "
    "stored events, and those events against their bins in blocks spread over the session. Every point must lie on "
    "the line; units without a spike stand at one half. (b) Intervals shorter than 1.5 ms, in which no neuron can "
    "fire: far below the dashed line (spikes at random) for a well isolated unit, near it for a mixture of neurons. "
    "(c) All intervals: look for a gap left of the dotted line (1.5 ms). (d) Rate of every unit through the session "
    "relative to its mean (of more than 150 units the fastest of each region): stripes are drifts or units that come "
    "and go, which models take for silent unless the option unit_presence is given; grey was not observed, or is a "
    "unit without a spike. (e) How many spikes bins hold: where most hold one or more, a finer bin says more."
)

BIN_SIZES = (1.0, 5.0, 20.0)
"""ms."""
INTERVAL_EDGES = np.geomspace(5e-4, 20, 47)
"""Seconds."""


def data(recording: Path | str, trains: Path | str) -> pd.DataFrame:
    """What the five panels show.

    Rows by `panel`: "sum" (unit, of = spikes expected, value = spikes found, by comparison `name`: "recording", or a
    bin size in ms), "violation" (unit, region, of = rate in spikes/s, value = per cent of intervals below 1.5 ms),
    "interval" (name = region, time = geometric centre in s, value = intervals per unit of log10), "course" (unit, row,
    region, time in s, value = log2 of the rate over the unit's mean; NaN where the session was not observed) and "bin"
    (name = bin size in ms, of = spikes in a bin, `MOST_A_BIN` for that many or more, value = per cent of bins). `unit`
    is a row of the session's units, `unit_id` their name in the source.

    Raises
    ------
    InputError : the store is incomplete or damaged.
    """
    store = Trains.open(Path(trains))
    regions = store.units["region"].astype(str).to_numpy()
    recorded = pd.read_parquet(Path(recording) / "spikes.parquet", columns=["unit"])["unit"].to_numpy()
    expected = np.bincount(recorded, minlength=store.n_units)
    stored = np.bincount(store.unit, minlength=store.n_units)
    units = np.arange(store.n_units)
    sums = pd.DataFrame({"panel": "sum", "name": "recording", "unit": units, "of": expected, "value": stored})
    present = _present(store)
    seen = while_present(to_seconds(store.ticks), store.unit, present)
    seconds = np.array([np.diff(intervals).sum() for intervals in present])
    rates = np.bincount(store.unit[seen], minlength=store.n_units) / np.where(seconds > 0, seconds, np.nan)
    shown = unit_order(regions, rates, SHOWN_UNITS)
    violations, intervals = _intervals(store.ticks, store.unit, store.n_units, regions)
    tables = [
        sums,
        *_bins(store),
        pd.DataFrame({"panel": "violation", "unit": units, "region": regions, "of": rates, "value": violations}),
        *intervals,
        _course(store, seen, present, shown, regions),
    ]
    table = pd.concat(tables, ignore_index=True)
    known = table["unit"].notna()
    table.loc[known, "unit_id"] = store.units["unit_id"].to_numpy(str)[table.loc[known, "unit"].astype(int)]
    return table[["panel", "name", "unit", "unit_id", "row", "region", "time", "of", "value"]]


def _intervals(
    ticks: np.ndarray, unit: np.ndarray, units: int, regions: np.ndarray
) -> tuple[np.ndarray, list[pd.DataFrame]]:
    """Per cent of intervals below `REFRACTORY` by unit, NaN for fewer than two spikes; and histograms by region."""
    order = np.argsort(unit, kind="stable")
    same = np.diff(unit[order]) == 0
    own, lengths = unit[order][1:][same], np.diff(ticks[order])[same]
    total = np.bincount(own, minlength=units)
    short = np.bincount(own[lengths < to_ticks(REFRACTORY)], minlength=units)
    violations = 100 * short / np.where(total, total, np.nan)
    tables = []
    widths, centres = np.diff(np.log10(INTERVAL_EDGES)), np.sqrt(INTERVAL_EDGES[1:] * INTERVAL_EDGES[:-1])
    for region in np.unique(regions):
        counts = np.histogram(lengths[regions[own] == region] / TICKS_PER_SECOND, INTERVAL_EDGES)[0]
        density = counts / max(counts.sum(), 1) / widths
        tables.append(pd.DataFrame({"panel": "interval", "name": region, "time": centres, "value": density}))
    return violations, tables


def _bins(store: Trains) -> list[pd.DataFrame]:
    """Sums of binned spikes beside those of events, and how full bins are, over blocks spread over the session."""
    length = min(int(to_ticks(BLOCK_SECONDS)), int(store.duration_ticks))
    length -= length % bin_ticks(max(BIN_SIZES))
    blocks = int(min(BLOCKS, store.duration_ticks // max(length, 1)))
    starts = np.linspace(0, store.duration_ticks - length, blocks).astype(np.int64) if length else np.empty(0, np.int64)
    events = np.zeros(store.n_units, dtype=np.int64)
    for first, last in zip(*np.searchsorted(store.ticks, [starts, starts + length]), strict=True):
        events += np.bincount(store.unit[first:last], minlength=store.n_units)
    tables = []
    for bin_size in BIN_SIZES:
        ticks = bin_ticks(bin_size)
        found, full = np.zeros(store.n_units, dtype=np.int64), np.zeros(MOST_A_BIN + 1, dtype=np.int64)
        for start in starts:
            counts = bin_windows(store, np.array([start]), length // ticks, ticks)[0]
            found += counts.sum(axis=0, dtype=np.int64)
            full += np.bincount(np.minimum(counts, MOST_A_BIN).ravel(), minlength=MOST_A_BIN + 1)
        name = f"{bin_size:g}"
        columns = {"unit": np.arange(store.n_units), "of": events, "value": found}
        tables.append(pd.DataFrame({"panel": "sum", "name": name, **columns}))
        share = 100 * full / max(full.sum(), 1)
        tables.append(pd.DataFrame({"panel": "bin", "name": name, "of": np.arange(MOST_A_BIN + 1), "value": share}))
    return tables


def _present(store: Trains) -> list[np.ndarray]:
    """When each unit was observed, (intervals, 2) s."""
    if store.unit_intervals is None:
        return presence(to_seconds(store.observed), None, store.n_units)
    unit, start, stop = store.unit_intervals.T
    own = pd.DataFrame({"unit": unit, "start": to_seconds(start), "stop": to_seconds(stop)})
    return presence(to_seconds(store.observed), own, store.n_units)


def _course(
    store: Trains, seen: np.ndarray, present: list[np.ndarray], shown: np.ndarray, regions: np.ndarray
) -> pd.DataFrame:
    observed = to_seconds(store.observed)
    edges = np.linspace(observed.min(), observed.max(), COURSE_BINS + 1)
    row = np.full(store.n_units, -1)
    row[shown] = np.arange(len(shown))
    inside = seen & (row[store.unit] >= 0)
    times = to_seconds(store.ticks[inside])
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, COURSE_BINS - 1)
    counts = np.zeros((len(shown), COURSE_BINS))
    np.add.at(counts, (row[store.unit[inside]], place), 1)
    seconds = np.diff([np.clip(edges[:, None], *present[unit].T).sum(axis=1) for unit in shown])
    rates = counts / np.where(seconds > 0.2 * np.diff(edges), seconds, np.nan)
    with np.errstate(invalid="ignore"):  # of a unit that was never observed
        mean = counts.sum(axis=1, keepdims=True) / seconds.sum(axis=1, keepdims=True)
    value = np.log2(np.maximum(rates, mean / 16) / np.where(mean > 0, mean, np.nan))
    centres = (edges[1:] + edges[:-1]) / 2
    columns = {"unit": shown, "row": np.arange(len(shown)), "region": regions[shown]}
    repeated = {name: np.repeat(values, COURSE_BINS) for name, values in columns.items()}
    return pd.DataFrame({"panel": "course", **repeated, "time": np.tile(centres, len(shown)), "value": value.ravel()})


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Sums, violations and intervals above; the course of every unit and the filling of bins below."""
    panels = {str(panel): rows for panel, rows in table.groupby("panel")}
    figure = new_figure("double", 104)
    above, below = stacked(figure, (1, 1.05))
    sums, violations, intervals = above.subplots(1, 3)
    course, bins = below.subplots(1, 2, width_ratios=(2.1, 1))
    colours = region_colours(panels["violation"]["region"].astype(str))
    _draw_sums(sums, panels["sum"])
    _draw_violations(violations, panels["violation"], colours)
    _draw_intervals(intervals, panels["interval"], colours)
    _draw_course(course, panels["course"])
    _draw_bins(bins, panels["bin"])
    return figure


def _draw_sums(axes: Axes, sums: pd.DataFrame) -> None:
    ends = sums[["of", "value"]].clip(lower=0.5).to_numpy()
    axes.plot([ends.min() / 2, ends.max() * 2], [ends.min() / 2, ends.max() * 2], color=FAINT, lw=0.8, zorder=0)
    marks = {"recording": ("o", INHIBITION), "1": ("+", EXCITATION), "5": ("x", INK), "20": ("|", QUIET)}
    for name, own in sums.groupby(sums["name"].astype(str), sort=False):
        short = str(name).removesuffix(".0")
        mark, colour = marks[short]
        equal = int((own["of"] == own["value"]).sum())
        what = "stored events" if short == "recording" else f"{short}-ms bins"
        label = f"{what}: {'all' if equal == len(own) else f'{equal} of {len(own)}'} equal"
        look: dict[str, Any] = {"ms": 3, "mew": 0.5, "color": colour, "mfc": "none" if mark == "o" else colour}
        axes.plot(own["of"].clip(lower=0.5), own["value"].clip(lower=0.5), mark, label=label, **look)
    axes.set(xlabel="Spikes expected", ylabel="Spikes found")
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, [ends.min() / 1.5, ends.max() * 1.5])
    axes.legend(loc="lower right", handletextpad=0.1, labelspacing=0.3)
    panel_title(axes, "a", "Sums, unit by unit")


def _draw_violations(axes: Axes, violations: pd.DataFrame, colours: dict[str, str]) -> None:
    rates = violations["of"].clip(lower=1e-3)
    for region, own in violations.groupby("region"):
        axes.plot(own["of"].clip(lower=1e-3), own["value"], "o", ms=2.2, mew=0, alpha=0.7, color=colours[str(region)])
    grid = np.geomspace(rates.min(), rates.max() * 1.1, 100)
    axes.plot(grid, 100 * -np.expm1(-grid * REFRACTORY), color=QUIET, lw=0.7, ls=(0, (3, 2)), label="spikes at random")
    axes.set(xlabel="Rate (spikes/s)", ylabel=f"Intervals below {1000 * REFRACTORY:g} ms (%)")
    log_axis(axes.xaxis, rates)
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.03 * top, 1.15 * top)  # room for the legend
    axes.legend(loc="upper left")
    panel_title(axes, "b", "Refractory violations")


def _draw_intervals(axes: Axes, intervals: pd.DataFrame, colours: dict[str, str]) -> None:
    names = short_names(list(colours), 10)
    for region, own in intervals.groupby("name"):
        look: dict[str, Any] = {"color": colours[str(region)], "lw": 0.8, "label": names[str(region)]}
        axes.plot(1000 * own["time"], own["value"], **look)
    axes.axvline(1000 * REFRACTORY, color=QUIET, lw=0.5, ls=(0, (1, 1)))
    axes.set(xlabel="Interval between spikes (ms)", ylabel="Density (per decade)", ylim=(0, None))
    log_axis(axes.xaxis, 1000 * intervals["time"])
    if 1 < len(colours) <= NAMED_REGIONS:
        axes.legend(loc="upper right", handlelength=1.0)
    panel_title(axes, "c", "Intervals by region")


def _draw_course(axes: Axes, course: pd.DataFrame) -> None:
    grid = course.pivot(index="row", columns="time", values="value")
    centres = grid.columns.to_numpy(dtype=float)
    step = (centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2
    extent = (centres[0] - step, centres[-1] + step, len(grid) - 0.5, -0.5)
    image = signed_image(axes, grid, 2, aspect="auto", extent=extent)
    axes.set(xlabel="Time in session (s)", ylabel="Units by region")
    name_regions(axes, region_blocks(course.drop_duplicates("row").sort_values("row")["region"].to_numpy()), 38)
    bar = colour_bar(image, axes, "Rate over the unit's mean", fraction=0.03, pad=0.015, aspect=20, extend="both")
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["\u00bc", "\u00bd", "1", "2", "4"])
    panel_title(axes, "d", "Course of every unit")


def _draw_bins(axes: Axes, bins: pd.DataFrame) -> None:
    names = bins["name"].astype(float).drop_duplicates().sort_values()
    shades = ("#9DBFD9", "#3E86B5", "#0B3C5D")
    for place, (name, shade) in enumerate(zip(names, shades, strict=False)):
        own = bins[bins["name"].astype(float) == name]
        shift = (place - (len(names) - 1) / 2) * 0.27
        axes.bar(own["of"] + shift, own["value"], width=0.25, color=shade, label=f"{name:g} ms")
    most = int(bins["of"].max())
    axes.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+"])
    axes.set(yscale="log", xlabel="Spikes in a bin", ylabel="Bins (%)", ylim=(1e-3, 400))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines["left"].set_bounds(1e-3, 100)  # above it there is room for the legend only
    axes.set_yticks(np.outer(10.0 ** np.arange(-3, 2), range(2, 10)).ravel(), minor=True)
    axes.yaxis.set_minor_formatter("")
    axes.legend(loc="upper right", ncols=3, handlelength=0.9, columnspacing=0.8, handletextpad=0.4)
    panel_title(axes, "e", "How full bins are")
