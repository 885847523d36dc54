"""The Neural Data Transformer as a model of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.models.ndt import settings
from pipeline_lib.models.torch_model import Layout, TorchModel

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.ndt.network import Transformer
    from pipeline_lib.training.batches import Batch, Windows


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

        def masked(batch: Batch) -> Tensor:
            rates = torch.full(batch.counts.shape, torch.nan, device=batch.counts.device)
            population, heldin = np.array(self.layout.population[session]), self.layout.heldin[session]
            for hidden, scored in hidden_in_turn(batch, mode, population, heldin, bins):
                shown = (batch.counts * batch.visible).masked_fill(hidden, 0)
                given = self.network.rates_given(batch, shown).float()
                rates = torch.where(scored, given, rates)
            return rates

        return self._apply(masked, data, session, samples, beyond=np.nan)
