"""What moves together: latent trajectories by condition, in three dimensions, over time, and trial by trial."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.embedding import principal_components, tsne
from pipeline_lib.figures.excerpts import coarsen_trials, tested_windows, time_label
from pipeline_lib.figures.fits import Fit, first_seeds
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import FAINT, QUIET, REGION_COLOURS, model_labels, model_order
from pipeline_lib.figures.style import SMALL_SIZE, legend_below, new_figure, panel_title, styled
from pipeline_lib.trains.manifest import read_manifest
from pipeline_lib.trains.splits import Split

if TYPE_CHECKING:
    from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]

LEAST_POINTS = 10
"""Windows without which t-SNE shows nothing."""

SHOWN_MODELS, SHOWN_BINS, SHOWN_CONDITIONS, SHOWN_WINDOWS, POINTS = 3, 50, 6, 12, 250

CAPTION = (
    "What the models hold to be shared by the units, in the windows of the test part: latents where a model has them, "
    "else its log-rates, on the first three principal components (PC; share of the variance in brackets). Left, mean "
    "trajectories of the 6 commonest conditions, a dot at their start (of continuous recordings, one window of each "
    "third of the session); middle, the first component over time, thin lines single windows; right, where there are "
    "10 windows or more, t-SNE of whole windows, a point each: near means alike, other distances mean nothing. Look "
    "for conditions that part when the event says they should, and for single windows that are more than copies of "
    "their mean. Signs and axes differ between models; of more than 3 those with latents come first."
)

LEAST_VARIANCE = 1e-6
"""Models whose log-rates vary less than this within a window have no trajectory."""
THIRDS = ("1st third", "2nd third", "3rd third")
ROW_HEIGHT = 47.0


def data(split: Path | str, trains: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Trajectories of up to three models: first those that published latents, then those that come last in order.

    Rows by `kind`: "condition" (mean trajectory: condition, event, time in s, pc1, pc2, pc3; of windows that follow no
    trials, the middle one of a third of the session), "window" (window, single trajectories of a few windows: the same
    columns), "point" (window, condition, place of a window by t-SNE in x and y) and "share" (pc1, pc2, pc3 = share of
    the variance), each with model and source ("latents" or "log-rates").

    Raises
    ------
    NothingToDrawError : the session has no test window, or no model's rates vary within one.
    """
    parts, session = Split.read(split), str(read_manifest(trains)["session"])
    test = tested_windows(parts, session)
    found = {model: _trajectories(fit, session, test) for model, fit in first_seeds(fits).items()}
    moving = {model: each for model, each in found.items() if each is not None}
    chosen = sorted(moving, key=lambda model: (moving[model][0] != "latents", -list(moving).index(model)))
    if not chosen:
        raise NothingToDrawError(f"No model of {session} has latents, or rates that vary within a window.")
    test = _named(test)
    common = test["condition"].value_counts(sort=True).sort_index(kind="stable").nlargest(SHOWN_CONDITIONS)
    tables = []
    for model in chosen[:SHOWN_MODELS]:
        source, values = moving[model]
        table = _table(values, test, common.index.tolist(), parts.bin_ticks / TICKS_PER_SECOND, parts.before)
        tables.append(table.assign(model=model, source=source))
    columns = ["kind", "model", "source", "condition", "window", "event", "time", "pc1", "pc2", "pc3", "x", "y"]
    return pd.concat(tables, ignore_index=True).assign(event=parts.event)[columns]


def _named(test: pd.DataFrame) -> pd.DataFrame:
    """The windows with their condition as text; those that follow no trials are named after a third of the session."""
    if (test["trial"] >= 0).all():
        return test.assign(condition=test["condition"].astype(str))
    third = test["start_tick"].rank(method="first", pct=True).mul(3).sub(1e-9).astype(int).clip(0, 2)
    return test.assign(condition=np.array(THIRDS)[third])


def _trajectories(fit: Fit, session: str, test: pd.DataFrame) -> tuple[str, np.ndarray] | None:
    """Source and values [S, T, dimensions] of the test windows; None where nothing varies within a window."""
    samples, bins = test.index.to_numpy(), int(test["bins"].max())
    latents = fit.latents(session, samples)
    if latents is not None:
        source, values = "latents", latents[:, :bins].astype(float)
    else:
        rates = fit.prediction(session, samples)[:, :bins].astype(float)
        source, values = "log-rates", np.log(np.maximum(rates, 1e-4))
    return (source, values) if np.nanmean(np.nanvar(values, axis=1)) > LEAST_VARIANCE else None


