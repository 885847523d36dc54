"""The Neural Data Transformer as a model of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.models.ndt import settings
from pipeline_lib.models.torch_model import PREDICTED, Layout, TorchModel

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.ndt.network import Transformer
    from pipeline_lib.training.batches import Windows


MASKINGS: dict[str, settings.Mode] = {
    "leave_one_out": "neuron",
    "intra_region": "intra_region",
    "inter_region": "inter_region",
}
"""Modes of masking by what evaluation calls their predictions."""


class NDT(TorchModel):
    """A transformer over bins that learns to fill in masked spike counts (Ye & Pandarinath 2021)."""

    Config = settings.Config
    sees = "held-in units, past and future"
    ensembles = True
    config: settings.Config
    network: Transformer

    def __init__(self, config: settings.Config, seed: int) -> None:
        super().__init__(config, seed)
        if config.context_forward == 0:
            self.sees = "held-in units, past and present"  # type: ignore[misc]

    def build(self, layout: Layout) -> Transformer:
        """The network, with weights from torch's generator."""
        from pipeline_lib.models.ndt.network import Transformer

        return Transformer(self.config, layout)

    def initialise(self, windows: dict[str, Windows]) -> None:
        """Start every unit at its mean rate. The public code starts at a spike a bin."""
        if not self.config.compat:
            for session, each in windows.items():
                self.network.start_at(session, each.mean_counts())

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """`rates_{mode}` of the masked predictions that the settings ask for (see `predict_masked`)."""
        modes = {name: MASKINGS[name] for name in self.config.predict_masked}
        return {f"rates_{name}": self.predict_masked(data, session, samples, mode) for name, mode in modes.items()}

    def predict_masked(
        self, data: FitData, session: str, samples: pd.DataFrame, mode: settings.Mode, bins: int = 0
    ) -> np.ndarray:
        """Rates of what a mode of masking hides, each from what the mode leaves to see: the tests of multi-task NDTs.

        Parameters
        ----------
        data, session, samples : as for `predict`.
        mode : `neuron`: each held-in unit from all others. `intra_region`: each from the others of its population.
            `inter_region`: each from the other populations. `causal`: the last `bins` bins from those before.
        bins : how many bins to forecast.

        Returns
        -------
        float32 [S, T, N], NaN where nothing is predicted so.
        """
        import torch

        from pipeline_lib.models.ndt.masking import hidden_in_turn

        self._check(session, samples)
        shape = (len(samples), int(samples["bins"].max()), self.layout.units[session])
        rates = np.full(shape, np.nan, np.float32)
        population, heldin = np.array(self.layout.population[session]), self.layout.heldin[session]
        self.network.eval()
        for start in range(0, len(samples), PREDICTED):
            batch = self._windows(data, session, samples.iloc[start : start + PREDICTED]).batch(slice(None))
            target = rates[start : start + PREDICTED, : batch.counts.shape[1] - batch.history]
            for hidden, scored in hidden_in_turn(batch, mode, population, heldin, bins):
                shown = (batch.counts * batch.visible).masked_fill(hidden, 0)
                with torch.inference_mode():
                    given = self.network.rates_given(batch, shown)[:, batch.history :].float().cpu()
                chosen = scored.expand(batch.counts.shape)[:, batch.history :].cpu()
                target[chosen.numpy()] = given[chosen].numpy()
        return rates
