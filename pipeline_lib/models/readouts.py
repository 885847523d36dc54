"""Two Poisson readouts: of the bins whose surroundings are known, and of the bins to forecast."""

from dataclasses import dataclass

import numpy as np

from pipeline_lib.models.poisson_ridge import log_rates


@dataclass(frozen=True)
class Readouts:
    """`weights` [readouts, H, N] and `bias` [readouts, N]: the first reads the window, the last the bins ahead.

    Inputs say less of the bins to forecast, which they only precede. One readout of both would weigh them too little
    inside the window and far too much ahead of it. Without bins to forecast there is one.
    """

    weights: np.ndarray
    bias: np.ndarray

    def of(self, unit: int) -> "Readouts":
        """Those of one unit."""
        return Readouts(self.weights[:, :, [unit]], self.bias[:, [unit]])

    def log_rates(self, inputs: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Log of expected counts, float32 [S, T, N], from `inputs` [S, T, H]; `ahead` [S, T]: bins to forecast."""
        logs = log_rates(inputs, self.weights[0], self.bias[0])
        if ahead.any():
            logs[ahead] = log_rates(inputs[ahead], self.weights[-1], self.bias[-1])
        return logs
