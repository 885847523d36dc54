"""Expected counts of a fitted coupled GLM, one bin ahead of the real past, or ahead of its own forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.observation import Observation, observation_model

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.glm.model import CoupledGLM

LARGEST_ETA = 60.0
"""Keeps a forecast that explodes a finite float32."""


def expected_counts(model: CoupledGLM, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
    """Float32 [S, T, units], see `CoupledGLM.predict`. Computed in float64: a window's numbers depend on it alone."""
    learned, config = model.learned[session], model.config
    observation = observation_model(config.observation, config.link)
    coefficients = torch.from_numpy(learned["coefficients"]).to(model.device)
    inputs, frames = model.read(data, session, samples, learned, merge=False)
    design = Design(inputs, torch.float64, model.device, "low")
    mean = _mean(observation, design.predictors(coefficients))
    hidden = data.split.forward_bins  # in training windows too, where they are known: a forecast is a forecast
    if hidden and len(inputs.senders):
        uncoupled = coefficients.clone()
        uncoupled[:, -len(inputs.senders) * inputs.kernel.shape[1] :] = 0.0
        _forecast(mean, design.predictors(uncoupled), inputs, coefficients, observation, hidden)
    rates = np.zeros((len(samples), int(samples["bins"].max()), mean.shape[1]), dtype=np.float32)
    window, position = frames.places(np.arange(len(frames)))
    scored = window >= 0
    rates[frames.windows["number"].to_numpy()[window[scored]], position[scored]] = mean.cpu().numpy()[scored]
    return rates


def _mean(observation: Observation, eta: Tensor) -> Tensor:
    return observation.mean(eta.clamp(max=LARGEST_ETA)).clamp(min=0.0)


def _forecast(
    mean: Tensor, alone: Tensor, inputs: Data, coefficients: Tensor, observation: Observation, hidden: int
) -> None:
    """Fill the last `hidden` bins of every segment of `mean` (frames, units): expected counts stand in for counts.

    `alone` is the linear predictor without couplings. Exact for the mean of a linear model; for the others it leaves
    out the spread of possible pasts.
    """
    history, n_senders = len(inputs.kernel), len(inputs.senders)
    weights = coefficients[:, -n_senders * inputs.kernel.shape[1] :].reshape(len(coefficients), n_senders, -1)
    kernel = torch.from_numpy(inputs.kernel).to(mean.device)
    # Oldest lag first, as frames are.
    filters = torch.einsum("jib,kb->kij", weights, kernel.flip(0)).reshape(history * n_senders, -1)
    senders = torch.from_numpy(inputs.senders).to(mean.device)
    past = inputs.counts.to(mean.device, mean.dtype)[:, senders]
    stops = torch.from_numpy(inputs.segments[:, 1]).to(mean.device)
    lags = torch.arange(-history, 0, device=mean.device)
    for ahead in range(hidden):
        rows = stops - hidden + ahead
        window = past[rows[:, None] + lags].reshape(len(rows), -1)
        mean[rows] = _mean(observation, alone[rows] + window @ filters)
        past[rows] = mean[rows][:, senders]
