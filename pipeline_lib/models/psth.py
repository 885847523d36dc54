"""The peri-stimulus time histogram: what a unit does on average in trials of the same condition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.models.by_session import by_session, joined
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gaussian import kernel_sums
from pipeline_lib.models.mean_rate import mean_counts
from pipeline_lib.models.poisson_ridge import nll_per_spike

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.training.run import Run

LEAST = 1e-9
"""Spikes a bin: at least so many are expected where a rate is judged."""


@dataclass(frozen=True)
class Config:
    """Grids, of which the pair that predicts the held-in units of the validation trials best is taken."""

    smoothing: tuple[float, ...] = (0.0, 10.0, 20.0, 50.0, 100.0, 200.0)
    """Standard deviations (ms) of the Gaussian that smooths the histogram over time."""
    pseudo_trials: tuple[float, ...] = (0.5, 2.0, 5.0, 20.0, 100.0)
    """How many trials' worth of the mean over conditions is added to each condition."""

    def __post_init__(self) -> None:
        if not self.smoothing or not all(0 <= sd < np.inf for sd in self.smoothing):
            raise InputError("config", "smoothing", list(self.smoothing), "at least one number of ms, none negative")
        if not self.pseudo_trials or not all(0 < trials < np.inf for trials in self.pseudo_trials):
            raise InputError("config", "pseudo_trials", list(self.pseudo_trials), "at least one number, all above 0")


class Psth(Model):
    """Mean over the training trials of each condition, shrunk to the mean over all conditions, and that to the unit's.

    The shrinkage is the posterior mean of a Poisson rate under a gamma prior worth `pseudo_trials` trials. A trial of
    a condition that training has not seen is predicted by the mean over conditions. In continuous mode there are no
    trials to average: the model is then the mean rate, and its history says so.
    """

    Config = Config
    sees = "the trial's condition"
    random = False

    def fit(self, data: FitData, run: Run) -> None:
        """Average the training trials; choose smoothing and shrinkage on the validation trials."""
        self.sessions = {}
        for number, session in enumerate(data.sessions):
            run.stop_if_asked()
            best = np.inf
            samples = data.samples(session, "train")
            counts, mask = data.targets(session, samples)
            mean = mean_counts(counts, mask)
            if (samples["trial"] < 0).any():
                run.log({"session": session, "note": "continuous windows have no trials: mean rate instead"})
                self.sessions[session] = Histogram([], np.zeros((1, 0, len(mean))), mean)
                continue
            conditions = sorted(set(samples["condition"]))
            validation = data.validation(session)
            unseen = data.targets(session, validation)  # without held-out units and the bins to forecast
            sums = _sums(counts, samples, conditions), _sums(mask, samples, conditions)
            for sd, trials in product(self.config.smoothing, self.config.pseudo_trials):
                candidate = _shrink(*sums, conditions, mean, sd / data.split.bin_size, trials)
                logs = np.log(np.maximum(candidate.rates(validation), LEAST))
                loss = nll_per_spike(logs, *unseen)
                row = {"session": session, "smoothing": sd, "pseudo_trials": trials, "validation_nll_per_spike": loss}
                run.log(row)
                if loss < best:
                    best, self.sessions[session] = loss, candidate
            run.progress(number + 1, len(data.sessions), best)

    def predict(self, data: FitData, session: str, samples: pd.DataFrame) -> np.ndarray:
        """The histogram of each window's condition."""
        return self.sessions[session].rates(samples)

    def state(self) -> dict[str, np.ndarray]:
        """`{session}/table`, `{session}/mean` (spikes a bin) and `{session}/conditions` (a JSON list as bytes)."""
        learned = {}
        for session, histogram in self.sessions.items():
            conditions = np.frombuffer(json.dumps(histogram.conditions).encode(), np.uint8)
            learned[session] = vars(histogram) | {"conditions": conditions}
        return joined(learned)

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take `state` over."""
        self.sessions = {}
        for session, learned in by_session(state).items():
            conditions = json.loads(learned["conditions"].tobytes())
            self.sessions[session] = Histogram(conditions, learned["table"], learned["mean"])


@dataclass
class Histogram:
    """Expected spikes a bin of one session.

    `table` float64 [conditions + 1, T, N], the last row the mean over conditions; `mean` float64 [N], for bins past T.
    """

    conditions: list[str]
    table: np.ndarray
    mean: np.ndarray

    def rates(self, samples: pd.DataFrame) -> np.ndarray:
        """float32 [S, T, N], T the bins of the longest of `samples`."""
        rows = {condition: row for row, condition in enumerate(self.conditions)}
        order = [rows.get(condition, len(rows)) for condition in samples["condition"]]
        bins = int(samples["bins"].max())
        known = self.table[:, :bins]
        past = np.broadcast_to(self.mean, (len(known), bins - known.shape[1], len(self.mean)))
        return np.concatenate([known, past], axis=1).astype(np.float32)[order]


def _sums(values: np.ndarray, samples: pd.DataFrame, conditions: list[str]) -> np.ndarray:
    """Sum over the trials of each condition: float64 [conditions, T, N]."""
    belongs = samples["condition"].to_numpy()[None, :] == np.array(conditions, dtype=object)[:, None]
    sums = belongs.astype(np.float32) @ values.reshape(len(values), -1).astype(np.float32)
    return sums.reshape(len(conditions), *values.shape[1:]).astype(np.float64)


def _shrink(
    spikes: np.ndarray, trials: np.ndarray, conditions: list[str], mean: np.ndarray, sd: float, prior: float
) -> Histogram:
    """Smooth the sums [conditions, T, N] over time and shrink each condition to the mean over all."""
    kernel = kernel_sums(np.ones((1, spikes.shape[1], 1)), sd)
    spikes, trials = kernel_sums(spikes, sd) / kernel, kernel_sums(trials, sd) / kernel
    overall = (spikes.sum(axis=0) + prior * mean) / (trials.sum(axis=0) + prior)
    each = (spikes + prior * overall) / (trials + prior)
    return Histogram(conditions, np.concatenate([each, overall[None]]), mean)


MODEL = Psth
