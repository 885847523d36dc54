"""Spikes of one test window beside the rates that each model inferred for it, unit by unit."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.figures.excerpts import (
    coarsen,
    describe_units,
    example_units,
    tested_windows,
    time_label,
    true_rates,
)
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.palette import (
    HIDDEN,
    INK,
    QUIET,
    model_colours,
    model_labels,
    model_line,
    model_order,
    rate_map,
    region_colours,
)
from pipeline_lib.figures.style import (
    FONT_SIZE,
    SHORT_WINDOW,
    SMALL_SIZE,
    colour_bar,
    legend_below,
    new_figure,
    panel_grid,
    panel_title,
    stacked,
    styled,
)
from pipeline_lib.figures.units import (
    Block,
    draw_hidden,
    hidden_runs,
    name_regions,
    region_blocks,
    unit_order,
    unit_title,
)
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

SHOWN_UNITS, SHOWN_BINS, TRACE_BINS, EXAMPLES = 80, 100, 250, 4

CAPTION = (
    "Spikes of one window of the test part, the one with the median number of spikes, beside the rates that each "
    "model inferred for it (same units, same time; the fastest units of each region where there are more than 80; the "
    "title says when time 0 was in the session). Look for the spikes' texture in the rates: a good model follows the "
    "changes of the whole population in a single trial, while a mean-rate model shows only horizontal stripes. Below, "
    "single units, by their row in the units table (the CSV has their unit_id): ticks are measured spikes, lines are "
    "rates; units marked as held out were hidden from the models at test time. Where a simulation knows the true "
    "rates, they stand beside, and are the broad grey lines below: that is what the models should find. Grey areas: "
    "not recorded."
)

PANELS_A_ROW, PANEL_HEIGHT, TRACE_HEIGHT = 6, 48.0, 27.0
TRUTH = "truth"
"""In the place of a model: the true rates of a simulation."""
TRUE_LINE: dict[str, Any] = {"color": QUIET, "lw": 2.0, "alpha": 0.55}
ROOMY_NAME = 15
"""Letters of a model's name that six maps in a row have room for in the size of other titles."""
LONG_LABELS = 110
"""Characters that fit below a row of panels."""


def data(
    trains: Path | str, split: Path | str, fits: Sequence[Path | str], recording: Path | str | None = None
) -> pd.DataFrame:
    """Spikes and rates of one test window; with a simulation's `recording`, true rates as those of a model "truth".

    Rows by `kind`: "window" (time = its start, value = its length, s; event = what it is aligned to), "clock" (value =
    its time 0 on the session clock, s), "unit" (unit_id of each of the shown units), "spike" (time of each of their
    spikes), "hidden" (time and length of what was not observed of them), "rate" (mean over a few bins of a model's
    rate, spikes/s) and "trace" (the same, finer, of the example units). `time` is in s from the event, or from the
    window's start where there is none (bin centres for rates), `unit` a row of the session's units, `row` its row in
    the raster.

    Raises
    ------
    InputError : a fit has no prediction of this session or window.
    NothingToDrawError : the session has no test window.
    """
    store, parts = Trains.open(Path(trains)), Split.read(Path(split))
    sample, start, bins = _typical_window(store, parts)
    stop = start + bins * parts.bin_ticks

    regions, heldout, rates = describe_units(store, parts)
    shown = unit_order(regions, rates, SHOWN_UNITS)
    row = np.full(store.n_units, -1)
    row[shown] = np.arange(len(shown))

    first, last = np.searchsorted(store.ticks, [start, stop])
    unit = store.unit[first:last].astype(int)
    times = (store.ticks[first:last] - start) / TICKS_PER_SECOND - parts.before
    seen = row[unit] >= 0
    length = (stop - start) / TICKS_PER_SECOND
    tables = [
        pd.DataFrame({"kind": ["window"], "event": [parts.event], "time": [0 - parts.before], "value": [length]}),
        pd.DataFrame({"kind": ["clock"], "value": [start / TICKS_PER_SECOND + parts.before]}),
        pd.DataFrame({"kind": "unit", "unit": shown, "unit_id": store.units["unit_id"].to_numpy(str)[shown]}),
        pd.DataFrame({"kind": "spike", "unit": unit[seen], "time": times[seen]}),
    ]
    bin_seconds = parts.bin_ticks / TICKS_PER_SECOND
    observed = observed_windows(store, np.array([start]), bins, parts.bin_ticks)[0][:, shown]
    hidden = hidden_runs(observed, shown)
    begin, end = hidden["first"] * bin_seconds, hidden["stop"] * bin_seconds
    spans = {"time": begin - parts.before, "value": end - begin}
    tables.append(pd.DataFrame({"kind": "hidden", "unit": hidden["unit"], **spans}))
    examples = example_units(rates, regions, heldout, shown, EXAMPLES)
    of_models = {
        model: fit.prediction(store.session, sample)[0, :bins] / bin_seconds for model, fit in first_seeds(fits).items()
    }
    true = true_rates(recording, start, bins, parts.bin_ticks) if recording is not None else None
    if true is not None:
        of_models = {TRUTH: true} | of_models
    for model, in_window in of_models.items():
        for kind, units, count in (("rate", shown, SHOWN_BINS), ("trace", examples, TRACE_BINS)):
            means, centres = coarsen(in_window[:, units], count)
            columns = {"kind": kind, "model": model, "unit": np.repeat(units, len(means)), "value": means.T.ravel()}
            tables.append(pd.DataFrame({**columns, "time": np.tile(centres * bin_seconds - parts.before, len(units))}))
    table = pd.concat(tables, ignore_index=True)
    known = table["unit"].notna()
    rows_of_units = table.loc[known, "unit"].astype(int).to_numpy()
    table.loc[known, "region"] = regions[rows_of_units]
    table.loc[known, "heldout"] = heldout[rows_of_units].astype(float)
    table.loc[known, "row"] = row[rows_of_units]
    return table[["kind", "model", "event", "unit", "unit_id", "region", "heldout", "row", "time", "value"]]


