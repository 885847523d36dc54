"""Rows of the table of scores: a score of the data, its bootstrap interval, its null and how it was aggregated."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline_lib.evaluation.bootstrap import interval
from pipeline_lib.evaluation.metrics import bits_per_spike, mean_over_units, null_rates, poisson_d2, unit_bits_per_spike
from pipeline_lib.evaluation.sums import PoissonSums

POOLED, OVER_UNITS = "pooled", "mean over units"

Row = dict[str, Any]
Nulls = Mapping[str, np.ndarray | None]
"""Rates [N] of null models, counts per bin, by name; None: the mean of the scored data itself."""


def score_row(
    metric: str, values: np.ndarray, n: int, null: str = "", aggregation: str = POOLED, windows: int = 0
) -> Row:
    """A row from the score of the data (first of `values`) and of its bootstrap over `windows` (the others, if any)."""
    low, high = interval(values[1:], windows)
    score = {"metric": metric, "value": float(values[0]), "ci_low": low, "ci_high": high}
    return {**score, "n": n, "null": null, "aggregation": aggregation}


def poisson_rows(sums: PoissonSums, weights: np.ndarray, nulls: Nulls, members: np.ndarray) -> Iterator[Row]:
    """Bits per spike, pooled and averaged over units, and deviance explained, against each null.

    A null is the same in all resamples: fitted to each it would gain from the resampling and shift the interval.
    """
    drawn, windows = sums.weighted(weights), weights.shape[1]
    for name, rates in nulls.items():
        null = null_rates(sums.total())[0] if rates is None else rates[members]
        yield score_row("bits_per_spike", bits_per_spike(drawn, null), windows, name, windows=windows)
        each = unit_bits_per_spike(drawn, null)
        units = int(np.isfinite(each[0]).sum())
        yield score_row("bits_per_spike", mean_over_units(each), units, name, OVER_UNITS, windows)
        yield score_row("poisson_d2", poisson_d2(drawn, null), windows, name, windows=windows)
