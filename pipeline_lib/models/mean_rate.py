"""The mean rate of each unit: the floor that every model must be above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.models.contract import FitData, Model

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run


@dataclass(frozen=True)
class Config:
    """The mean rate has nothing to set."""


class MeanRate(Model):
    """Every bin of a unit is predicted by the mean of its observed training bins (if silent, see `mean_rates`)."""

    Config = Config
    sees = "nothing"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Average over the training windows."""
        self.rates = {}
        for session in data.sessions:
            counts, mask = data.targets(session, "train")
            self.rates[session] = mean_counts(counts, mask)

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """The same for every window and bin."""
        rates = self.rates[session].astype(np.float32)
        return np.broadcast_to(rates, (len(samples), int(samples["bins"].max()), len(rates)))

    def state(self) -> dict[str, np.ndarray]:
        """`{session}/rates`, spikes a bin."""
        return {f"{session}/rates": rates for session, rates in self.rates.items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.rates = {name.removesuffix("/rates"): rates for name, rates in state.items()}


def mean_counts(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean spikes a bin of each unit over its observed bins, as `mean_rates` says.

    Parameters
    ----------
    counts, mask : [S, T, N], counts 0 where the mask is False.

    Returns
    -------
    float64 [N].
    """
    return mean_rates(counts.sum(axis=(0, 1), dtype=np.float64), mask.sum(axis=(0, 1), dtype=np.float64))


def mean_rates(spikes: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Expected spikes a bin of units [N] that fired `spikes` times in `bins` observed bins, float64 [N].

    A silent unit is given half a spike in all its bins: to a rate of 0, a single spike in a test would be a surprise of
    30 bits. One that was never observed takes the mean over the others: any number would do, NaN would not.

    >>> mean_rates(np.array([20.0, 0.0, 0.0]), np.array([100.0, 100.0, 0.0]))
    array([0.2  , 0.005, 0.1  ])
    """
    mean_of_all = max(spikes.sum(), 0.5) / max(bins.sum(), 1.0)
    return np.divide(np.maximum(spikes, 0.5), bins, out=np.full(len(bins), mean_of_all), where=bins > 0)


MODEL = MeanRate
