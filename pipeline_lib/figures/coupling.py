"""Couplings between units: fitted beside true, as matrices, and as filters for the strongest pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from pipeline_lib.evaluation.coupling import auc
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.excerpts import truth_of
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.palette import (
    BEHIND,
    QUIET,
    model_colours,
    model_key,
    model_labels,
    model_line,
    model_order,
)
from pipeline_lib.figures.style import (
    COLUMN_WIDTHS,
    LETTERS,
    colour_bar,
    legend_below,
    new_figure,
    panel_grid,
    panel_title,
    signed_image,
    stacked,
    styled,
)
from pipeline_lib.figures.units import Block, name_regions, region_blocks
from pipeline_lib.recording import read_description

CAPTION = (
    "Couplings between units, grouped by region: how a spike of the sender (column) changes the log-rate of the "
    "receiver (row), summed over lags. Orange excites, blue inhibits, grey was not fitted (a unit's own history is "
    "left out, and so are held-out senders). Where the truth is known it stands beside the fit: look for the same "
    "blocks and signs. AUC is the chance that a true connection is fitted stronger than a pair without one: 0.5 is "
    "guessing, 1 perfect. Below, filters of the pairs that are strongest (in truth, where it is known) against the lag "
    "after the sender's spike: sender \u2192 receiver, by their rows in the units table (the CSV has their unit_id). "
    "Of hundreds of units those with the strongest couplings are shown."
)

MATRIX_CELLS = 36_000
"""Cells over all matrices: keeps the CSV under 2 MB. Above it, the units with the strongest couplings are shown."""
FILTERS_EACH_SIGN = 3
FILTER_HEIGHT, MATRICES_A_ROW = 34.0, 3
STRENGTH = "Strength (log-rate per spike)"
TRUTHS = ("coupling", "coupling_filters", "synapse")


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Strengths, filters and AUC of every coupled model, and of the truth where the recording knows it.

    Rows by `kind`: "unit" (receiver = row of the session's units, unit_id, region; in the order of the axes),
    "strength" (source = model or "truth"; value in log-rate per spike summed over lags, or in the simulator's own unit
    where the truth has no filters), "filter" (lag in ms, value in log-rate per spike; of the strongest pairs) and
    "auc". Truth filters in finer or coarser bins than the fit's are summed to the fit's bins, so that both scales are
    one.

    Raises
    ------
    NothingToDrawError : no model of these fits has couplings, or there is no pair of units.
    """
    session = str(read_description(recording)["session"])
    found = {model: fit.couplings(session) for model, fit in first_seeds(fits).items()}
    fitted = {model: coupling for model, coupling in found.items() if coupling is not None}
    if not fitted:
        raise NothingToDrawError(f"No model fitted to {session} has couplings.")
    units = pd.read_parquet(Path(recording) / "units.parquet", columns=["unit_id", "region"]).astype(str)
    regions = units["region"].to_numpy()
    first = next(iter(fitted.values()))
    strengths = {model: off_diagonal(coupling.strength) for model, coupling in fitted.items()}
    if not any(np.isfinite(matrix).any() for matrix in strengths.values()):
        raise NothingToDrawError(f"No pair of units of {session} was fitted: nothing couples.")
    filters = {
        model: (coupling.filters, coupling.bin_size)
        for model, coupling in fitted.items()
        if coupling.filters is not None
    }
    truth = truth_of(recording, TRUTHS)
    if "coupling_filters" in truth.arrays:
        true, bin_size = truth.arrays["coupling_filters"], float(truth.attributes["bin_size"])
        filters["truth"] = true, bin_size
        strengths["truth"] = off_diagonal(true.sum(axis=2) * (bin_size / first.bin_size))
    elif "coupling" in truth.arrays:
        strengths["truth"] = off_diagonal(truth.arrays["coupling"])

    magnitude = np.nansum([np.abs(strengths[model]) for model in fitted], axis=0)
    most = int(np.sqrt(MATRIX_CELLS / len(strengths)))
    strongest = np.argsort(-(magnitude.sum(axis=0) + magnitude.sum(axis=1)), kind="stable")[:most]
    shown = strongest[np.lexsort((strongest, regions[strongest]))]
    tables = [units.iloc[shown].assign(kind="unit", receiver=shown)]
    for source, matrix in strengths.items():
        tables.append(_matrix_table(source, matrix, shown))
    fit = strengths[next(iter(fitted))]
    # Where truth couples nothing, filters of the fit that should be flat.
    pairs = strongest_pairs(strengths.get("truth", fit), fit) or strongest_pairs(fit, fit)
    for source, (values, bin_size) in filters.items():
        tables += [_filter_table(source, pair, values[pair], bin_size) for pair in pairs]
    if "truth" in strengths:
        connected = truth.arrays.get("synapse", strengths["truth"] != 0)
        scores = {model: _auc(strengths[model], strengths["truth"], connected) for model in fitted}
        tables.append(pd.DataFrame({"kind": "auc", "source": list(scores), "value": list(scores.values())}))
    table = pd.concat(tables, ignore_index=True)
    for column in ("sender", "receiver"):
        table[column] = table[column].astype("Int64")
    return table.reindex(columns=["kind", "source", "sender", "receiver", "unit_id", "region", "lag", "value"])


