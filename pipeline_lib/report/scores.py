"""The metrics table as the page shows it: a row a session and model, a column a metric."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.figures.score_table import primary_rows
from pipeline_lib.figures.style import model_colours, model_name, model_order

UNITS = {"heldin": "held-in units", "heldout": "held-out units", "all": "all units", "coupling": "couplings"}
SHOWN_ROWS = 1500
"""Rows of the complete table on the page; all are in metrics.parquet."""


@dataclass(frozen=True)
class Cell:
    """Mean over seeds, and the outer ends of the seeds' intervals; `best` of its session and column."""

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
    def of(cls, scores: pd.DataFrame) -> "Scale":
        """From the lowest interval (but not further below 0 than the best lies above) to the highest."""
        high = max(float(scores[["value", "ci_high"]].max().max()), 0.01)
        return cls(min(0.0, max(float(scores[["value", "ci_low"]].min().min()), -high)), high)

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
    cells: list[Cell | None]


@dataclass(frozen=True)
class ScoreTable:
    """Rows and columns of the main table, and the whole of the metrics table below it."""

    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    everything: list[dict] = field(default_factory=list)
    left_out: int = 0


def read_scores(metrics: Path) -> ScoreTable:
    """The tables of a metrics file; empty ones where it is missing or holds nothing."""
    table = pd.read_parquet(metrics) if metrics.is_file() else pd.DataFrame()
    if table.empty:
        return ScoreTable()
    main = primary_rows(table)
    columns = [units for units in UNITS if (main["units"] == units).any()]
    scales = {units: Scale.of(main[main["units"] == units]) for units in columns}
    colours = model_colours(main["model"].unique())
    rows = []
    for (cohort, session), scores in main.groupby(["cohort", "session"]):
        means = scores.groupby(["model", "units"])["value"].mean()
        top = means.groupby("units").max()
        for model in model_order(scores["model"].unique()):
            own = scores[scores["model"] == model]
            cells = [_cell(own[own["units"] == units], top.get(units), scales[units]) for units in columns]
            sees, seeds = str(own["sees"].iloc[0]), own["seed"].nunique()
            name, colour = model_name(model), colours[model]
            rows.append(Row(str(cohort), str(session), model, name, colour, sees, seeds, cells))
    everything = table.sort_values(["cohort", "session", "model", "seed", "split", "units", "metric"])
    return ScoreTable(
        columns=[f"Bits per spike, {UNITS[units]}" for units in columns],
        rows=rows,
        everything=everything.head(SHOWN_ROWS).to_dict("records"),
        left_out=max(0, len(everything) - SHOWN_ROWS),
    )


def _cell(scores: pd.DataFrame, top: float | None, scale: Scale) -> Cell | None:
    if scores.empty:
        return None
    value = float(scores["value"].mean())
    return Cell(value, float(scores["ci_low"].min()), float(scores["ci_high"].max()), value == top, scale)
