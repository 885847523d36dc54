"""Hyper-parameters of the coupled GLM. No torch here: a configuration is checked in an instant."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_lib.bases import basis_by_name, kernel_rank
from pipeline_lib.errors import InputError, suggest

EVENTS = "trials"
"""What a signal is called that is no signal but times of the trials: `trials.column`."""
FEWEST = {"bspline": 4}
"""Functions a basis needs, where it is more than two: a cubic spline has four."""
WITH_BASELINE = "with a baseline: a number of splines (continuous windows have none by default)"
"""What baselines of conditions need."""
COUPLINGS = Literal["all", "within", "between", "none"]


@dataclass(frozen=True)
class Signal:
    """One input that is not a spike train; a name alone stands for one with these defaults."""

    name: str
    """`signal` (all its columns), `signal.column`, or `trials.column`: times (s) of an event in every trial."""
    basis: Literal["value", "bspline", "cyclic_bspline", "raised_cosine_linear"] = "value"
    """How its value acts: in proportion, or as `n` functions between its smallest and largest value in training."""
    n: int = 6
    history: float = 0.0
    """s for which it goes on acting, seen through `n_history` log-raised cosines; 0: only the value at the bin."""
    n_history: int = 5

    def __post_init__(self) -> None:
        self._require(bool(self.name), "name", "a signal")
        self._require(0 <= self.history < np.inf, "history", "0 s or more")
        self._require(self.n_history >= 2, "n_history", "at least 2")
        self._require(self.n >= (2 if self.basis == "raised_cosine_linear" else 4), "n", f"more for {self.basis}")
        self._require(not self.event or self.basis == "value", "basis", "value, for an event")
        self._require(not self.event or self.history > 0, "history", "more than 0 s, for an event")

    @property
    def event(self) -> bool:
        """Times, not values."""
        return self.name.partition(".")[0] == EVENTS

    def kernel(self, bins: int) -> np.ndarray:
        """Kernels of the value now and in the past (bins, functions); row 0 is now."""
        return history_kernel("raised_cosine_log", self.n_history, bins) if bins > 1 else np.ones((1, 1))

    def _require(self, true: bool, field: str, accepted: str) -> None:
        if not true:
            raise InputError("config", f"signals, {self.name}: {field}", getattr(self, field), accepted)


@dataclass(frozen=True)
class Config:
    """What can be set; durations in seconds."""

    history: float = 0.1
    """How far back a spike acts. Where the windows give less history, what is missing counts as silence; in training
    only before a window that follows no other."""
    basis: Literal["raw", "raised_cosine_linear", "raised_cosine_log", "bspline", "exponential"] = "raised_cosine_log"
    """Shape of the filters; `raw`: a weight a bin."""
    n_basis: int = 8
    """Functions a filter; fewer where the history has too few bins for them."""
    refractory: float = 0.0
    """s after its own spike in which a unit's rate has a weight of its own (absolute refractoriness); 0: none."""
    coupling: COUPLINGS = "all"
    """Which units drive a unit: all, those of its own `population`, those of other populations, none."""
    distance: float | None = None
    """Largest distance between coupled units, in the unit of the columns x, y, z of the units; null: any."""
    uncoupled: tuple[str, ...] = ()
    """Pairs that are left out, `sender > receiver` by unit_id; `*` stands for every unit."""
    self_history: bool = True
    """A unit's own past is an input (refractoriness, bursting)."""
    baseline: int | None = None
    """B-splines of the time in the window, added to the log rate; 0: a constant; null: 10 where windows are trials."""
    condition_baselines: bool = False
    """Every condition of the trials has a baseline of its own."""
    trial_gain: bool = False
    """A gain of the trial: how much a unit's population fires in the whole window is an input."""
    signals: tuple[str | Signal, ...] = ()
    """Behaviour, stimuli and events as inputs: names, or settings (see `Signal`)."""
    observation: Literal["poisson", "bernoulli", "negative_binomial", "gaussian"] = "poisson"
    link: Literal["", "exp", "softplus", "logistic", "identity"] = ""
    """Empty: the usual one of the observation model (exp for Poisson)."""
    dispersion: float | Literal["auto"] = "auto"
    """Negative binomial only: variance = mean + dispersion mean^2; `auto`: estimated for every unit."""
    regulariser: Literal["ridge", "lasso", "elastic_net", "group_lasso"] = "ridge"
    """Penalty on the weights; `group_lasso` keeps or drops a sender's whole filter."""
    ratio: float = 0.5
    """Elastic net only: the lasso's share."""
    strength: float | Literal["auto"] = "auto"
    """Times the penalty (ridge: |weights|^2 / 2), beside the mean negative log-likelihood of a bin (nats); `auto`:
    along a path, see `selection`."""
    selection: Literal["validation", "folds"] = "validation"
    """What judges a strength: the validation part, or contiguous `folds` of the training part, left out in turn."""
    folds: int = 5
    feature_penalty: float = 0.001
    """Share of that penalty which falls on a weight of the baseline or of a signal: they are few."""
    rank: int | None = None
    """Couplings through so many channels (reduced-rank regression, refitted with the same ridge); null: any couplings.
    Needs all couplings allowed, a ridge, and counts in memory."""
    inference: bool = False
    """Standard errors of all coefficients and a p-value for every coupling (ridge only, best a weak one)."""
    dtype: Literal["float32", "float64"] = "float32"
    memory: Literal["fast", "low", "stream"] = "fast"
    """`low`: make the counts' spectra again in every pass; `stream`: bin the spikes again too, for sessions whose
    counts do not fit in memory."""
    tolerance: float | None = None
    """Estimated distance (nats a bin) of a unit's objective from its minimum at which it is done; null: 1e-9 in
    float32, 1e-15 in float64."""
    max_iterations: int = 200
    """Passes over the data for one strength."""

    def __post_init__(self) -> None:
        ridge = self.regulariser == "ridge"
        self._require(0 < self.history < np.inf, "history", "more than 0 s")
        self._require(self.n_basis >= FEWEST.get(self.basis, 2), "n_basis", f"more for {self.basis}")
        self._require(
            self.baseline is None or self.baseline == 0 or self.baseline >= 4, "baseline", "null, 0 or at least 4"
        )
        right = self.strength == "auto" or (not isinstance(self.strength, str) and 0 <= self.strength < np.inf)
        self._require(right, "strength", "auto, or a number not below 0")
        self._require(0 <= self.feature_penalty < np.inf, "feature_penalty", "a number not below 0")
        self._require(self.tolerance is None or 0 < self.tolerance < np.inf, "tolerance", "null, or more than 0")
        self._require(self.max_iterations >= 1, "max_iterations", "at least 1")
        self._require(ridge or not self.inference, "inference", "false: a sparse penalty has no standard errors")
        self._require(0 < self.ratio <= 1, "ratio", "above 0 and at most 1")
        estimated = self.dispersion == "auto"
        self._require(estimated or 0 < float(self.dispersion) < np.inf, "dispersion", "auto, or more than 0")
        self._require(0 <= self.refractory < self.history, "refractory", "0 s or more, below history")
        self._require(self.refractory == 0 or self.self_history, "refractory", "0 without self_history")
        self._require(self.distance is None or self.distance > 0, "distance", "null, or more than 0")
        self._require(self.rank is None or self.rank >= 1, "rank", "null, or at least 1")
        whole = self.coupling == "all" and self.self_history and self.distance is None and not self.uncoupled
        fits = whole and ridge and self.memory != "stream"
        fits = fits and not (self.refractory or self.trial_gain or self.inference)
        self._require(self.rank is None or fits, "rank", "null with masks, a sparse penalty, inference or streaming")
        self._require(self.folds >= 2, "folds", "at least 2")
        self._require(not self.condition_baselines or self.baseline != 0, "condition_baselines", "false: baseline is 0")
        self._require(all(pair.count(">") == 1 for pair in self.uncoupled), "uncoupled", "pairs `sender > receiver`")
        usual = {"poisson": ("", "exp", "softplus"), "bernoulli": ("", "logistic"), "gaussian": ("", "identity")}
        links = usual.get(self.observation, ("", "exp"))
        self._require(self.link in links, "link", f"for {self.observation}: {', '.join(links[1:])}")

    def _require(self, true: bool, field: str, accepted: str) -> None:
        if not true:
            raise InputError("config", field, getattr(self, field), accepted)

    @property
    def inputs(self) -> tuple[Signal, ...]:
        """`signals`, all as settings."""
        return tuple(Signal(each) if isinstance(each, str) else each for each in self.signals)

    def kernel(self, history_bins: int, refractory_bins: int = 0) -> np.ndarray:
        """History kernels (history_bins, n) float64; the last is the refractory one, where there is one."""
        kernel = history_kernel(self.basis, self.n_basis, history_bins)
        if not refractory_bins:
            return kernel
        return np.column_stack([kernel, np.arange(history_bins) < refractory_bins])