def off_diagonal(strength: np.ndarray) -> np.ndarray:
    """Strengths [sender, receiver] as float64, NaN on the diagonal: a unit's own history is no coupling."""
    matrix = np.array(strength, dtype=np.float64)
    np.fill_diagonal(matrix, np.nan)
    return matrix


def strongest_pairs(strength: np.ndarray, fitted: np.ndarray) -> list[tuple[int, int]]:
    """The most positive, then the most negative (sender, receiver) pairs of `strength` among those fitted."""
    values = np.where(np.isfinite(fitted) & np.isfinite(strength), strength, 0.0)
    order = np.argsort(values, axis=None, kind="stable")
    positive = [cell for cell in order[::-1][:FILTERS_EACH_SIGN] if values.flat[cell] > 0]
    negative = [cell for cell in order[:FILTERS_EACH_SIGN] if values.flat[cell] < 0]
    return [divmod(int(cell), len(values)) for cell in positive + negative]


def _auc(fitted: np.ndarray, truth: np.ndarray, connected: np.ndarray) -> float:
    """AUC of |fitted| as a test for `connected`, over the pairs known in fit and truth; NaN where it is not defined."""
    known = np.isfinite(fitted) & np.isfinite(truth)
    return auc(np.abs(fitted[known]), connected[known].astype(bool))


def _matrix_table(source: str, matrix: np.ndarray, shown: np.ndarray) -> pd.DataFrame:
    senders, receivers = np.repeat(shown, len(shown)), np.tile(shown, len(shown))
    values = matrix[np.ix_(shown, shown)].ravel()
    table = pd.DataFrame(
        {"kind": "strength", "source": source, "sender": senders, "receiver": receivers, "value": values}
    )
    return table[np.isfinite(values)]


