"""Score rates that come from anywhere: two arrays in, the rows that a fit has in the table of scores out."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.bootstrap import resampling_weights
from pipeline_lib.evaluation.rows import Row, poisson_rows
from pipeline_lib.evaluation.sums import poisson_sums

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

COLUMNS = ["units", "metric", "value", "ci_low", "ci_high", "n", "null", "aggregation"]


def score_rates(
    counts: np.ndarray,
    rates: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    heldout: "ArrayLike" = (),
    train_mean: "ArrayLike | None" = None,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Bits per spike and deviance explained of rates that some model expects, as `evaluate` scores those of a fit.

    Parameters
    ----------
    counts : (windows, bins, units), spikes a bin; NaN = not observed.
    rates : the same shape, expected spikes a bin (rates in spikes/s times the bin in s).
    mask : the same shape, bool; False = not observed.
    heldout : rows of the units that the model was not shown (co-smoothing), or a bool a unit; they are scored apart.
    train_mean : (units,), mean spikes a bin in training: a second null, beside the mean of the scored data itself.
    resamples : bootstrap resamples of windows behind the 95 % intervals; 0 = no intervals.

    Returns
    -------
    A row a score, with columns of the table of scores: units ("heldin" or "heldout"), metric, value, ci_low, ci_high,
    n, null, aggregation.

    Raises
    ------
    InputError : arrays of other shapes, counts or rates that are none (see `poisson_sums`), a held-out unit that is
        not there, or a mean that is not above 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, 0.2, size=(20, 50, 4))
    >>> scores = score_rates(rng.poisson(rates), rates, heldout=[3], resamples=0)
    >>> scores.query("metric == 'bits_per_spike' and aggregation == 'pooled'")[["units", "value"]].round(2)
         units  value
    0   heldin   0.67
    3  heldout   0.55
    """
    sums = poisson_sums(counts, rates, mask)
    windows, units = sums.spikes.shape
    hidden = _rows(heldout, units)
    nulls: dict[str, np.ndarray | None] = {"evaluated mean": None}
    if train_mean is not None:
        nulls["train mean"] = _means(train_mean, units)
    weights = resampling_weights(windows, resamples, seed=0)
    groups = {"heldin": np.setdiff1d(np.arange(units), hidden), "heldout": hidden}
    rows: list[Row] = []
    for name, members in groups.items():
        if len(members):
            rows += [row | {"units": name} for row in poisson_rows(sums.units(members), weights, nulls, members)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(given: "ArrayLike", units: int) -> np.ndarray:
    hidden = np.asarray(given)
    if hidden.dtype.kind == "b" and hidden.shape == (units,):
        return np.flatnonzero(hidden)
    if hidden.size and (hidden.dtype.kind not in "iu" or hidden.min() < 0 or hidden.max() >= units):
        raise InputError("data", "heldout", hidden.tolist(), f"rows of the units, 0 to {units - 1}, or a bool for each")
    return np.unique(hidden.astype(np.int64))


def _means(given: "ArrayLike", units: int) -> np.ndarray:
    means = np.asarray(given, dtype=np.float64)
    if means.shape != (units,):
        raise InputError("data", "train_mean", f"shape {means.shape}", f"({units},), a mean for each unit")
    if not (np.isfinite(means) & (means > 0)).all():
        found = means[~(np.isfinite(means) & (means > 0))][0]
        raise InputError(
            "data", "train_mean", found, "spikes a bin above 0 (of a silent unit, half a spike in all bins)"
        )
    return means