def lag_bins(seconds: float, bin_size: float) -> int:
    """Bins of `bin_size` ms that make up a duration; a part of one counts whole, a rounding error does not."""
    return int(np.ceil(seconds * 1000 / bin_size - 1e-9))


def history_kernel(basis: str, n: int, bins: int) -> np.ndarray:
    """Kernels (bins, functions) of a basis; fewer than `n` functions where some filter would be described twice."""
    if basis == "raw" or n >= bins:
        # As many functions as bins: a weight a bin says all there is, without overlap.
        return np.eye(bins)
    for fewer in range(n, FEWEST.get(basis, 2) - 1, -1):
        kernel = basis_by_name(basis, fewer, bins).kernel(bins)
        if kernel_rank(kernel) == fewer:
            return kernel
    return np.eye(bins)


def allowed_couplings(config: Config, units: pd.DataFrame, senders: np.ndarray) -> np.ndarray:
    """Boolean (senders, units): which unit may drive which.

    `units` is the session's table (columns `unit_id`, `population`; x, y, z for a distance), `senders` rows of it.

    Raises
    ------
    InputError : a distance is asked for but the units have no (finite) positions, or an uncoupled unit is not there.
    """
    population = units["population"].to_numpy()
    same = population[senders][:, None] == population[None, :]
    choices = {"all": np.ones_like(same), "within": same, "between": ~same, "none": np.zeros_like(same)}
    allowed = choices[config.coupling].copy()
    if config.distance is not None:
        positions = _positions(units)
        apart = np.linalg.norm(positions[senders][:, None] - positions[None, :], axis=2)
        allowed &= apart <= config.distance
    own = senders[:, None] == np.arange(len(units))[None, :]
    for pair in config.uncoupled:
        sender, receiver = (_matching(units, name.strip()) for name in pair.split(">"))
        allowed[sender[senders][:, None] & receiver[None, :]] = False
    allowed[own] = config.self_history
    return allowed


def _positions(units: pd.DataFrame) -> np.ndarray:
    """Where the units are (units, 3)."""
    missing = [axis for axis in "xyz" if axis not in units]
    if missing:
        raise InputError("config", "distance", f"units without {missing[0]}", "units with columns x, y and z")
    positions = units[["x", "y", "z"]].to_numpy(np.float64)
    unknown = ~np.isfinite(positions).all(axis=1)
    if unknown.any():
        unit = units["unit_id"].iloc[int(np.argmax(unknown))]
        raise InputError("config", "distance", f"no position of unit {unit}", "a position of every unit")
    return positions


def _matching(units: pd.DataFrame, name: str) -> np.ndarray:
    """Which units a name stands for, bool (units,)."""
    ids = units["unit_id"].astype(str).to_numpy()
    if name != "*" and name not in ids:
        raise InputError("config", "uncoupled", repr(name), f"{suggest(name, ids)}, or *")
    return np.ones(len(ids), dtype=bool) if name == "*" else ids == name