def _table(
    values: np.ndarray, test: pd.DataFrame, conditions: list[str], bin_seconds: float, before: float
) -> pd.DataFrame:
    coarse, centres = coarsen_trials(values, SHOWN_BINS)
    time = centres * bin_seconds - before
    whole = np.isfinite(coarse).all(axis=2)
    scores = np.full((*coarse.shape[:2], 3), np.nan)
    scores[whole], shares = principal_components(coarse[whole])
    condition = test["condition"].to_numpy(dtype=object)
    names = [f"pc{k}" for k in (1, 2, 3)]
    tables = [pd.DataFrame({"kind": ["share"], **{name: [share] for name, share in zip(names, shares, strict=False)}})]
    for name in conditions:
        own = scores[condition == name]
        if (test["trial"] < 0).any():
            own = own[len(own) // 2][None]
        n = np.isfinite(own).sum(axis=0)
        mean = np.nansum(own, axis=0) / np.where(n, n, np.nan)
        tables.append(_trajectory("condition", name, -1, time, mean))
    of_conditions = np.flatnonzero(np.isin(condition, conditions))
    for window in of_conditions[np.unique(np.linspace(0, len(of_conditions) - 1, SHOWN_WINDOWS).astype(int))]:
        tables.append(_trajectory("window", condition[window], window, time, scores[window]))
    full = of_conditions[np.isfinite(scores[of_conditions]).all(axis=(1, 2))][:POINTS]
    flat = scores[full].reshape(len(full), -1)
    if len(full) >= LEAST_POINTS and len(np.unique(flat.round(6), axis=0)) > len(full) / 2:  # not copies of a few means
        places = tsne(flat)
        columns = {"condition": condition[full], "window": full, "x": places[:, 0], "y": places[:, 1]}
        tables.append(pd.DataFrame({"kind": "point", **columns}))
    return pd.concat(tables, ignore_index=True).reindex(
        columns=["kind", "condition", "window", "time", *names, "x", "y"]
    )


def _trajectory(kind: str, condition: str, window: int, time: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    components = {f"pc{k + 1}": scores[:, k] for k in range(3)}
    return pd.DataFrame({"kind": kind, "condition": condition, "window": window, "time": time, **components})


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a model: three dimensions, the first component over time, windows by t-SNE where some model has them."""
    table = table.assign(condition=table["condition"].fillna(""))
    models = model_order(table["model"].unique())
    names = sorted(table.loc[table["kind"] == "condition", "condition"].unique())
    colours = {name: REGION_COLOURS[place % len(REGION_COLOURS)] for place, name in enumerate(names)}
    label, labels = time_label(table["event"].iloc[0]), model_labels(models)
    with_points = bool((table["kind"] == "point").any())
    height = ROW_HEIGHT * len(models) + 4 + 3.2 * (len(names) > 1)
    figure = new_figure("double" if with_points else "wide", height)
    grid = figure.add_gridspec(len(models), 2 + with_points, width_ratios=(0.85, 1, 1)[: 2 + with_points])
    for place, model in enumerate(models):
        own = table[table["model"] == model]
        kinds = {str(kind): rows for kind, rows in own.groupby("kind")}
        share = kinds["share"].iloc[0]
        space: Any = figure.add_subplot(grid[place, 0], projection="3d")
        over_time = figure.add_subplot(grid[place, 1])
        _in_space(space, kinds["condition"], share, colours)
        title = f"{labels[model]}, {own['source'].iloc[0]}"
        panel_title(space, "abc"[place], title)
        _over_time(over_time, kinds, colours)
        over_time.set_xlabel(label)
        over_time.set_ylabel("PC 1 (log-rate)" if own["source"].iloc[0] == "log-rates" else "PC 1")
        over_time.set_title("First component over time")
        if with_points:
            _windows(figure.add_subplot(grid[place, 2]), kinds.get("point", own.iloc[:0]), colours)
    if len(names) > 1:
        of_names = zip(names, told_apart(names, 28), strict=True)
        legend_below(figure, [Line2D([], [], color=colours[name], label=short) for name, short in of_names])
    return figure


def _in_space(axes: "Axes3D", means: pd.DataFrame, share: pd.Series, colours: dict[str, str]) -> None:
    for name, path in means.groupby("condition"):
        axes.plot(path["pc1"], path["pc2"], path["pc3"].fillna(0), color=colours[str(name)], lw=1.0)
        start = path[["pc1", "pc2", "pc3"]].fillna(0).iloc[0]
        axes.scatter(*start, color=colours[str(name)], s=7, depthshade=False)
    for axis, number in ((axes.xaxis, 1), (axes.yaxis, 2), (axes.zaxis, 3)):
        percent = 100 * share[f"pc{number}"]
        of_variance = "<1" if 0 < percent < 1 else f"{percent:.0f}"
        axis.set_label_text(f"PC {number} ({of_variance} %)" if np.isfinite(percent) else f"PC {number}")
        axis.labelpad = -14
        axis.set_ticklabels([])
        axis.pane.set(facecolor="white", edgecolor=FAINT)
        axis._axinfo["grid"].update(color=FAINT, linewidth=0.3)
    axes.view_init(elev=22, azim=-58)
    axes.set_box_aspect((1, 1, 0.8), zoom=1.12)
    axes.set_anchor("W")


def _over_time(axes: Axes, kinds: dict[str, pd.DataFrame], colours: dict[str, str]) -> None:
    for _, path in kinds.get("window", kinds["condition"].iloc[:0]).groupby("window"):
        axes.plot(path["time"], path["pc1"], color=colours[str(path["condition"].iloc[0])], lw=0.4, alpha=0.45)
    for name, path in kinds["condition"].groupby("condition"):
        axes.plot(path["time"], path["pc1"], color=colours[str(name)], lw=1.2)
    if kinds["condition"]["time"].min() < 0:
        axes.axvline(0, color=QUIET, lw=0.4, ls=(0, (2, 2)), zorder=0)
    axes.margins(x=0)


def _windows(axes: Axes, points: pd.DataFrame, colours: dict[str, str]) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_facecolor("#F7F7F7")
    if points.empty:
        text = "Windows of a condition do not differ,\nor too few are whole"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET, fontsize=SMALL_SIZE)
    for name, own in points.groupby("condition"):
        axes.plot(own["x"], own["y"], "o", ms=2.6, mec="white", mew=0.2, color=colours[str(name)])
    axes.set_title(f"t-SNE of {len(points)} windows" if len(points) else "t-SNE")
    axes.margins(0.08)