def _typical_window(store: Trains, parts: Split) -> tuple[np.ndarray, int, int]:
    """The test window with the median number of spikes: its row in the split [1], first tick and bins."""
    test = tested_windows(parts, store.session)
    starts, bins = test["start_tick"].to_numpy(), test["bins"].to_numpy(np.int64)
    spikes = np.searchsorted(store.ticks, starts + bins * parts.bin_ticks) - np.searchsorted(store.ticks, starts)
    chosen = np.argsort(spikes, kind="stable")[len(test) // 2]
    return test.index.to_numpy()[[chosen]], int(starts[chosen]), int(bins[chosen])


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Raster and one map of rates a model above; single units below."""
    kinds = {str(kind): rows for kind, rows in table.groupby("kind")}
    spikes, hidden, rates = (kinds.get(kind, table.iloc[:0]) for kind in ("spike", "hidden", "rate"))
    window = kinds["window"].iloc[0]
    span, label = (float(window["time"]), float(window["time"] + window["value"])), time_label(window["event"])
    panels = 1 + rates["model"].nunique()
    map_rows = -(-panels // PANELS_A_ROW)
    trace_rows = -(-kinds["trace"]["unit"].nunique() // 2) if "trace" in kinds else 0
    heights = [map_rows * PANEL_HEIGHT + 4, *([trace_rows * TRACE_HEIGHT + 5] if trace_rows else [])]
    figure = new_figure("double", sum(heights))
    parts = stacked(figure, heights)

    grid = parts[0].subplots(map_rows, -(-panels // map_rows), sharex=True, sharey=True, squeeze=False)
    blocks = _blocks(pd.concat([spikes, rates]).drop_duplicates("unit").sort_values("row"))
    extent = (*span, blocks[-1].stop - 0.5, -0.5)
    for place, axes in enumerate(grid.ravel()):
        axes.set_visible(place < panels)
        axes.set(xlim=extent[:2], ylim=extent[2:])
        axes.locator_params(axis="x", nbins=3 if span[1] - span[0] >= SHORT_WINDOW else 2)
    _raster(grid[0, 0], spikes, blocks)
    draw_hidden(grid[0, 0], hidden)
    panel_title(grid[0, 0], "a", f"Spikes, {kinds['clock']['value'].iloc[0]:.1f} s")
    image = _maps(grid.ravel()[1:], rates, extent)
    _name_axes(grid, panels, blocks, label)
    if image is not None:
        colour_bar(image, grid.ravel(), "Rate (spikes/s)", fraction=0.02, pad=0.012, aspect=25, extend="max")
    if trace_rows:
        _traces(parts[1], kinds["trace"], spikes, hidden, span, label)
    return figure


def _maps(panels: np.ndarray, rates: pd.DataFrame, extent: tuple[float, float, float, float]) -> AxesImage | None:
    """A map of rates a model, all on one scale, that of the image returned; None without a model."""
    image = None
    top = float(rates["value"].quantile(0.995)) if len(rates) else 1.0
    for (model, name), axes in zip(_names(rates["model"].unique()).items(), panels, strict=False):
        pivot = rates[rates["model"] == model].pivot(index="row", columns="time", values="value")
        norm = PowerNorm(0.5, vmin=0, vmax=max(top, 1e-3))
        image = axes.imshow(pivot, aspect="auto", extent=extent, cmap=rate_map(), norm=norm, interpolation="nearest")
        axes.set_title(name, fontsize=FONT_SIZE if len(name) <= ROOMY_NAME else SMALL_SIZE)
    return image


def _name_axes(grid: np.ndarray, panels: int, blocks: list[Block], label: str) -> None:
    """Regions at the left of the first `panels`, times below the lowest of them, and a line at the event."""
    columns = grid.shape[1]
    for place, axes in enumerate(grid.ravel()[:panels]):
        if axes.get_xlim()[0] < 0:
            axes.axvline(0, color=QUIET, lw=0.4, ls=(0, (2, 2)))
        if place % columns == 0:
            name_regions(axes, blocks, PANEL_HEIGHT * 0.75)
            axes.set_ylabel("Units by region")
        else:
            axes.tick_params(axis="y", length=0, labelleft=False)
            for block in blocks[1:]:
                axes.axhline(block.start - 0.5, color=QUIET, lw=0.4)
        if place + columns >= panels:
            axes.tick_params(axis="x", labelbottom=True)
            axes.set_xlabel(label if len(label) * columns <= LONG_LABELS else "Time (s)")


def _names(sources: Iterable[str]) -> dict[str, str]:
    """What models are called, the truth first, where it is among them."""
    models = model_order(sources)
    named = {TRUTH: "True rates"} if TRUTH in models else {}
    return named | model_labels(model for model in models if model != TRUTH)


def _blocks(units: pd.DataFrame) -> list[Block]:
    """Region blocks of the raster; a unit that neither fired nor was predicted keeps its row."""
    regions = units.set_index("row")["region"]
    every = regions.reindex(np.arange(units["row"].max() + 1)).ffill().bfill()
    return region_blocks(every.to_numpy())


def _raster(axes: Axes, spikes: pd.DataFrame, blocks: list[Block]) -> None:
    colours = region_colours(block.region for block in blocks)
    for region, rows in spikes.groupby("region"):
        colour = colours[str(region)]
        axes.vlines(rows["time"], rows["row"] - 0.45, rows["row"] + 0.45, color=colour, lw=0.5, rasterized=True)


def _traces(
    part: SubFigure,
    traces: pd.DataFrame,
    spikes: pd.DataFrame,
    hidden: pd.DataFrame,
    span: tuple[float, float],
    label: str,
) -> None:
    units = traces.drop_duplicates("unit")
    names = _names(traces["model"].unique())
    models = list(names)
    colours = model_colours(model for model in models if model != TRUTH)
    lines = {model: TRUE_LINE if model == TRUTH else model_line(model, colours[model]) for model in models}
    grid = panel_grid(part, len(units), 2, sharex=True)
    for place, (unit, axes) in enumerate(zip(units.itertuples(), grid, strict=True)):
        own = traces[traces["unit"] == unit.unit]
        top = max(float(own["value"].max()), 1e-3)
        for begin, length in hidden.loc[hidden["unit"] == unit.unit, ["time", "value"]].to_numpy():
            axes.axvspan(begin, begin + length, color=HIDDEN, lw=0)
        times = spikes.loc[spikes["unit"] == unit.unit, "time"]
        axes.vlines(times, -0.24 * top, -0.08 * top, color=INK, lw=0.6)
        for model in models:
            line = own[own["model"] == model]
            axes.plot(line["time"], line["value"], **lines[model])
        about = unit_title(unit.unit, unit.region, unit.heldout)
        if place == 0:
            panel_title(axes, "b", about)
        else:
            axes.set_title(about)
        axes.set(xlim=span, ylim=(-0.3 * top, 1.08 * top), ylabel="Rate (spikes/s)")
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1.08 * top])
        if place + 2 >= len(units):
            axes.tick_params(axis="x", labelbottom=True)
            axes.set_xlabel(label)
    handles = [Line2D([], [], label=names[model], **lines[model]) for model in models]
    ticks = Line2D([], [], color=INK, marker="|", ls="", ms=SMALL_SIZE, mew=0.6, label="Measured spikes")
    legend_below(part, [ticks, *handles])
