"""Coupling filters of every pair of populations, and trials by their latents (Xin & Kass 2025, figure 5)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from pipeline_lib.clock import to_seconds
from pipeline_lib.figures.embedding import principal_components
from pipeline_lib.figures.fits import DISCOVERY
from pipeline_lib.figures.glm_transformer_fit import coupled_fit, test_windows
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import FAINT, MODEL_COLOURS, QUIET, rate_map
from pipeline_lib.figures.style import FONT_SIZE, colour_bar, new_figure, panel_title, styled, with_unit
from pipeline_lib.recording import read_description
from pipeline_lib.signal_units import unit_of
from pipeline_lib.trains.signals import unmeasured

MOST = 7
"""Populations shown, those with most units."""

CAPTION = (
    "What populations pass on to each other, beside what trials differ in. (a) Coupling filters from each population "
    "(column) to each (row): what a spike passes on, for loadings of norm 1. Orange: in test trials the receivers' "
    "spikes are timed to the senders' within milliseconds, beyond what common input explains (q < 0.05 over all "
    "pairs); grey: not. A flat line is a coupling of nothing, an empty panel one that the fit dropped or never had. "
    "(b) Test trials by the first two principal components of their latents, coloured by running speed where it was "
    "recorded (grey: not in this trial), else by their order in time: a gradient means that the background follows "
    "the animal's state. Of more than 7 populations those with most units are shown."
)
ACROSS, DOWN, LEAST = 80, 24, 8
"""Letters that have room above all columns and beside all rows, but beside a row at least so many."""


def data(recording: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Rows by `kind`: "filter" (sender, receiver, x = lag in ms, y = log-rate per spike, value = q of the pair),
    "area" (sender, value = units) and "trial" (x, y = principal components, value = running speed or seconds, and
    which in `sender`).

    Raises
    ------
    NothingToDrawError : no fit has couplings of populations.
    """
    fit, session = coupled_fit(fits), str(read_description(recording)["session"])
    units = pd.read_parquet(Path(recording) / "units.parquet", columns=["population"])["population"].astype(str)
    sizes = units.value_counts().sort_index(kind="stable").nlargest(MOST).sort_index()
    areas = pd.DataFrame({"kind": "area", "sender": sizes.index, "value": sizes.to_numpy()})
    filters = fit.table("area_filters", session)
    q = fit.table("area_couplings", session)[["sender", "receiver", "factor", "q"]]
    filters = filters.merge(q, on=["sender", "receiver", "factor"])
    filters = filters[filters["sender"].isin(sizes.index) & filters["receiver"].isin(sizes.index)]
    filters = filters.rename(columns={"lag": "x", "value": "y", "q": "value"}).assign(kind="filter")
    tables = [areas, filters]
    windows = test_windows(fit, split, session, ["latent_mean"])
    if "latent_mean" in windows.extras and len(windows.samples) > 2:
        scores, _ = principal_components(windows.extras["latent_mean"].astype(np.float64), 2)
        starts = windows.samples["start_tick"].to_numpy()
        what, state = _state(Path(recording), starts, windows.latents.shape[1] * windows.bin_ticks)
        tables.append(
            pd.DataFrame({"kind": "trial", "sender": what, "x": scores[:, 0], "y": scores[:, 1], "value": state})
        )
    return pd.concat(tables, ignore_index=True)[["kind", "sender", "receiver", "factor", "x", "y", "value"]]


def _state(recording: Path, starts: np.ndarray, ticks: int) -> tuple[str, np.ndarray]:
    """Mean running speed of each window (NaN where it was not measured throughout), or where a session has none the
    second that the window began; and which of them it is."""
    path = recording / "signals" / "running.parquet"
    if not path.is_file():
        return "Time (s)", to_seconds(starts)
    signal = pd.read_parquet(path).dropna()
    column = next(str(name) for name in signal.columns if name != "time")
    time, speed = signal["time"].to_numpy(), signal[column].to_numpy()
    total = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(time))])
    first, last = to_seconds(starts), to_seconds(starts + ticks)
    mean = (np.interp(last, time, total) - np.interp(first, time, total)) / (last - first)
    unknown = unmeasured(first, time) | unmeasured(last, time)
    return with_unit("Running speed", unit_of(signal, column)), np.where(unknown, np.nan, mean)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a pair of populations, and the trials beside them."""
    areas = table.loc[table["kind"] == "area", "sender"].tolist()
    trials = table[table["kind"] == "trial"]
    figure = new_figure("double", max(18 * len(areas), 60))
    left, right = figure.subfigures(1, 2, width_ratios=(2, 1), squeeze=False)[0]
    _pairs(left, table[table["kind"] == "filter"], areas)
    axes = right.subplots()
    if len(trials):
        dots = axes.scatter(
            trials["x"],
            trials["y"],
            c=trials["value"],
            s=8,
            cmap=rate_map(),
            edgecolors=QUIET,
            linewidths=0.3,
            plotnonfinite=True,
        )
        colour_bar(dots, axes, str(trials["sender"].iloc[0]), location="bottom", shrink=0.8, aspect=25)
    axes.set(xlabel="Component 1", ylabel="Component 2")
    panel_title(axes, "b", "Latents of test trials")
    return figure


def _pairs(part: SubFigure, filters: pd.DataFrame, areas: list[str]) -> None:
    grid = part.subplots(len(areas), len(areas), sharex=True, sharey=True, squeeze=False)
    # The first title stands beside the letter of its panel.
    senders = _named("from ", areas, ACROSS // len(areas) - 3)
    receivers = _named("to ", areas, max(DOWN // len(areas), LEAST))
    for row, receiver in zip(grid, areas, strict=True):
        for axes, sender in zip(row, areas, strict=True):
            axes.axhline(0, color=FAINT, lw=0.4, zorder=0)
            own = filters[(filters["sender"] == sender) & (filters["receiver"] == receiver)]
            for _, line in own.groupby("factor"):
                found = line["value"].iloc[0] < DISCOVERY
                axes.plot(line["x"], line["y"], color=MODEL_COLOURS["glm_transformer"] if found else QUIET, lw=1.0)
        row[0].set_ylabel(receivers[receiver])
    for axes, sender in zip(grid[0], areas, strict=True):
        axes.set_title(senders[sender])
    panel_title(grid[0, 0], "a", senders[areas[0]])
    part.supxlabel("Lag (ms)", fontsize=FONT_SIZE)
    part.supylabel("Filter (log-rate per spike)", fontsize=FONT_SIZE)
    if filters["value"].notna().any():
        colours = {f"q < {DISCOVERY}": MODEL_COLOURS["glm_transformer"], "not significant": QUIET}
    else:  # tokens of less than four bins, or no test window, leave nothing to test timing by
        colours = {"not tested": QUIET}
    handles = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    part.legend(handles=handles, loc="outside upper right", ncols=2)


def _named(word: str, areas: list[str], room: int) -> dict[str, str]:
    """Names of `room` letters, after the `word` where all of them have room for it."""
    if max(map(len, areas)) + len(word) <= room:
        return {area: word + area for area in areas}
    return dict(zip(areas, told_apart(areas, room), strict=True))
