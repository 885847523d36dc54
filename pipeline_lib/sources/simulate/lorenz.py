"""Poisson units driven by the Lorenz system: the test bed of latent-variable models.

A trial starts from the initial state of its condition, on the attractor, and follows ::

    dx/dt = 10 (y - x),   dy/dt = x (28 - z) - y,   dz/dt = x y - 8/3 z

integrated by the classical fourth-order Runge-Kutta method. The three coordinates, each standardised over the session,
are the latents; the rate of unit n is `base_rate` exp(loadings[n] . latents), constant within a bin; spikes are Poisson
and fall uniformly within their bin.

The defaults are the Lorenz-like set of `specs/ndt_and_nlb_metrics.md` section 7 (65 conditions x 24 repeats, 29 units,
50 bins of 20 ms, 0.14 spikes a bin). A trial is short on the attractor's clock (0.6 of its time units), as there. For
a set like that of `specs/lfads.md` section 6: conditions 1000, repeats 1, units 40, bins 80, bin_size 10, base_rate 10.
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

SIGMA, RHO, BETA = 10.0, 28.0, 8 / 3
REGION = "MOs"  # an acronym of the Allen atlas, which the layouts of real sources can carry
SETTLE = 2_000  # steps after which a random start is on the attractor


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed."""

    NAME: ClassVar[str] = "lorenz"
    CITATION: ClassVar[str] = "Lorenz 1963, J Atmos Sci 20:130"
    conditions: Annotated[Whole, Ge(1)] = 65
    """Initial states."""
    repeats: Annotated[Whole, Ge(1)] = 24
    """Trials of each condition, in shuffled order."""
    units: Annotated[Whole, Ge(1)] = 29
    bins: Annotated[Whole, Ge(1)] = 50
    """Bins in a trial."""
    bin_size: Annotated[Number, Gt(0)] = 20.0
    """ms."""
    steps_per_bin: Annotated[Whole, Ge(2)] = 2
    """Runge-Kutta steps in a bin; even, so that the latents are those at the middle of the bin."""
    dt: Annotated[Number, Gt(0), Le(0.02)] = 0.006
    """Length of a step, in the time units of the equations."""
    base_rate: Annotated[Number, Gt(0), Le(1000)] = 5.0
    """Spikes/s of a unit at the mean of all latents."""
    loading: Annotated[Number, Ge(0), Le(1)] = 0.457
    """Standard deviation of the loadings; sets how strongly rates are modulated."""
    gap: Annotated[Number, Ge(0)] = 0.2
    """Seconds between trials that nobody recorded."""

    def __post_init__(self) -> None:
        bin_ticks(self.bin_size)
        if self.steps_per_bin % 2:
            self.refuse("steps_per_bin", self.steps_per_bin, "an even number")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """A session of `conditions` x `repeats` trials.

    Truth: `rates` (trial, bin, unit) float32, spikes/s; `latents` (trial, bin, 3) float64, standardised; `loadings`
    (unit, 3); bins of `bin_size` ms from the start of each trial.
    """
    from pipeline_lib.sources.simulate.session import trial_recording  # pandas: not to check settings

    starts, weights, order, spiking = np.random.default_rng(seed).spawn(4)
    states = settle(starts.uniform((-15, -15, 10), (15, 15, 40), (settings.conditions, 3)), settings.dt)
    path = trajectory(states, settings.dt, settings.bins * settings.steps_per_bin)
    path = path[:, settings.steps_per_bin // 2 :: settings.steps_per_bin]
    spread = path.std(axis=(0, 1))
    path = (path - path.mean(axis=(0, 1))) / np.where(spread > 0, spread, 1.0)
    loadings = settings.loading * weights.standard_normal((settings.units, 3))
    rates = settings.base_rate * np.exp(path @ loadings.T)

    condition = order.permutation(np.repeat(np.arange(settings.conditions), settings.repeats))
    digits = len(str(settings.conditions - 1))
    return trial_recording(
        session=session,
        seed=seed,
        settings=settings,
        spikes=poisson_spikes(rates[condition], settings.bin_size, spiking),
        regions=[REGION] * settings.units,
        conditions=[f"start {index:0{digits}d}" for index in condition],
        trial_ticks=settings.bins * bin_ticks(settings.bin_size),
        gap_ticks=int(to_ticks(settings.gap)),
        events={},
        truth={"rates": rates[condition].astype(np.float32), "latents": path[condition], "loadings": loadings},
        truth_bin_size=settings.bin_size,
    )


def derivative(state: np.ndarray) -> np.ndarray:
    """Right-hand side of the Lorenz equations; `state` (..., 3)."""
    x, y, z = np.moveaxis(state, -1, 0)
    return np.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z], axis=-1)


def runge_kutta_step(state: np.ndarray, dt: float) -> np.ndarray:
    """The state (..., 3) one step of the classical fourth-order method later."""
    k1 = derivative(state)
    k2 = derivative(state + dt / 2 * k1)
    k3 = derivative(state + dt / 2 * k2)
    k4 = derivative(state + dt * k3)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def settle(states: np.ndarray, dt: float) -> np.ndarray:
    """States (condition, 3) after the transient."""
    for _ in range(SETTLE):
        states = runge_kutta_step(states, dt)
    return states


def trajectory(states: np.ndarray, dt: float, steps: int) -> np.ndarray:
    """Path (condition, steps, 3) from `states` (condition, 3), which are its first points."""
    path = np.empty((len(states), steps, 3))
    for step in range(steps):
        path[:, step] = states
        states = runge_kutta_step(states, dt)
    return path


def poisson_spikes(
    rates: np.ndarray, bin_size: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poisson spikes of `rates` (trial, bin, unit), spikes/s, constant within bins of `bin_size` ms.

    Returns trial, tick after the start of the trial, and unit of every spike, uniform over the ticks of its bin.
    """
    ticks = bin_ticks(bin_size)
    counts = rng.poisson(rates * (bin_size / 1000))
    (trial, bin_, unit), _ = spikes_of(counts)
    return trial, bin_ * ticks + rng.integers(0, ticks, len(trial)), unit
