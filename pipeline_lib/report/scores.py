"""The metrics table as the page shows it: a row a session and model, a column a metric."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.evaluation.settings import AVERAGED, MEAN
from pipeline_lib.figures.paired import bootstrap_interval, by_session
from pipeline_lib.figures.palette import model_colours, model_name, model_order
from pipeline_lib.figures.score_table import primary_rows
from pipeline_lib.published import read_parquet

UNITS = {"heldin": "held-in units", "heldout": "held-out units", "all": "all units", "coupling": "couplings"}
SHOWN_ROWS = 800
"""Rows of a table on the page, of which a browser shows a few at a time; all are in metrics.parquet."""


@dataclass(frozen=True)
class Cell:
    """Mean over seeds, and the outer ends of the seeds' intervals; `best` of its session and column.

    Where units were held out none is best in the columns of others: the best prediction of a unit that a model is shown
    is a copy. Nor are rates averaged over seeds: they are of several fits, and score no less than these do on average.
    """

    value: float
    low: float
    high: float
    best: bool
    scale: "Scale"

    @property
    def places(self) -> tuple[float, float, float, float]:
        """Where low, value, high and 0 lie on the column's scale, 0 to 100."""
        return (
            self.scale.place(self.low),
            self.scale.place(self.value),
            self.scale.place(self.high),
            self.scale.place(0),
        )


@dataclass(frozen=True)
class Scale:
    """The range that all intervals of a column are drawn in; what lies below it is drawn at its lower end."""

    low: float
    high: float

    @classmethod
    def of(cls, values: pd.DataFrame | pd.Series) -> "Scale":
        """From the lowest of all `values` (but not further below 0 than the best lies above) to the highest."""
        high = max(float(np.nanmax(values)), 0.01)
        return cls(min(0.0, max(float(np.nanmin(values)), -high)), high)

    def place(self, value: float) -> float:
        """Per cent of the way from `low` to `high`."""
        value = self.low if np.isnan(value) else value
        return round(100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low), 1)


@dataclass(frozen=True)
class Row:
    """Scores of a model in a session; a cell is None where there is no such score."""

    cohort: str
    session: str
    model: str
    name: str
    colour: str
    sees: str
    seeds: int
    """Of which the scores are the mean; 0 for rates averaged over seeds, which have one score."""
    cells: list[Cell | None]


@dataclass(frozen=True)
class Standing:
    """A model over all sessions; by column the mean, its interval, and in how many of how many sessions it is best."""

    model: str
    name: str
    colour: str
    sees: str
    cells: list[Cell | None]
    wins: list[tuple[int, int] | None]
    """None of averaged rates."""


@dataclass(frozen=True)
class ScoreTable:
    """Models over all sessions, models session by session, and the whole of the metrics table below it."""

    columns: list[str] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    rows_left_out: int = 0
    everything: list[dict] = field(default_factory=list)
    left_out: int = 0
    fewest: int = 0
    """Windows behind the interval that is over the fewest; 0 without intervals."""

    @property
    def models(self) -> list[tuple[str, str]]:
        """Names of the models scored, as in the results and as a reader writes them."""
        return [(model, model_name(model)) for model in model_order({row.model for row in self.rows})]

    @property
    def has_intervals(self) -> bool:
        """Whether some mean over sessions has an interval: of few sessions there is none."""
        return any(np.isfinite(cell.low) for row in self.standings for cell in row.cells if cell)


def read_scores(metrics: Path) -> ScoreTable:
    """The tables of a metrics file; empty ones where it is missing or holds nothing."""
    table = read_parquet(metrics) if metrics.is_file() else pd.DataFrame()
    if table.empty:
        return ScoreTable()
    main = primary_rows(table)
    columns = [units for units in UNITS if (main["units"] == units).any()]
    drawn = ["value", "ci_low", "ci_high"]
    scales = {units: Scale.of(main.loc[main["units"] == units, drawn]) for units in columns}
    colours = model_colours(main["model"].unique())
    rows = []
    for (cohort, session), scores in main.groupby(["cohort", "session"]):
        means = scores.groupby(["model", "units"])["value"].mean()
        top = means[_single(means.index.get_level_values("model"))].groupby("units").max().reindex(_judged(scores))
        for model in model_order(scores["model"].unique()):
            own = scores[scores["model"] == model]
            cells = [
                _cell(own[own["units"] == units], means.get((model, units)), top.get(units), scales[units])
                for units in columns
            ]
            sees, seeds = str(own["sees"].iloc[0]), own["seed"].nunique()
            name, colour = model_name(model), colours[model]
            rows.append(Row(str(cohort), str(session), model, name, colour, sees, seeds, cells))
    everything = table.sort_values(["cohort", "session", "model", "seed", "split", "units", "metric"])
    everything = everything.assign(seed=everything["seed"].astype(object).where(everything["seed"].notna(), MEAN))
    return ScoreTable(
        columns=[f"Bits per spike, {UNITS[units]}" for units in columns],
        standings=_standings(main, columns),
        rows=rows[:SHOWN_ROWS],
        rows_left_out=max(0, len(rows) - SHOWN_ROWS),
        everything=everything.head(SHOWN_ROWS).to_dict("records"),
        left_out=max(0, len(everything) - SHOWN_ROWS),
        fewest=int(main.loc[main["ci_low"].notna(), "n"].min()) if main["ci_low"].notna().any() else 0,
    )


def _judged(scores: pd.DataFrame) -> list[str]:
    """The units by which these scores have a best model; see `Cell`."""
    units = scores["units"].unique().tolist()
    return ["heldout"] if "heldout" in units else units


def _single(models: pd.Index) -> np.ndarray:
    """Which are models as they were fitted, and no averages."""
    return ~models.str.endswith(AVERAGED)


def _standings(main: pd.DataFrame, columns: list[str]) -> list[Standing]:
    """Means over sessions, after those over seeds; `by_session` says how a session in several cohorts counts.

    The best is one of the models that were scored in the most sessions: to fail in a hard one is no merit.
    """
    means = main.groupby(["units", "session", "cohort", "model"])["value"].mean().unstack("model")
    models = model_order(main["model"].unique())
    grids = {units: by_session(means.loc[[units]]) for units in columns}
    colours, sees = model_colours(models), main.drop_duplicates("model").set_index("model")["sees"]
    judged = _judged(main)
    standings = []
    for model in models:
        cells: list[Cell | None] = []
        wins: list[tuple[int, int] | None] = []
        for units, grid in grids.items():
            over_sessions, sessions = grid.mean(), grid.notna().sum()
            single = grid.loc[:, _single(grid.columns)]
            counted = sessions[single.columns]
            best = float(over_sessions[single.columns][counted == counted.max()].max())
            values = grid[model].dropna().to_numpy()
            low, high = bootstrap_interval(values)
            value = float(over_sessions[model])
            cell = Cell(value, low, high, units in judged and value == best, Scale.of(over_sessions))
            cells.append(cell if len(values) else None)
            won = int((single.dropna(how="all").idxmax(axis="columns") == model).sum())
            wins.append((won, len(values)) if model in single else None)
        standings.append(Standing(model, model_name(model), colours[model], str(sees[model]), cells, wins))
    return standings


def _cell(scores: pd.DataFrame, value: float | None, top: float | None, scale: Scale) -> Cell | None:
    """`value`, the mean of `scores`, and `top` come from one computation: another differs in the last digit."""
    if value is None:
        return None
    return Cell(value, float(scores["ci_low"].min()), float(scores["ci_high"].max()), value == top, scale)
