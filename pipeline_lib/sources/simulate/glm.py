"""A recurrent Poisson GLM: a network whose coupling filters are known exactly, in the very form that GLMs fit.

In bins of `bin_size` ms, for unit j::

    y[t, j] ~ Poisson(exp(b[j] + sum_i sum_k F[i, j, k] y[t-1-k, i]))

with F[i, j] the coupling filter of a synapse i -> j (zero without one) and F[j, j] the unit's own history filter, whose
first lags are a refractory dip. Every filter is a combination of raised cosines on a logarithmic time axis (Pillow et
al. 2008, Nature 454:995). A sender excites all its receivers or inhibits all of them (Dale's law).
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from pipeline_lib.clock import bin_ticks, duration_bins
from pipeline_lib.sources.simulate.settings import Flag, Number, SimulatorSettings, Whole
from pipeline_lib.sources.spikes import spikes_of
from pipeline_lib.sources.trials import no_trials

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

GROUPS = ("A", "B")
BASIS_FUNCTIONS = 5
LOG_STRETCH = 50.0  # the larger, the finer the short lags against the long ones
REFRACTORY, REFRACTORY_DEPTH = 10.0, -3.0  # ms, log rate
RATE_SPREAD = 0.3  # standard deviation of log base rates over units
BLOCK = 4096  # bins held at a time


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed."""

    NAME: ClassVar[str] = "glm"
    CITATION: ClassVar[str] = "Pillow et al. 2008, Nature 454:995"
    units: Annotated[Whole, Ge(2)] = 40
    duration: Annotated[Number, Gt(0)] = 600.0
    """Seconds, all observed."""
    bin_size: Annotated[Number, Gt(0)] = 5.0
    """ms: the step of the simulation and of the filters."""
    filter_length: Annotated[Number, Gt(0)] = 0.1
    """Seconds a filter lasts."""
    base_rate: Annotated[Number, Gt(0)] = 10.0
    """Geometric mean over units of the rate without input, spikes/s."""
    connected: Annotated[Number, Ge(0), Le(1)] = 0.1
    """Probability of a synapse between two units."""
    strength: Annotated[Number, Ge(0)] = 1.2
    """Sum over lags of a typical coupling filter, log rate per spike."""
    inhibitory: Annotated[Number, Ge(0), Le(1)] = 0.3
    """Share of senders that inhibit."""
    rate_limit: Annotated[Number, Gt(0)] = 1000.0
    """Spikes/s a unit never exceeds; a stable network does not come near it."""
    keep_rates: Flag = False
    """Store the rate of every unit and bin."""

    def __post_init__(self) -> None:
        bin_ticks(self.bin_size)
        duration_bins(self.duration, self.bin_size, "duration")
        lags = duration_bins(self.filter_length, self.bin_size, "filter_length")
        if lags < BASIS_FUNCTIONS:
            self.refuse("filter_length", self.filter_length, f"at least {BASIS_FUNCTIONS} bins of {self.bin_size} ms")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """One continuous session without trials.

    Truth, lags in bins of `bin_size` ms (index 0 = the bin before): `coupling` (sender, receiver), the sum of each
    filter; `coupling_filters` (sender, receiver, lag), zero on the diagonal; `history_filters` (unit, lag);
    `synapse` (sender, receiver) bool; with `keep_rates`, `rates` (1, bin, unit) float32, spikes/s.

    Raises
    ------
    InputError : the network would be unstable (see `gain`).
    """
    from pipeline_lib.sources.simulate.session import session_recording  # pandas: not to check settings

    wiring, spiking, within = np.random.default_rng(seed).spawn(3)
    coupling, history, base_rates = network(settings, wiring)
    filters = coupling.copy()
    filters[np.arange(settings.units), np.arange(settings.units)] = history
    amplification = gain(filters, base_rates * settings.bin_size / 1000)
    if amplification >= 1:
        found = f"{settings.strength:g} (every spike causes {amplification:.2g} others)"
        settings.refuse("strength", found, "less strength, fewer connected or a lower base_rate: below 1 other spike")

    ticks = bin_ticks(settings.bin_size)
    found_ticks, found_units, rates = [], [], []
    for first, counts, block_rates in run(settings, filters, base_rates, spiking):
        (bin_, unit), _ = spikes_of(counts)
        found_ticks.append((first + bin_) * ticks + within.integers(0, ticks, len(bin_)))
        found_units.append(unit)
        if settings.keep_rates:
            rates.append(block_rates.astype(np.float32))

    strength = coupling.sum(axis=2)
    truth = {
        "coupling": strength,
        "coupling_filters": coupling,
        "history_filters": history,
        "synapse": strength != 0,
    }
    if settings.keep_rates:
        truth["rates"] = np.concatenate(rates)[None]
    return session_recording(
        session=session,
        seed=seed,
        settings=settings,
        tick=np.concatenate(found_ticks),
        unit=np.concatenate(found_units),
        regions=[GROUPS[2 * row // settings.units] for row in range(settings.units)],
        trials=no_trials(),
        observed=np.array([[0.0, settings.duration]]),
        truth=truth,
        truth_attributes={"bin_size": settings.bin_size, "trial_start": [0.0]},
    )


def network(settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coupling filters (sender, receiver, lag), history filters (unit, lag) and base rates (unit,), spikes/s."""
    n, lags = settings.units, duration_bins(settings.filter_length, settings.bin_size, "filter_length")
    basis = log_cosine_basis(lags)

    synapse = rng.random((n, n)) < settings.connected
    np.fill_diagonal(synapse, False)
    sign = np.where(rng.random(n) < settings.inhibitory, -1.0, 1.0)
    # Without the fastest function: the whole strength in one bin would drive rates that no neuron has.
    slower = basis[:, 1:] / basis[:, 1:].sum(axis=0)
    shape = rng.dirichlet(np.ones(slower.shape[1]), (n, n)) @ slower.T
    size = settings.strength * rng.uniform(0.5, 1.5, (n, n)) * synapse * sign[:, None]
    coupling = size[:, :, None] * shape

    # A unit's own spike silences it for the refractory time and leaves a shallow dip that closes slowly.
    history = -rng.uniform(0.1, 0.5, (n, 1)) * basis[:, -2]
    history[:, : max(1, round(REFRACTORY / settings.bin_size))] += REFRACTORY_DEPTH
    return coupling, history, settings.base_rate * np.exp(RATE_SPREAD * rng.standard_normal(n))


def log_cosine_basis(lags: int) -> np.ndarray:
    """Raised cosines on a logarithmic time axis (lag, function), zero at the last lag (specs/glm.md, section 2)."""
    axis = np.log1p(LOG_STRETCH * np.linspace(0, 1, lags)) / np.log1p(LOG_STRETCH)
    spacing = 1 / (BASIS_FUNCTIONS + 1)
    peaks = spacing * np.arange(BASIS_FUNCTIONS)
    return 0.5 * (1 + np.cos(np.clip(np.pi * (axis[:, None] - peaks) / (2 * spacing), -np.pi, np.pi)))


def gain(filters: np.ndarray, base: np.ndarray) -> float:
    """Spikes that one spike causes by excitation alone, in its network's worst direction; from 1 on activity runs away.

    The spectral radius of the network linearised at its mean-field rates, without the protection of inhibition.
    `filters` (sender, receiver, lag), log rate per spike; `base` (unit,), expected spikes a bin without input.
    """
    filters = np.clip(filters, -50.0, 50.0)  # no stronger coupling could change the answer, but overflow
    total, excitation = filters.sum(axis=2), np.expm1(np.maximum(filters, 0)).sum(axis=2)
    expected = base
    for _ in range(100):
        expected = base * np.exp(np.minimum(expected @ total, 50.0))
    return float(np.abs(np.linalg.eigvals(excitation * np.minimum(expected, 1e9))).max())


def run(
    settings: Settings, filters: np.ndarray, base_rates: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Run the network, a block of bins at a time.

    Yields
    ------
    first : the number of the block's first bin.
    counts : (bin, unit) int64.
    rates : (bin, unit) float64, spikes/s.
    """
    bins, seconds = duration_bins(settings.duration, settings.bin_size, "duration"), settings.bin_size / 1000
    effects = np.ascontiguousarray(filters.transpose(0, 2, 1))  # what a spike adds to the future: (lag, receiver)
    lags, units, limit = filters.shape[2], np.arange(settings.units), np.log(settings.rate_limit * seconds)
    base = np.log(base_rates * seconds)
    ahead, capped = np.tile(base, (lags, 1)), 0
    for first in range(0, bins, BLOCK):
        size = min(BLOCK, bins - first)
        log_rate = np.concatenate([ahead, np.tile(base, (size, 1))])
        counts = np.empty((size, settings.units), dtype=np.int64)
        for bin_ in range(size):
            counts[bin_] = rng.poisson(np.exp(np.minimum(log_rate[bin_], limit)))
            senders = np.repeat(units, counts[bin_])
            if len(senders):
                log_rate[bin_ + 1 : bin_ + 1 + lags] += effects[senders].sum(axis=0)
        ahead = log_rate[size:]
        capped += int(np.count_nonzero(log_rate[:size] > limit))
        yield first, counts, np.exp(np.minimum(log_rate[:size], limit)) / seconds
    if capped:
        found = f"{capped} of {bins * settings.units} rates cut at rate_limit, {settings.rate_limit:g} spikes/s"
        warnings.warn(f"simulator glm: {found}: there the filters are not the whole truth", stacklevel=2)
