"""How much of what a coupled GLM says of its units' rates is coupling between populations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from pipeline_lib.evaluation.rows import Row, score_row
from pipeline_lib.models.contract import TEST
from pipeline_lib.models.glm.design import Design

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm.model import CoupledGLM


def share_scores(model: CoupledGLM, data: FitData) -> pd.DataFrame:
    """`coupling_share` of the test windows, a row a session with several populations: rows of the table of scores."""
    rows = []
    for session in data.sessions:
        samples, populations = data.samples(session, TEST), data.trains[session].units["population"].nunique()
        if populations > 1 and len(samples) and len(model.learned[session]["senders"]):
            share = coupling_share(model, data, session, samples)
            rows.append({"session": session, **share_row(share, len(samples))})
    return pd.DataFrame(rows)


def share_row(share: float, windows: int) -> Row:
    """The row of a session's table of scores for the `share` of coupling in its test windows."""
    how = "variance over windows, bins, units"
    row = score_row("coupling_share", np.array([share]), windows, aggregation=how)
    return {"split": TEST, "units": "coupling", **row}


def coupling_share(model: CoupledGLM, data: FitData, session: str, samples: pd.DataFrame) -> float:
    """`variance_share` of coupling between populations in the linear predictors of some windows."""
    learned = model.learned[session]
    inputs, frames = model.read(data, session, samples, learned, merge=False)
    scored = torch.from_numpy(frames.places(np.arange(len(frames)))[0] >= 0)[:, None]
    seen = scored.expand(-1, inputs.counts.shape[1]) if inputs.weights is None else inputs.weights.bool() & scored
    design = Design(inputs, torch.float64, model.device, "low")
    coefficients = torch.from_numpy(learned["coefficients"])
    senders, units = learned["senders"], len(coefficients)
    first = coefficients.shape[1] - len(senders) * inputs.kernel.shape[1]
    population = data.trains[session].units["population"].to_numpy()
    own = senders == np.arange(units)[:, None]
    between = population[senders] != population[:, None]

    def without(dropped: np.ndarray) -> np.ndarray:
        """The predictors (frames, units) without some couplings (units, senders)."""
        weights = coefficients[:, first:].reshape(units, len(senders), -1)
        kept = weights * torch.from_numpy(~dropped)[:, :, None]
        changed = torch.cat([coefficients[:, :first], kept.reshape(units, -1)], dim=1)
        return design.predictors(changed.to(model.device)).cpu().numpy()

    return variance_share([(without(own), without(own | between), seen.numpy())])


def variance_share(pieces: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Share of the variance of log-rates, own histories left out, that coupling between populations makes up.

    (variance with it - variance without it) / variance with it, variances over windows and bins summed over units:
    what Xin & Kass (2025, arXiv 2506.02263, figure 4) call false coupling where there is none.

    Each of the `pieces`: log-rates with that coupling and without it, and which bins were observed, all [..., units].
    NaN where nothing varies.
    """
    moments: np.ndarray | float = 0.0
    for *both, seen in pieces:
        each = [[(seen * values**power).reshape(-1, seen.shape[-1]).sum(0) for power in range(3)] for values in both]
        moments = moments + np.array(each)
    bins, first, second = np.swapaxes(moments, 0, 1)
    bins = np.maximum(bins, 1)  # a unit that was never observed there counts for nothing
    with_it, without = (second / bins - (first / bins) ** 2).sum(axis=1)
    return float((with_it - without) / with_it) if with_it > 0 else float("nan")
