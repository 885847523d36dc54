"""Two areas of exponential integrate-and-fire neurons, coupled one way, under background that varies over trials.

The benchmark of coupling models by Xin & Kass (2025, arXiv 2506.02263): neurons of V1 excite neurons of LM through
known synapses while both areas share slow trial-to-trial background, which a poor model mistakes for coupling.

Every step of 0.2 ms, for the voltage V of each neuron (mV)::

    V += GAIN * (-dt/tau (V - EL) + dt/tau * slope * exp((V - VT)/slope) + noise + synaptic + background)

with standard normal noise; V >= Vth is a spike, after which V stays at the reset for the step and the five that follow.
A spike of sender i adds J[i, j] (exp(-k dt/5 ms) - exp(-k dt/1 ms)), k = 0..74, to receiver j from the next step on.
Background = a stimulus response with two peaks, whose times vary from trial to trial together in both areas, plus a
Gaussian process (sd `gp_amplitude`, 300 ms) times a loading U(0.5, 1) per neuron.

The stimulus response: the authors' templates (log rates of V1 and LM measured at gratings) are not public in a usable
form. Ours have their peak times (V1 62.9 and 237.2 ms, LM 70.7 and 244.6 ms) and a documented shape: a log rate of two
Gaussians (`PEAK_HEIGHTS`, `PEAK_WIDTHS`) on a flat baseline. Its exponential is rescaled to 0..`stimulus`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le

from pipeline_lib.clock import TICKS_PER_MS, to_ticks
from pipeline_lib.sources.simulate.settings import Flag, Number, SimulatorSettings, Whole

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

AREAS = ("VISp", "VISl")  # V1 and LM by their acronyms in the Allen atlas

STEP = 0.2  # ms
BIN = 2  # ms: background is constant within a bin, and truth is stored in these bins
STEPS = round(BIN / STEP)
PADDING, RESPONSE = 100, 500  # ms before and after the stimulus
BINS = (PADDING + RESPONSE) // BIN
BATCH = 64  # trials integrated together: their state stays in the processor's cache

REST, RESET, SOFT_THRESHOLD, THRESHOLD = -60.0, -65.0, -50.0, -10.0  # mV
SLOPE, MEMBRANE = 2.0, 15.0  # mV, ms
REFRACTORY = 5  # steps after that of the spike
GAIN = 2.0
SYNAPSE_DECAY, SYNAPSE_RISE, SYNAPSE_TAPS = 5.0, 1.0, 75  # ms, ms, steps

PEAKS = np.array([[62.9, 237.2], [70.7, 244.6]])  # ms after the stimulus, per area
PEAK_HEIGHTS, PEAK_WIDTHS = (1.6, 1.2), (18.0, 45.0)  # log rate, ms
PEAK_MEANS = np.array([[60.0, 65.0], [260.0, 265.0]])  # ms, (peak, area): where the peaks of a trial fall
PEAK_SPREADS, PEAK_CORRELATION = (10.0, 25.0), 0.5
PEAK_LIMITS = ((10.0, 130.0), (170.0, 330.0))
GP_TIMESCALE, GP_GRID = 300.0, 10  # ms


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed; the defaults are the authors' tutorial, with fewer trials."""

    NAME: ClassVar[str] = "eif"
    CITATION: ClassVar[str] = (
        "Xin & Kass 2025, arXiv 2506.02263; neuron model: Fourcaud-Trocme et al. 2003, J Neurosci 23:11628"
    )
    neurons_per_area: Annotated[Whole, Ge(1)] = 50
    trials: Annotated[Whole, Ge(1)] = 200
    coupled: Annotated[Whole, Ge(0)] = 10
    """The first `coupled` neurons of V1 excite the first `coupled` of LM."""
    connection: Annotated[Number, Ge(0)] = 0.1
    """Typical (log-mean) strength J of these synapses; the authors use 0, 0.1 and 0.2."""
    recurrent: Annotated[Number, Ge(0)] = 0.001
    """Typical strength between all neurons of an area, themselves included."""
    stimulus: Annotated[Number, Ge(0)] = 0.25
    """Peak of the stimulus response, in the units of the noise."""
    gp_amplitude: Annotated[Number, Ge(0)] = 0.1
    """Standard deviation over trials of the slow background; the authors use 0.1 and 0.05."""
    shared_background: Annotated[Number, Ge(0), Le(1)] = 0.0
    """Share of the variance of the slow background of LM that is V1's: the two correlate by its square root."""
    gap: Annotated[Number, Ge(0)] = 0.4
    """Seconds between trials that nobody recorded."""
    keep_inputs: Flag = True
    """Store the synaptic and background input of every neuron (0.24 MB a trial of 100 neurons)."""

    def __post_init__(self) -> None:
        if self.coupled > self.neurons_per_area:
            self.refuse("coupled", self.coupled, f"not above neurons_per_area ({self.neurons_per_area})")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """A session of trials, each 100 ms before and 500 ms after `stimulus_onset`, with gaps nobody recorded.

    Truth, in bins of 2 ms: `coupling` (sender, receiver), the J of every synapse; `synapse` (sender, receiver) bool,
    the designed synapses V1 -> LM, without the faint recurrent ones; `synapse_kernel` (75,), input per J at steps of
    0.2 ms after the spike; `coupling_input` and `background_input` (trial, bin, unit), in units of the noise.
    """
    from pipeline_lib.sources.simulate.session import trial_recording  # pandas: not to check settings

    # Separate streams: two settings that differ in one thing see the same noise in all others.
    wiring, loading, responses, slow, noise = np.random.default_rng(seed).spawn(5)
    coupling, synapse = connect(settings, wiring)
    loadings = loading.uniform(0.5, 1, 2 * settings.neurons_per_area).astype(np.float32)
    shared = stimulus_responses(settings, responses)
    own = slow_background(settings, slow)
    truth = {"coupling": coupling, "synapse": synapse, "synapse_kernel": synapse_kernel()}
    if settings.keep_inputs:
        shape = (settings.trials, BINS, len(loadings))
        truth |= {name: np.empty(shape, np.float32) for name in ("coupling_input", "background_input")}

    found = []
    for first in range(0, settings.trials, BATCH):
        batch = slice(first, min(first + BATCH, settings.trials))
        background = np.repeat(shared[batch], settings.neurons_per_area, axis=2)
        background += np.repeat(own[batch], settings.neurons_per_area, axis=2) * loadings
        for bin_, (fired, synaptic) in enumerate(integrate(background, coupling, noise)):
            step, trial, unit = np.unravel_index(np.flatnonzero(fired), fired.shape)
            # In the middle of its step, so that no rounding can move a spike over the edge of a bin.
            tick = ((bin_ * STEPS + step + 0.5) * STEP * TICKS_PER_MS).astype(np.int64)
            found.append(np.stack([trial + first, tick, unit]))
            if settings.keep_inputs:
                truth["coupling_input"][batch, bin_] = synaptic
        if settings.keep_inputs:
            truth["background_input"][batch] = background

    return trial_recording(
        session=session,
        seed=seed,
        settings=settings,
        spikes=np.concatenate(found, axis=1),
        regions=np.repeat(AREAS, settings.neurons_per_area).tolist(),
        conditions=["stimulus"] * settings.trials,
        trial_ticks=(PADDING + RESPONSE) * TICKS_PER_MS,
        gap_ticks=int(to_ticks(settings.gap)),
        events={"stimulus_onset": PADDING * TICKS_PER_MS},
        truth=truth,
        truth_bin_size=BIN,
    )


