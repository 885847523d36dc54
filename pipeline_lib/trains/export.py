"""Spike trains in the forms that other tools read: pynapple, NWB, and the arrays of the Neural Latents Benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.clock import to_seconds
from pipeline_lib.errors import InputError
from pipeline_lib.files import atomic_file
from pipeline_lib.intervals import common
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.nlb_arrays import nlb_parts, write_nlb
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

if TYPE_CHECKING:
    import pynapple
    import pynwb


def spike_times(trains: Trains) -> list[np.ndarray]:
    """Spike times of each unit, in s, sorted; an empty array for a silent unit.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> times = spike_times(trains)
    >>> len(times), sum(map(len, times)) == len(trains.ticks)
    (4, True)
    """
    order = np.argsort(trains.unit, kind="stable")
    stops = np.cumsum(np.bincount(trains.unit, minlength=trains.n_units))
    return np.split(to_seconds(trains.ticks[order]), stops[:-1])


def to_pynapple(trains: Trains) -> "pynapple.TsGroup":
    """A `TsGroup` keyed by the row of each unit, the units table as its metadata.

    Its time support is the session's observation intervals, so spikes outside them are left out, as they are masked
    everywhere here. Needs pynapple, which is not among the requirements.

    >>> group = to_pynapple(trains)  # doctest: +SKIP
    >>> group[group["region"] == "VISp"].count(0.02)  # doctest: +SKIP
    """
    import pynapple

    times = {unit: pynapple.Ts(own) for unit, own in enumerate(spike_times(trains))}
    support = pynapple.IntervalSet(*to_seconds(trains.observed).T)
    metadata = trains.units.rename(columns={"rate": "source_rate"})  # a TsGroup has a `rate` of its own
    return pynapple.TsGroup(times, time_support=support, metadata=metadata)


def to_nwb(trains: Trains, file: "pynwb.NWBFile") -> None:
    """Add the units, their spike times and observation intervals (s) and their columns to an NWB file in memory.

    `unit_id` becomes the column `unit_name`; columns that hold neither numbers nor text in every row are left out.

    >>> from datetime import UTC, datetime
    >>> import pynwb
    >>> from pipeline_lib.sources.simulate import simulate
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> file = pynwb.NWBFile("made up", "demo", datetime(2026, 1, 1, tzinfo=UTC))
    >>> to_nwb(trains, file)
    >>> len(file.units), list(file.units["unit_name"][:])
    (4, ['0', '1', '2', '3'])
    """
    units = trains.units.rename(columns={"unit_id": "unit_name", "id": "source_id"})
    kept = [name for name in units.columns if units[name].map(np.isscalar).all() and units[name].notna().all()]
    for name in kept:
        file.add_unit_column(name, name)
    for unit, times in enumerate(spike_times(trains)):
        row = {str(name): units[name].iloc[unit] for name in kept}
        file.add_unit(spike_times=times, obs_intervals=to_seconds(_unit_observed(trains, unit)), **row)


def _unit_observed(trains: Trains, unit: int) -> np.ndarray:
    """When a unit was observed (interval, 2) in ticks: the session's intervals cut with its own."""
    if trains.unit_intervals is None:
        return trains.observed
    own = trains.unit_intervals[trains.unit_intervals[:, 0] == unit, 1:]
    return common(trains.observed, own) if len(own) else trains.observed


def to_nlb(trains: Trains, split: Split, inputs: Path | str, targets: Path | str, part: str = "test") -> None:
    """Write the windows of a session as the two HDF5 files of the Neural Latents Benchmark.

    Every dataset is float32 [trial, bin, unit], NaN where a bin was not recorded or lies after the end of a window.
    `inputs`: ``train_spikes_heldin``, ``train_spikes_heldout``, the same with ``_forward`` (the bins held out for
    forward prediction), and ``eval_spikes_heldin``. `targets`: what is predicted of the eval trials,
    ``eval_spikes_heldout``, ``eval_spikes_heldin_forward`` and ``eval_spikes_heldout_forward``, in a group named
    after the session. Datasets without a unit or a bin are left out; so are the benchmark's behaviour and `psth`: it
    cut and smoothed these for each recording in a way of its own, and its scorer takes a PSTH where there is one.

    Parameters
    ----------
    part : the part whose trials are called "eval".

    Examples
    --------
    >>> import h5py
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> trains = Trains.from_recording(simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo"))
    >>> split = make_split([trains], WindowSettings(bin_size=20), SplitSettings(heldout_units=5), cohort="demo")
    >>> to_nlb(trains, split, "inputs.h5", "targets.h5")
    >>> with h5py.File("inputs.h5") as file:
    ...     {name: file[name].shape for name in file}
    {'eval_spikes_heldin': (4, 50, 24), 'train_spikes_heldin': (14, 50, 24), 'train_spikes_heldout': (14, 50, 5)}
    """
    import h5py

    arrays = _nlb_arrays(trains, split, "train", "train") | _nlb_arrays(trains, split, part, "eval")
    seen = {name: array for name, array in arrays.items() if name.startswith("train") or name == "eval_spikes_heldin"}
    hidden = {name: array for name, array in arrays.items() if name not in seen}
    for path, parts, group in ((inputs, seen, ""), (targets, hidden, trains.session)):
        with atomic_file(path) as written, h5py.File(written, "w", track_order=False) as file:
            write_nlb(file, parts, group)


def _nlb_arrays(trains: Trains, split: Split, part: str, prefix: str) -> dict[str, np.ndarray]:
    samples, where = split.part(trains.session, part), f"split of cohort {split.cohort}"
    if not len(samples):
        raise InputError(where, "split", f"no sample of {trains.session} in {part}", "train, validation or test")
    starts, bins = samples["start_tick"].to_numpy(), samples["bins"].to_numpy()
    longest = int(bins.max())
    if split.forward_bins and bins.min() < longest:
        accepted = "windows of one length, or no forward bins: they are the last of every window"
        raise InputError(where, "forward_bins", f"windows of {bins.min()} to {longest} bins", accepted)
    counts = bin_windows(trains, starts, longest, split.bin_ticks).astype(np.float32)
    counts[~observed_windows(trains, starts, longest, split.bin_ticks)] = np.nan
    counts[np.arange(longest) >= bins[:, None]] = np.nan
    return nlb_parts(counts, split, trains.session, f"{prefix}_spikes")
