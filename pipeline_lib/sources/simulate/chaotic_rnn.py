"""Poisson units of a chaotic recurrent network: the second classical test bed of latent-variable models.

A trial starts from the initial state of its condition, x_0 ~ N(0, 1) for each unit, and follows ::

    x <- (1 - dt / tau) x + (dt / tau) g W tanh(x),   W ~ N(0, 1 / units)

one step a bin. The rate of a unit is tanh(x), stretched over each trial to lie between 0 and `peak_rate`; spikes are
Poisson and fall uniformly within their bin.

With the default settings and seed 5 the counts are those of the public generator of LFADS (Pandarinath et al. 2018)
with 130 conditions and 10 repeats, bit for bit: random numbers are drawn in its order from its generator. There the
first 8 repeats of each condition train and the last 2 validate; the column `repeat` of the trials tells them apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from pipeline_lib.clock import bin_ticks, to_ticks
from pipeline_lib.sources.simulate.settings import Number, SimulatorSettings, Whole
from pipeline_lib.sources.spikes import spikes_of

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

UNUSED_VECTORS = 2
"""The public generator draws two input vectors of the network before the initial states, used or not."""


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed."""

    NAME: ClassVar[str] = "chaotic_rnn"
    CITATION: ClassVar[str] = "Pandarinath et al. 2018, Nat Methods 15:805; Sussillo & Abbott 2009, Neuron 63:544"
    conditions: Annotated[Whole, Ge(1)] = 130
    """Initial states."""
    repeats: Annotated[Whole, Ge(1)] = 10
    """Trials of each condition, one after another."""
    units: Annotated[Whole, Ge(2)] = 50
    bins: Annotated[Whole, Ge(2)] = 100
    """Bins in a trial."""
    bin_size: Annotated[Number, Gt(0)] = 10.0
    """ms; also the step of the network."""
    tau: Annotated[Number, Gt(0)] = 25.0
    """Time constant of the units, ms."""
    gain: Annotated[Number, Ge(0)] = 1.5
    """g; above 1 the network is chaotic."""
    peak_rate: Annotated[Number, Gt(0), Le(1000)] = 30.0
    """Spikes/s."""
    gap: Annotated[Number, Ge(0)] = 0.2
    """Seconds between trials that nobody recorded."""

    def __post_init__(self) -> None:
        bin_ticks(self.bin_size)
        if self.bin_size > self.tau:
            self.refuse("bin_size", self.bin_size, f"at most tau, {self.tau} ms")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """A session of `conditions` x `repeats` trials. Truth: `rates` (trial, bin, unit) float32, spikes/s."""
    from pipeline_lib.sources.simulate.session import trial_recording  # pandas: not to check settings

    rates, counts = published_trials(settings, seed)
    ticks = bin_ticks(settings.bin_size)
    (trial, bin_, unit), _ = spikes_of(counts)
    place = np.random.default_rng(seed).integers(0, ticks, len(trial))
    digits = len(str(settings.conditions - 1))
    recording = trial_recording(
        session=session,
        seed=seed,
        settings=settings,
        spikes=(trial, bin_ * ticks + place, unit),
        regions=["network"] * settings.units,
        conditions=[f"start {index // settings.repeats:0{digits}d}" for index in range(len(counts))],
        trial_ticks=settings.bins * ticks,
        gap_ticks=int(to_ticks(settings.gap)),
        events={},
        truth={"rates": np.repeat(rates, settings.repeats, axis=0).astype(np.float32)},
        truth_bin_size=settings.bin_size,
    )
    recording.trials["repeat"] = np.arange(len(counts)) % settings.repeats
    return recording


def published_trials(settings: Settings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rates (condition, bin, unit), spikes/s, and counts (trial, bin, unit) in the order of the public generator."""
    draw = np.random.RandomState(seed)  # the generator that the published numbers come from
    units = settings.units
    weights = draw.randn(units, units) / np.sqrt(units)
    draw.randn(UNUSED_VECTORS, units)
    starts = draw.randn(settings.conditions, units)
    activity = np.stack([run(weights, start, settings) for start in starts])
    least, most = activity.min(axis=1, keepdims=True), activity.max(axis=1, keepdims=True)
    # A unit that the gain drove to its end stays there, and is silent.
    share = np.divide(activity - least, most - least, out=np.zeros_like(activity), where=most > least)
    # Unit by unit within a trial: the axes as the public generator draws them.
    expected = share.transpose(0, 2, 1) * settings.peak_rate * (settings.bin_size / 1000)
    counts = draw.poisson(np.repeat(expected, settings.repeats, axis=0))
    return share * settings.peak_rate, counts.transpose(0, 2, 1)


def run(weights: np.ndarray, start: np.ndarray, settings: Settings) -> np.ndarray:
    """tanh(x) (bins, units) of the network from the state `start`, which is not itself part of the trial.

    A product for each step and condition: the products of all conditions at once differ from these in the last bit,
    which chaos turns into other rates.
    """
    leak = settings.bin_size / settings.tau
    recurrent = leak * weights * settings.gain
    activity = np.empty((settings.bins, settings.units))
    state, rate = start, np.tanh(start)
    for step in range(settings.bins):
        state = (1 - leak) * state + recurrent @ rate
        rate = np.tanh(state)
        activity[step] = rate
    return activity
