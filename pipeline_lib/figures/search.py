"""Searches for hyper-parameters: how the loss fell, and which settings it depends on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.names import shortened, told_apart
from pipeline_lib.figures.palette import EXCITATION, INHIBITION, INK, QUIET, model_name
from pipeline_lib.figures.style import log_axis, new_figure, styled

CAPTION = (
    "Each row is one search. Left: the validation loss of every trial in their order, the line the best so far; "
    "crosses at the top are trials that failed, or whose loss is too far up for the axis. Right: the same losses "
    "against the settings that they depend on most (by rank correlation, given in each title). A setting whose best "
    "trials lie at an end of its range should be searched further that way; one without a trend may be left at its "
    "default. Losses decide on the validation part, never on the test part."
)

SHOWN = 3
"""Settings shown of each search."""
ROW_HEIGHT = 38.0
TITLE, NAME = 26, 14
"""Letters above or below a panel, and of a setting's value below its points."""
KNOWN = ("generation", "member", "parent", "score")


def data(searches: Sequence[Path | str]) -> pd.DataFrame:
    """Trials of all searches, from their trials.csv, in one table.

    Columns: search, cohort, trial (order), generation, member, setting, value, label, score (validation loss; inf:
    failed), best (lowest so far), correlation (Spearman, of score and value; NaN where there is none). A row a trial
    and setting; values that are no numbers are numbered in alphabetical order, and `label` says what they are. Raises
    NothingToDrawError where there is no search.
    """
    tables = []
    for path in map(Path, searches):
        trials = pd.read_csv(path).assign(search=path.parent.parent.name, cohort=path.parent.name)
        trials["trial"], trials["best"] = np.arange(len(trials)), trials["score"].cummin()
        for setting in [name for name in trials.columns if name not in (*KNOWN, "search", "cohort", "trial", "best")]:
            values, label = trials[setting], np.full(len(trials), "")
            if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
                label = values.to_numpy(dtype=str)
                values = pd.Series(np.unique(label, return_inverse=True)[1])
            done = np.isfinite(trials["score"])
            ranks = values[done].rank(), trials["score"][done].rank()
            varied = done.sum() > 2 and all(each.nunique() > 1 for each in ranks)
            correlation = ranks[0].corr(ranks[1]) if varied else np.nan
            about = {"setting": setting, "value": values, "label": label, "correlation": correlation}
            tables.append(trials.assign(**about))
    if not tables:
        raise NothingToDrawError("No search for hyper-parameters was configured.")
    columns = ["search", "cohort", "trial", "generation", "member", "setting", "value", "label"]
    return pd.concat(tables, ignore_index=True)[[*columns, "score", "best", "correlation"]]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a search: the losses in order, then the settings that matter most."""
    table = table.assign(label=table["label"].astype(object).fillna(""))  # a CSV file has no empty text
    rows = [(str(search), str(cohort), each) for (search, cohort), each in table.groupby(["search", "cohort"])]
    figure = new_figure("double", len(rows) * ROW_HEIGHT + 4)
    grid = figure.subplots(len(rows), 1 + SHOWN, squeeze=False)
    for line, (search, cohort, trials) in zip(grid, rows, strict=True):
        once = trials.drop_duplicates("trial")
        top = _top(once["score"])
        _points(line[0], once["trial"].to_numpy() + 1, once["score"], top)
        line[0].step(once["trial"] + 1, once["best"].clip(upper=top), where="post", color=INK, lw=0.9)
        line[0].set_title(shortened(f"{model_name(str(search))}, {cohort}", TITLE))
        line[0].locator_params(axis="x", integer=True, min_n_ticks=1)
        line[0].set_xlabel("Trial")
        line[0].set_ylabel("Validation loss")
        strength = trials.drop_duplicates("setting").set_index("setting")["correlation"].abs()
        chosen = strength.sort_values(ascending=False, na_position="last", kind="stable").index[:SHOWN]
        for axes in line[1 + len(chosen) :]:
            axes.set_visible(False)
        for axes, setting in zip(line[1:], chosen, strict=False):
            rows_of = trials[trials["setting"] == setting]
            _points(axes, rows_of["value"].to_numpy(), rows_of["score"], top)
            correlation = float(rows_of["correlation"].iloc[0])
            axes.set_title(f"rank correlation {correlation:+.2f}".replace("-", "\u2212"), color=QUIET)
            axes.set_xlabel(shortened(str(setting).replace("_", " "), TITLE))
            named = rows_of[rows_of["label"] != ""].drop_duplicates("label")
            low, high = rows_of["value"].min(), rows_of["value"].max()
            if len(named):
                names = told_apart(named["label"].astype(str).tolist(), NAME)
                crowded = sum(map(len, names)) > TITLE
                look: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
                axes.set_xticks(named["value"], names, **look)
                axes.margins(x=0.3)
            elif low > 0 and high / low > 30:
                log_axis(axes.xaxis, rows_of["value"])
            else:
                axes.locator_params(axis="x", nbins=4 if low < high else 1)
            axes.sharey(line[0])
            axes.tick_params(labelleft=False)
    return figure


def _top(scores: pd.Series) -> float:
    """Where the axis ends: a few diverged trials would hide all others."""
    done = scores[np.isfinite(scores)]
    if done.empty:
        return 1.0
    low, middle = done.min(), done.median()
    return float(min(done.max(), middle + 3 * max(middle - low, 1e-3)))


def _points(axes: Axes, x: np.ndarray, scores: pd.Series, top: float) -> None:
    values = scores.to_numpy()
    shown = values <= top
    axes.plot(x[shown], values[shown], "o", ms=2.8, color=INHIBITION, mec="white", mew=0.3)
    if not shown.all():  # crosses of nothing, not clipped, take room at the figure's corner from every panel
        axes.plot(x[~shown], np.full((~shown).sum(), top), "x", ms=3.0, color=EXCITATION, clip_on=False)
