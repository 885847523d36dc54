"""Hyper-parameters of LFADS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline_lib.models.masked import Masked
from pipeline_lib.training.settings import TrainingSettings


@dataclass(frozen=True)
class Config(TrainingSettings):
    """What can be set, with the settings of the engine; `config/models/lfads.yaml` names the published ones."""

    steps: int = 2000
    batch: int = 100
    learning_rate: float = 1e-2
    warmup: int = 50
    average: float = 0.99
    evaluate_every: int = 100
    initial_encoder: int = 64
    """Units of each direction of the encoder of initial conditions."""
    initial_conditions: int = 32
    """Dimensions of the inferred initial condition."""
    initial_segment: float = 0.0
    """Seconds at the start of a window (its history included) that alone inform the initial condition; the encoder of
    inputs then sees the rest. 0: both see everything."""
    inferred_inputs: int = 0
    """Dimensions of the inputs that a controller infers; 0: no controller, the dynamics are autonomous."""
    input_encoder: int = 64
    """Units of each direction of the encoder that the controller listens to."""
    input_lag: int = 1
    """Bins by which the controller's view of both directions is delayed, so that no bin is explained by itself."""
    controller: int = 64
    generator: int = 64
    factors: int = 8
    signals: tuple[str, ...] = ()
    """Columns of the recording's signals that drive the generator, as `running.speed`: the value at the bin."""
    read_in: int | None = None
    """Width of a linear read-in of each session; null: none for a single session, `factors` for a cohort."""
    alignment: bool = True
    """Start read-ins and read-outs at common principal components of all sessions (where there are read-ins)."""
    observation: Literal["poisson", "gaussian"] = "poisson"
    dropout: float = 0.05
    """Of the encoders' outputs, the controller's inputs, and the generator's output before the factors."""
    input_dropout: float = 0.0
    """Of the encoders' inputs (published: the same as `dropout`), beside what coordinated dropout does not show."""
    coordinated_dropout: float = 0.3
    """Share of counts that the encoders are not shown and the reconstruction learns from."""
    hide_units: float = 0.0
    """Share of the units, drawn anew for every window of a step, that the encoders are not shown in all of it and that
    the reconstruction learns from: the task of co-smoothing."""
    pass_rate: float = 0.0
    """Share of the counts shown that the reconstruction learns from nevertheless."""
    evaluated_dropout: float | None = None
    """Share of single counts that evaluations do not show and are scored on; null: what training does. A search over
    `coordinated_dropout` or `hide_units` names one: the fewer counts are not shown the easier they are to tell, so that
    losses of fits that each hide a share of their own do not compare."""
    sample_validation: float = 0.0
    """Share of the training counts that are never shown nor learned from; their likelihood is logged."""
    kl_initial: float = 1.0
    """Weight of the divergence of initial conditions from their prior; 1: the evidence lower bound."""
    kl_inputs: float = 1.0
    """The same of inferred inputs."""
    kl_ramp: tuple[int, int] = (0, 500)
    """Steps over which both weights rise from 0."""
    l2_generator: float = 100.0
    """Weight of the mean square of the generator's recurrent weights, halved."""
    l2_controller: float = 100.0
    l2_encoders: float = 0.0
    l2_ramp: tuple[int, int] = (0, 500)
    prior_variance: float = 0.1
    """Of initial conditions."""
    prior_time_constant: float = 10.0
    """Bins, of inferred inputs, to start from."""
    prior_noise: float = 0.1
    """Variance of the inferred inputs' innovation, to start from."""
    learn_validation: bool = False
    """Learn from the validation part too, and keep the last weights: a final fit, for as many steps as were best in one
    that did not. Its scores of the validation part mean nothing."""
    predict_masked: tuple[Masked, ...] = ()
    """Also predict held-in units from all others, from the others of their region, or from other regions, one pass a
    unit or region; evaluation scores these rates, too."""
    posterior_samples: int = 0
    """Samples of the posterior whose outputs predictions average; 0: the posterior mean's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("initial_encoder", "initial_conditions", "input_encoder", "controller", "generator", "factors")
        for name in sizes:
            self.require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("inferred_inputs", "input_lag", "initial_segment", "posterior_samples"):
            self.require(0 <= getattr(self, name) < math.inf, name, "not below 0")
        self.require(self.read_in is None or self.read_in >= 1, "read_in", "null or at least 1")
        for name in ("dropout", "input_dropout", "coordinated_dropout", "hide_units", "sample_validation"):
            self.require(0 <= getattr(self, name) < 1, name, "from 0 to below 1")
        self.require(0 <= self.pass_rate <= 1, "pass_rate", "from 0 to 1")
        evaluated = self.evaluated_dropout
        self.require(evaluated is None or 0 < evaluated < 1, "evaluated_dropout", "null, or above 0 and below 1")
        for name in ("kl_initial", "kl_inputs", "l2_generator", "l2_controller", "l2_encoders"):
            self.require(0 <= getattr(self, name) < math.inf, name, "not below 0")
        for name in ("prior_variance", "prior_time_constant", "prior_noise"):
            self.require(0 < getattr(self, name) < math.inf, name, "more than 0")
        for name in ("kl_ramp", "l2_ramp"):
            start, stop = getattr(self, name)
            self.require(start <= stop, name, "two steps, the first not after the second")


def segment_bins(seconds: float, bin_size: float) -> int:
    """Bins of `bin_size` ms in an initial segment."""
    return round(seconds * 1000 / bin_size)
