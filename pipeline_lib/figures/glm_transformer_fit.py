"""What the figures of the GLM-Transformer read of its fits, beside rates and couplings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.figures.excerpts import tested_windows
from pipeline_lib.figures.fits import Fit, first_with
from pipeline_lib.figures.palette import INK, MODEL_COLOURS
from pipeline_lib.trains.splits import Split


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
    return first_with(fits, "area_filters", "No GLM-Transformer with couplings was fitted here.")


def test_windows(fit: Fit, split: Path | str, session: str, extras: Sequence[str]) -> Windows:
    """The test windows of a session, with those of `extras` that the fit has; NothingToDrawError without windows."""
    parts = Split.read(split)
    samples = tested_windows(parts, session)
    rows, known = samples.index.to_numpy(), set(fit.extras(session))
    found = {name: fit.extra(session, name, rows) for name in extras if name in known}
    latents = fit.latents(session, rows)
    assert latents is not None, "a fit with couplings of populations has latents"
    return Windows(samples, parts.bin_ticks, found, latents)


def name_lines(figure: Figure, truth: str) -> None:
    """A legend of the black lines, which are the `truth`, and of those of the model."""
    colours = {truth: INK, "GLM-Transformer": MODEL_COLOURS["glm_transformer"]}
    handles = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


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
