"""The data dictionary of the public Neuroformer code, saved as one npz file (its pickles are not read).

    numpy.savez("session.npz", **dictionary)   # spikes (units, bins), frames or stimulus (n, height, width), behaviours
    film   neuroformer_dictionary   session.npz   bin_size: 10, frame_rate: 20, behaviour_rate: 20

`spikes` counts of units by bins, or one such table a trial as `spikes/NAME`; `intervals` the ends of windows, s, each
`interval` long: what lies in none was not observed; every other one-dimensional array is a behaviour. A `callback`, by
which the public code makes frames while it trains, is a function: call it first and save what it returns as `frames`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.intervals import merged
from pipeline_lib.sources.given_units import SignalUnits, give_units
from pipeline_lib.sources.location import checksums, reading, single_file
from pipeline_lib.sources.options import check_names
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.spikes import spikes_of
from pipeline_lib.sources.trials import ALL, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording
    from pipeline_lib.stimulus import Stimulus

SPIKES, FRAMES, INTERVALS = "spikes", ("frames", "stimulus"), "intervals"


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection, SignalUnits):
    """The rates at which the arrays were sampled."""

    bin_size: Annotated[float, Gt(0)] = 10.0
    """Milliseconds in a bin of the spikes."""
    frame_rate: Annotated[float, Gt(0)] = 20.0
    """Frames a second; the first is shown from 0 s on."""
    behaviour_rate: Annotated[float, Gt(0)] = 20.0
    """Samples a second of the behaviours; the first is at 0 s."""
    interval: Annotated[float, Gt(0)] = 0.05
    """Seconds of a window of `intervals`, which name its end."""
    region: str = "unknown"
    """Region of all units: the dictionary does not say."""


def locate(location: Path) -> Path:
    """`location`, or the only npz file in it."""
    return single_file(location, (".npz",))


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a dictionary. Spikes of a bin are spread evenly within it, so that counts come back.

    Raises
    ------
    InputError : no `spikes`, an array of another shape than its kind has, or one that only pickle can read.
    """
    import pandas as pd

    from pipeline_lib.recording import Provenance, Recording

    with reading(location, "file"), np.load(location, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name, values in arrays.items():
        if values.ndim and values.dtype.kind not in "iufb":
            raise InputError(location, name, str(values.dtype), "an array of numbers")
    tables = _tables(arrays, location)
    times, unit, edges = _spikes(list(tables.values()), options.bin_size / 1000, location)
    names = [name for name in tables if name is not None]
    trials, counted = trial_table(edges[:-1], edges[1:], names, pd.DataFrame()) if names else (no_trials(), {})
    signals = _behaviours(arrays, options.behaviour_rate, location)
    give_units(signals, options, location)
    duration, rows = float(edges[-1]), range(len(next(iter(tables.values()))))
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=unit,
        units=pd.DataFrame({"unit_id": list(map(str, rows)), "region": options.region, "population": ALL}),
        trials=trials,
        duration=duration,
        observed=_observed(arrays, options.interval, duration, location),
        signals=signals,
        stimulus=_stimulus(arrays, options, location),
        provenance=Provenance("neuroformer_dictionary", session, files=checksums([location], location), counts=counted),
    )
    return select(recording, options, location)


def _tables(arrays: Mapping[str, np.ndarray], where: Path) -> dict[str | None, np.ndarray]:
    """Counts of units by bins, one table a trial by its name; under None where there are no trials."""
    tables: dict[str | None, np.ndarray] = {
        name.partition("/")[2]: counts for name, counts in arrays.items() if name.startswith(f"{SPIKES}/")
    }
    if not tables:
        if SPIKES not in arrays:
            found = f"only {', '.join(arrays) or 'nothing'}"
            raise InputError(where, SPIKES, found, "an array `spikes` of units by bins")
        tables[None] = arrays[SPIKES]
    return tables


def _spikes(tables: list[np.ndarray], seconds: float, where: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (s) and units of the spikes of tables that follow one another in bins of `seconds`, and their edges (s)."""
    times, units = [], []
    bounds = np.cumsum([0, *(_counts(counts, where).shape[-1] for counts in tables)])
    for first, counts in zip(bounds, tables, strict=False):
        if len(counts) != len(tables[0]):
            raise InputError(where, SPIKES, f"trials of {len(counts)} and other numbers of units", "the same units")
        (column, unit), within = spikes_of(counts.T)
        times.append((first + (column + within)) * seconds)
        units.append(unit)
    return np.concatenate(times), np.concatenate(units).astype(np.int32), bounds * seconds


def _observed(arrays: Mapping[str, np.ndarray], length: float, duration: float, where: Path) -> np.ndarray:
    """The windows that `intervals` names by their ends; everything where there is none."""
    if INTERVALS not in arrays:
        return np.array([[0.0, duration]])
    ends = np.sort(arrays[INTERVALS].astype(float), axis=None)
    refuse_rows(~np.isfinite(ends), where, INTERVALS, ends, "finite ends of windows, s")
    return merged(np.stack([np.maximum(ends - length, 0), np.minimum(ends, duration)], 1))


def _behaviours(arrays: Mapping[str, np.ndarray], rate: float, where: Path) -> "dict[str, pd.DataFrame]":
    """Every other array of one dimension as a signal, `rate` samples a second from 0 s on."""
    import pandas as pd

    signals = {}
    for name, values in arrays.items():
        if name != INTERVALS and values.ndim == 1:
            check_names([name], str(where), "behaviour")
            time = np.arange(len(values)) / rate
            signals[name] = pd.DataFrame({"time": time, "value": values.astype(float)})
    return signals


def _counts(counts: np.ndarray, where: Path) -> np.ndarray:
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or (counts % 1 != 0).any():
        raise InputError(where, SPIKES, f"{counts.dtype} {counts.shape}", "whole counts of units by bins")
    return counts


def _stimulus(arrays: Mapping[str, np.ndarray], options: Options, where: Path) -> "Stimulus | None":
    """The frames (n, height, width), in whatever range, as 8 bits."""
    from pipeline_lib.stimulus import Stimulus

    frames = next((arrays[name] for name in FRAMES if name in arrays), None)
    if frames is None:
        return None
    if frames.ndim != 3 or not len(frames) or not np.isfinite(frames).all():
        raise InputError(where, "frames", f"{frames.dtype} {frames.shape}", "finite frames (n, height, width)")
    if frames.dtype != np.uint8:
        low, high = float(frames.min()), float(frames.max())
        frames = np.rint((frames - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    return Stimulus(frames, np.arange(len(frames)) / options.frame_rate, np.arange(len(frames), dtype=np.int32))
