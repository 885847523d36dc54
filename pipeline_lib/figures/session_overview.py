"""What a session holds: its spikes, its rates by region, its course, and what the selection kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures.excerpts import unit_ids
from pipeline_lib.figures.names import short_names
from pipeline_lib.figures.palette import FAINT, HIDDEN, INHIBITION, INK, QUIET, region_colours
from pipeline_lib.figures.points import side_by_side
from pipeline_lib.figures.style import log_axis, new_figure, panel_title, stacked, styled
from pipeline_lib.figures.unit_quality import LEAST_RATE, QUALITIES, draw_quality, quality_histograms
from pipeline_lib.figures.units import draw_hidden, name_regions, region_blocks, unit_order
from pipeline_lib.recording import read_description
from pipeline_lib.sources.candidates import EXCERPT, excerpt
from pipeline_lib.sources.presence import presence, while_present

SHOWN_UNITS, SHOWN_SPIKES, COURSE_BINS, SHOWN_REGIONS = 120, 15_000, 120, 10

CAPTION = (
    "The session as the models see it. (a) Spikes of at most 10 seconds in the middle of it, units grouped by region "
    "(of more than 120 the fastest of each); rows of grey spikes are units that the selection left out, grey bands "
    "times in which a unit was not recorded. (b) Mean rate of every unit, silent ones at 0.001 spikes/s; the bar is "
    "the region's median. Silent or absurdly fast units point to a selection that is too loose. (c) Mean rate over "
    "units through the session, trials as ticks above; grey where nothing was recorded: look for drifts and "
    "drop-outs. (d) What the selection kept. (e-g) Where it left units out, the quality of all units of the regions "
    "shown, kept ones in blue, the others in grey: mean rate, share of the session in which they fired, share of "
    "intervals in which no neuron can fire. Look for good units that were lost."
)

FEW_REGIONS = 3
LEFT_OUT = "#9A9A9A"


def data(recording: Path | str) -> pd.DataFrame:
    """What the panels show.

    Rows by `panel`: "raster" (time in s on the session clock, unit, region, row of the raster, -1 for a unit not in
    it), "hidden" (time and value = start and length of what was not observed of a unit), "left out" (time, region and
    row of the raster: spikes of a unit that the selection left out, and one row without a time for each such unit, with
    its rate as value), "rate" (unit, region, value in spikes/s while it was observed; `unit` is a row of the session's
    units, `unit_id` their name in the source, also of those left out), "course" (time = bin centre, s;
    value = mean rate over the units observed, in spikes/s; NaN where the bin was observed for less than half as long as
    others), "trial" (time = start, s), "count" (region = what is counted, value = kept, of = before the selection) and,
    where the selection left units out, "rate before", "presence before" and "violations before" (value = middle of a
    bin of a histogram, spikes/s or %, kept and of = units kept, and all units, in the regions of which some were kept).

    Raises
    ------
    InputError : the directory is not a complete recording.
    """
    recording = Path(recording)
    about = read_description(recording)
    spikes = pd.read_parquet(recording / "spikes.parquet", columns=["time", "unit"])
    times, unit = spikes["time"].to_numpy(), spikes["unit"].to_numpy()
    regions = pd.read_parquet(recording / "units.parquet", columns=["region"])["region"].to_numpy(dtype=object)
    names = unit_ids(recording)
    trials = pd.read_parquet(recording / "trials.parquet", columns=["start"])["start"].to_numpy(dtype=float)
    observed = np.array(about["observed"], dtype=float)

    own = recording / "unit_intervals.parquet"
    present = presence(observed, pd.read_parquet(own) if own.exists() else None, len(regions))
    seen = while_present(times, unit, present)
    seconds = np.array([np.diff(intervals).sum() for intervals in present])
    rates = np.bincount(unit[seen], minlength=len(regions)) / np.where(seconds > 0, seconds, np.nan)
    others = _left_out(recording, regions)
    # Those left out of a region follow those that were kept of it.
    groups = np.concatenate([regions, others["region"].to_numpy() + " left out"])
    order = unit_order(groups, np.concatenate([rates, others["value"]]), SHOWN_UNITS)
    place = np.full(len(groups), -1)
    place[order] = np.arange(len(order))
    row, others["row"] = place[: len(regions)], place[len(regions) :]
    others = others[others["row"] >= 0]
    shown = np.flatnonzero(row >= 0)
    rate = np.nansum(rates[shown]) + others["value"].sum()
    start, stop = excerpt(trials, observed, min(EXCERPT, SHOWN_SPIKES / max(rate, 1e-9)))
    first, last = np.searchsorted(times, [start, stop])
    kept = np.flatnonzero(row[unit[first:last]] >= 0) + first
    tables = [
        pd.DataFrame({"panel": "raster", "time": times[kept], "unit": unit[kept]}),
        _hidden(present, shown, start, stop),
        _spikes_left_out(others, start, stop),
        pd.DataFrame({"panel": "rate", "unit": np.arange(len(regions)), "value": rates}),
        _course(times[seen], observed, present, float(about["duration"])),
        pd.DataFrame({"panel": "trial", "time": trials}),
        _counts(about["counts"], len(regions), len(times), len(trials)),
        *quality_histograms(recording),
    ]
    table = pd.concat(tables, ignore_index=True)
    known = table["unit"].notna()
    units = table.loc[known, "unit"].astype(int)
    table.loc[known, "region"], table.loc[known, "row"] = regions[units], row[units]
    table.loc[known, "unit_id"] = names[units]
    return table.reindex(columns=["panel", "time", "unit", "unit_id", "region", "row", "value", "kept", "of"])


def _left_out(recording: Path, regions: np.ndarray) -> pd.DataFrame:
    """Units that the selection left out of the regions of which it kept some: unit_id, region, value (spikes/s),
    excerpt."""
    path, columns = recording / "candidates.parquet", ["unit_id", "region", "rate", "excerpt"]
    if path.exists():
        units = pd.read_parquet(path, columns=[*columns, "kept"])
        units = units[~units["kept"] & units["region"].isin(regions)].drop(columns="kept").astype({"region": object})
    else:
        units = pd.DataFrame(columns=columns).astype({"rate": float})
    return units.rename(columns={"rate": "value"})


def _spikes_left_out(units: pd.DataFrame, start: float, stop: float) -> pd.DataFrame:
    """The units and, below, their spikes from `start` to `stop`, a row each."""
    spikes = units[["unit_id", "region", "row", "excerpt"]].explode("excerpt").rename(columns={"excerpt": "time"})
    spikes = spikes.astype({"time": float})
    table = pd.concat([units.drop(columns="excerpt"), spikes[spikes["time"].between(start, stop)]], ignore_index=True)
    return table.assign(panel="left out")


def _hidden(present: list[np.ndarray], shown: np.ndarray, start: float, stop: float) -> pd.DataFrame:
    """The parts of `start` to `stop` in which a shown unit was not observed."""
    rows = []
    for unit in shown:
        inside = np.clip(present[unit], start, stop)
        edges = np.concatenate([[start], inside[np.argsort(inside[:, 0])].ravel(), [stop]]).reshape(-1, 2)
        rows += [(unit, first, last - first) for first, last in edges if last > first]
    return pd.DataFrame(rows, columns=["unit", "time", "value"]).assign(panel="hidden")


def _course(times: np.ndarray, observed: np.ndarray, present: list[np.ndarray], duration: float) -> pd.DataFrame:
    edges = np.linspace(0, duration, COURSE_BINS + 1)
    counts = np.diff(np.searchsorted(times, edges)).astype(float)
    intervals = np.concatenate(present)
    unit_seconds = np.diff(_seconds_before(intervals, edges))  # summed over units
    seconds = np.diff(_seconds_before(observed, edges))
    enough = (seconds >= 0.5 * np.median(seconds[seconds > 0])) & (unit_seconds > 0)
    value = np.where(enough, counts / np.where(enough, unit_seconds, 1), np.nan)
    return pd.DataFrame({"panel": "course", "time": (edges[1:] + edges[:-1]) / 2, "value": value})


def _seconds_before(intervals: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Total length of the intervals (k, 2) up to each edge."""
    start, stop = np.sort(intervals[:, 0]), np.sort(intervals[:, 1])
    begun, ended = np.searchsorted(start, edges), np.searchsorted(stop, edges)
    sum_start, sum_stop = np.concatenate([[0], np.cumsum(start)]), np.concatenate([[0], np.cumsum(stop)])
    return (begun - ended) * edges - sum_start[begun] + sum_stop[ended]


