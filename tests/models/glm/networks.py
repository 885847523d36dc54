"""A small network with known filters, and the dense algebra that the engine must agree with."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline_lib.bases import Convolve, RaisedCosineLog, RawHistory
from pipeline_lib.models.glm.data import Data


@dataclass
class Network:
    counts: np.ndarray  # (bins, units) uint8
    kernel: np.ndarray  # (history, basis)
    weights: np.ndarray  # (sender, receiver, basis)
    rates: np.ndarray  # (bins, units) expected counts

    @property
    def connected(self) -> np.ndarray:
        return (self.weights != 0).any(2)


def simulate_network(units: int, bins: int, seed: int, history: int = 30, strength: float = 0.6) -> Network:
    """Poisson units at about 0.1 spikes a bin, a fifth of the pairs connected, every unit with a refractory dip."""
    random = np.random.default_rng(seed)
    kernel = RaisedCosineLog(5).kernel(history)
    weights = random.choice([-1.0, 1.0], (units, units, 1)) * (random.random((units, units, 1)) < 0.2)
    weights = weights * strength * random.uniform(0.5, 1.0, (units, units, 5)) * [1.0, 0.6, 0.3, 0.1, 0.0]
    weights[np.arange(units), np.arange(units)] = [-2.0, -1.0, -0.3, 0.0, 0.0]
    filters = np.einsum("ijb,kb->kij", weights, kernel)
    base = np.log(0.1) + 0.3 * random.normal(size=units)
    log_rate = np.tile(base, (bins + history, 1))
    counts = np.zeros((bins, units), dtype=np.uint8)
    rates = np.zeros((bins, units))
    for bin_ in range(bins):
        rates[bin_] = np.exp(np.minimum(log_rate[bin_], 1.0))
        counts[bin_] = random.poisson(rates[bin_])
        for sender in np.flatnonzero(counts[bin_]):
            log_rate[bin_ + 1 : bin_ + 1 + history] += counts[bin_, sender] * filters[:, sender]
    return Network(counts, kernel, weights, rates)


def dense_design(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The design matrix (scored bins, columns) float64 with its column of ones, and the scored frames."""
    counts = np.asarray(data.counts, dtype=np.float64)
    history = len(data.kernel)
    raw = (
        Convolve(RawHistory(history), history).compute(counts[:, data.senders]) if len(data.senders) else counts[:, :0]
    )
    lagged = raw.reshape(len(counts), len(data.senders), history) @ data.kernel
    frames = np.concatenate([np.arange(start, stop) for start, stop in data.segments])
    dense = [] if data.features is None else [np.asarray(data.features, dtype=np.float64)]
    design = np.concatenate([np.ones((len(counts), 1)), *dense, lagged.reshape(len(counts), -1)], axis=1)
    return design[frames], frames


def newton(
    design: np.ndarray,
    counts: np.ndarray,
    strength: float | np.ndarray,
    allowed: np.ndarray,
    offset: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Poisson-exp ridge fit of one unit (columns,) by Newton's method in float64: sum of losses over bins / bins.

    `strength` is one, or one a column.
    """
    keep = np.concatenate([[True], allowed])
    design = design[:, keep]
    penalty = strength * np.r_[0.0, np.ones(design.shape[1] - 1)]
    weights = np.zeros(design.shape[1])
    weights[0] = np.log(counts.mean())
    for _ in range(50):
        mean = np.exp(design @ weights + offset)
        gradient = design.T @ (mean - counts) / len(counts) + penalty * weights
        hessian = (design.T * mean) @ design / len(counts) + np.diag(penalty)
        step = np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        # A full Newton step can overshoot from the flat start; half a step cannot be far wrong.
        weights -= step if np.abs(design @ step).max() < 2 else 0.3 * step
        if np.abs(gradient @ step) < 1e-22:
            break
    result = np.zeros(len(keep))
    result[keep] = weights
    return result


def as_float64(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
