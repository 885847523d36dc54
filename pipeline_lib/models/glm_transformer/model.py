"""The GLM-Transformer as a model of the pipeline."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, cast

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import Couplings
from pipeline_lib.models.glm_transformer import settings
from pipeline_lib.models.glm_transformer.bases import lag_bases, time_splines
from pipeline_lib.models.torch_model import PREDICTED, Layout, TorchModel

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm_transformer.network import GLMTransformer
    from pipeline_lib.training.batches import Batch, Batches, Windows
    from pipeline_lib.training.run import Run, State
    from pipeline_lib.trains.settings import WindowSettings


class GLMTransformerModel(TorchModel):
    """Couplings between populations beside a background that varies from trial to trial (Xin & Kass 2025)."""

    Config = settings.Config
    sees = "held-in units, past and future"
    config: settings.Config
    network: GLMTransformer

    def __init__(self, config: settings.Config, seed: int) -> None:
        super().__init__(config, seed)
        self.training: dict[str, Windows] = {}
        if config.background == "invariant":
            self.sees = "past of held-in units"  # type: ignore[misc]

    @classmethod
    def check_windows(cls, config: settings.Config, windows: WindowSettings, forward: float) -> None:
        """Filters that reach the next bin, and windows of enough bins, where these do not go to the trials' stops."""
        lag_bases(config, windows.bin_size)
        if windows.bins is not None:
            time_splines(windows.bins, config.splines)

    def build(self, layout: Layout) -> GLMTransformer:
        """The network, with weights from torch's generator."""
        from pipeline_lib.models.glm_transformer.network import GLMTransformer

        return GLMTransformer(self.config, layout)

    def initialise(self, windows: dict[str, Windows]) -> None:
        """Start every unit at its mean rate. The public code starts anywhere."""
        self.training = windows
        if not self.config.compat:
            for session, each in windows.items():
                self.network.head(session).start_at(each.mean_counts())

    def check_initial(self, given: State, before: Layout) -> None:
        """The populations must be the same: weights that sessions share go by their order."""
        others = sorted({name for names in before.population.values() for name in names})
        if others != self.network.areas:
            accepted = f"a fit of {', '.join(self.network.areas)}"
            raise InputError(self.config.initial, "populations", ", ".join(others), accepted)

    def train(self, batches: Batches, validation: Iterable[Batch], run: Run) -> None:
        """Stage after stage, each from the best weights of the one before; then loadings of norm 1."""
        from pipeline_lib.models.glm_transformer.stages import stage_runs, stages
        from pipeline_lib.training.engine import Training

        network = self.network
        frozen = frozenset(name for name, weight in network.named_parameters() if not weight.requires_grad)
        for stage, view in stage_runs(run, stages(self.config)):
            if stage.name == "coupling" and view.saved is None:
                self.align(frozen)
            stage.prepare(network, frozen)
            if stage.prunes and view.saved is None and not self.prune(validation):
                continue
            Training(network, batches, validation, self.config, self.seed, cast("Run", view)).train()
        for session in self.layout.units:
            network.head(session).normalise()
        self.training = {}

    def align(self, frozen: Collection[str]) -> None:
        """Start couplings where the stages before left something to explain. The public code starts anywhere.

        Those of another fit (`initial`), and those with a weight among the `frozen`, stay as they are.
        """
        from pipeline_lib.models.glm_transformer.network import GROUPS
        from pipeline_lib.models.glm_transformer.start import align_couplings

        if self.config.compat or self.config.initial is not None:
            return
        for session, windows in self.training.items():
            if not any(f"sessions.{session}.{name}" in frozen for name in GROUPS["coupling"]):
                align_couplings(self.network, session, windows.pieces(PREDICTED))

    def inputs(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """The condition of each window, as a number: what permutations of trials must not mix."""
        rows = data.split.samples
        known = np.unique(rows.loc[rows["session"] == session, "condition"].to_numpy(str))
        return {"condition": np.searchsorted(known, samples["condition"].to_numpy(str))}

    def prune(self, validation: Iterable[Batch]) -> int:
        """Drop the couplings of populations that validation trials do not bear out, and say how many.

        A pair stays where spikes and rates go together within milliseconds (`timing.timing_test`), at a false-discovery
        rate of `prune` among the pairs of its session. What cannot be tested stays.
        """
        from scipy import stats

        from pipeline_lib.models.glm.inference import false_discovery_rate
        from pipeline_lib.models.glm_transformer.timing import timing_test

        dropped = 0
        for session, own in groupby(validation, attrgetter("session")):
            coupled = self.network.head(session).coupled
            q = false_discovery_rate(stats.norm.sf(timing_test(self.network.eval(), own)))
            for sender, receiver in np.argwhere(q > self.config.prune).tolist():
                coupled[sender, receiver] = 0
                dropped += 1
        return dropped

    def couplings(self, session: str) -> Couplings | None:
        """Filters of all pairs of units; on the diagonal a unit's own history is added. NaN from held-out units."""
        if self.config.coupling == "none":
            return None
        from pipeline_lib.models.glm_transformer.readout import unit_filters

        filters = unit_filters(self.network, session)
        heldout = np.setdiff1d(np.arange(self.layout.units[session]), self.layout.heldin[session])
        filters[heldout] = np.nan
        return Couplings(filters, self.layout.bin_size, filters.sum(axis=2))

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """Of each window: `latent_mean`, `latent_sd` [S, dimensions]; `coupling_factors` [S, T, P]; and the components.

        P runs over (sender, receiver, factor). With `components`, `log_rate_{background,coupling,history}` [S, T, N].
        """
        network, config = self.network, self.config
        found: dict[str, np.ndarray] = {}
        if config.background == "full":
            found["latent_mean"], found["latent_sd"] = self.posterior(data, session, samples)
        if config.coupling != "none":

            def factors(batch: Batch) -> Tensor:
                inputs = network.inputs(batch)
                return padded(network.coupling_factors(session, inputs, batch.history), batch)

            found["coupling_factors"] = self._apply(factors, data, session, samples)
        if config.components:
            parts = self.components(data, session, samples)
            found |= {f"log_rate_{name}": part for name, part in parts.items()}
        return found

    def components(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """The parts of the log-rate (log spikes a bin), float32 [S, T, N] each; `background` holds the unit's bias."""
        import torch

        names = ("background", *sorted(self.network.terms & {"coupling", "history"}))

        def parts(batch: Batch) -> Tensor:
            found = self.network.components(batch)
            return padded(torch.cat([found[name] for name in names], 2), batch)

        whole = self._apply(parts, data, session, samples)
        return dict(zip(names, np.split(whole, len(names), axis=2), strict=True))

    def posterior(self, data: FitData, session: str, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the latents of each window, float32 [S, dimensions]."""
        import torch

        means, deviations = [], []
        with torch.inference_mode():
            for batch in self.batches(data, session, samples):
                mean, log_variance = self.network.encode(batch)
                means.append(mean.flatten(1).cpu().numpy())
                deviations.append((log_variance / 2).exp().flatten(1).cpu().numpy())
        return np.concatenate(means), np.concatenate(deviations)

    def tables(self, data: FitData) -> dict[str, pd.DataFrame]:
        """`couplings`, a row a pair of units; `area_couplings`, of populations; `loadings`, a row a unit; and more."""
        from pipeline_lib.models.glm_transformer.tables import coupling_tables

        return coupling_tables(self, data)


def padded(values: Tensor, batch: Batch) -> Tensor:
    """`values` [B, T, ...] with the bins of the history before them, as `TorchModel` expects."""
    from torch.nn import functional

    return functional.pad(values, (0, 0, batch.history, 0))
