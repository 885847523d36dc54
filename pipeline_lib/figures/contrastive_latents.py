"""Contrastive features of windows in two dimensions, coloured by behaviour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from pipeline_lib.clock import to_seconds
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.embedding import principal_components
from pipeline_lib.figures.excerpts import tested_windows
from pipeline_lib.figures.fits import Fit, first_seeds
from pipeline_lib.figures.palette import QUIET, rate_map
from pipeline_lib.figures.style import colour_bar, new_figure, panel_title, styled, with_unit
from pipeline_lib.trains.signals import read_signals, signal_unit
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

SHOWN, NEIGHBOURS = 2000, 20

CAPTION = (
    "Windows of the test part by their contrastive features, on the first two principal components of each kind: what "
    "the model draws together for spikes and for what was seen or done in the same window. A dot is a window; its "
    "colour is what the animal did, which a feature knows only where it is made of that (Signals). Where colours "
    "part, the feature carries the behaviour: R² above each panel says how well the mean over the 20 nearest dots of "
    "other samples tells that of a dot; 1 is exactly, and at 0 or below nothing parts. Axes of different panels are "
    "not the same."
)

PREFIX = "feature_"
"""Of the names of features among the extras of a fit."""


def data(trains: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Places of test windows: feature, x, y (principal components), share (of the variance, of both), variable,
    signal_unit ("" where it is not known), value, and r2 of each feature (see `neighbour_r2`).

    Raises
    ------
    NothingToDrawError : no model has contrastive features (`contrastive` of the Neuroformer), or the session has no
        test window.
    """
    opened, parts = Trains.open(trains), Split.read(split)
    session = opened.session
    names = {
        fit: [name for name in fit.extras(session) if name.startswith(PREFIX)] for fit in first_seeds(fits).values()
    }
    fit = next((fit for fit in names if names[fit]), None)
    if fit is None:
        raise NothingToDrawError("No model has contrastive features: set `contrastive` of the Neuroformer.")
    test = tested_windows(parts, session).index.to_numpy()
    tables = []
    for name in names[fit]:
        values = fit.extra(session, name, test)
        windows = values.shape[1]
        place = pd.DataFrame({"sample": np.repeat(test, windows), "window": np.tile(np.arange(windows), len(test))})
        flat = values.reshape(-1, values.shape[2]).astype(float)
        known = np.isfinite(flat).all(axis=1)
        scores, shares = principal_components(flat[known], 2)
        found = {"x": scores[:, 0], "y": scores[:, 1], "share": float(shares[:2].sum())}
        place = place[known].assign(feature=name.removeprefix(PREFIX), **found)
        step = max(1, -(-len(place) // SHOWN))
        tables.append(place.iloc[::step])
    table = pd.concat(tables, ignore_index=True)
    settings = yaml.safe_load((fit.directory / "config.yaml").read_text())
    behaviour: pd.DataFrame | None
    if "signals" in settings["contrastive"]:
        behaviour = _given(opened, parts.samples, settings, table[["sample", "window"]].drop_duplicates())
    else:
        behaviour = _read_out(fit, session)
    if behaviour is None:
        return table.assign(variable="", signal_unit="", value=np.nan, r2=np.nan).drop(columns=["sample", "window"])
    table = table.merge(behaviour, on=["sample", "window"], how="left")
    table["signal_unit"] = table["variable"].map(lambda name: signal_unit(opened, name), na_action="ignore")
    table["r2"] = table["feature"].map({name: neighbour_r2(rows) for name, rows in table.groupby("feature")})
    return table.drop(columns=["sample", "window"])


def neighbour_r2(table: pd.DataFrame) -> float:
    """R² of the value of each dot (columns x, y, value, sample) as the mean over the nearest dots of other samples.

    Windows of one sample are neighbours in time and alike for that alone. NaN where values do not differ, or where
    there are too few dots.
    """
    known = table.dropna(subset=["value"])
    value, sample, x, y = (known[name].to_numpy() for name in ("value", "sample", "x", "y"))
    own = sample[:, None] == sample
    if not len(known) or (~own).sum(1).min() < NEIGHBOURS or np.ptp(value) == 0:
        return float("nan")
    distance = np.where(own, np.inf, (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)
    nearest = np.argpartition(distance, NEIGHBOURS - 1)[:, :NEIGHBOURS]
    return float(1 - ((value - value[nearest].mean(1)) ** 2).sum() / ((value - value.mean()) ** 2).sum())


def _given(trains: Trains, samples: pd.DataFrame, settings: dict[str, Any], windows: pd.DataFrame) -> pd.DataFrame:
    """The first signal that the model was given, in the middle of each window: sample, window, variable, value."""
    name = settings["signals"][0]
    start = to_seconds(samples["start_tick"].loc[windows["sample"]].to_numpy(dtype=np.int64))
    middle = start + (windows["window"].to_numpy() + 0.5) * settings["window"]
    return windows.assign(variable=name, value=read_signals(trains, [name], middle, [False])[:, 0])


def _read_out(fit: Fit, session: str) -> pd.DataFrame | None:
    """The first variable that the model reads out, as measured: sample, window, variable, value."""
    if not fit.has_table("decoding"):
        return None
    table = fit.table("decoding", session)
    table = table[table["split"] == "test"]
    table = table[table["variable"] == table["variable"].iloc[0]]
    window = table.groupby("sample").cumcount()
    return table.assign(window=window).rename(columns={"true": "value"})[["sample", "window", "variable", "value"]]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a feature."""
    features = list(table["feature"].unique())
    figure = new_figure("wide" if len(features) < 3 else "double", 60)
    grid = figure.subplots(1, len(features), squeeze=False)[0]
    for letter, feature, axes in zip("abc", features, grid, strict=False):
        rows = table[table["feature"] == feature]
        look: dict[str, Any] = {"cmap": rate_map(), "s": 3, "lw": 0.1, "edgecolors": QUIET, "plotnonfinite": True}
        dots = axes.scatter(rows["x"], rows["y"], c=rows["value"], **look)
        share, r2 = 100 * rows["share"].iloc[0], rows["r2"].iloc[0]
        told = f"\nR² {r2:.2f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(r2) else ""
        panel_title(axes, letter, f"{feature.capitalize()} ({share:.0f} % of variance){told}")
        axes.set_xlabel("First component")
        axes.set_ylabel("Second component")
    named = table[table["variable"].fillna("") != ""]
    if len(named):
        first = named.iloc[0]
        label = with_unit(first["variable"].replace("/", ": ").capitalize(), first["signal_unit"])
        colour_bar(dots, grid, label, shrink=0.8)
    return figure
