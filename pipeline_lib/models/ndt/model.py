"""The Neural Data Transformer as a model of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.models.ndt import settings
from pipeline_lib.models.torch_model import Layout, TorchModel

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.ndt.network import Transformer
    from pipeline_lib.training.batches import Windows


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
        masked = self.config.predict_masked
        return {f"rates_{name}": self.predict_masked(data, session, samples, name) for name in masked}
