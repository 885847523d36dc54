"""Average responses to a condition, measured and as each model has it, for a handful of units."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.excerpts import coarsen_trials, describe_units, example_units, tested_windows, time_label
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import INK, QUIET, model_colours, model_key, model_line, model_order
from pipeline_lib.figures.style import SHORT_WINDOW, legend_below, new_figure, styled
from pipeline_lib.figures.units import unit_title
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

EXAMPLES, CONDITIONS, SHOWN_BINS = 4, 4, 25

CAPTION = (
    "Average response to a condition over the trials of the test part: measured (black, shaded by one standard error "
    "of the mean) and the mean of each model's single-trial rates over the same trials (coloured); at most 4 "
    "conditions, those with most trials, and 4 of the faster units, by their row in the units table (the CSV has "
    "their unit_id). Look for responses that a model flattens or delays. A model that follows single trials must also "
    "have their average right; the reverse does not hold, so read this figure together with the scores."
)

ROW_HEIGHT = 29.0


def data(trains: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Mean rates over the test trials of a condition, for the conditions with most trials and a few fast units.

    Columns: source ("measured" or a model), condition, trials (how many), unit (row of the session's units), unit_id,
    region, heldout, event (what the trials are aligned to), time (s from it, bin centres), value (spikes/s), error
    (standard error over trials; NaN for a model). Bins are averaged to `SHOWN_BINS` at most; bins not observed in a
    trial do not count.

    Raises
    ------
    NothingToDrawError : windows come from continuous time, or none is in the test part.
    """
    store, parts = Trains.open(Path(trains)), Split.read(Path(split))
    test = tested_windows(parts, store.session)
    test = test[test["trial"] >= 0]
    if len(test) == 0:
        raise NothingToDrawError(f"The test windows of {store.session} follow no trials: nothing to average.")
    regions, heldout, rates = describe_units(store, parts)
    units = example_units(rates, regions, heldout, np.arange(store.n_units), EXAMPLES)

    bins, bin_seconds = int(test["bins"].max()), parts.bin_ticks / TICKS_PER_SECOND
    starts = test["start_tick"].to_numpy()
    counts = bin_windows(store, starts, bins, parts.bin_ticks)[..., units].astype(float)
    seen = observed_windows(store, starts, bins, parts.bin_ticks)[..., units]
    seen &= (np.arange(bins) < test["bins"].to_numpy()[:, None])[..., None]
    sources = {"measured": counts}
    for model, fit in first_seeds(fits).items():
        sources[model] = fit.prediction(store.session, test.index.to_numpy())[:, :bins][..., units].astype(float)

    conditions = test["condition"].astype(str)
    tables = []
    for condition, size in conditions.value_counts(sort=True).sort_index(kind="stable").nlargest(CONDITIONS).items():
        of_condition = (conditions == condition).to_numpy()
        for source, values in sources.items():
            trials, centres = coarsen_trials(np.where(seen, values, np.nan)[of_condition], SHOWN_BINS)
            mean, error = _average(trials)
            tables.append(
                pd.DataFrame(
                    {
                        "source": source,
                        "condition": str(condition),
                        "trials": size,
                        "unit": np.repeat(units, len(centres)),
                        "unit_id": np.repeat(store.units["unit_id"].to_numpy(str)[units], len(centres)),
                        "region": np.repeat(regions[units], len(centres)),
                        "heldout": np.repeat(heldout[units], len(centres)),
                        "event": parts.event,
                        "time": np.tile(centres * bin_seconds - parts.before, len(units)),
                        "value": mean.T.ravel() / bin_seconds,
                        "error": error.T.ravel() / bin_seconds if source == "measured" else np.nan,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _average(trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over trials [trial, T, unit] and its standard error, NaN where no trial was observed, or only one."""
    n = np.isfinite(trials).sum(axis=0)
    mean = np.nansum(trials, axis=0) / np.where(n, n, np.nan)
    spread = np.sqrt(np.nansum((trials - mean) ** 2, axis=0) / np.where(n > 1, n - 1, np.nan))
    return mean, spread / np.sqrt(np.where(n, n, np.nan))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a condition, a column a unit; measured in black, models in their colours."""
    conditions = table["condition"].astype(str).drop_duplicates().tolist()
    units = table.drop_duplicates("unit")
    models = model_order(source for source in table["source"].unique() if source != "measured")
    colours = model_colours(models)
    label, before = time_label(table["event"].iloc[0]), table["time"].min() < 0
    figure = new_figure("double", len(conditions) * ROW_HEIGHT + 12)
    grid = figure.subplots(len(conditions), len(units), sharex=True, sharey="col", squeeze=False)
    for axes_row, condition, name in zip(grid, conditions, told_apart(conditions), strict=True):
        rows = table[table["condition"].astype(str) == condition]
        trials = int(rows["trials"].to_numpy()[0])
        for column, (axes, unit) in enumerate(zip(axes_row, units.itertuples(), strict=True)):
            own = dict(iter(rows[rows["unit"] == unit.unit].groupby("source")))
            measured = own["measured"]
            low, high = measured["value"] - measured["error"], measured["value"] + measured["error"]
            axes.fill_between(measured["time"], low.clip(lower=0), high, color=INK, alpha=0.16, lw=0)
            axes.plot(measured["time"], measured["value"], color=INK, lw=0.8)
            for model in models:
                axes.plot(own[model]["time"], own[model]["value"], **model_line(model, colours[model]))
            axes.margins(x=0)
            if before:
                axes.axvline(0, color=QUIET, lw=0.4, ls=(0, (2, 2)), zorder=0)
            if condition == conditions[0]:
                axes.set_title(unit_title(unit.unit, unit.region, unit.heldout, "\n"))
            if condition == conditions[-1]:
                axes.set_xlabel(label)
            if column == 0:
                axes.set_ylabel(f"{name or 'All trials'}\nn = {trials}\nRate (spikes/s)")
    if np.ptp(table["time"]) < SHORT_WINDOW:
        grid[0, 0].locator_params(axis="x", nbins=3)
    for axes in grid[0]:  # after all conditions are drawn: they share the axis
        axes.set_ylim(bottom=0)
    # Of one trial there is neither mean nor error.
    name = "Measured, mean \u00b1 s.e.m." if table["error"].notna().any() else "Measured"
    measured_line = Line2D([], [], color=INK, lw=0.8, label=name)
    handles = [measured_line, *model_key(models)]
    legend_below(figure, handles)
    return figure
