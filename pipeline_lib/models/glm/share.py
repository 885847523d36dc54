"""How much of what a coupled GLM says of its units' rates is coupling between populations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

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
    """Share of the variance of linear predictors (without own history) that coupling between populations makes up.

    (variance with it - variance without it) / variance with it, variances over windows and bins summed over units:
    what Xin & Kass (2025, arXiv 2506.02263, figure 4) call false coupling where there is none.
    """
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

    def variance(dropped: np.ndarray) -> float:
        """Of the predictors without some couplings (units, senders)."""
        weights = coefficients[:, first:].reshape(units, len(senders), -1)
        kept = weights * torch.from_numpy(~dropped)[:, :, None]
        changed = torch.cat([coefficients[:, :first], kept.reshape(units, -1)], dim=1)
        values = design.predictors(changed.to(model.device)).cpu()
        return float(_variances(values, seen.to(values)).sum())

    with_it = variance(own)
    return (with_it - variance(own | between)) / with_it if with_it > 0 else float("nan")


def _variances(values: Tensor, seen: Tensor) -> Tensor:
    """Of each column over the frames that were seen; 0 where none was."""
    count = seen.sum(0).clamp(min=1)
    return ((values - (values * seen).sum(0) / count).square() * seen).sum(0) / count
