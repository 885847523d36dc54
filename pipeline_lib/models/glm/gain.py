"""A gain of the trial: how much each population fires in a window, as inputs of a GLM. numpy only.

The log of a population's spikes in the window, relative to the usual, is the same at all bins of the window, and every
unit of the population weighs it: what raises and lowers a whole trial is not for couplings to explain. No unit has the
gain of another population: that would be a coupling by another name. A unit counts in its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData


def populations(data: FitData, session: str) -> tuple[list[str], np.ndarray]:
    """Names, sorted, and which unit is an input in which: 0 or 1, float64 (units, populations)."""
    member = own_gains(data, session).astype(np.float64)
    member[data.heldout(session)] = 0
    return np.unique(data.trains[session].units["population"].to_numpy(str)).tolist(), member


def own_gains(data: FitData, session: str) -> np.ndarray:
    """Which gains a unit has: that of its population, bool (units, populations)."""
    names = data.trains[session].units["population"].to_numpy(str)
    return names[:, None] == np.unique(names)


def usual_activity(data: FitData, session: str) -> np.ndarray:
    """Spikes of each population a training bin that was observed, float64 (populations,)."""
    counts, seen = _scored(data, session, data.samples(session, "train"))
    member = populations(data, session)[1]
    return (counts.sum(0) / np.maximum(seen.sum(0), 1)) @ member


def gain_columns(
    data: FitData, session: str, windows: pd.DataFrame, window: np.ndarray, usual: np.ndarray
) -> np.ndarray:
    """The gains at some frames, float64 (frames, populations); 0 in the history (`window` -1).

    ``log((spikes + 1) / (expected + 1))`` of each population, ``expected`` of its observed bins at the `usual`
    activity: a window without spikes has a gain too, one that nobody observed a gain of 0.
    """
    needed, place = np.unique(window[window >= 0], return_inverse=True)
    columns = np.zeros((len(window), len(usual)))
    counts, seen = _scored(data, session, windows.iloc[needed])
    member = populations(data, session)[1]
    units = np.maximum(member.sum(0), 1)
    expected = (seen @ member) / units * usual
    columns[window >= 0] = np.log((counts @ member + 1) / (expected + 1))[place]
    return columns


def _scored(data: FitData, session: str, windows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Spikes, and observed bins, of each unit in each window, float64 (windows, units), as far as a prediction sees
    them: without held-out units and the bins to forecast; the history left out."""
    counts, mask = (each[:, data.split.history_bins :] for each in data.inputs(session, windows))
    return counts.sum(1, dtype=np.float64), mask.sum(1, dtype=np.float64)
