"""Who drives whom according to attention, beside couplings and, where it is known, the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.evaluation.coupling import auc
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.coupling import STRENGTH
from pipeline_lib.figures.excerpts import truth_of, unit_ids
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.palette import model_name
from pipeline_lib.figures.style import (
    LETTERS,
    colour_bar,
    new_figure,
    panel_grid,
    panel_title,
    signed_image,
    styled,
)
from pipeline_lib.recording import read_description

SHOWN_UNITS = 60

CAPTION = (
    "Pairs of units, by their rows in the units table (the CSV has their unit_id), sender in a column, receiver in a "
    "row. Cross-correlation: the largest of the counts of the receiver with those of the sender up to the model's "
    "past earlier, which common input makes, too. Attention: how much a spike of the sender is looked at when a spike "
    "of the receiver is predicted, 1 being an even look at all spikes (logarithm; orange more, blue less). Couplings: "
    "what a spike of the sender adds to the log-rate of the receiver, summed over lags. Each panel has a scale of its "
    "own. The area under the curve (AUC), where the true couplings are known, is the chance that a coupled pair "
    "stands out more than an uncoupled one; 0.5 is none. Attention says what the model looks at, not what it does "
    "with it: compare the couplings. Of more than 60 units the first are shown, the AUC is of all."
)

ENDS = ("sender", "receiver")
CORRELATION = "Cross-correlation"
FIRST = ("Truth", CORRELATION)
TITLE = 30
"""Letters that a third of the width has room for."""
SCALES = {CORRELATION: "Correlation", "Attention": "Log of relative attention"}
"""What the colours mean, by how the name of a source begins; of couplings, `STRENGTH`."""


def data(recording: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Matrices by `source` ("Truth", "Cross-correlation", "Attention of ...", "Couplings of ..."): source, sender,
    receiver (rows of the session's units), sender_unit_id, receiver_unit_id, value and auc.

    Raises
    ------
    NothingToDrawError : no model has a table of attention (`probes` of the Neuroformer).
    """
    session = str(read_description(recording)["session"])
    matrices: dict[str, np.ndarray] = {}
    for model, fit in first_seeds(fits).items():
        coupling = fit.couplings(session)
        if fit.has_table("attention"):
            table = fit.table("attention", session)
            square = table.pivot(index="sender", columns="receiver", values=["attention", "cross_correlation"])
            matrices.setdefault(CORRELATION, square["cross_correlation"].to_numpy())
            looked = square["attention"].to_numpy()
            matrices[f"Attention of {model_name(model)}"] = np.log(np.maximum(looked, 1e-3))
        if coupling is not None:
            matrices[f"Couplings of {model_name(model)}"] = coupling.strength
    if not any(name.startswith("Attention") for name in matrices):
        raise NothingToDrawError("No model says what it attends to: set `probes` of the Neuroformer.")
    known = truth_of(recording, ("coupling", "synapse")).arrays
    true = known.get("coupling")
    if true is not None:
        matrices = {"Truth": true} | matrices
    matrices = {name: matrices[name] for name in sorted(matrices, key=lambda name: name not in FIRST)}
    tables = []
    for source, matrix in matrices.items():
        pairs = ~np.eye(len(matrix), dtype=bool) & np.isfinite(matrix)
        score = matrix if source.startswith("Attention") else np.abs(matrix)
        found = (
            np.nan if true is None or source == "Truth" else auc(score[pairs], known.get("synapse", true)[pairs] != 0)
        )
        shown = matrix[:SHOWN_UNITS, :SHOWN_UNITS].astype(float)
        sender, receiver = np.indices(shown.shape)
        columns = {"sender": sender.ravel(), "receiver": receiver.ravel(), "value": shown.ravel()}
        tables.append(pd.DataFrame(columns).assign(source=source, auc=found))
    table, names = pd.concat(tables, ignore_index=True), unit_ids(recording)
    for end in ENDS:
        table[f"{end}_unit_id"] = names[table[end]]
    return table[["source", *ENDS, *(f"{end}_unit_id" for end in ENDS), "value", "auc"]]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A matrix a source."""
    sources = list(table["source"].unique())
    columns = min(3, len(sources))
    figure = new_figure("double" if columns > 2 else "wide", 8 + 64 * -(-len(sources) // columns))
    grid = panel_grid(figure, len(sources), columns, sharex=True, sharey=True)
    titles = told_apart(sources, TITLE)
    for place, (source, title, axes) in enumerate(zip(sources, titles, grid, strict=True)):
        rows_of = table[table["source"] == source]
        matrix = rows_of.pivot(index="receiver", columns="sender", values="value").to_numpy().copy()
        np.fill_diagonal(matrix, np.nan)
        limit = np.nanpercentile(np.abs(matrix), 99.5) or 1.0
        image = signed_image(axes, matrix, limit)
        area = rows_of["auc"].iloc[0]
        panel_title(axes, LETTERS[place], title + (f"\nAUC {area:.2f}" if np.isfinite(area) else ""))
        axes.set_xlabel("Sender")
        axes.locator_params(integer=True)
        axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel("Receiver")
        named = (label for start, label in SCALES.items() if source.startswith(start))
        colour_bar(image, axes, next(named, STRENGTH), shrink=0.7, aspect=30, location="bottom", extend="both")
    return figure
