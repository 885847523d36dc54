"""Smoothed spikes and a Poisson readout: what the other units tell about a unit, without a model of dynamics.

The baseline of the Neural Latents Benchmark (Pei et al. 2021) with two changes: kernel width and penalty are chosen
on the validation part, and no unit is ever predicted from its own spikes, so that its held-in scores are honest too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gaussian import smooth
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge, log_rates

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run


@dataclass(frozen=True)
class Config:
    """Grids, of which the values that predict the held-in units of the validation part best are taken."""

    smoothing: tuple[float, ...] = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
    """Standard deviations (ms) of the Gaussian that smooths the held-in units."""
    ridge: tuple[float, ...] = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
    """Penalties: ridge / 2 * |weights|^2 is added to the negative log-likelihood (nats, summed over bins); a weight is
    the change of log-rate for one standard deviation of its input."""
    log_offset: float = 1e-4
    """Spikes a bin added to the smoothed counts before the logarithm."""

    def __post_init__(self) -> None:
        if not self.smoothing or not all(0 <= sd < np.inf for sd in self.smoothing):
            raise InputError("config", "smoothing", list(self.smoothing), "at least one number of ms, none negative")
        if not self.ridge or not all(0 < ridge < np.inf for ridge in self.ridge):
            raise InputError("config", "ridge", list(self.ridge), "at least one number, all above 0")
        if not 0 < self.log_offset < np.inf:
            raise InputError("config", "log_offset", self.log_offset, "a number above 0")


class Smoothing(Model):
    """Log of smoothed held-in units -> ridge Poisson regression -> all units, a unit's own input left out."""

    Config = Config
    sees = "held-in units other than itself, past and future"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Choose the kernel at the middle penalty, then the penalty; then fit the readout to all units."""
        self.encoders: dict[str, Encoder] = {}
        self.readouts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for session in data.sessions:
            search = _Search(self.config, data, session, run)
            self.encoders[session], self.readouts[session] = search.best(np.arange(data.trains[session].n_units))

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts from the other units' smoothed spikes in the same window and its history."""
        inputs = self.encoders[session].inputs(Windows.read(data, session, samples))
        return np.exp(log_rates(inputs, *self.readouts[session]))

    def state(self) -> dict[str, np.ndarray]:
        """Per session the fields of its `Encoder`, and `weights` [held-in units, units] and `bias` of its readout."""
        arrays = {}
        for session, encoder in self.encoders.items():
            weights, bias = self.readouts[session]
            for name, value in (vars(encoder) | {"weights": weights, "bias": bias}).items():
                arrays[f"{session}/{name}"] = np.asarray(value)
        return arrays

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.encoders, self.readouts = {}, {}
        for session in {name.rpartition("/")[0] for name in state}:
            units, sd, offset, center, scale = (state[f"{session}/{field.name}"] for field in fields(Encoder))
            self.encoders[session] = Encoder(units, float(sd), float(offset), center, scale)
            self.readouts[session] = state[f"{session}/weights"], state[f"{session}/bias"]


