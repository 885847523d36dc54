"""The fixed functions of the GLM-Transformer: of lags, for its filters, and of time, for its factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.bases import BSpline
from pipeline_lib.bases.lags import raised_cosines
from pipeline_lib.errors import InputError

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.settings import Config
    from pipeline_lib.models.torch_model import Layout

COUPLING_STRETCH = 0.5
DEGREE = 2


def bases(config: Config, layout: Layout) -> dict[str, np.ndarray]:
    """`splines` [T, splines + 1], `coupling_basis` and `history_basis` [lags, functions]: the buffers of a network.

    Raises
    ------
    InputError : as `lag_bases` and `time_splines`.
    """
    return {"splines": time_splines(layout.bins - layout.history, config.splines)} | lag_bases(config, layout.bin_size)


def lag_bases(config: Config, milliseconds: float) -> dict[str, np.ndarray]:
    """`coupling_basis` and `history_basis` [lags, functions] in bins of so many milliseconds.

    Raises
    ------
    InputError : filters that are over before the next bin begins.
    """
    bin_size = milliseconds / 1000
    coupling = config.coupling_basis, config.coupling_peak / bin_size, COUPLING_STRETCH
    history = config.history_basis, config.history_peak / bin_size, config.history_stretch
    made = {"coupling_basis": raised_cosines(*coupling), "history_basis": raised_cosines(*history)}
    for term in ("coupling", "history"):
        if getattr(config, term) != "none" and not len(made[f"{term}_basis"]):
            accepted = f"more: no function reaches the next bin, of {milliseconds:g} ms"
            raise InputError("config", f"{term}_peak", getattr(config, f"{term}_peak"), accepted)
    return made


def time_splines(bins: int, number: int) -> np.ndarray:
    """A constant and `number` quadratic B-splines over a window, each scaled to a maximum of 1: [bins, number + 1].

    Raises
    ------
    InputError : fewer than 3 bins, which have no second difference to be smooth by, or so few that a spline lies
        between two of them.
    """
    values = BSpline(number, order=DEGREE + 1).evaluate(np.linspace(0, 1, bins))
    highest = values.max(axis=0)
    if bins < 3 or not highest.all():
        accepted = f"fewer, or longer windows: the longest has {bins} bins, and at least 3 are needed"
        raise InputError("config", "splines", number, accepted)
    return np.concatenate([np.ones((bins, 1)), values / highest], axis=1)
