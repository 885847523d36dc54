"""LFADS as a model of the pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import TRAIN, VALIDATION
from pipeline_lib.models.lfads import settings
from pipeline_lib.models.lfads.settings import segment_bins
from pipeline_lib.models.torch_model import PREDICTED, Layout, TorchModel

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline_lib.evaluation.rows import Row
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.lfads.alignment import Responses
    from pipeline_lib.models.lfads.network import LFADS as Network
    from pipeline_lib.training.batches import Batch, Windows
    from pipeline_lib.training.run import State
    from pipeline_lib.trains.settings import WindowSettings

CONDITION = "condition"
"""The name among the inputs of training windows of their condition's code, int64 [B]; -1: none."""
SMOOTHING = 20.0
"""Milliseconds, standard deviation of the Gaussian that smooths responses before sessions are aligned."""


class LFADS(TorchModel):
    """Latent factor analysis via dynamical systems (Sussillo et al. 2016; Pandarinath et al. 2018)."""

    Config = settings.Config
    sees = "held-in units, past and future"
    ensembles = True
    of_data = ("signals",)
    config: settings.Config
    network: Network

    def __init__(self, config: settings.Config, seed: int) -> None:
        super().__init__(config, seed)
        if config.initial_segment and not config.inferred_inputs:
            self.sees = f"held-in units, first {config.initial_segment:g} s"  # type: ignore[misc]
        if config.signals:
            self.sees = f"{self.sees}; signals {', '.join(config.signals)}"  # type: ignore[misc]

    @classmethod
    def check_windows(cls, config: settings.Config, windows: WindowSettings, forward: float) -> None:
        """A segment of a bin at least: of none, the initial condition would see everything."""
        segment = config.initial_segment
        if segment and not segment_bins(segment, windows.bin_size):
            raise InputError("config", "initial_segment", segment, f"0, or a bin of {windows.bin_size:g} ms at least")

    @classmethod
    def check_data(cls, config: settings.Config, data: FitData) -> None:
        """Signals that are named are there, each with one column."""
        for session in data.sessions if config.signals else ():
            cls(config, seed=0)._signals(data, session, data.samples(session, TRAIN).iloc[:0])

    def learned(self, data: FitData) -> FitData:
        """The validation part as one of training, where it is to be learned from."""
        if not self.config.learn_validation:
            return data
        parts = data.split.samples["split"].replace(VALIDATION, TRAIN)
        return replace(data, split=replace(data.split, samples=data.split.samples.assign(split=parts)))

    def check_initial(self, given: State, before: Layout) -> None:
        """A network that read several sessions has a read-in for each, and one of a single session none by itself."""
        theirs = next((len(given[name]) for name in sorted(given) if name.endswith("/read_in.weight")), None)
        own = self.network.head(next(iter(self.layout.units))).read_in
        width = None if own is None else own.out_features
        if width != theirs:
            found = "none, as of one session" if width is None else width
            accepted = "null, and one session" if theirs is None else f"read_in: {theirs}, the width of those weights"
            raise InputError(self.config.initial, "read_in", found, accepted)

    def build(self, layout: Layout) -> Network:
        """The network, with weights from torch's generator."""
        from pipeline_lib.models.lfads.network import LFADS as Network

        return Network(self.config, layout, self.seed)

    def inputs(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """Sample ids and signals; for a fit also conditions, and which counts are kept for validation."""
        from pipeline_lib.models.lfads.concealment import HIDDEN
        from pipeline_lib.models.lfads.network import SAMPLE, SIGNALS

        ids = samples.index.to_numpy(dtype=np.int64, copy=True)
        made: dict[str, np.ndarray] = {SAMPLE: ids}
        if self.config.signals:
            made[SIGNALS] = self._signals(data, session, samples)
        if data.fitting:
            names = data.split.samples["condition"].fillna("").astype(str)
            known = {name: code for code, name in enumerate(sorted(set(names) - {""}))}
            made[CONDITION] = names.loc[samples.index].map(known).fillna(-1).to_numpy(dtype=np.int64, copy=True)
            if self.config.sample_validation and (data.split.samples["split"].loc[samples.index] == TRAIN).all():
                made[HIDDEN] = self._kept(data, session, samples)
        return made

    def _signals(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Float32 [S, L, E], NaN where a signal is not known."""
        from pipeline_lib.models.glm.inputs import signal_values

        split, names = data.split, self.config.signals
        length = split.history_bins + longest(samples)
        start = samples["start_tick"].to_numpy(dtype=np.int64)[:, None]
        ticks = start + (np.arange(length) - split.history_bins) * split.bin_ticks
        columns = [signal_values(data, session, name, ticks.reshape(-1)) for name in names]
        for name, column in zip(names, columns, strict=True):
            if column.shape[1] != 1:
                accepted = f"one of its columns, as {name}.x"
                raise InputError(f"session {session}", "signals", f"{name} of {column.shape[1]} columns", accepted)
        return np.concatenate(columns, axis=1).reshape(*ticks.shape, len(names)).astype(np.float32)

    def _kept(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Bool [S, L, N]: held-in counts of training windows that are kept for validation.

        The same in every epoch and for every seed: a fit may start from the weights of another, as in a population.
        """
        share, heldin = self.config.sample_validation, data.heldin(session)
        bins = data.split.history_bins + longest(samples)
        kept = np.zeros((len(samples), bins, data.trains[session].n_units), dtype=bool)
        for row, sample in enumerate(samples.index.to_numpy()):
            draw = np.random.default_rng([1, int(sample)])
            # Bin by bin: what is drawn for a bin does not depend on how long the other windows are.
            kept[row][:, heldin] = draw.random((bins, len(heldin))) < share
        return kept

    def start(self, data: FitData, windows: dict[str, Windows]) -> None:
        """Make the network; with sample validation it watches the counts of `windows` that are kept from the fit."""
        from pipeline_lib.training.batches import InOrder

        super().start(data, windows)
        if self.config.sample_validation:
            self.network.watched = InOrder(windows, PREDICTED)

    def initialise(self, windows: dict[str, Windows]) -> None:
        """Start every unit at its mean rate, and a cohort's read-ins and read-outs at common latents."""
        from pipeline_lib.models.lfads.network import SIGNALS

        for session, each in windows.items():
            self.network.head(session).start_at(each, SIGNALS if self.config.signals else None)
        if self.config.alignment and len(windows) > 1:
            self._align(windows)

    def _align(self, windows: dict[str, Windows]) -> None:
        import torch

        from pipeline_lib.models.lfads.alignment import align

        responses = {session: self._responses(session, each) for session, each in windows.items()}
        first = next(iter(windows))
        width = self.network.head(first).read_in.out_features  # type: ignore[union-attr]
        made = align(responses, width, SMOOTHING / self.layout.bin_size)
        with torch.no_grad():
            for session, alignment in made.items():
                self.network.head(session).start_from(alignment)

    def _responses(self, session: str, windows: Windows) -> Responses:
        from pipeline_lib.models.lfads.alignment import Responses
        from pipeline_lib.models.lfads.concealment import learned_from

        shape = (int(windows.bins.max()), self.layout.units[session])
        spikes: dict[int, np.ndarray] = {}
        seen: dict[int, np.ndarray] = {}

        def arrays(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            learned = learned_from(batch)
            counts = batch.counts * learned
            return counts.cpu().numpy(), learned.cpu().numpy(), batch.observed.cpu().numpy()

        for batch in windows.pieces():
            counts, mask, _ = arrays(batch)
            codes = batch.inputs[CONDITION].cpu().numpy()
            for code in np.unique(codes[codes >= 0]).tolist():
                for total, array in ((spikes, counts), (seen, mask)):
                    target = total.setdefault(code, np.zeros(shape))
                    target[: array.shape[1]] += array[codes == code].sum(axis=0)
        heldin = np.array(self.layout.heldin[session])
        return Responses(spikes, seen, lambda: arrays(next(windows.pieces())), heldin, windows.history)

    def tables(self, data: FitData) -> dict[str, pd.DataFrame]:
        """With sample validation, "scores": how well the training counts that were kept from the fit are predicted."""
        if not self.config.sample_validation:
            return {}
        import pandas as pd

        rows = [self._sample_validation(data, session) for session in data.sessions]
        return {"scores": pd.DataFrame(rows)}

    def _sample_validation(self, data: FitData, session: str) -> Row:
        """Bits a spike of the kept counts, when the encoders are not shown them."""
        from pipeline_lib.evaluation.metrics import bits_per_spike
        from pipeline_lib.evaluation.rows import score_row
        from pipeline_lib.evaluation.sums import poisson_sums

        samples, history = data.samples(session, "train"), data.split.history_bins
        concealing = replace(data, fitting=True)
        rates = self._apply(self.network.rates, concealing, session, samples)
        counts, mask = data.targets(session, samples)
        kept = mask & self._kept(data, session, samples)[:, history:]
        value = bits_per_spike(poisson_sums(counts, np.maximum(rates, 1e-9), kept).total())
        how = "mean of the kept counts of each unit", "pooled over windows, bins and units"
        row = score_row("sample_validation_bits_per_spike", value, len(samples), *how)
        return {"session": session, "split": "train", "units": "heldin", **row}

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """`initial_conditions` [S, I]; with a controller `inferred_inputs` [S, T, U], NaN past a window's end; and
        `rates_{name}` of the masked predictions that the settings ask for (see `predict_masked`)."""
        network = self.network

        def initial(batch: Batch) -> Tensor:
            return network.outputs(batch).initial[:, None].expand(-1, batch.history + 1, -1)

        def inferred(batch: Batch) -> Tensor:
            inputs = network.outputs(batch).inputs
            assert inputs is not None
            return inputs.transpose(0, 1)

        found = {"initial_conditions": self._apply(initial, data, session, samples)[:, 0]}
        if self.config.inferred_inputs:
            values = self._apply(inferred, data, session, samples)
            values[np.arange(values.shape[1]) >= samples["bins"].to_numpy()[:, None]] = np.nan
            found["inferred_inputs"] = values
        for name in self.config.predict_masked:
            found[f"rates_{name}"] = self.predict_masked(data, session, samples, name)
        return found


def longest(samples: pd.DataFrame) -> int:
    """Bins of the longest window; 0 where there is none, as in the validation part of a fit that learns from it."""
    return int(samples["bins"].to_numpy().max(initial=0))
