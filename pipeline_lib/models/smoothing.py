"""Smoothed spikes and a Poisson readout: what the other units tell about a unit, without a model of dynamics.

The baseline of the Neural Latents Benchmark (Pei et al. 2021) with three changes: kernel width and penalty are chosen
on the validation part; no unit is ever predicted from its own spikes, so that its held-in scores are honest too; and
bins to forecast have a readout of their own (the benchmark's baseline makes no forecasts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.by_session import by_session, joined
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gaussian import smooth
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge, log_rates, nll_per_spike
from pipeline_lib.models.readouts import Readouts

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
        """Choose the kernel at the middle penalty, then the penalty; then fit the readouts to all units."""
        self.encoders: dict[str, Encoder] = {}
        self.readouts: dict[str, Readouts] = {}
        for session in data.sessions:
            search = _Search(self.config, data, session, run)
            self.encoders[session], self.readouts[session] = search.best(np.arange(data.trains[session].n_units))

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts from the other units' smoothed spikes in the same window and its history."""
        windows = Windows.read(data, session, samples)
        return np.exp(self.readouts[session].log_rates(self.encoders[session].inputs(windows), windows.ahead))

    def state(self) -> dict[str, np.ndarray]:
        """Per session the fields of its `Encoder` and those of its `Readouts`."""
        each = {session: vars(encoder) | vars(self.readouts[session]) for session, encoder in self.encoders.items()}
        return {name: np.asarray(value) for name, value in joined(each).items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.encoders, self.readouts = {}, {}
        for session, learned in by_session(state).items():
            self.readouts[session] = Readouts(learned["weights"], learned["bias"])
            sd, offset = float(learned["sd"]), float(learned["log_offset"])
            self.encoders[session] = Encoder(learned["units"], sd, offset, learned["center"], learned["scale"])


@dataclass
class Windows:
    """Some windows: what is to be predicted, and what it may be predicted from.

    `counts` and `mask` [S, T, N], without the history; `inputs` and `shown` [S, history + T, N], held-out units and
    forward bins hidden; `ahead` [S, T], the forward bins.
    """

    counts: np.ndarray
    mask: np.ndarray
    inputs: np.ndarray
    shown: np.ndarray
    ahead: np.ndarray

    @classmethod
    def read(cls, data: FitData, session: str, samples: pd.DataFrame) -> Windows:
        """The windows `samples`, as far as the model may see them."""
        counts, mask = data.targets(session, samples)
        return cls(counts, mask, *data.inputs(session, samples), data.ahead(session, samples))

    @property
    def history(self) -> int:
        """Bins before the window."""
        return self.inputs.shape[1] - self.counts.shape[1]


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
        inputs, seen = encoder._logs(train), train.shown[:, train.history :, units]
        bins = np.maximum(seen.sum(axis=(0, 1)), 1)
        encoder.center = (inputs.sum(axis=(0, 1), dtype=np.float64, where=seen) / bins).astype(np.float32)
        squares = np.square(inputs - encoder.center).sum(axis=(0, 1), dtype=np.float64, where=seen)
        encoder.scale = np.where(squares > 0, np.sqrt(squares / bins), 1).astype(np.float32)
        return encoder, encoder._standardise(inputs)

    def inputs(self, windows: Windows) -> np.ndarray:
        """float32 [S, T, H], standardised log of the smoothed counts; 0, the mean, where no bin near was observed."""
        return self._standardise(self._logs(windows))

    def _logs(self, windows: Windows) -> np.ndarray:
        counts, shown = windows.inputs[..., self.units], windows.shown[..., self.units]
        smoothed = smooth(counts, shown, self.sd, windows.history)
        smoothed += np.float32(self.log_offset)
        return np.log(smoothed, out=smoothed)

    def _standardise(self, logs: np.ndarray) -> np.ndarray:
        """In place."""
        logs -= self.center
        logs /= self.scale
        return np.nan_to_num(logs, copy=False, nan=0.0)

    def problem(self, inputs: np.ndarray, windows: Windows, targets: np.ndarray, ahead: bool = False) -> Problem:
        """The regression of `targets` (rows of units), none on its own input, in the window or in the bins `ahead`."""
        counts, mask = windows.counts[..., targets], windows.mask[..., targets]
        own = np.where(np.isin(targets, self.units), np.searchsorted(self.units, targets), -1)
        if mask.all() and not windows.ahead.any():
            return Problem(inputs.reshape(-1, len(self.units)), counts.reshape(-1, len(targets)), None, own)
        rows = mask.any(axis=2) & (windows.ahead == ahead)
        observed = mask[rows]
        return Problem(inputs[rows], counts[rows], None if observed.all() else observed, own)


class _Search:
    """The choice of kernel and penalty in one session."""

    def __init__(self, config: Config, data: FitData, session: str, run: Run) -> None:
        self.config, self.session, self.run = config, session, run
        self.train = Windows.read(data, session, data.samples(session, "train"))
        self.validation = Windows.read(data, session, data.validation(session))
        self.heldin, self.bin_size = data.heldin(session), data.split.bin_size
        self.steps = len(data.sessions) * (len(config.smoothing) + len(config.ridge) - 1)

    def best(self, units: np.ndarray) -> tuple[Encoder, Readouts]:
        """The kernel that is best at the middle penalty, the penalty that is best with it, and their readouts."""
        # From the strongest to the weakest: each fit starts near its solution.
        penalties = sorted(self.config.ridge, reverse=True)
        middle = penalties[len(penalties) // 2]
        by_kernel = {sd: self._losses(sd, [middle], *self._learn(sd))[middle] for sd in self.config.smoothing}
        sd = min(by_kernel, key=lambda tried: by_kernel[tried])
        encoder, inputs = self._learn(sd)
        by_penalty = self._losses(sd, [ridge for ridge in penalties if ridge != middle], encoder, inputs)
        by_penalty[middle] = by_kernel[sd]
        ridge = min(penalties, key=lambda tried: by_penalty[tried])
        fits = [fit_poisson_ridge(encoder.problem(inputs, self.train, units), ridge)]
        if (self.train.mask & self.train.ahead[:, :, None]).any():
            fits.append(_forecast(encoder.problem(inputs, self.train, units, ahead=True), ridge))
        weights, bias = (np.stack(each).astype(np.float32) for each in zip(*fits, strict=True))
        return encoder, Readouts(weights, bias)

    def _learn(self, sd: float) -> tuple[Encoder, np.ndarray]:
        return Encoder.learn(self.heldin, sd / self.bin_size, self.config.log_offset, self.train)

    def _losses(self, sd: float, ridges: list[float], encoder: Encoder, inputs: np.ndarray) -> dict[float, float]:
        """By penalty the `nll_per_spike` of the held-in validation bins."""
        problem, unseen = encoder.problem(inputs, self.train, self.heldin), encoder.inputs(self.validation)
        counts, mask = self.validation.counts[..., self.heldin], self.validation.mask[..., self.heldin]
        losses = {}
        weights = None
        for ridge in ridges:
            self.run.stop_if_asked()
            # Losses are compared in the third digit: a tenth of the precision of the final fit will do.
            weights, bias = fit_poisson_ridge(problem, ridge, start=weights, tolerance=1e-5)
            losses[ridge] = loss = nll_per_spike(log_rates(unseen, weights, bias), counts, mask)
            row = {"session": self.session, "smoothing": sd, "ridge": ridge, "validation_nll_per_spike": loss}
            self.run.log(row)
            self.run.progress(len(self.run.rows), self.steps, loss)
        return losses


def _forecast(problem: Problem, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of bins to forecast, penalised as if their inputs had mean 0 and variance 1.

    Means over the few bins in reach vary far more there than inside the window, by which inputs are scaled.
    """
    mean, spread = problem.inputs.mean(axis=0, dtype=np.float64), problem.inputs.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 0, spread, 1)
    standard = replace(problem, inputs=((problem.inputs - mean) / spread).astype(np.float32))
    weights, bias = fit_poisson_ridge(standard, ridge)
    weights /= spread[:, None]
    return weights, bias - mean @ weights


MODEL = Smoothing