def _counts(counts: dict[str, int], units: int, spikes: int, trials: int) -> pd.DataFrame:
    kept = {"units": units, "spikes": spikes, "trials": trials}
    before = [counts.get(f"{name}_before", value) for name, value in kept.items()]
    table = pd.DataFrame({"panel": "count", "region": list(kept), "value": list(kept.values()), "of": before})
    return table[table["of"] > 0]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Raster and rates by region above, the session's course and the selection below."""
    panels = {str(panel): rows for panel, rows in table.groupby("panel")}
    regions = panels["rate"]["region"].astype(str)
    largest = regions.value_counts().head(SHOWN_REGIONS).index
    qualities = [name for name in QUALITIES if f"{name} before" in panels]
    figure = new_figure("double", 102 + 36 * bool(qualities))
    parts = stacked(figure, (102, 36)) if qualities else [figure]
    grid = parts[0].subplots(2, 2, width_ratios=(2.3, 1), height_ratios=(2.2, 1))
    none = table.iloc[:0]
    _raster(grid[0, 0], panels.get("raster", none), panels["rate"], panels.get("left out", none))
    draw_hidden(grid[0, 0], panels.get("hidden", none))
    _rates(grid[0, 1], panels["rate"], sorted(largest), regions)
    _draw_course(grid[1, 0], panels["course"], panels.get("trial", none))
    _draw_counts(grid[1, 1], panels["count"])
    if qualities:
        row = parts[1].subplots(1, len(qualities), sharey=True, squeeze=False)[0]
        for axes, letter, name in zip(row, "efg", qualities, strict=False):
            draw_quality(axes, panels[f"{name} before"], name)
            panel_title(axes, letter, QUALITIES[name][0])
        row[0].set_ylabel("Units")
        row[0].legend(loc="upper left", handlelength=1.0)
    return figure


