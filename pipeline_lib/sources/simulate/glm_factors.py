"""Areas of Poisson GLM units under factors that vary from trial to trial, coupled one way through few loadings.

The second benchmark of Xin & Kass (2025, arXiv 2506.02263). In bins of 2 ms, for unit n of area a in trial m::

    log rate = base + W[n] . F[a, m](t) + sum_tau h[tau] y[t-1-tau, n] + R[n] g[a-1, m](t)
    g[a, m](t) = sum_{n in area a} S[n] sum_tau k[tau] y[t-1-tau, n]

F are smooth Gaussian processes, S and R are unit vectors that are 0 but for the first `coupled` units of an area; the
first area receives nothing. Unlike that of `eif`, the truth here has the very form of the model, so that filters,
loadings and factors can be compared one by one. More than the authors' two areas make a chain, and an animal that runs
now and then (`running`) moves the first factor of every area together: a stand-in for a recording of six visual areas.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from pipeline_lib.bases.lags import raised_cosines
from pipeline_lib.clock import TICKS_PER_MS, to_ticks
from pipeline_lib.signal_units import keep_units
from pipeline_lib.sources.simulate.settings import Number, SimulatorSettings, Whole
from pipeline_lib.sources.spikes import spikes_of

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

BIN, PADDING, RESPONSE = 2, 100, 500  # ms
BINS = (PADDING + RESPONSE) // BIN
COUPLING_WEIGHTS, COUPLING_PEAK = (1.0, 0.2, 0.0), 7.0  # of three raised cosines; bins
HISTORY_WEIGHTS, HISTORY_PEAK = (-2.0, -1.0, 0.2), 2.0
LARGEST = 10.0  # log rate
BATCH = 500  # trials simulated together: 0.5 GB for 100 units
SPEED, BOUT = 20.0, 25.0  # cm/s, of the animal when it runs; trials, of a bout and of the rest after it


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed; the defaults are the authors', with fewer trials."""

    NAME: ClassVar[str] = "glm_factors"
    CITATION: ClassVar[str] = "Xin & Kass 2025, arXiv 2506.02263"
    neurons_per_area: Annotated[Whole, Ge(1)] = 50
    trials: Annotated[Whole, Ge(1)] = 300
    areas: Annotated[Whole, Ge(2)] = 2
    coupled: Annotated[Whole, Ge(0)] = 10
    """The first `coupled` units of each area excite the first `coupled` of the next."""
    coupling: Annotated[Number, Ge(0)] = 1.0
    """Scale of the coupling filter."""
    factors: Annotated[Whole, Ge(1)] = 2
    """Background factors of an area."""
    factor_variance: Annotated[Number, Ge(0)] = 0.5
    timescale: Annotated[Number, Gt(0)] = 150.0
    """ms: factors t apart correlate by exp(-(t / timescale)^2)."""
    running: Annotated[Number, Ge(0)] = 0.0
    """What running adds to the first factor of every area; above 0, the speed is recorded as the signal `running`."""
    base: Annotated[Number, Gt(0)] = 0.05
    """Spikes a bin without input."""
    gap: Annotated[Number, Ge(0)] = 0.4
    """Seconds between trials that nobody recorded."""

    def __post_init__(self) -> None:
        if self.coupled > self.neurons_per_area:
            self.refuse("coupled", self.coupled, f"not above neurons_per_area ({self.neurons_per_area})")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """A session of trials, each 100 ms before and 500 ms after `stimulus_onset`.

    Truth, in bins of 2 ms: `coupling_filters` (sender, receiver, lag), `coupling` their sum, `synapse` bool,
    `coupling_kernel` (lag,), `history_filters` (unit, lag), `latents` (trial, bin, area x factor), `loadings` (unit,
    factor of its area), `coupling_factor` (trial, bin, coupled pair of areas). Sending and receiving loadings are the
    rows and columns of `coupling`, which has rank 1 between two areas.
    """
    from pipeline_lib.sources.simulate.session import trial_recording  # pandas: not to check settings

    wiring, slow, spiking, within, moving = np.random.default_rng(seed).spawn(5)
    n, areas = settings.neurons_per_area, settings.areas
    units = areas * n
    loadings = wiring.uniform(-0.9, 1.0, (units, settings.factors))
    pairs = [[unit_vector(settings, wiring, first) for first in (a * n, (a + 1) * n)] for a in range(areas - 1)]
    send, receive = np.stack(pairs, axis=1)  # (pair, unit)
    kernel = settings.coupling * raised_cosines(3, COUPLING_PEAK, 0.5) @ COUPLING_WEIGHTS
    history = raised_cosines(3, HISTORY_PEAK, 0.7) @ HISTORY_WEIGHTS
    factors = gaussian_processes(settings, slow)
    speed = running_speed(settings, moving)
    factors[..., 0] += settings.running * (speed / SPEED - 0.5)[:, None, None]

    found, passed = [], np.empty((settings.trials, BINS, len(pairs)), dtype=np.float32)
    for first in range(0, settings.trials, BATCH):
        batch = slice(first, min(first + BATCH, settings.trials))
        own = np.einsum("mbaf,anf->mban", factors[batch], loadings.reshape(areas, n, -1)).reshape(-1, BINS, units)
        counts, passed[batch] = run(np.log(settings.base) + own, kernel, history, send, receive, spiking)
        found.append(spikes_of(counts)[0] + np.array([[first], [0], [0]]))
    trial, at, unit = np.concatenate(found, axis=1)
    ticks = BIN * TICKS_PER_MS
    filters = np.einsum("pi,pj,l->ijl", send, receive, kernel)
    made = trial_recording(
        session=session,
        seed=seed,
        settings=settings,
        spikes=(trial, at * ticks + within.integers(0, ticks, len(at)), unit),
        regions=np.repeat([f"area{area + 1}" for area in range(areas)], n).tolist(),
        conditions=["stimulus"] * settings.trials,
        trial_ticks=(PADDING + RESPONSE) * TICKS_PER_MS,
        gap_ticks=int(to_ticks(settings.gap)),
        events={"stimulus_onset": PADDING * TICKS_PER_MS},
        truth={
            "coupling": filters.sum(axis=2),
            "coupling_filters": filters,
            "coupling_kernel": kernel,
            "coupling_factor": passed,
            "synapse": send.T @ receive != 0,
            "history_filters": np.tile(history, (units, 1)),
            "loadings": loadings,
            "latents": factors.reshape(settings.trials, BINS, -1).astype(np.float32),
        },
        truth_bin_size=BIN,
    )
    return made if settings.running == 0 else replace(made, signals={"running": _speed_signal(made, speed)})