def connect(settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Synapses J (sender, receiver) float32, log-normal with log-sd 0.4, and which of them were designed (bool)."""
    n, k = settings.neurons_per_area, settings.coupled
    typical = np.zeros((2 * n, 2 * n))
    typical[:n, :n] = typical[n:, n:] = settings.recurrent
    typical[:k, n : n + k] = settings.connection
    synapse = np.zeros(typical.shape, dtype=bool)
    synapse[:k, n : n + k] = settings.connection > 0
    coupling = typical * np.exp(0.4 * rng.standard_normal(typical.shape))
    # On a grid of 2^-20 a float32 sum of synapses is exact in any order: the spikes depend on no BLAS or thread count.
    return (np.rint(coupling * 2**20) / 2**20).astype(np.float32), synapse


def synapse_kernel() -> np.ndarray:
    """Input per unit of J at 0, 1, ... 74 steps after it begins (which is one step after the spike)."""
    lag = np.arange(SYNAPSE_TAPS) * STEP
    return (np.exp(-lag / SYNAPSE_DECAY) - np.exp(-lag / SYNAPSE_RISE)).astype(np.float32)


def stimulus_responses(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Stimulus response of every trial and area (trial, bin, area) float32, 0 to `stimulus`.

    The template is warped piecewise linearly so that its peaks fall at times drawn for the trial; before the stimulus
    it has its baseline.
    """
    correlation = np.array([[1, 0], [PEAK_CORRELATION, np.sqrt(1 - PEAK_CORRELATION**2)]])
    draws = rng.standard_normal((settings.trials, 2, 2))  # trial, peak, area
    peaks = PEAK_MEANS + (draws @ correlation.T) * np.array(PEAK_SPREADS)[:, None]
    lower, upper = np.array(PEAK_LIMITS).T
    peaks = np.clip(peaks, lower[:, None], upper[:, None])
    time = (np.arange(BINS) + 0.5) * BIN - PADDING
    fine = np.linspace(0, RESPONSE, 5001)
    response = np.zeros((settings.trials, BINS, len(AREAS)), dtype=np.float32)
    for area in range(len(AREAS)):
        template = stimulus_template(fine, area)
        lowest, highest = template.min(), template.max()
        source = _warp(time, peaks[:, :, area], PEAKS[area])
        response[:, :, area] = settings.stimulus * (stimulus_template(source, area) - lowest) / (highest - lowest)
    return response


def stimulus_template(time: np.ndarray, area: int) -> np.ndarray:
    """Rate (relative to the baseline) of an area, at `time` ms after the stimulus, any shape."""
    log_rate = np.zeros(time.shape)
    for peak, height, width in zip(PEAKS[area], PEAK_HEIGHTS, PEAK_WIDTHS, strict=True):
        log_rate += height * np.exp(-((time - peak) ** 2) / (2 * width**2))
    return np.exp(log_rate)


def _warp(time: np.ndarray, peaks: np.ndarray, template_peaks: np.ndarray) -> np.ndarray:
    """Template times (trial, bin) of `time` (bin,), with knots at 0, the two `peaks` (trial, 2) and the end."""
    trials = len(peaks)
    at = np.concatenate([np.zeros((trials, 1)), peaks, np.full((trials, 1), float(RESPONSE))], axis=1)
    to = np.array([0.0, *template_peaks, RESPONSE])
    piece = (time[None, :, None] >= at[:, None, 1:3]).sum(axis=2)
    left, right = np.take_along_axis(at, piece, axis=1), np.take_along_axis(at, piece + 1, axis=1)
    warped = to[piece] + (time - left) / (right - left) * (to[piece + 1] - to[piece])
    return np.maximum(warped, 0.0)


def slow_background(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Gaussian process of every trial and area (trial, bin, area) float32; see `shared_background`."""
    grid = np.arange(0, PADDING + RESPONSE + 1, GP_GRID, dtype=float)
    kernel = np.exp(-((grid[:, None] - grid) ** 2) / (2 * GP_TIMESCALE**2))
    root = np.linalg.cholesky(kernel + 1e-8 * np.eye(len(grid)))
    time = (np.arange(BINS) + 0.5) * BIN
    interpolate = np.stack([np.interp(time, grid, column) for column in root.T], axis=1)
    draws = rng.standard_normal((settings.trials, len(grid), len(AREAS)))
    share = settings.shared_background
    draws[:, :, 1] = np.sqrt(share) * draws[:, :, 0] + np.sqrt(1 - share) * draws[:, :, 1]
    return (settings.gp_amplitude * np.einsum("bg,mga->mba", interpolate, draws)).astype(np.float32)


def integrate(
    background: np.ndarray, coupling: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run all trials together, bin by bin.

    Parameters
    ----------
    background : (trial, bin, unit) float32, input constant within each bin of 2 ms.
    coupling : (sender, receiver) float32.

    Yields
    ------
    fired : (step, trial, unit) bool, the ten steps of the bin; overwritten by the next bin.
    synaptic : (trial, unit) float32, mean synaptic input in the bin.
    """
    trials, bins, units = background.shape
    shape = (trials, units)
    leak = np.float32(GAIN * STEP / MEMBRANE)
    slow_decay, fast_decay = (np.float32(np.exp(-STEP / tau)) for tau in (SYNAPSE_DECAY, SYNAPSE_RISE))
    cut = np.float32(np.exp(-SYNAPSE_TAPS * STEP / SYNAPSE_DECAY))  # what is left of a slow trace after the last tap

    voltage = np.full(shape, RESET, np.float32)
    free_from = np.zeros(shape, np.int32)  # the first step at which the neuron is not refractory
    slow, fast = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    arrived = np.zeros((SYNAPSE_TAPS, *shape), np.float32)  # of the last 75 steps: synapses reached, summed
    fired, spikes = np.zeros((STEPS, *shape), dtype=bool), np.empty(shape, np.float32)
    synaptic, upstroke = np.empty(shape, np.float32), np.empty(shape, np.float32)
    drive = np.empty((STEPS, *shape), np.float32)

    for bin_ in range(bins):
        rng.standard_normal(out=drive, dtype=np.float32)
        drive += background[:, bin_]
        drive *= np.float32(GAIN)
        drive += leak * np.float32(REST)
        total = np.zeros(shape, np.float32)
        for inner in range(STEPS):
            step = bin_ * STEPS + inner
            np.subtract(slow, fast, out=synaptic)
            total += synaptic

            np.subtract(voltage, np.float32(SOFT_THRESHOLD), out=upstroke)
            upstroke *= np.float32(1 / SLOPE)
            np.exp(upstroke, out=upstroke)
            upstroke *= leak * np.float32(SLOPE)
            voltage *= 1 - leak
            voltage += upstroke
            voltage += drive[inner]
            synaptic *= np.float32(GAIN)
            voltage += synaptic
            np.copyto(voltage, RESET, where=free_from > step)

            np.greater_equal(voltage, THRESHOLD, out=fired[inner])
            np.copyto(voltage, RESET, where=fired[inner])
            np.copyto(free_from, step + 1 + REFRACTORY, where=fired[inner])

            # Two decaying traces a receiver stand for the 75 taps; the slow one forgets a spike after its last tap.
            oldest = arrived[step % SYNAPSE_TAPS]
            slow *= slow_decay
            oldest *= cut
            slow -= oldest
            np.copyto(spikes, fired[inner])
            np.matmul(spikes, coupling, out=oldest)
            slow += oldest
            fast *= fast_decay
            fast += oldest
        yield fired, total / STEPS
