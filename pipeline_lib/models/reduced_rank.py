"""Reduced-rank regression: the few combinations of the other units' smoothed spikes that predict best.

Two steps, both convex. A ridge regression of all units' counts on the held-in units, smoothed with several kernels at
once, is cut to its `rank` best directions (Izenman 1975, J Multivar Anal 5:248); then a Poisson regression reads every
unit out from these few inputs. So that no unit is predicted from its own spikes, the held-in units are dealt into
groups: those of a group are predicted by a regression that sees only the other groups, held-out units by one that sees
all held-in units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from pipeline_lib.errors import InputError
from pipeline_lib.models.by_session import by_session, joined
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gaussian import smooth
from pipeline_lib.models.poisson_ridge import ROWS, Problem, fit_poisson_ridge, nll_per_spike
from pipeline_lib.models.readouts import Readouts

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run

READOUT_RIDGE = 3.0
"""Penalty of the Poisson readout, as in `fit_poisson_ridge`; its inputs are few and have variance 1."""


@dataclass(frozen=True)
class Config:
    """Grids, of which the pair that predicts the held-in units of the validation part best is taken."""

    rank: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Directions kept."""
    ridge: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Penalty of the regression, as a share of the mean variance of its inputs."""
    smoothing: tuple[float, ...] = (50.0, 200.0, 1000.0)
    """Standard deviations (ms) of the Gaussians, all used at once."""
    groups: int = 5
    """Groups that the held-in units are dealt into."""

    def __post_init__(self) -> None:
        if not self.rank or not all(rank >= 1 for rank in self.rank):
            raise InputError("config", "rank", list(self.rank), "at least one whole number, all above 0")
        if not self.ridge or not all(0 < ridge < np.inf for ridge in self.ridge):
            raise InputError("config", "ridge", list(self.ridge), "at least one number, all above 0")
        if not self.smoothing or not all(0 <= sd < np.inf for sd in self.smoothing):
            raise InputError("config", "smoothing", list(self.smoothing), "at least one number of ms, none negative")
        if self.groups < 2:
            raise InputError("config", "groups", self.groups, "at least 2")


class ReducedRank(Model):
    """Smoothed held-in units -> a few linear combinations -> Poisson readout, a unit's own group left out."""

    Config = Config
    sees = "held-in units outside its own group, past and future"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Choose rank and penalty on the validation part; one pair for all groups of a session."""
        self.readouts: dict[str, Readouts] = {}
        for number, session in enumerate(data.sessions):
            best = np.inf
            regression = _Regression(self.config, data, session)
            validation = data.validation(session)
            inputs, ahead = _inputs(self.config, data, session, validation), data.ahead(session, validation)
            heldin = data.heldin(session)
            counts, mask = (values[..., heldin] for values in data.targets(session, validation))
            for ridge in self.config.ridge:
                for rank, readouts in regression.solutions(ridge, run):
                    logs = readouts.log_rates(inputs, ahead)[..., heldin]
                    loss = nll_per_spike(logs, counts, mask)
                    run.log({"session": session, "rank": rank, "ridge": ridge, "validation_nll_per_spike": loss})
                    if session not in self.readouts or loss < best:
                        best, self.readouts[session] = loss, readouts
            run.progress(number + 1, len(data.sessions), best)

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """Expected counts from the smoothed spikes of the units outside a unit's group."""
        inputs = _inputs(self.config, data, session, samples)
        return np.exp(self.readouts[session].log_rates(inputs, data.ahead(session, samples)))

    def state(self) -> dict[str, np.ndarray]:
        """`{session}/weights` and `{session}/bias` of its `Readouts`, whose inputs are those of `_inputs`."""
        return joined({session: vars(readouts) for session, readouts in self.readouts.items()})

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.readouts = {session: Readouts(**learned) for session, learned in by_session(state).items()}