@dataclass
class Windows:
    """Counts and mask of some windows, [S, history + T, N]."""

    counts: np.ndarray
    mask: np.ndarray
    history: int

    @classmethod
    def read(cls, data: FitData, session: str, samples: pd.DataFrame) -> Windows:
        """The windows `samples`, as far as the model may see them."""
        return cls(data.counts(session, samples), data.mask(session, samples), data.split.history_bins)

    def scored(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts and mask of some units without the history, [S, T, units]."""
        return self.counts[:, self.history :, units], self.mask[:, self.history :, units]


@dataclass
class Encoder:
    """From the counts of the held-in units to the inputs of the readout.

    `units` int64 [H], rows of the held-in units; `sd`, bins, of the kernel; `log_offset`, spikes a bin, added before
    the logarithm; `center` and `scale`, float32 [H], mean and standard deviation over the training bins.
    """

    units: np.ndarray
    sd: float
    log_offset: float
    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def learn(cls, units: np.ndarray, sd: float, log_offset: float, train: Windows) -> tuple[Encoder, np.ndarray]:
        """The encoder, scaled by the bins of the training windows where a unit was observed itself, and its inputs."""
        encoder = cls(units, sd, log_offset, np.zeros(len(units), np.float32), np.ones(len(units), np.float32))
        inputs = encoder._logs(train)
        _, seen = train.scored(units)
        bins = np.maximum(seen.sum(axis=(0, 1)), 1)
        encoder.center = (inputs.sum(axis=(0, 1), dtype=np.float64, where=seen) / bins).astype(np.float32)
        squares = np.square(inputs - encoder.center).sum(axis=(0, 1), dtype=np.float64, where=seen)
        encoder.scale = np.where(squares > 0, np.sqrt(squares / bins), 1).astype(np.float32)
        return encoder, encoder._standardise(inputs)

    def inputs(self, windows: Windows) -> np.ndarray:
        """float32 [S, T, H], standardised log of the smoothed counts; 0, the mean, where no bin near was observed."""
        return self._standardise(self._logs(windows))

    def _logs(self, windows: Windows) -> np.ndarray:
        counts, mask = windows.counts[..., self.units], windows.mask[..., self.units]
        smoothed = smooth(counts, mask, self.sd, windows.history)
        smoothed += np.float32(self.log_offset)
        return np.log(smoothed, out=smoothed)

    def _standardise(self, logs: np.ndarray) -> np.ndarray:
        """In place."""
        logs -= self.center
        logs /= self.scale
        return np.nan_to_num(logs, copy=False, nan=0.0)

    def problem(self, inputs: np.ndarray, windows: Windows, targets: np.ndarray) -> Problem:
        """The regression of `targets` (rows of units) on the inputs, none on its own."""
        counts, mask = windows.scored(targets)
        own = np.where(np.isin(targets, self.units), np.searchsorted(self.units, targets), -1)
        if mask.all():
            return Problem(inputs.reshape(-1, len(self.units)), counts.reshape(-1, len(targets)), None, own)
        rows = mask.any(axis=2)
        return Problem(inputs[rows], counts[rows], mask[rows], own)


class _Search:
    """The choice of kernel and penalty in one session."""

    def __init__(self, config: Config, data: FitData, session: str, run: Run) -> None:
        self.config, self.session, self.run = config, session, run
        self.train = Windows.read(data, session, data.samples(session, "train"))
        self.validation = Windows.read(data, session, data.validation(session))
        self.heldin, self.bin_size = data.heldin(session), data.split.bin_size
        self.steps = len(data.sessions) * (len(config.smoothing) + len(config.ridge) - 1)

    def best(self, units: np.ndarray) -> tuple[Encoder, tuple[np.ndarray, np.ndarray]]:
        """The kernel that is best at the middle penalty, the penalty that is best with it, and their readout."""
        # From the strongest to the weakest: each fit starts near its solution.
        penalties = sorted(self.config.ridge, reverse=True)
        middle = penalties[len(penalties) // 2]
        by_kernel = {sd: self._losses(sd, [middle], *self._learn(sd))[middle] for sd in self.config.smoothing}
        sd = min(by_kernel, key=lambda tried: by_kernel[tried])
        encoder, inputs = self._learn(sd)
        by_penalty = self._losses(sd, [ridge for ridge in penalties if ridge != middle], encoder, inputs)
        by_penalty[middle] = by_kernel[sd]
        ridge = min(penalties, key=lambda tried: by_penalty[tried])
        weights, bias = fit_poisson_ridge(encoder.problem(inputs, self.train, units), ridge)
        return encoder, (weights.astype(np.float32), bias.astype(np.float32))

    def _learn(self, sd: float) -> tuple[Encoder, np.ndarray]:
        return Encoder.learn(self.heldin, sd / self.bin_size, self.config.log_offset, self.train)

    def _losses(self, sd: float, ridges: list[float], encoder: Encoder, inputs: np.ndarray) -> dict[float, float]:
        """By penalty: Poisson negative log-likelihood (nats, no factorials) a spike of the held-in validation bins."""
        problem, unseen = encoder.problem(inputs, self.train, self.heldin), encoder.inputs(self.validation)
        counts, mask = self.validation.scored(self.heldin)
        losses = {}
        weights = None
        for ridge in ridges:
            self.run.stop_if_asked()
            # Losses are compared in the third digit: a tenth of the precision of the final fit will do.
            weights, bias = fit_poisson_ridge(problem, ridge, start=weights, tolerance=1e-5)
            logs = log_rates(unseen, weights, bias)
            nll = np.where(mask, np.exp(logs) - counts * logs, 0).sum(dtype=np.float64)
            losses[ridge] = loss = float(nll / max(int(counts.sum()), 1))
            row = {"session": self.session, "smoothing": sd, "ridge": ridge, "validation_nll_per_spike": loss}
            self.run.log(row)
            self.run.progress(len(self.run.rows), self.steps, loss)
        return losses


MODEL = Smoothing
