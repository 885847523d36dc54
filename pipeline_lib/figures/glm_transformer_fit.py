"""What the figures of the GLM-Transformer read of its fits, beside rates and couplings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import Fit, first_seeds
from pipeline_lib.trains.splits import Split

TABLE = "area_filters"


@dataclass(frozen=True)
class Windows:
    """The test windows of a session: rows of the split, and what the fit says of each.

    `extras` by name [S, ...]; `latents` [S, T, populations x factors].
    """

    samples: pd.DataFrame
    bin_ticks: int
    extras: dict[str, np.ndarray]
    latents: np.ndarray


def coupled_fit(fits: Sequence[Path | str]) -> Fit:
    """The first fit that has couplings of populations; NothingToDrawError where none has."""
    for fit in first_seeds(fits).values():
        if (fit.directory / "tables" / f"{TABLE}.parquet").is_file():
            return fit
    raise NothingToDrawError("No GLM-Transformer with couplings was fitted here.")


def table(fit: Fit, name: str, session: str) -> pd.DataFrame:
    """The rows of a session in one of the fit's tables."""
    rows = pd.read_parquet(fit.directory / "tables" / f"{name}.parquet")
    return rows[rows["session"] == session].reset_index(drop=True)


def test_windows(fit: Fit, split: Path | str, session: str, extras: Sequence[str]) -> Windows:
    """The test windows of a session, with those of `extras` that the fit has."""
    import zarr

    parts = Split.read(Path(split))
    samples = parts.part(session, "test")
    group = zarr.open_group(str(fit.directory / "predictions.zarr"), mode="r")[session]
    row = {int(sample): number for number, sample in enumerate(group["sample"][:])}
    order = [row[int(sample)] for sample in samples.index]
    found = {name: np.asarray(group[f"extras/{name}"][:])[order] for name in extras if f"extras/{name}" in group}
    return Windows(samples, parts.bin_ticks, found, np.asarray(group["latents"][:])[order])


def matched(fitted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, float]:
    """`fitted` on the scale of `true` by least squares (two numbers), and their correlation; both of one shape.

    A constant says nothing: the correlation is NaN, and the matched curve the mean.
    """
    x, y = fitted.ravel().astype(np.float64), true.ravel().astype(np.float64)
    spread = np.sqrt(((x - x.mean()) ** 2).sum() * ((y - y.mean()) ** 2).sum())
    if spread == 0:
        return np.full(true.shape, y.mean()), float("nan")
    product = ((x - x.mean()) * (y - y.mean())).sum()
    slope = product / ((x - x.mean()) ** 2).sum()
    return y.mean() + slope * (fitted - x.mean()), float(product / spread)
