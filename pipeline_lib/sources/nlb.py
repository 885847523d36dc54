"""Datasets of the Neural Latents Benchmark as its tools write them: HDF5 files of binned trials (Pei et al. 2021).

A row of the session sheet:

    mc_maze   nlb   mc_maze   bin_size: 5

The location is an HDF5 file or a folder of them. Their datasets are known by name, in whatever file or group they lie::

    {train,eval}_spikes_{heldin,heldout}            counts [trial, bin, unit]
    {train,eval}_spikes_{heldin,heldout}_forward    the bins after these
    {train,eval}_behavior                           movement [trial, bin, dimension], a signal named behavior; or
                                                    values of trials [trial, value], the columns behavior_0, ...
    {train,eval}_decode_mask                        groups of trials [trial, group], each with a decoder of its own
    psth, {train,eval}_cond_idx, {train,eval}_jitter   responses to conditions: see `nlb_responses`

No fit sees the responses: they lie in `truth.zarr`, which evaluations alone read. NaN is what was not recorded, as is
everything of a unit that only other trials have (held-out units of eval trials without their targets). Trials are laid
one after another with a pause between them. The table of trials gets a column `split`: eval trials are "test", and
every so-many-th train trial "validation"; with masks also `decoder`, the number of the group; the table of units a
column `heldout`. The windows and splits that keep to the benchmark are::

    windows: {bin_size: 5, after: 0.7}         # as long as the trials, forward bins included
    splits: {scheme: column, heldout_units: heldout, forward: 0.2}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from pipeline_lib.errors import InputError
from pipeline_lib.sources import nlb_responses
from pipeline_lib.sources.given_units import SignalUnits, give_units
from pipeline_lib.sources.location import checksums, reading
from pipeline_lib.sources.presence import unit_intervals
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.spikes import spikes_of
from pipeline_lib.sources.trials import ALL, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

SUFFIXES = (".h5", ".hdf5")
PARTS = {"train": "train", "eval": "test"}
GROUPS = ("heldin", "heldout")
BEHAVIOUR, MASK = "behavior", "decode_mask"


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection, SignalUnits):
    """How the arrays are to be understood."""

    bin_size: Annotated[float, Gt(0)] = 5.0
    """Milliseconds in a bin."""
    pause: Annotated[float, Gt(0)] = 1.0
    """Seconds between the end of a trial and the start of the next."""
    validation: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the train trials that are for selection."""


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a dataset: binned spikes are placed evenly in their bins, so that binning gives them back.

    Raises
    ------
    InputError : a file that cannot be read, no train spikes, arrays that do not fit together, or no counts.
    """
    import pandas as pd

    from pipeline_lib.recording import Provenance, Recording

    files = _files(location)
    arrays = _read(files)
    counts, groups, parts = _counts(location, arrays)
    trials, bins, units = counts.shape
    seconds = options.bin_size / 1000
    start = np.round(np.arange(trials) * (bins * seconds + options.pause), 5)
    known = ~np.isnan(counts)
    spike_times, spike_units = _spikes(np.where(known, counts, 0), start, seconds)
    if not len(spike_times):
        raise InputError(location, "spikes", "no spike at all", "counts of spikes")
    # When anything was known; a unit that was known at other times has intervals of its own.
    anything = known.any(axis=2)
    partly = [unit for unit in range(units) if (known[:, :, unit] != anything).any()]
    own = [_intervals(known[:, :, unit], start, seconds) for unit in partly]
    whose = np.repeat(partly, [len(intervals) for intervals in own])
    table, left_out = trial_table(
        start, start + bins * seconds, [ALL] * trials, pd.DataFrame(_columns(location, arrays, parts, options))
    )
    signals = _signals(location, arrays, parts, start, seconds)
    give_units(signals, options, location)
    names = [f"{group}-{number}" for group, size in groups.items() for number in range(size)]
    recording = Recording(
        session=session,
        spike_times=spike_times,
        spike_units=spike_units,
        units=pd.DataFrame(
            {
                "unit_id": names,
                "region": "unknown",
                "population": ALL,
                "heldout": [name.startswith(GROUPS[1]) for name in names],
            }
        ),
        trials=table,
        duration=float(start[-1] + bins * seconds),
        observed=_intervals(anything, start, seconds),
        provenance=Provenance("nlb", session, files=checksums(files, location), counts=left_out),
        signals=signals,
        unit_intervals=unit_intervals(whose, np.concatenate(own), partly) if own else None,
    )
    chosen = select(recording, options, location)
    truth = nlb_responses.responses(location, arrays, parts, names, start, options.bin_size)
    chosen.truth = truth.select_units(list(chosen.units["unit_id"])) if truth is not None else None
    return chosen


def _files(location: Path) -> list[Path]:
    if location.is_file():
        return [location]
    found = sorted(file for file in location.rglob("[!.]*") if file.suffix in SUFFIXES)
    if not found:
        raise InputError(location, "location", f"no file that ends with {' or '.join(SUFFIXES)}", "an HDF5 file")
    return found


def _read(files: list[Path]) -> dict[str, np.ndarray]:
    """The known datasets of all files, by name, float64, but for lists of different lengths."""
    import h5py

    wanted = {f"{part}_spikes_{group}{time}" for part in PARTS for group in GROUPS for time in ("", "_forward")}
    of_trials = BEHAVIOUR, MASK, nlb_responses.CONDITIONS, nlb_responses.JITTER
    wanted |= {f"{part}_{name}" for part in PARTS for name in of_trials} | {nlb_responses.PSTH}
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        with reading(file, "HDF5"), h5py.File(file) as opened:
            found: list[str] = []
            opened.visit(found.append)
            for path in found:
                name = path.rpartition("/")[2]
                if name not in wanted or not isinstance(opened[path], h5py.Dataset):
                    continue
                if name in arrays:
                    raise InputError(file, path, "a second dataset of this name", "each dataset once")
                ragged = name.endswith(nlb_responses.CONDITIONS)
                arrays[name] = np.asarray(opened[path][()], dtype=None if ragged else np.float64)
    return arrays


def _counts(location: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int], np.ndarray]:
    """Counts [trial, bin, unit], NaN where not known; units of each group; and the part of each trial."""
    spikes = {name: array for name, array in arrays.items() if "_spikes_" in name}
    if "train_spikes_heldin" not in spikes:
        raise InputError(location, "train_spikes_heldin", "no such dataset", "a dataset of the benchmark's tools")
    for name, array in spikes.items():
        known = array[np.isfinite(array)]
        if array.ndim != 3 or np.isinf(array).any() or (known < 0).any() or (known != np.round(known)).any():
            raise InputError(
                location, name, f"shape {array.shape}", "whole counts [trial, bin, unit], NaN where unknown"
            )
    sizes: dict[tuple[int, str], int] = {}
    for name in sorted(spikes, reverse=True):  # the train trials first: the others must be like them
        array = spikes[name]
        part, _, rest = name.partition("_spikes_")
        group, _, forward = rest.partition("_")
        for axis, key in enumerate((part, forward or "now", group)):
            expected = sizes.setdefault((axis, key), array.shape[axis])
            if array.shape[axis] != expected:
                raise InputError(location, name, f"shape {array.shape}", f"{expected} in place {axis}, as the others")
    parts = [part for part in PARTS if (0, part) in sizes]
    groups = {group: sizes[2, group] for group in GROUPS if (2, group) in sizes}
    times = [time for time in ("now", "forward") if (1, time) in sizes]

    def piece(part: str, time: str, group: str) -> np.ndarray:
        name = f"{part}_spikes_{group}" + ("_forward" if time == "forward" else "")
        return spikes.get(name, np.full((sizes[0, part], sizes[1, time], sizes[2, group]), np.nan))

    # Nested as the axes are: parts along trials, times along bins, groups along units.
    counts = np.block([[[piece(part, time, group) for group in groups] for time in times] for part in parts])
    return counts, groups, np.repeat(parts, [sizes[0, part] for part in parts])


def _spikes(counts: np.ndarray, start: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Times (s, sorted) and units of the spikes of counts [trial, bin, unit]."""
    (trial, column, unit), within = spikes_of(counts)
    times = start[trial] + (column + within) * seconds
    order = np.lexsort((unit, times))
    return times[order], unit[order].astype(np.int32)


