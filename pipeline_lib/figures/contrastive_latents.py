"""Contrastive features of windows in two dimensions, coloured by behaviour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.style import new_figure, panel_title, rate_map, styled

CAPTION = (
    "Windows of the test part by their contrastive features, on the first two principal components of each kind: what "
    "the model draws together for spikes and for what was seen or done in the same window. A dot is a window; its "
    "colour is what the animal did, which the features were not told. Where colours part, the feature carries the "
    "behaviour: R² above each panel says how well the mean over the 20 nearest dots of other samples tells that of a "
    "dot; 1 is exactly, and at 0 or below nothing parts. Axes of different panels are not the same."
)

SHOWN = 2000
NEIGHBOURS = 20


def data(trains: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Places of test windows: feature, x, y (principal components), share (of the variance, of both), variable, value,
    and r2 of each feature (see `neighbour_r2`).

    Raises
    ------
    NothingToDrawError : no model has contrastive features (`contrastive` of the Neuroformer).
    """
    import zarr

    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains

    session = Trains.open(trains).session
    for fit in first_seeds(fits).values():
        group = zarr.open_group(str(fit.directory / "predictions.zarr"), mode="r")
        extras = f"{session}/extras"
        names = [name for name in group[extras] if name.startswith("feature_")] if extras in group else []
        if names:
            break
    else:
        raise NothingToDrawError("No model has contrastive features: set `contrastive` of the Neuroformer.")
    sample = np.asarray(group[f"{session}/sample"][:])
    test = (Split.read(split).samples["split"].loc[sample] == "test").to_numpy()
    behaviour = _behaviour(fit.directory / "tables" / "decoding.parquet", session)
    tables = []
    for name in sorted(names):
        values = np.asarray(group[f"{extras}/{name}"][:])[test]
        windows = values.shape[1]
        place = pd.DataFrame(
            {"sample": np.repeat(sample[test], windows), "window": np.tile(np.arange(windows), test.sum())}
        )
        flat = values.reshape(-1, values.shape[2]).astype(float)
        known = np.isfinite(flat).all(1)
        flat, place = flat[known], place[known]
        centred = flat - flat.mean(0)
        _, size, axes = np.linalg.svd(centred, full_matrices=False)
        place = place.assign(
            feature=name.removeprefix("feature_"),
            x=centred @ axes[0],
            y=centred @ axes[1],
            share=float((size[:2] ** 2).sum() / (size**2).sum()),
        )
        step = max(1, -(-len(place) // SHOWN))
        tables.append(place.iloc[::step])
    table = pd.concat(tables, ignore_index=True)
    if behaviour is None:
        return table.assign(variable="", value=np.nan, r2=np.nan).drop(columns=["sample", "window"])
    table = table.merge(behaviour, on=["sample", "window"], how="left")
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


def _behaviour(path: Path, session: str) -> pd.DataFrame | None:
    """The first variable that the model reads out, as measured: sample, window, variable, value."""
    if not path.is_file():
        return None
    table = pd.read_parquet(path).query("session == @session and split == 'test'")
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
        dots = axes.scatter(rows["x"], rows["y"], c=rows["value"], cmap=rate_map(), s=3, lw=0.1, edgecolors="#6E6E6E")
        share, r2 = 100 * rows["share"].iloc[0], rows["r2"].iloc[0]
        told = f", R² {r2:.2f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(r2) else ""
        panel_title(axes, letter, f"{feature.capitalize()} ({share:.0f} % of variance{told})")
        axes.set_xlabel("First component")
        axes.set_ylabel("Second component")
    variable = str(table["variable"].dropna().iloc[0]) if table["variable"].notna().any() else ""
    if variable:
        figure.colorbar(dots, ax=list(grid), label=variable.replace("/", ": ").capitalize(), shrink=0.8)
    return figure
