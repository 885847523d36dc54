"""Filters, loadings and factors of a fit beside those of the simulation they should recover (Xin & Kass, figure 2)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.clock import TICKS_PER_MS
from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.excerpts import truth_of
from pipeline_lib.figures.fits import Fit
from pipeline_lib.figures.glm_transformer_fit import coupled_fit, matched, name_lines, test_windows
from pipeline_lib.figures.palette import INK, MODEL_COLOURS, QUIET
from pipeline_lib.figures.style import new_figure, panel_title, styled
from pipeline_lib.recording import Truth, read_description

CAPTION = (
    "What the GLM-Transformer recovers (orange) of a simulation of its own form (black): the coupling filter of the "
    "one pair of populations that is coupled, each unit's sending and receiving loadings, the coupling factor and a "
    "background factor in one test trial, and the filter of the units' own past. Loadings have norm 1, so that the "
    "filter carries the scale. Background factors are only defined up to a linear map, which is fitted over all test "
    "trials; one is shown, r is of all. r: correlation with the truth, over all lags, units, or test trials and bins; "
    "RMSE: root mean square error of the filter, in log-rate per spike."
)

TRUTHS = ("coupling", "coupling_kernel", "coupling_factor", "latents", "history_filters")
PANELS = {
    "filter": ("Coupling filter", "Lag (ms)", "Log-rate per spike"),
    "loading": ("Loadings", "Unit", "Loading"),
    "coupling_factor": ("Coupling factor", "Time (ms)", "Log-rate"),
    "factor": ("Background factor", "Time (ms)", "Factor"),
    "history": ("Own past", "Lag (ms)", "Log-rate per spike"),
}
"""Items, with the titles of their panels and the labels of their axes."""


def data(recording: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Rows of `item` ("filter", "loading", "coupling_factor", "factor", "history"), `source` (fit or truth), `x` (lag
    or time in ms, row of the unit), `value`. With source "correlation" and "error" (root mean square), how well all
    of the item is met: one row, of factors one each, with x their number.

    Raises
    ------
    NothingToDrawError : the truth of this recording is not of that form.
    """
    fit, session = coupled_fit(fits), str(read_description(recording)["session"])
    truth = truth_of(recording, TRUTHS)
    if not set(TRUTHS) <= set(truth.arrays) or not truth.arrays["coupling"].any():
        raise NothingToDrawError(f"{session} is not a simulation of the GLM-Transformer's own form with coupling.")
    units = pd.read_parquet(Path(recording) / "units.parquet", columns=["population"])
    population = units["population"].to_numpy(str)
    rows = _coupling_rows(fit, session, truth, population)
    rows += _factor_rows(fit, session, truth, population, split)
    rows += _history_rows(fit, session, truth)
    return pd.concat(rows, ignore_index=True)[["item", "source", "x", "value"]]


def _pair(truth: Truth, population: np.ndarray) -> tuple[str, str]:
    """The sending and the receiving population."""
    sender, receiver = np.argwhere(truth.arrays["coupling"] != 0)[0]
    return str(population[sender]), str(population[receiver])


def _coupling_rows(fit: Fit, session: str, truth: Truth, population: np.ndarray) -> list[pd.DataFrame]:
    sender, receiver = _pair(truth, population)
    filters = fit.table("area_filters", session)
    chosen = (filters["sender"] == sender) & (filters["receiver"] == receiver) & (filters["factor"] == 0)
    fitted, lags = filters.loc[chosen, "value"].to_numpy(), filters.loc[chosen, "lag"].to_numpy()
    true = truth.arrays["coupling_kernel"]
    true_lags = (np.arange(len(true)) + 1) * truth.attributes["bin_size"]
    if len(fitted) == 0:  # the fit dropped this coupling
        fitted, lags = np.zeros(len(true)), true_lags
    rows = _compared("filter", lags, fitted, true_lags, true)
    loadings = fit.table("loadings", session)
    between = np.outer(population == sender, population == receiver)
    coupling = np.where(between, truth.arrays["coupling"], 0)
    values = {"fit": np.zeros(len(population)), "truth": np.zeros(len(population))}
    for axis, (area, column) in enumerate(((sender, f"send_{receiver}_0"), (receiver, f"receive_{sender}_0"))):
        own, weights = population == area, coupling.sum(axis=1 - axis)
        values["fit"][own] = loadings[column].to_numpy()[own]
        values["truth"][own] = (weights / np.linalg.norm(weights))[own]
    shown = np.flatnonzero(np.isin(population, (sender, receiver)))
    return rows + _compared("loading", shown, values["fit"][shown], shown, values["truth"][shown])


