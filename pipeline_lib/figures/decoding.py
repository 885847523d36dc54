"""What can be decoded from each model's rates: movement, choices, timing."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.names import shortened
from pipeline_lib.figures.palette import QUIET, model_colours, model_labels, model_order
from pipeline_lib.figures.points import below_each_other, scored_points, word_rows
from pipeline_lib.figures.style import new_figure, panel_grid, styled
from pipeline_lib.published import read_parquet

CAPTION = (
    "How well behaviour is decoded from each model's rates on the test part, by a readout fitted to the training "
    "part: R\u00b2 of a ridge regression for signals, balanced accuracy of a logistic regression for choices, and for "
    "timing the correlation with the speed of the rates. Grey line: chance, or 0 (several, where sessions have "
    "different numbers of classes). Points are seeds of a session, bars 95 % bootstrap intervals over test windows "
    "(of up to 12 points a row). A model that was given the trial's condition, or the signal itself, may owe its "
    "score to that."
)

PREFIX = "decoding_"
KINDS = {"_r2": "R\u00b2", "_balanced_accuracy": "Balanced accuracy", "_speed_correlation": "Correlation"}
FLOOR = -1.0
"""Where the axis ends at the left: one R2 far below would hide the differences between all others."""


def data(metrics: Path | str) -> pd.DataFrame:
    """Rows of the metrics table about decoding from the rates of all units: finite, of the test part.

    Columns: target, kind (a value of `KINDS`), cohort, session, model, seed, value, ci_low, ci_high, chance. Raises
    NothingToDrawError where there is none.
    """
    scores = read_parquet(metrics)
    decoded = scores["metric"].str.startswith(PREFIX) & scores["metric"].str.endswith(tuple(KINDS))
    scores = scores[decoded & (scores["units"] == "all") & (scores["split"] == "test")]
    if scores.empty:
        raise NothingToDrawError("Nothing is decoded: the configuration names no target (evaluation.decoding).")
    suffix = scores["metric"].map(lambda metric: next(each for each in KINDS if metric.endswith(each)))
    names = [metric[len(PREFIX) : -len(end)] for metric, end in zip(scores["metric"], suffix, strict=True)]
    scores = scores.assign(target=names, kind=suffix.map(KINDS))
    if scores["value"].isna().all():
        asked = ", ".join(sorted(set(names)))
        raise NothingToDrawError(f"Nothing is decoded: no session has enough of {asked} (evaluation.decoding).")
    scores = scores[scores["value"].notna()]
    classes = pd.to_numeric(scores["null"].str.extract(r"chance 1/(\d+)")[0])
    table = scores.assign(chance=1 / classes)
    columns = ["target", "kind", "cohort", "session", "model", "seed", "value", "ci_low", "ci_high", "chance"]
    return table[columns].sort_values(columns[:6], ignore_index=True)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a target; rows are models, points sessions and seeds."""
    models = model_order(table["model"].unique())
    colours = model_colours(models)
    targets = table["target"].drop_duplicates().tolist()
    columns = min(3, len(targets))
    lines = -(-len(targets) // columns)
    figure = new_figure({1: "single", 2: "wide"}.get(columns, "double"), lines * (len(models) * 5.0 + 16))
    for axes, target in zip(panel_grid(figure, len(targets), columns, sharey=True), targets, strict=True):
        of = table[table["target"] == target]
        for row, model in enumerate(models):
            points = of[of["model"] == model]
            heights = row + below_each_other(len(points), 0.15)
            scored_points(axes, points, heights, colours[model], FLOOR)
        for null in of["chance"].fillna(0.0).unique():  # sessions may have different numbers of classes
            axes.axvline(float(null), color=QUIET, lw=0.6, zorder=0)
        axes.set_title(shortened(target.replace("_", " "), 32))
        axes.set_xlabel(str(of["kind"].iloc[0]))
        axes.set_yticks(range(len(models)), model_labels(models).values())
        axes.set_ylim(len(models) - 0.4, -0.6)
        word_rows(axes)
    return figure