def running_speed(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Speed (trial,), cm/s: bouts of running and rests between them, of `BOUT` trials in the mean."""
    switches = rng.random(settings.trials) < 1 / BOUT
    return SPEED * (np.cumsum(switches) % 2) * rng.uniform(0.7, 1.3, settings.trials)


def _speed_signal(made: "Recording", speed: np.ndarray) -> "pd.DataFrame":
    """The speed of each trial at its start and stop."""
    import pandas as pd

    time = made.trials[["start", "stop"]].to_numpy().ravel()
    signal = pd.DataFrame({"time": time, "speed": np.repeat(speed, 2)})
    keep_units(signal, {"speed": "cm/s"})
    return signal


def unit_vector(settings: Settings, rng: np.random.Generator, first: int) -> np.ndarray:
    """Loadings (unit,) of norm 1, positive for the `coupled` units from row `first` on, else 0."""
    vector = np.zeros(settings.areas * settings.neurons_per_area)
    vector[first : first + settings.coupled] = rng.uniform(0.8, 1.2, settings.coupled)
    return vector / max(float(np.linalg.norm(vector)), 1.0e-12)


def gaussian_processes(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Factors (trial, bin, area, factor)."""
    time = np.arange(BINS) * BIN
    covariance = np.exp(-(((time[:, None] - time) / settings.timescale) ** 2))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None) * settings.factor_variance)
    draws = rng.standard_normal((settings.trials, BINS, settings.areas * settings.factors))
    return (draws.swapaxes(1, 2) @ root.T).swapaxes(1, 2).reshape(settings.trials, BINS, settings.areas, -1)


def run(
    log_rates: np.ndarray,
    kernel: np.ndarray,
    history: np.ndarray,
    send: np.ndarray,
    receive: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (trial, bin, unit) and the coupling factors (trial, bin, pair), all trials bin by bin.

    `send` and `receive` are (pair, unit).
    """
    trials, bins, units = log_rates.shape
    counts = np.zeros((trials, bins, units), dtype=np.int64)
    passed = np.zeros((trials, bins + len(kernel), len(send)))
    past = np.zeros((trials, bins + len(history), units))
    for now in range(bins):
        total = log_rates[:, now] + past[:, now] + passed[:, now] @ receive
        counts[:, now] = rng.poisson(np.exp(np.minimum(total, LARGEST)))
        passed[:, now + 1 : now + 1 + len(kernel)] += (counts[:, now] @ send.T)[:, None] * kernel[:, None]
        past[:, now + 1 : now + 1 + len(history)] += counts[:, now, None] * history[:, None]
    return counts, passed[:, :bins]