@dataclass
class _Bins:
    """Some bins of the training windows: `inputs` float32 [R, F], `counts` and `observed` [R, N]."""

    inputs: np.ndarray
    counts: np.ndarray
    observed: np.ndarray

    def combined(self, chosen: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Combinations, float32 [R, D], of the `chosen` inputs by `directions` [chosen, D]; 0 where none is chosen."""
        # Zeros for the others: the chosen inputs themselves would be a copy of nearly everything.
        spread = np.zeros((self.inputs.shape[1], directions.shape[1]))
        spread[chosen] = directions
        blocks = (self.inputs[start : start + ROWS] for start in range(0, len(self.inputs), ROWS))
        return np.concatenate([(block @ spread).astype(np.float32) for block in blocks])


class _Regression:
    """A session's training bins and the moments of those in the windows, from which every regression follows.

    `zones`: the bins of the windows and, if there are any, those to forecast.
    """

    def __init__(self, config: Config, data: FitData, session: str) -> None:
        samples = data.samples(session, "train")
        counts, observed = data.targets(session, samples)
        inputs, ahead = _inputs(config, data, session, samples), data.ahead(session, samples)
        zones = [observed.any(axis=2) & zone for zone in (~ahead, ahead)]
        self.zones = [
            _Bins(*(_rows(each, zone) for each in (inputs, counts, observed))) for zone in zones if zone.any()
        ]
        self.config, self.units, self.heldin = config, counts.shape[2], data.heldin(session)
        self.usual = np.log(max(float(counts.sum(dtype=np.int64)), 0.5) / observed.sum())
        self.inputs, counts, observed = self.zones[0].inputs, self.zones[0].counts, self.zones[0].observed
        mean = self.inputs.mean(axis=0, dtype=np.float64)
        # Divided by its root mean, a Poisson count has variance 1: no unit counts for more because it fires more.
        usual = counts.sum(axis=0, dtype=np.float64) / np.maximum(observed.sum(axis=0), 1)
        scale = np.sqrt(np.maximum(usual, 1e-6))
        targets = (counts / scale).astype(np.float32)
        np.copyto(targets, (usual / scale).astype(np.float32), where=~observed)
        self.gram = self.inputs.T @ self.inputs - len(self.inputs) * np.outer(mean, mean)
        self.cross = self.inputs.T @ targets - len(self.inputs) * np.outer(mean, targets.mean(axis=0, dtype=np.float64))

    def solutions(self, ridge: float, run: Run) -> list[tuple[int, Readouts]]:
        """Readouts of the inputs by rank; a unit has weight 0 on every unit of its own group.

        Windows and bins to forecast share the directions. A unit that was never observed has the mean rate of all.
        """
        weights, bias = np.zeros((len(self.zones), len(self.gram), self.units)), np.full(self.units, self.usual)
        found = [
            (rank, Readouts(weights.copy(), np.stack([bias] * len(self.zones)))) for rank in sorted(self.config.rank)
        ]
        group = np.full(self.units, -1)
        group[self.heldin] = np.arange(len(self.heldin)) % self.config.groups
        kernels = len(self.config.smoothing)
        for left_out in np.unique(group):
            run.stop_if_asked()
            chosen = np.flatnonzero(np.tile(group[self.heldin] != left_out, kernels))
            directions = self._directions(chosen, ridge)
            for zone, bins in enumerate(self.zones):
                targets = np.flatnonzero((group == left_out) & bins.observed.any(axis=0))
                combined, seen = bins.combined(chosen, directions), bins.observed[:, targets]
                counts, own = bins.counts[:, targets], np.full(len(targets), -1)
                for rank, readouts in found:
                    inputs = np.ascontiguousarray(combined[:, :rank])
                    problem = Problem(inputs, counts, None if seen.all() else seen, own)
                    readout, offset = fit_poisson_ridge(problem, READOUT_RIDGE, tolerance=1e-5)
                    readouts.weights[zone][np.ix_(chosen, targets)] = directions[:, :rank] @ readout
                    readouts.bias[zone, targets] = offset
        return found

    def _directions(self, chosen: np.ndarray, ridge: float) -> np.ndarray:
        """Combinations [chosen inputs, D] of inputs, best first, each with variance 1 over training bins.

        They are the singular directions of the ridge regression of all units on the chosen inputs.
        """
        if not len(chosen):  # the only held-in unit there is: nothing may predict it but its mean
            return np.zeros((0, 1))
        gram = self.gram[np.ix_(chosen, chosen)]
        strength = max(ridge * np.trace(gram) / len(chosen), 1e-9)  # 0 of silent units
        penalised = gram + strength * np.eye(len(chosen))
        cross = self.cross[chosen]
        fitted = cho_solve(cho_factor(penalised), cross)
        _, vectors = np.linalg.eigh(cross.T @ fitted)
        directions = fitted @ vectors[:, ::-1][:, : min(max(self.config.rank), len(chosen), self.units)]
        spread = np.sqrt(np.maximum(np.einsum("ij,ij->j", directions, gram @ directions) / len(self.inputs), 1e-12))
        return directions / spread


def _rows(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`values` [S, T, K] of the bins chosen [S, T]: [R, K]; no copy where that is all of them."""
    return values.reshape(-1, values.shape[2]) if chosen.all() else values[chosen]


def _inputs(config: Config, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
    """Root of the smoothed counts, float32 [S, T, kernels x held-in units], kernel by kernel; 0 where not observed."""
    heldin = data.heldin(session)
    counts, mask = (values[..., heldin] for values in data.inputs(session, samples))
    history, units = data.split.history_bins, len(heldin)
    inputs = np.empty((len(counts), counts.shape[1] - history, len(config.smoothing) * units), np.float32)
    for number, sd in enumerate(config.smoothing):
        smoothed = smooth(counts, mask, sd / data.split.bin_size, history)
        np.sqrt(smoothed, out=inputs[..., number * units : (number + 1) * units])
    return np.nan_to_num(inputs, copy=False, nan=0.0)


MODEL = ReducedRank
