"""Spikes that a model wrote beside those that were recorded: rasters and what they have in common."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.style import INK, QUIET, model_colours, model_name, new_figure, panel_title, stacked, styled

CAPTION = (
    "Spikes that the model wrote in the place of test windows, each from its history on and then from what it had "
    "written itself. A, recorded and B, generated spikes of the same windows. C, rate of every unit, recorded and "
    "generated. D, intervals between spikes of a unit inside a window. E, correlation of pairs of units in bins of "
    "about 50 ms. Points on the diagonal, and curves that cover each other, say that the model has learned how these "
    "units fire; a window need not look like the one recorded."
)

SHOWN_SECONDS, SHOWN_UNITS, COARSE = 8.0, 60, 0.05
LONGEST = 1.0
"""Seconds of the longest interval between spikes that is shown."""


def data(trains: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Rasters and statistics of the first model that has generated anything.

    Rows by `kind`: "spike" (source "recorded" or "generated", x = time in s, y = unit), "rate" and "correlation"
    (x recorded, y generated) and "interval" (source, x = ms, y = share of the intervals that are not longer).

    Raises
    ------
    NothingToDrawError : no model has generated spikes (`rollouts` of the Neuroformer).
    """
    from pipeline_lib.trains.binning import bin_windows
    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains

    recorded, parts = Trains.open(trains), Split.read(split)
    found = first_table(fits, "generated")
    if found is None:
        raise NothingToDrawError("No model has generated spikes: set `rollouts` of the Neuroformer.")
    model, path = found
    spikes = pd.read_parquet(path)
    spikes = spikes[(spikes["session"] == recorded.session) & (spikes["rollout"] == 0)]
    samples = parts.part(recorded.session, "test")
    bins, seconds = int(samples["bins"].max()), parts.bin_size / 1000
    heldin = np.setdiff1d(np.arange(recorded.n_units), parts.heldout[recorded.session])
    true = bin_windows(recorded, samples["start_tick"].to_numpy(), bins, parts.bin_ticks)
    inside = np.arange(bins) < samples["bins"].to_numpy()[:, None]
    true = (true * inside[:, :, None])[:, :, heldin].astype(np.int64)
    made = np.zeros((len(samples), bins, recorded.n_units), np.int64)
    np.add.at(made, (samples.index.get_indexer(pd.Index(spikes["sample"])), spikes["bin"], spikes["unit"]), 1)
    made = made[:, :, heldin]

    shown = max(1, round(SHOWN_SECONDS / (bins * seconds)))
    tables = [_statistics(true, made, inside, seconds)]
    for source, counts in (("recorded", true), ("generated", made)):
        window, bin_, unit = np.nonzero(counts[:shown, :, :SHOWN_UNITS])
        tables.append(
            pd.DataFrame({"kind": "spike", "source": source, "x": (window * bins + bin_) * seconds, "y": unit})
        )
        tables.append(_intervals(counts, seconds).assign(source=source))
    return pd.concat(tables, ignore_index=True).assign(model=model)[["model", "kind", "source", "x", "y"]]


def first_table(fits: Sequence[Path | str], name: str) -> tuple[str, Path] | None:
    """The first model whose fit has the table `name`, and its path; None where there is none."""
    paths = {model: fit.directory / "tables" / f"{name}.parquet" for model, fit in first_seeds(fits).items()}
    return next(((model, path) for model, path in paths.items() if path.is_file()), None)


def _statistics(true: np.ndarray, made: np.ndarray, inside: np.ndarray, seconds: float) -> pd.DataFrame:
    duration = inside.sum() * seconds
    rates = [counts.sum((0, 1)) / duration for counts in (true, made)]
    width = max(1, round(COARSE / seconds))
    pairs = np.triu_indices(true.shape[2], 1)
    correlations = []
    for counts in (true, made):
        whole = counts[:, : counts.shape[1] // width * width]
        coarse = whole.reshape(len(counts), -1, width, counts.shape[2]).sum(2).reshape(-1, counts.shape[2])
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations.append(np.corrcoef(coarse.T)[pairs])
    frames = [
        pd.DataFrame({"kind": kind, "source": "", "x": x, "y": y})
        for kind, (x, y) in (("rate", rates), ("correlation", correlations))
    ]
    return pd.concat(frames, ignore_index=True).dropna()


def _intervals(counts: np.ndarray, seconds: float) -> pd.DataFrame:
    """Intervals between bins with spikes, within a window and a unit."""
    window, unit, bin_ = np.nonzero(counts.transpose(0, 2, 1))
    same = (np.diff(window) == 0) & (np.diff(unit) == 0)
    found = np.bincount(np.diff(bin_)[same], minlength=1).cumsum()
    shown = np.unique(np.geomspace(1, LONGEST / seconds, 40).round().astype(int))
    share = found[shown.clip(max=len(found) - 1)] / max(found[-1], 1)
    return pd.DataFrame({"kind": "interval", "x": shown * seconds * 1000, "y": share})


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Two rasters above, three statistics below."""
    model = table["model"].iloc[0]
    colours = {"recorded": INK, "generated": model_colours([model])[model]}
    figure = new_figure("double", 92)
    above, below = stacked(figure, [1.1, 1])
    rasters = above.subplots(1, 2, sharey=True)
    names = {"recorded": "Recorded", "generated": f"Generated by {model_name(model)}"}
    for axes, letter, (source, name) in zip(rasters, "AB", names.items(), strict=True):
        spikes = table[(table["kind"] == "spike") & (table["source"] == source)]
        axes.plot(spikes["x"], spikes["y"], "|", ms=2.2, mew=0.5, color=colours[source])
        panel_title(axes, letter, name)
        axes.set_xlabel("Time in test windows (s)")
    rasters[0].set_ylabel("Unit")
    panels = below.subplots(1, 3)
    _against(panels[0], table[table["kind"] == "rate"], colours["generated"], "spikes/s")
    panel_title(panels[0], "C", "Rates")
    for source, colour in colours.items():
        curve = table[(table["kind"] == "interval") & (table["source"] == source)]
        panels[1].plot(curve["x"], curve["y"], color=colour, label=source.capitalize())
    panels[1].set_xscale("log")
    panels[1].set_xlabel("Interval between spikes (ms)")
    panels[1].set_ylabel("Share not longer")
    panels[1].legend()
    panel_title(panels[1], "D", "Intervals")
    _against(panels[2], table[table["kind"] == "correlation"], colours["generated"], "r")
    panel_title(panels[2], "E", "Correlations of pairs")
    return figure


def _against(axes: Axes, points: pd.DataFrame, colour: str, unit: str) -> None:
    """Generated against recorded, with the diagonal and how well they agree."""
    low, high = points[["x", "y"]].min().min(), points[["x", "y"]].max().max()
    axes.plot([low, high], [low, high], color=QUIET, lw=0.6)
    axes.plot(points["x"], points["y"], "o", ms=1.6, mew=0, alpha=0.6, color=colour)
    axes.set_xlabel(f"Recorded ({unit})")
    axes.set_ylabel(f"Generated ({unit})")
    r = points["x"].corr(points["y"]) if len(points) > 2 else np.nan
    axes.text(0.05, 0.95, f"r = {r:.2f}", transform=axes.transAxes, va="top", color=QUIET)
