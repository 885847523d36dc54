"""What pretraining is worth: the score of fits that used a share of the data, from scratch and from other weights."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import Fit
from pipeline_lib.figures.names import shortened
from pipeline_lib.figures.palette import INK, QUIET
from pipeline_lib.figures.style import new_figure, panel_title, styled
from pipeline_lib.published import read_parquet

MOST, TITLE = 4, 20
"""Scores shown, and letters of the name above each."""

CAPTION = (
    "Test score against the share of the training windows that was used, of fits that started from random weights and "
    "of fits that started from those of another one (pretrained); a dot a fit, thin lines a seed, thick ones means. "
    "Where the thick lines part, pretraining was worth as much data as lies between them. Of more than 4 scores the "
    "first are shown."
)

METRICS = {
    "token_bits_per_spike": "Bits per spike",
    "decoding_r2": "R²",
    "decoding_balanced_accuracy": "Balanced accuracy",
}


def data(fits: Sequence[Path | str]) -> pd.DataFrame:
    """Scores of all fits that know a share of the data.

    Columns: model, cohort, seed, start ("scratch" or "pretrained"), fraction, score, value.

    Raises
    ------
    NothingToDrawError : no two fits differ in their share of the data (`fraction`).
    """
    rows = []
    for fit in (Fit.at(directory) for directory in fits):
        if not fit.has_table("scores"):
            continue
        config = yaml.safe_load((fit.directory / "config.yaml").read_text())
        if "fraction" not in config:
            continue
        scores = read_parquet(fit.directory / "tables" / "scores.parquet")
        scores = scores.query("split == 'test' and null != 'evaluated mean'")
        start = "pretrained" if config.get("initial") else "scratch"
        place = {"model": fit.model, "cohort": fit.cohort, "seed": fit.seed, "start": start}
        for metric, value in zip(scores["metric"], scores["value"], strict=True):
            if metric.split()[0] in METRICS:
                rows.append(place | {"fraction": config["fraction"], "score": metric, "value": value})
    table = pd.DataFrame(rows)
    if not len(table) or table["fraction"].nunique() < 2:
        raise NothingToDrawError("No fits of different shares of the data: set `fraction` of the Neuroformer.")
    return table


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel a score."""
    scores = list(table["score"].unique())[:MOST]
    figure = new_figure("single" if len(scores) == 1 else "double" if len(scores) > 2 else "wide", 55)
    grid = figure.subplots(1, len(scores), squeeze=False)[0]
    # A little to each side, so that dots of the same height are both seen.
    looks = {"scratch": (QUIET, "--", "From scratch", 97), "pretrained": (INK, "-", "Pretrained", 103)}
    for letter, score, axes in zip("abcd", scores, grid, strict=False):
        for start, (colour, dashes, name, percent) in looks.items():
            rows = table[(table["score"] == score) & (table["start"] == start)]
            mean = rows.groupby("fraction")["value"].mean()
            for _, fits in rows.sort_values("fraction").groupby(["model", "cohort", "seed"]):
                axes.plot(percent * fits["fraction"], fits["value"], "o", ms=2, color=colour, ls=dashes, lw=0.4)
            axes.plot(percent * mean.index, mean, ls=dashes, color=colour, label=name)
        metric, _, variable = score.partition(" ")
        title = shortened(variable.replace("/", ": ").capitalize(), TITLE) or "Tokens"
        if len(scores) > 1:
            panel_title(axes, letter, title)
        else:
            axes.set_title(title, loc="left")
        axes.set_xscale("log")
        ticks = sorted(100 * table["fraction"].unique())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("Training windows (%)")
        axes.set_ylabel(METRICS[metric])
    grid[0].legend()
    return figure
