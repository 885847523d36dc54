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
    """Every bin of a unit is predicted by the mean of its observed training bins."""

    Config = Config
    sees = "nothing"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Average over the training windows."""
        self.rates = {}
        for session in data.sessions:
            mask = data.mask(session, "train")[:, data.split.history_bins :]
            counts = data.counts(session, "train")[:, data.split.history_bins :]
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
    """Mean spikes a bin of each unit over its observed bins.

    Parameters
    ----------
    counts, mask : [S, T, N], counts 0 where the mask is False.

    Returns
    -------
    float64 [N]. A unit that was never observed takes the mean over the others: any number would do, NaN would not.
    """
    spikes = counts.sum(axis=(0, 1), dtype=np.float64)
    bins = mask.sum(axis=(0, 1), dtype=np.float64)
    mean_of_all = spikes.sum() / max(bins.sum(), 1.0)
    return np.divide(spikes, bins, out=np.full(len(bins), mean_of_all), where=bins > 0)


MODEL = MeanRate
