"""Gaussian-process factor analysis as a model of the pipeline.

The latents are those of Yu et al. 2009, of square roots of counts, fitted to all units of the training part. Rates are
read out as in the Neural Latents Benchmark, by Poisson regression on the latents; here no unit is predicted from its
own spikes, so that held-in scores are honest too: each unit has its own latents, those that all other held-in units
imply (see `Posterior.without`).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.models.by_session import by_session, joined
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gpfa.em import start, steps
from pipeline_lib.models.gpfa.posterior import Parameters, Posterior, groups
from pipeline_lib.models.gpfa.readout import fit_readout
from pipeline_lib.models.gpfa.settings import Config as Settings
from pipeline_lib.models.readouts import Readouts

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run

TRAINED, PREDICTED = 512, 4096
"""Most latents x bins of one window, when fitting and when predicting; longer windows are cut, and each part stands
alone. A posterior takes the cube of this number of operations."""


class Gpfa(Model):
    """Few smooth latents behind all units, and a Poisson readout of each unit from the latents of the others."""

    Config = Settings
    config: Settings
    sees = "held-in units other than itself, past and future"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Fit the latents for every number of them; choose it, and the readout's penalty, on the validation part."""
        self.parameters: dict[str, Parameters] = {}
        self.readouts: dict[str, Readouts] = {}
        for number, session in enumerate(data.sessions):
            best = np.inf
            counts, mask = data.read(session, "train")
            validation = data.validation(session)
            largest = max(1, min(data.trains[session].n_units - 1, len(counts)))
            for latents in sorted({min(each, largest) for each in self.config.latents}):
                parameters = self._learn(counts, mask, latents, data.split.bin_size, run)
                weights, bias, losses = self._read_out(data, session, parameters, validation, run)
                for place, (ridge, loss) in enumerate(zip(self.config.ridge, losses, strict=True)):
                    row = {"session": session, "latents": latents, "ridge": ridge}
                    run.log(row | {"validation_nll_per_spike": loss})
                    if session not in self.readouts or loss < best:
                        best, self.parameters[session] = loss, parameters
                        self.readouts[session] = Readouts(weights[place], bias[place])
            run.progress(number + 1, len(data.sessions), best)

    def _learn(self, counts: np.ndarray, mask: np.ndarray, latents: int, bin_size: float, run: Run) -> Parameters:
        counts, mask = _cut(counts, mask, TRAINED // latents)
        seen = mask.any(axis=(1, 2))
        values, mask = np.sqrt(counts[seen], dtype=np.float64), mask[seen]
        first = start(values, mask, latents, self.config.timescale / bin_size)
        likelihoods: list[float] = []
        for step in islice(steps(values, mask, first), self.config.iterations):
            run.stop_if_asked()
            parameters, likelihood = step
            likelihoods.append(likelihood)
            raised = likelihood - likelihoods[0]
            if raised > 0 and likelihood - likelihoods[-2] < self.config.tolerance * raised:
                break
        return parameters

    def _read_out(
        self, data: FitData, session: str, parameters: Parameters, validation: pd.DataFrame, run: Run
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By penalty R: `Readouts` (weights [R, zones, D, N], bias [R, zones, N]), loss [R] of held-in validation."""
        history, heldin = data.split.history_bins, set(data.heldin(session).tolist())
        parts = (data.samples(session, "train"), validation)
        known, unseen = ([values[:, history:] for values in data.read(session, samples)] for samples in parts)
        train, test = (_Latents(data, session, samples, parameters) for samples in parts)
        ahead = data.ahead(session, parts[0])
        zones = [~ahead, ahead] if (known[1] & ahead[:, :, None]).any() else [~ahead]
        units, latents = parameters.loadings.shape
        weights = np.zeros((len(self.config.ridge), len(zones), latents, units))
        # What a unit keeps that was never observed: the mean of all.
        usual = max(float(known[0].sum(dtype=np.int64)), 0.5) / known[1].sum()
        bias = np.full((len(self.config.ridge), len(zones), units), np.log(usual))
        losses = np.zeros(len(self.config.ridge))
        # Where nothing was observed, as past the end of a shorter window, latents fall back to 0.
        scale = np.maximum(train.whole[known[1].any(axis=2)].std(axis=0), 1e-9)
        order = np.argsort(self.config.ridge)[::-1]  # from the strongest to the weakest: each starts near its solution
        for unit in range(units):
            run.stop_if_asked()
            inputs, (counts, mask) = train.of(unit), (values[:, :, unit] for values in known)
            for zone, bins in enumerate(zones):
                used, solution = mask & bins, None
                for place in order if used.any() else ():
                    solution = fit_readout(inputs[used] / scale, counts[used], self.config.ridge[place], solution)
                    weights[place, zone, :, unit], bias[place, zone, unit] = solution[:-1] / scale, solution[-1]
            if unit in heldin:
                counts, mask = (values[:, :, unit] for values in unseen)
                logs = test.of(unit)[mask] @ weights[:, 0, :, unit].T + bias[:, 0, unit]
                losses += (np.exp(logs) - counts[mask][:, None] * logs).sum(axis=0)
        return weights, bias, losses / max(int(unseen[0].sum()), 1)

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts of each unit from the latents that the other held-in units imply."""
        every = np.arange(data.trains[session].n_units)
        return self._rates(session, _Latents(data, session, samples, self.parameters[session]), every)

    def _rates(self, session: str, latents: _Latents, units: np.ndarray) -> np.ndarray:
        """Rates [S, T, units], each read out of the latents that predict it."""
        readouts = self.readouts[session]
        each = [readouts.of(unit).log_rates(latents.of(unit), latents.ahead) for unit in units]
        return np.exp(np.concatenate(each, axis=2)).astype(np.float32)

    def extras(self, data: FitData, session: str, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        """`rates_{mode}` [S, T, N] of the modes of `predict_masked`, NaN for held-out units."""
        given, heldin = {}, data.heldin(session)
        region = data.trains[session].units["population"].to_numpy()[heldin]
        for mode in self.config.predict_masked:
            rates = np.full(
                (len(samples), int(samples["bins"].max()), data.trains[session].n_units), np.nan, np.float32
            )
            for name in np.unique(region):
                targets, others = heldin[region == name], heldin[region != name]
                inputs = {"leave_one_out": heldin, "intra_region": targets, "inter_region": others}[mode]
                latents = _Latents(data, session, samples, self.parameters[session], inputs)
                rates[:, :, targets] = self._rates(session, latents, targets)
            given[f"rates_{mode}"] = rates
        return given

    def latents(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Posterior mean of the latents given all held-in units, float32 [S, T, D]."""
        return _Latents(data, session, samples, self.parameters[session]).whole.astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Per session the fields of its `Parameters` and those of its `Readouts`."""
        return joined({session: vars(each) | vars(self.readouts[session]) for session, each in self.parameters.items()})

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.parameters, self.readouts = {}, {}
        for session, learned in by_session(state).items():
            self.readouts[session] = Readouts(learned.pop("weights"), learned.pop("bias"))
            self.parameters[session] = Parameters(**learned)


class _Latents:
    """Posterior latents of some windows: `whole` [S, T, D] from `inputs`, and those without one of these units.

    `inputs` are rows of held-in units; None: all of them. `ahead` [S, T]: bins to forecast.
    """

    def __init__(
        self,
        data: FitData,
        session: str,
        samples: pd.DataFrame,
        parameters: Parameters,
        inputs: np.ndarray | None = None,
    ) -> None:
        counts, mask = data.inputs(session, samples)
        if inputs is not None:
            mask = mask & np.isin(np.arange(mask.shape[2]), inputs)
        self.ahead = data.ahead(session, samples)
        self.windows, self.bins, self.history = len(counts), counts.shape[1], data.split.history_bins
        counts, mask = _cut(counts, mask, PREDICTED // len(parameters.timescales))
        self.parts = []
        for group in groups(mask):
            values = np.sqrt(counts[group.rows], dtype=np.float64)
            self.parts.append((group.rows, Posterior(parameters, values, group.mask)))
        self.shape = (*counts.shape[:2], len(parameters.timescales))
        self.inputs = np.asarray(mask.any(axis=(0, 1)))
        self.whole = self._gather([(rows, part.mean.transpose(0, 2, 1)) for rows, part in self.parts])

    def of(self, unit: int) -> np.ndarray:
        """What predicts this unit, [S, T, D]."""
        if not self.inputs[unit]:
            return self.whole
        return self._gather([(rows, part.without(unit)) for rows, part in self.parts])

    def _gather(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        joined = np.empty(self.shape)
        for rows, values in parts:
            joined[rows] = values
        return joined.reshape(self.windows, -1, self.shape[2])[:, self.history : self.bins]


def _cut(counts: np.ndarray, mask: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows [S, L, N] cut into parts of at most `most` bins, as equal as can be; the last is filled with nothing."""
    bins, units = counts.shape[1:]
    parts = -(-bins // max(most, 1))
    missing = -bins % parts
    if missing:
        counts, mask = (np.pad(array, ((0, 0), (0, missing), (0, 0))) for array in (counts, mask))
    return counts.reshape(-1, (bins + missing) // parts, units), mask.reshape(-1, (bins + missing) // parts, units)