def _filter_table(source: str, pair: tuple[int, int], values: np.ndarray, bin_size: float) -> pd.DataFrame:
    lags = (np.arange(len(values)) + 1) * bin_size
    columns = {"kind": "filter", "source": source, "sender": pair[0], "receiver": pair[1], "lag": lags}
    return pd.DataFrame({**columns, "value": values})


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Matrices (true first) above, filters of the strongest pairs below."""
    kinds = {str(kind): rows for kind, rows in table.groupby("kind")}
    known = kinds["strength"]["source"].unique()
    models = model_order(source for source in known if source != "truth")
    sources = (["truth"] if "truth" in known else []) + models
    columns = min(MATRICES_A_ROW, len(sources))
    column = "double" if columns > 1 else "wide"
    side = (COLUMN_WIDTHS[column] - 22) / columns - 14
    heights = [-(-len(sources) // columns) * (side + 14)]
    if "filter" in kinds:
        heights.append(FILTER_HEIGHT)
    figure = new_figure(column, sum(heights))
    parts = stacked(figure, heights)
    _matrices(parts[0], kinds, sources, columns, side)
    if "filter" in kinds:
        _filters(parts[1], kinds["filter"], models, LETTERS[len(sources)])
    return figure


def _matrices(part: SubFigure, kinds: dict[str, pd.DataFrame], sources: list[str], columns: int, side: float) -> None:
    """A matrix a source, `side` mm wide; one colour scale, unless the truth is in a unit of its own."""
    order, blocks = kinds["unit"]["receiver"].to_numpy(), region_blocks(kinds["unit"]["region"].to_numpy())
    scores = kinds["auc"].set_index("source")["value"].to_dict() if "auc" in kinds else {}
    strengths = dict(iter(kinds["strength"].groupby("source")))
    apart = sources[0] == "truth" and not ("filter" in kinds and (kinds["filter"]["source"] == "truth").any())
    scales = [sources[:1], sources[1:]] if apart else [sources]
    panels = dict(zip(sources, panel_grid(part, len(sources), columns), strict=True))
    for scale in scales:
        limit = max(_limit(strengths[source]["value"]) for source in scale) or 1.0
        for source in scale:
            cells = strengths[source].pivot(index="receiver", columns="sender", values="value")
            cells = cells.reindex(index=order, columns=order).astype(float)
            image = coupling_matrix(panels[source], cells, blocks, blocks, side, limit)
        label = "Strength (simulator's unit)" if apart and scale == sources[:1] else STRENGTH
        beside = [panels[source] for source in scale]
        colour_bar(image, beside, label, shrink=0.8, aspect=25, pad=0.015, extend="both")
    names = {"truth": "Truth"} | model_labels(source for source in sources if source != "truth")
    for letter, (source, axes) in zip(LETTERS, panels.items(), strict=False):
        area = scores.get(source, np.nan)
        score = f", AUC {area:.2f}" if np.isfinite(area) else ""  # not defined where all pairs are coupled, or none is
        panel_title(axes, letter, names[source] + score)


def coupling_matrix(
    axes: Axes, cells: pd.DataFrame, receivers: list[Block], senders: list[Block], side: float, limit: float
) -> AxesImage:
    """Receivers down, senders across, their regions named; `side` of the axes in mm, colours up to `limit`."""
    image = signed_image(axes, cells, limit)
    name_regions(axes, receivers, side)
    name_regions(axes, senders, side, axis="x")
    axes.set(xlabel="Sender", ylabel="Receiver")
    axes.spines[["top", "right"]].set_visible(True)
    return image


def _limit(values: pd.Series) -> float:
    """Where the colour scale ends: the 99th percentile of |strength| of what couples; 0 where nothing does."""
    sizes = values.abs()[values != 0]
    return float(sizes.quantile(0.99)) if len(sizes) else 0.0


def _filters(part: SubFigure, filters: pd.DataFrame, models: list[str], letter: str) -> None:
    pairs = filters.drop_duplicates(["sender", "receiver"])
    colours = model_colours(models)
    grid = part.subplots(1, len(pairs), sharex=True, sharey=True, squeeze=False)[0]
    for axes, pair in zip(grid, pairs.itertuples(), strict=True):
        own = filters[(filters["sender"] == pair.sender) & (filters["receiver"] == pair.receiver)]
        axes.axhline(0, color=QUIET, lw=0.4)
        truth = own[own["source"] == "truth"]
        axes.plot(truth["lag"], truth["value"], **BEHIND)
        for model in models:
            line = own[own["source"] == model]
            axes.plot(line["lag"], line["value"], **model_line(model, colours[model]))
        title = f"{pair.sender:.0f} \u2192 {pair.receiver:.0f}"
        panel_title(axes, letter, title) if axes is grid[0] else axes.set_title(title)
        axes.set(xlabel="Lag (ms)", xlim=(0, None))
        axes.locator_params(axis="x", nbins=3)
    grid[0].set_ylabel("Filter\n(log-rate per spike)")
    handles = model_key(models)
    if (filters["source"] == "truth").any():
        handles.insert(0, Line2D([], [], **BEHIND, label="Truth"))
    if len(handles) > 1:
        legend_below(part, handles)
