"""Hyper-parameters of the coupled GLM. No torch here: a configuration is checked in an instant."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_lib.bases import basis_by_name, kernel_rank
from pipeline_lib.errors import InputError


@dataclass(frozen=True)
class Config:
    """What can be set; durations in seconds."""

    history: float = 0.1
    """How far back a spike acts. Where the windows give less history, what is missing counts as silence."""
    basis: Literal["raw", "raised_cosine_linear", "raised_cosine_log", "bspline", "exponential"] = "raised_cosine_log"
    """Shape of the filters; `raw`: a weight a bin."""
    n_basis: int = 8
    """Functions a filter; fewer where the history has too few bins for them."""
    coupling: Literal["all", "within", "between", "none"] = "all"
    """Which units drive a unit: all, those of its own `population`, those of other populations, none."""
    self_history: bool = True
    """A unit's own past is an input (refractoriness, bursting)."""
    baseline: int | None = None
    """B-splines of the time in the window, added to the log rate; 0: a constant; null: 10 where windows are trials."""
    signals: tuple[str, ...] = ()
    """Signals of the session whose value at the bin is an input, as `name` (all its columns) or `name.column`."""
    observation: Literal["poisson", "bernoulli", "negative_binomial", "gaussian"] = "poisson"
    link: Literal["", "exp", "softplus", "logistic", "identity"] = ""
    """Empty: the usual one of the observation model (exp for Poisson)."""
    dispersion: float = 1.0
    """Negative binomial only: variance = mean + dispersion mean^2."""
    regulariser: Literal["ridge", "lasso", "elastic_net", "group_lasso"] = "ridge"
    """Penalty on the weights; `group_lasso` keeps or drops a sender's whole filter."""
    ratio: float = 0.5
    """Elastic net only: the lasso's share."""
    strength: float | Literal["auto"] = "auto"
    """Times the penalty (ridge: |weights|^2 / 2), beside the mean negative log-likelihood of a bin (nats); `auto`:
    along a path, by the likelihood of the validation part."""
    feature_penalty: float = 0.001
    """Share of that penalty which falls on a weight of the baseline or of a signal: they are few."""
    inference: bool = False
    """Standard errors of all coefficients and a p-value for every coupling (ridge only, best a weak one)."""
    dtype: Literal["float32", "float64"] = "float32"
    memory: Literal["fast", "low"] = "fast"
    """`low`: make the counts' spectra again in every pass instead of keeping them."""
    tolerance: float | None = None
    """Estimated distance (nats a bin) of a unit's objective from its minimum at which it is done; null: 1e-9 in
    float32, 1e-15 in float64."""
    max_iterations: int = 200
    """Passes over the data for one strength."""

    def __post_init__(self) -> None:
        self._require(0 < self.history < np.inf, "history", "more than 0 s")
        self._require(self.n_basis >= self._fewest, "n_basis", f"at least {self._fewest} for {self.basis}")
        self._require(
            self.baseline is None or self.baseline == 0 or self.baseline >= 4, "baseline", "null, 0 or at least 4"
        )
        right = self.strength == "auto" or (not isinstance(self.strength, str) and 0 <= self.strength < np.inf)
        self._require(right, "strength", "auto, or a number not below 0")
        self._require(0 <= self.feature_penalty < np.inf, "feature_penalty", "a number not below 0")
        self._require(self.tolerance is None or self.tolerance > 0, "tolerance", "more than 0")
        self._require(self.max_iterations >= 1, "max_iterations", "at least 1")
        ridge = self.regulariser == "ridge"
        self._require(ridge or not self.inference, "inference", "false: a sparse penalty has no standard errors")
        self._require(0 < self.ratio <= 1, "ratio", "above 0 and at most 1")
        self._require(0 < self.dispersion < np.inf, "dispersion", "more than 0")
        usual = {"poisson": ("", "exp", "softplus"), "bernoulli": ("", "logistic"), "gaussian": ("", "identity")}
        links = usual.get(self.observation, ("", "exp"))
        self._require(self.link in links, "link", f"for {self.observation}: {', '.join(links[1:])}")

    def _require(self, true: bool, field: str, accepted: str) -> None:
        if not true:
            raise InputError("config", field, getattr(self, field), accepted)

    @property
    def _fewest(self) -> int:
        """Functions the basis needs: a cubic spline has four."""
        return 4 if self.basis == "bspline" else 2

    def kernel(self, history_bins: int) -> np.ndarray:
        """History kernels (history_bins, n) float64, n as many as `n_basis` allows with no filter described twice."""
        if self.basis == "raw" or self.n_basis >= history_bins:
            # As many functions as bins: a weight a bin says all there is, without overlap.
            return np.eye(history_bins)
        for n in range(self.n_basis, self._fewest - 1, -1):
            kernel = basis_by_name(self.basis, n, history_bins).kernel(history_bins)
            if kernel_rank(kernel) == n:
                return kernel
        return np.eye(history_bins)


def allowed_couplings(config: Config, units: pd.DataFrame, senders: np.ndarray) -> np.ndarray:
    """Boolean (senders, units): which unit may drive which.

    `units` is the session's table (column `population`), `senders` rows of it.
    """
    population = units["population"].to_numpy()
    same = population[senders][:, None] == population[None, :]
    choices = {"all": np.ones_like(same), "within": same, "between": ~same, "none": np.zeros_like(same)}
    allowed = choices[config.coupling].copy()
    own = senders[:, None] == np.arange(len(units))[None, :]
    allowed[own] = config.self_history
    return allowed
