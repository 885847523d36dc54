"""Visual cortex of an animal that runs and looks around: a stand-in for the public data sets of the Neuroformer.

A film of smooth noise is shown at `frame_rate`. The eyes wander, and with them what falls on each unit's receptive
field, a spot of light with a dark surround; running raises the rate of some units and lowers that of others; and `hubs`
drive `targets` each by a filter that lasts `filter_length` ::

    log rate = log base + visual (field . film, as the eyes see it) + running (speed) + sum_j filter_j * spikes_j

with film, field and speed standardised. The film seen is that of the bin; speed and gaze are Ornstein-Uhlenbeck
processes, speed through a threshold, so that the animal stands still at times. Spikes are Poisson in bins.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from pipeline_lib.clock import bin_ticks, duration_bins
from pipeline_lib.errors import InputError
from pipeline_lib.signal_units import keep_units
from pipeline_lib.sources.simulate.settings import Number, SimulatorSettings, Whole
from pipeline_lib.sources.spikes import spikes_of
from pipeline_lib.sources.trials import no_trials

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

AREA = "VISp"
FILTER_SHAPE = 0.3  # time constant of a coupling filter, as a share of its length


@dataclass(frozen=True)
class Settings(SimulatorSettings):
    """What can be changed."""

    NAME: ClassVar[str] = "video"
    CITATION: ClassVar[str] = "a stand-in for the data of Antoniades et al. 2024, ICLR"
    units: Annotated[Whole, Ge(2)] = 40
    duration: Annotated[Number, Gt(0)] = 900.0
    """Seconds, all observed."""
    bin_size: Annotated[Number, Gt(0)] = 10.0
    """ms: the step of the simulation and of the filters."""
    frame_rate: Annotated[Number, Gt(0)] = 20.0
    """Frames a second; a frame lasts a whole number of bins."""
    height: Annotated[Whole, Ge(4)] = 16
    width: Annotated[Whole, Ge(4)] = 24
    """Pixels."""
    base_rate: Annotated[Number, Gt(0), Le(500)] = 5.0
    """Geometric mean of the rates without input, spikes/s."""
    visual: Annotated[Number, Ge(0)] = 0.6
    """Standard deviation over time of what the film adds to a log rate."""
    running: Annotated[Number, Ge(0)] = 0.5
    """Standard deviation over units of what one of speed adds to a log rate."""
    gaze: Annotated[Number, Ge(0)] = 1.5
    """Standard deviation of the direction of gaze, pixels."""
    hubs: Annotated[Whole, Ge(0)] = 4
    targets: Annotated[Whole, Ge(0)] = 8
    strength: Annotated[Number, Ge(0)] = 2.0
    """Sum over lags of a coupling filter, log rate per spike."""
    filter_length: Annotated[Number, Gt(0)] = 0.1
    """Seconds a coupling filter lasts."""
    rate_limit: Annotated[Number, Gt(0)] = 200.0
    """Spikes/s a unit never exceeds."""

    def __post_init__(self) -> None:
        bin_ticks(self.bin_size)
        duration_bins(self.duration, self.bin_size, "duration")
        duration_bins(self.filter_length, self.bin_size, "filter_length")
        if self.hubs and self.hubs + self.targets > self.units:
            self.refuse("targets", self.targets, f"at most {self.units - self.hubs}: units that are no hubs")
        try:
            duration_bins(1 / self.frame_rate, self.bin_size, "frame_rate")
        except InputError:
            self.refuse("frame_rate", self.frame_rate, f"frames of a whole number of {self.bin_size}-ms bins")


def simulate(settings: Settings, seed: int, session: str) -> "Recording":
    """One continuous session without trials; signals `running` (speed), `gaze` (x, y) and `state` (moving: 0 or 1), and
    the film as its stimulus.

    Truth: `coupling` (sender, receiver), `coupling_filters` (sender, receiver, lag; lag 0 the bin before), `synapse`;
    `receptive_fields` (unit, height, width), `speed_gains` (unit,); `rates` (1, bin, unit), spikes/s.
    """
    import pandas as pd

    from pipeline_lib.sources.simulate.session import session_recording
    from pipeline_lib.stimulus import Stimulus

    world, wiring, spiking, within = np.random.default_rng(seed).spawn(4)
    bins = duration_bins(settings.duration, settings.bin_size, "duration")
    every = duration_bins(1 / settings.frame_rate, settings.bin_size, "frame_rate")
    frames = -(-bins // every)
    film = smooth_film(frames, settings, world)
    speed, gaze = behaviour(frames, settings, world)
    fields = receptive_fields(settings, wiring)
    gains = settings.running * wiring.standard_normal(settings.units)
    filters = couplings(settings, wiring)
    base = np.log(settings.base_rate * np.exp(0.3 * wiring.standard_normal(settings.units)))
    drive = base + settings.visual * visual_drive(film, gaze, fields) + standardised(speed)[:, None] * gains
    # Hubs would raise the rates of their targets: what they add on average is taken off.
    drive -= filters.sum(2).T @ np.exp(base) * settings.bin_size / 1000
    counts, rates = run(settings, np.repeat(drive, every, 0)[:bins], filters, spiking)

    (bin_, unit), _ = spikes_of(counts)
    ticks = bin_ticks(settings.bin_size)
    strength = filters.sum(2)
    recording = session_recording(
        session=session,
        seed=seed,
        settings=settings,
        tick=bin_ * ticks + within.integers(0, ticks, len(bin_)),
        unit=unit,
        regions=[AREA] * settings.units,
        trials=no_trials(),
        observed=np.array([[0.0, settings.duration]]),
        truth={
            "coupling": strength,
            "coupling_filters": filters,
            "synapse": strength != 0,
            "receptive_fields": fields,
            "speed_gains": gains,
            "rates": rates[None].astype(np.float32),
        },
        truth_attributes={"bin_size": settings.bin_size, "trial_start": [0.0]},
    )
    onset = np.arange(frames) / settings.frame_rate
    recording.signals = {
        "gaze": pd.DataFrame({"time": onset, "x": gaze[:, 1], "y": gaze[:, 0]}),
        "running": pd.DataFrame({"time": onset, "speed": speed}),
        "state": pd.DataFrame({"time": onset, "moving": (speed > 0).astype(float)}),
    }
    keep_units(recording.signals["gaze"], {"x": "pixels", "y": "pixels"})
    keep_units(recording.signals["running"], {"speed": "cm/s"})
    recording.stimulus = Stimulus(film, onset, np.arange(frames, dtype=np.int32))
    return recording


def smooth_film(frames: int, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Noise that is smooth over about 2 pixels and 0.2 s: uint8 (frame, height, width), grey 128 on average."""
    noise: np.ndarray = rng.standard_normal((frames, settings.height, settings.width))
    for axis, spread in ((0, 0.2 * settings.frame_rate), (1, 1.5), (2, 1.5)):
        # In the frequency domain: periodic at the edges, which gaze shifts across.
        frequency = np.fft.rfftfreq(noise.shape[axis])
        shape = np.ones(3, int)
        shape[axis] = len(frequency)
        gain = np.exp(-2 * (np.pi * frequency * spread) ** 2).reshape(shape)
        noise = np.fft.irfft(np.fft.rfft(noise, axis=axis) * gain, noise.shape[axis], axis=axis)
    return np.rint(128 + 50 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def behaviour(frames: int, settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Running speed (frame,), cm/s, 0 at rest, and gaze (frame, 2), vertical and horizontal, pixels."""
    pace, vertical, horizontal = (wander(frames, seconds * settings.frame_rate, rng) for seconds in (3.0, 0.8, 0.8))
    return 8 * np.maximum(pace + 0.5, 0), settings.gaze * np.column_stack([vertical, horizontal])


def wander(steps: int, time_constant: float, rng: np.random.Generator) -> np.ndarray:
    """An Ornstein-Uhlenbeck process of variance 1 (step,)."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / time_constant)
    noise = rng.standard_normal(steps) * np.sqrt(1 - keep**2)
    noise[0] /= np.sqrt(1 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise))


def receptive_fields(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """A spot with a surround of the other sign, somewhere in the frame, on or off: (unit, height, width), norm 1."""
    size = np.array([settings.height, settings.width])
    centre = rng.uniform(0.2, 0.8, (settings.units, 2)) * size
    row, column = np.indices((settings.height, settings.width))
    distance = (row - centre[:, :1, None]) ** 2 + (column - centre[:, 1:, None]) ** 2
    fields = np.exp(-distance / (2 * 1.5**2)) - 0.25 * np.exp(-distance / (2 * 3.0**2))
    fields *= rng.choice([-1.0, 1.0], settings.units)[:, None, None]
    return np.asarray(fields / np.sqrt((fields**2).sum((1, 2), keepdims=True)))


def visual_drive(film: np.ndarray, gaze: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Standardised overlap (frame, unit) of each field with the film, moved by the gaze to the nearest pixel."""
    frames, height, width = film.shape
    row = (np.arange(height) + np.rint(gaze[:, :1]).astype(int)) % height
    column = (np.arange(width) + np.rint(gaze[:, 1:]).astype(int)) % width
    seen = film[np.arange(frames)[:, None, None], row[:, :, None], column[:, None, :]].reshape(frames, -1)
    return standardised((seen / 128.0 - 1) @ fields.reshape(len(fields), -1).T)


def couplings(settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Filters (sender, receiver, lag): the first units are hubs, each with targets among the others."""
    lags = duration_bins(settings.filter_length, settings.bin_size, "filter_length")
    shape = np.exp(-np.arange(lags) / (FILTER_SHAPE * lags))
    filters = np.zeros((settings.units, settings.units, lags))
    for hub in range(settings.hubs):
        receivers = rng.choice(np.arange(settings.hubs, settings.units), settings.targets, replace=False)
        filters[hub, receivers] = settings.strength * shape / shape.sum()
    return filters


def standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 along the first axis."""
    return np.asarray((values - values.mean(0)) / np.maximum(values.std(0), 1e-9))


def run(
    settings: Settings, drive: np.ndarray, filters: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (bin, unit) and rates (bin, unit), spikes/s, of units with log rates `drive` (bin, unit) and couplings."""
    seconds, limit = settings.bin_size / 1000, np.log(settings.rate_limit)
    effects = np.ascontiguousarray(filters.transpose(0, 2, 1))
    log_rate = np.concatenate([drive, np.zeros((filters.shape[2], drive.shape[1]))])
    counts = np.zeros(drive.shape, dtype=np.int64)
    lags = filters.shape[2]
    for bin_ in range(len(drive)):
        counts[bin_] = rng.poisson(np.exp(np.minimum(log_rate[bin_], limit)) * seconds)
        senders = np.flatnonzero(counts[bin_, : settings.hubs])
        for sender in senders:
            log_rate[bin_ + 1 : bin_ + 1 + lags] += counts[bin_, sender] * effects[sender]
    return counts, np.exp(np.minimum(log_rate[: len(drive)], limit))