def _raster(axes: Axes, spikes: pd.DataFrame, units: pd.DataFrame, left_out: pd.DataFrame) -> None:
    colours = region_colours(units["region"].astype(str))
    look: dict[str, Any] = {"lw": 0.4, "rasterized": True}
    for region, rows in spikes.groupby("region"):
        axes.vlines(rows["time"], rows["row"] - 0.45, rows["row"] + 0.45, color=colours[str(region)], **look)
    axes.vlines(left_out["time"], left_out["row"] - 0.45, left_out["row"] + 0.45, color=LEFT_OUT, **look)
    shown = pd.concat([units[units["row"] >= 0], left_out[left_out["time"].isna()]]).sort_values("row")
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel="Time in session (s)", ylabel="Units by region")
    name_regions(axes, region_blocks(shown["region"].to_numpy()), 55)
    axes.margins(x=0.005)
    panel_title(axes, "a", "Spikes" if left_out.empty else "Spikes; grey: units left out")


def _rates(axes: Axes, rates: pd.DataFrame, shown: list[str], regions: pd.Series) -> None:
    colours = region_colours(regions)
    for place, region in enumerate(shown):
        values = rates.loc[rates["region"] == region, "value"].dropna().clip(lower=LEAST_RATE)
        axes.plot(values, place + 0.6 * side_by_side(len(values)), "o", ms=2.0, color=colours[region], alpha=0.6, mew=0)
        if len(values) > 1:  # else it would hide the point
            axes.vlines(values.median(), place - 0.4, place + 0.4, color=INK, lw=1.2)
    counts = rates["region"].value_counts()
    names = short_names(shown)
    axes.set_yticks(range(len(shown)), [f"{names[region]} ({counts[region]})" for region in shown])
    room = max(0.0, (FEW_REGIONS - len(shown)) / 2)  # one region alone would fill the panel
    axes.set(ylim=(len(shown) - 0.4 + room, -0.6 - room), xlabel="Mean rate (spikes/s)")
    log_axis(axes.xaxis, rates["value"].clip(lower=LEAST_RATE))
    axes.tick_params(axis="y", length=0)
    title = (
        "Rates by region (units)" if len(shown) == regions.nunique() else f"The {len(shown)} largest regions (units)"
    )
    panel_title(axes, "b", title)


def _draw_course(axes: Axes, course: pd.DataFrame, trials: pd.DataFrame) -> None:
    step = course["time"].diff().median()
    for time in course.loc[course["value"].isna(), "time"]:
        axes.axvspan(time - step / 2, time + step / 2, color=HIDDEN, lw=0)
    axes.plot(course["time"], course["value"], color=INHIBITION, lw=0.8)
    across = axes.get_xaxis_transform()
    axes.vlines(trials["time"], 1.02, 1.07, color=QUIET, lw=0.3, transform=across, clip_on=False)
    axes.set(xlabel="Time in session (s)", ylabel="Rate (spikes/s\nper unit)", ylim=(0, None))
    axes.set_xlim(0, course["time"].iloc[-1] + step / 2)
    number = f", {len(trials)} trial{'s' * (len(trials) > 1)}" if len(trials) else ""
    panel_title(axes, "c", f"Course of the session{number}", pad=8)


def _draw_counts(axes: Axes, counts: pd.DataFrame) -> None:
    places = np.arange(len(counts))
    axes.barh(places, 100, height=0.42, color=FAINT)
    axes.barh(places, 100 * counts["value"] / counts["of"], height=0.42, color=INHIBITION)
    for place, row in zip(places, counts.itertuples(), strict=True):
        text = f"{row.region}: {row.value:,.0f} of {row.of:,.0f}"
        axes.annotate(text, (0, place - 0.3), va="bottom", fontsize="small")
    axes.set(yticks=[], xlim=(0, 100), ylim=(len(counts) - 0.6, -1.0), xlabel="Kept by the selection (%)")
    axes.spines["left"].set_visible(False)
    panel_title(axes, "d", "Selection")