def _factor_rows(fit: Fit, session: str, truth: Truth, population: np.ndarray, split: Path | str) -> list[pd.DataFrame]:
    windows = test_windows(fit, split, session, ["coupling_factors"])
    starts, bins = windows.samples["start_tick"].to_numpy(), windows.latents.shape[1]
    time = (np.arange(bins) + 0.5) * windows.bin_ticks / TICKS_PER_MS
    areas, (sender, receiver) = np.unique(population).tolist(), _pair(truth, population)
    series = windows.extras["coupling_factors"]
    rank = series.shape[2] // len(areas) ** 2
    column = (areas.index(sender) * len(areas) + areas.index(receiver)) * rank
    true = {name: window_means(truth, name, starts, bins, windows.bin_ticks) for name in ("coupling_factor", "latents")}
    rows = _trial("coupling_factor", time, series[:, :, column], true["coupling_factor"][..., 0])
    width, number = windows.latents.shape[2] // len(areas), true["latents"].shape[2] // len(areas)
    first = areas.index(sender) * number
    for factor in [first, *(each for each in range(true["latents"].shape[2]) if each != first)]:
        place = factor // number * width
        mapped = _linear_map(windows.latents[:, :, place : place + width], true["latents"][..., factor])
        found = _trial("factor", time, mapped, true["latents"][..., factor])
        scores = [row.assign(x=factor) for row in found[2:]]
        rows += found[:2] + scores if factor == first else scores
    return rows


def _linear_map(fitted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """What of `true` [S, T] a linear map of `fitted` [S, T, factors] gives, by least squares over all windows."""
    inputs = np.concatenate([fitted.astype(np.float64), np.ones((*fitted.shape[:2], 1))], axis=2)
    weights = np.linalg.lstsq(inputs.reshape(-1, inputs.shape[2]), true.ravel(), rcond=None)[0]
    return np.asarray(inputs @ weights)


def _history_rows(fit: Fit, session: str, truth: Truth) -> list[pd.DataFrame]:
    fitted = fit.table("history_filters", session).groupby("lag")["value"].mean()
    true = truth.arrays["history_filters"].mean(axis=0)
    lags = (np.arange(len(true)) + 1) * truth.attributes["bin_size"]
    return _compared("history", fitted.index.to_numpy(), fitted.to_numpy(), lags, true)


def _compared(item: str, x: np.ndarray, fitted: np.ndarray, true_x: np.ndarray, true: np.ndarray) -> list[pd.DataFrame]:
    """Fit, truth, and how they compare at the x of the truth; beyond its own end a filter is 0."""
    return [
        pd.DataFrame({"item": item, "source": "fit", "x": x, "value": fitted}),
        pd.DataFrame({"item": item, "source": "truth", "x": true_x, "value": true}),
        *_scores(item, np.interp(true_x, x, fitted, right=0.0), true),
    ]


def _trial(item: str, time: np.ndarray, fitted: np.ndarray, true: np.ndarray) -> list[pd.DataFrame]:
    """The first trial of fit and truth [S, T], and how all compare."""
    return [*_compared(item, time, fitted[0], time, true[0])[:2], *_scores(item, fitted, true)]


def _scores(item: str, fitted: np.ndarray, true: np.ndarray) -> list[pd.DataFrame]:
    scores = {"correlation": matched(fitted, true)[1], "error": float(np.sqrt(np.mean((fitted - true) ** 2)))}
    return [
        pd.DataFrame({"item": item, "source": name, "x": [np.nan], "value": [each]}) for name, each in scores.items()
    ]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Filter and loadings above, factors and the units' own past below."""
    figure = new_figure("double", 80)
    grid = figure.subplot_mosaic([["filter", "loading", "loading"], ["coupling_factor", "factor", "history"]])
    for letter, (item, (title, x, y)) in zip("abcde", PANELS.items(), strict=True):
        axes, own = grid[item], table[table["item"] == item]
        _curves(axes, own, points=item == "loading")
        scores = own.loc[own["source"] == "correlation", "value"]
        said = _said(scores.min(), scores.max())
        if item == "filter":
            # A filter next to flat can still correlate with the true one.
            said += f", RMSE {own.loc[own['source'] == 'error', 'value'].iloc[0]:.2f}"
        panel_title(axes, letter, f"{title}, {said}")
        axes.set(xlabel=x, ylabel=y)
        axes.axhline(0, color=QUIET, lw=0.4, zorder=0)
    grid["loading"].locator_params(axis="x", integer=True)
    name_lines(figure, "truth")
    return figure


def _said(low: float, high: float) -> str:
    if not np.isfinite(low):
        return "not found"
    return f"r = {low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"r = {low:.2f} to {high:.2f}"


def _curves(axes: Axes, own: pd.DataFrame, points: bool) -> None:
    for source, colour, size in (("truth", INK, 12), ("fit", MODEL_COLOURS["glm_transformer"], 5)):
        line = own[own["source"] == source]
        if points:
            axes.scatter(line["x"], line["value"], s=size, color=colour, linewidths=0)
        else:
            axes.plot(line["x"], line["value"], color=colour, lw=1.0)