def _intervals(known: np.ndarray, start: np.ndarray, seconds: float) -> np.ndarray:
    """The stretches (intervals, 2), s, in which bins [trial, bin] are known."""
    edges = np.diff(np.pad(known, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (trial, first), (_, last) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return np.stack([start[trial] + first * seconds, start[trial] + last * seconds], axis=1)


def _columns(
    location: Path, arrays: dict[str, np.ndarray], parts: np.ndarray, options: Options
) -> dict[str, np.ndarray]:
    """Columns of the table of trials; NaN or "" where the files say nothing of a trial."""
    columns = {"split": _split(parts, options)}
    values, groups = (_of_trials(location, arrays, parts, name) for name in (BEHAVIOUR, MASK))
    if values is not None:
        columns |= {f"{BEHAVIOUR}_{number}": column for number, column in enumerate(values.T)}
    if groups is not None:
        member = groups == 1
        if (member.sum(axis=1) > 1).any():
            raise InputError(location, MASK, "a trial in two groups", "each trial in one group at most")
        columns["decoder"] = np.where(member.any(axis=1), member.argmax(axis=1).astype(str), "").astype(object)
    return columns


def _of_trials(location: Path, arrays: dict[str, np.ndarray], parts: np.ndarray, name: str) -> np.ndarray | None:
    """The values [trial, K] that the files give for whole trials under a name; None where there are none."""
    given = {part: arrays[f"{part}_{name}"] for part in PARTS if f"{part}_{name}" in arrays}
    if name == BEHAVIOUR:
        given = {part: own for part, own in given.items() if own.ndim != 3}  # else movement
    if not given:
        return None
    width = next(iter(given.values())).shape[-1]
    values = np.full((len(parts), width), np.nan)
    for part, own in given.items():
        expected = int((parts == part).sum()), width
        if own.shape != expected:
            raise InputError(location, f"{part}_{name}", f"shape {own.shape}", f"{expected}: trials, as many values")
        values[parts == part] = own
    return values


def _split(parts: np.ndarray, options: Options) -> np.ndarray:
    """The part of each trial; validation trials are dealt evenly among the train trials."""
    names = np.array([PARTS[part] for part in parts], dtype=object)
    train = np.flatnonzero(names == "train")
    count = round(options.validation * len(train))
    if count:
        names[train[((np.arange(count) + 0.5) * len(train) / count).astype(np.int64)]] = "validation"
    return names


def _signals(
    location: Path, arrays: dict[str, np.ndarray], parts: np.ndarray, start: np.ndarray, seconds: float
) -> "dict[str, pd.DataFrame]":
    """The movement at the middle of each bin; NaN after each trial, so that nothing is interpolated between trials."""
    import pandas as pd

    tables = []
    for part in PARTS:
        values = arrays.get(f"{part}_{BEHAVIOUR}")
        if values is None or values.ndim != 3:  # values of trials
            continue
        own = start[parts == part]
        if len(values) != len(own):
            accepted = f"movement [trial, bin, dimension] of {len(own)} trials"
            raise InputError(location, f"{part}_{BEHAVIOUR}", f"shape {values.shape}", accepted)
        trials, bins, dimensions = values.shape
        padded = np.concatenate([values, np.full((trials, 1, dimensions), np.nan)], axis=1).reshape(-1, dimensions)
        time = own[:, None] + (np.arange(bins + 1) + 0.5) * seconds
        table = pd.DataFrame(padded, columns=[f"dimension_{number}" for number in range(dimensions)])
        table.insert(0, "time", time.ravel())
        tables.append(table)
    return {BEHAVIOUR: pd.concat(tables, ignore_index=True)} if tables else {}
