"""The spike-train store of a session: written by `convert`, opened by `Trains.open`.

``results/trains/{session}/`` holds ``trains.zarr`` and ``manifest.json``, which declares it complete::

    trains.zarr/
      events/{delta, unit, anchor, index}   every spike, sorted by (tick, unit); see `events.write_events`
      observed                              (interval, 2) int64, ticks when the session was recorded
      unit_intervals                        (interval, 3) int64, unit, start, stop: only where units come and go
      units/ trials/ signals/<name>/        the recording's tables, one array a column
      stimulus/                             the recording's frames and their onsets, where it has them
      counts/                               dense counts of the configured bin sizes, for xarray; see `dense`

Attributes of the root: `provenance`, and `signal_units` by signal and column, where any is known.

Any Zarr v3 reader takes spikes from it in five lines; here those of the seconds 10 to 20::

    events = zarr.open_group("trains.zarr", mode="r")["events"]
    first, stop = int(events["index"][10]), int(events["index"][20])
    begin, delta = first - first % 131072, events["delta"][first - first % 131072 : stop].astype("int64")
    delta[0] = events["anchor"][begin // 131072]
    tick, unit = delta.cumsum()[first - begin :], events["unit"][first:stop]  # ticks of 10 us, rows of units

and all of them by ``events["delta"][:].cumsum(dtype="int64")`` and ``events["unit"][:]``.
"""

import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.clock import to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, whole_directory
from pipeline_lib.intervals import merged
from pipeline_lib.published import read_parquet
from pipeline_lib.recording import (
    Recording,
    read_description,
    require_intervals,
    require_trials,
    require_units,
)
from pipeline_lib.signal_units import KEY, keep_units, require_units_as_text
from pipeline_lib.stimulus import Stimulus
from pipeline_lib.trains.binning import count_type
from pipeline_lib.trains.dense import write_counts
from pipeline_lib.trains.events import (
    MAX_UNITS,
    keys_of_parquet,
    keys_of_units,
    pack,
    read_events,
    tick_type,
    unpack,
    write_events,
)
from pipeline_lib.trains.manifest import MANIFEST, STORE, check_files, read_manifest, write_manifest
from pipeline_lib.trains.object_store import SCHEME, local_copy
from pipeline_lib.trains.tables import read_table, write_table

MEMORY_BUDGET = 2**28
"""Bytes that converting a recording may take, unless the caller says otherwise."""
_FIXED_BYTES, _BYTES_PER_ROW = 2**25, 128
"""What conversion takes (measured): one row group of the file and one shard, and each row of spikes in flight."""


def convert(
    recording_dir: Path | str, out_dir: Path | str, bin_sizes: Sequence[float] = (), memory_budget: int | None = None
) -> None:
    """Write the spike-train store of the recording at `recording_dir` into `out_dir`.

    Parameters
    ----------
    bin_sizes : bin sizes (ms) for which dense counts are stored beside the events.
    memory_budget : bytes the spikes may take on the way, at least 40 MiB, however many there are; default 256 MiB.

    Raises
    ------
    InputError : the recording is incomplete, breaks its contract, or has more than 65,534 units.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo").write("recordings/demo")
    >>> convert("recordings/demo", "trains/demo", bin_sizes=[20.0])
    >>> Trains.open("trains/demo", verify=True).n_units
    4
    """
    budget = MEMORY_BUDGET if memory_budget is None else memory_budget
    if budget < _FIXED_BYTES + 2**16 * _BYTES_PER_ROW:
        raise InputError("convert", "memory_budget", f"{budget} bytes", "at least 40 MiB (41943040)")
    recording_dir = Path(recording_dir)
    description = read_description(recording_dir)
    units = read_parquet(recording_dir / "units.parquet")
    intervals, stimulus = recording_dir / "unit_intervals.parquet", recording_dir / "stimulus.zarr"
    rows = min((budget - _FIXED_BYTES) // _BYTES_PER_ROW, 2**21)
    blocks = keys_of_parquet(recording_dir / "spikes.parquet", len(units), description["duration"], rows)
    _write(
        out_dir,
        description.pop("session"),
        blocks,
        units=units,
        duration=description["duration"],
        observed=np.array(description["observed"], dtype=np.float64),
        trials=read_parquet(recording_dir / "trials.parquet"),
        unit_intervals=read_parquet(intervals) if intervals.exists() else None,
        signals={file.stem: file for file in sorted((recording_dir / "signals").glob("[!.]*.parquet"))},
        stimulus=stimulus if stimulus.exists() else None,
        bin_sizes=bin_sizes,
        provenance=description,
    )


def write_store(
    out_dir: Path | str,
    session: str,
    spike_times: Sequence[np.ndarray],
    duration: float,
    units: pd.DataFrame | None = None,
    trials: pd.DataFrame | None = None,
    observed: np.ndarray | None = None,
    bin_sizes: Sequence[float] = (),
) -> None:
    """Write a spike-train store from the spike times (s, any order) of each unit, without a recording.

    Parameters
    ----------
    duration : end of the session, s.
    units, trials : tables as in a recording; by default unit_id only, and no trials.
    observed : (intervals, 2) s; by default the whole session.

    Raises
    ------
    InputError : a time outside the session, no spike at all, more than 65,534 units, or a table that no recording has.

    Examples
    --------
    >>> write_store("trains/mine", "mine", [np.array([0.5, 1.25]), np.array([0.75])], duration=2.0)
    >>> mine = Trains.open("trains/mine")
    >>> mine.ticks.tolist(), mine.unit.tolist()
    ([50000, 75000, 125000], [0, 1, 0])
    """
    if units is None:
        names = [str(unit) for unit in range(len(spike_times))]
        units = pd.DataFrame({"unit_id": names, "region": "", "population": ""})
    if len(units) != len(spike_times):
        raise InputError(session, "units", f"{len(units)} rows, {len(spike_times)} spike trains", "a row a train")
    if not np.isfinite(duration):
        raise InputError(session, "duration", f"{duration} s", "the end of the session, s")
    trials = pd.DataFrame({"start": [], "stop": [], "condition": []}) if trials is None else trials
    observed = np.array([[0.0, duration]]) if observed is None else np.asarray(observed, dtype=np.float64)
    require_units(session, units)
    require_trials(session, trials)
    require_intervals(session, observed, duration)
    _write(
        out_dir,
        session,
        keys_of_units(spike_times, duration),
        units=units,
        duration=duration,
        observed=observed,
        trials=trials,
        bin_sizes=bin_sizes,
    )


def _write(
    out_dir: Path | str,
    session: str,
    blocks: Iterable[np.ndarray],
    *,
    units: pd.DataFrame,
    duration: float,
    observed: np.ndarray,
    trials: pd.DataFrame,
    unit_intervals: pd.DataFrame | None = None,
    signals: Mapping[str, Path] | None = None,
    stimulus: Path | None = None,
    bin_sizes: Sequence[float] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write everything in sorted order into a new directory that takes the place of the old one when it is whole."""
    import zarr

    out_dir = Path(out_dir)
    if len(units) > MAX_UNITS:
        raise InputError(session, "units", len(units), f"at most {MAX_UNITS} units in a session")
    with exclusive(out_dir / LOCK), whole_directory(out_dir, final=MANIFEST) as writing:
        store = writing / STORE
        root = zarr.create_group(str(store), zarr_format=3)
        spikes, duration_ticks = write_events(
            root.create_group("events"), store / "events", blocks, int(to_ticks(duration))
        )
        if not spikes:
            raise InputError(session, "spikes", "an empty recording", "at least one spike")
        root.create_array("observed", data=merged(to_ticks(observed)), dimension_names=("interval", "bound"))
        if unit_intervals is not None:
            data = _unit_intervals(unit_intervals)
            root.create_array("unit_intervals", data=data, dimension_names=("unit_interval", "unit_bound"))
        write_table(root, "units", units, "unit")
        write_table(root, "trials", trials, "trial")
        tables = root.create_group("signals")
        signal_units: dict[str, dict[str, str]] = {}
        for name, file in (signals or {}).items():
            signal = read_parquet(file)
            require_units_as_text(file, name, signal)
            write_table(tables, name, signal, f"{name}_sample")
            signal_units |= {name: signal.attrs[KEY]} if KEY in signal.attrs else {}
        if stimulus is not None:
            shutil.copytree(stimulus, store / "stimulus")
        for bin_size in sorted(set(bin_sizes)):
            write_counts(root, bin_size, len(units), duration_ticks)
        content = {"session": session, "spikes": spikes, "units": len(units), "duration_ticks": duration_ticks}
        root.attrs.update(content | {"provenance": dict(provenance or {})})
        if signal_units:  # of the root: it does not enter the hash by which fits know their data
            root.attrs["signal_units"] = signal_units
        with warnings.catch_warnings():
            # zarr warns that other libraries may not know consolidated metadata; those read the arrays' own.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(str(store), zarr_format=3)
        write_manifest(writing, content, sorted(set(bin_sizes)))


def _unit_intervals(frame: pd.DataFrame) -> np.ndarray:
    """The recording's unit intervals as (interval, 3) ticks, merged within each unit."""
    tables = [np.empty((0, 3), np.int64)]
    for unit in np.unique(frame["unit"]):
        own = merged(to_ticks(frame.loc[frame["unit"] == unit, ["start", "stop"]].to_numpy()))
        # A unit that was never there keeps an empty interval: one without any was always observed.
        tables.append(np.insert(own if len(own) else np.zeros((1, 2), np.int64), 0, unit, axis=1))
    return np.concatenate(tables)


class StoredTables(Mapping[str, pd.DataFrame]):
    """Tables of a store by name ("units", "trials", "signals/<name>"), checked and decoded when first asked for."""

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._directory, self._names = directory, names
        self._decoded: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        import zarr

        if name not in self._decoded:
            check_files(self._directory, read_manifest(self._directory), f"{name}/")
            root = zarr.open_group(str(self._directory / STORE), mode="r")
            self._decoded[name] = read_table(root, name)
            kept = {f"signals/{signal}": units for signal, units in root.attrs.get("signal_units", {}).items()}
            keep_units(self._decoded[name], kept.get(name, {}))
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(eq=False)
class Trains:
    """The spike trains of one session, resident in memory.

    `ticks` (spike) int32, int64 in sessions over 5.9 hours, sorted; `unit` (spike) uint16, rows of `units`; `observed`
    (interval, 2) int64 ticks, sorted and disjoint; `unit_intervals` (interval, 3) int64 unit, start, stop, or None
    where every unit is always observed; `duration_ticks`, the first tick after the session; `content_hash`, empty for
    trains that come straight from a recording.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> trains = Trains.from_recording(simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo"))
    >>> trains.session, trains.n_units, trains.duration_ticks, trains.units["region"].tolist()
    ('demo', 4, 500000, ['A', 'A', 'B', 'B'])
    """

    session: str
    ticks: np.ndarray
    unit: np.ndarray
    n_units: int
    duration_ticks: int
    observed: np.ndarray
    unit_intervals: np.ndarray | None
    tables: Mapping[str, pd.DataFrame]
    content_hash: str = ""
    directory: Path | None = None
    _stimulus: Stimulus | None = field(default=None, repr=False)
    _count_types: dict[int, np.dtype] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path | str, verify: bool = False) -> "Trains":
        """Open and decode the store in `directory`; `verify` compares every file with its hash first.

        `directory` may be an address in an object store, ``s3://bucket/prefix``: see `object_store.local_copy`.

        Raises
        ------
        InputError : the store is incomplete, of another version, or damaged; the error names the file.
        """
        import zarr

        if str(directory).startswith(SCHEME):
            directory = local_copy(str(directory))
        directory = Path(directory)
        manifest = read_manifest(directory)
        # The shards of events carry checksums of their own.
        check_files(directory, manifest, *([""] if verify else ["zarr.json", "observed/", "unit_intervals/"]))
        root = zarr.open_group(str(directory / STORE), mode="r")
        ticks, unit = read_events(root["events"], directory / STORE / "events", manifest["duration_ticks"])
        signals = [f"signals/{name}" for name in sorted(root["signals"].group_keys())]
        return cls(
            session=manifest["session"],
            ticks=ticks,
            unit=unit,
            n_units=manifest["units"],
            duration_ticks=manifest["duration_ticks"],
            observed=root["observed"][:],
            unit_intervals=root["unit_intervals"][:] if "unit_intervals" in root else None,
            tables=StoredTables(directory, ["units", "trials", *signals]),
            content_hash=manifest["content_hash"],
            directory=directory,
        )

    @classmethod
    def from_recording(cls, recording: Recording) -> "Trains":
        """The trains of a recording, as they would be after `convert` and `open`, without writing anything.

        InputError where the recording breaks its contract: one made by hand has nobody looked at before.
        """
        recording.validate()
        keys = pack(to_ticks(recording.spike_times), recording.spike_units)
        ticks, unit = unpack(np.sort(keys, kind="stable"))
        duration_ticks = max(int(to_ticks(recording.duration)), int(ticks[-1]) + 1)
        intervals = recording.unit_intervals
        signals = {f"signals/{name}": frame for name, frame in recording.signals.items()}
        return cls(
            session=recording.session,
            ticks=ticks.astype(tick_type(duration_ticks)),
            unit=unit,
            n_units=len(recording.units),
            duration_ticks=duration_ticks,
            observed=merged(to_ticks(recording.observed)),
            unit_intervals=None if intervals is None else _unit_intervals(intervals),
            tables={"units": recording.units, "trials": recording.trials, **signals},
            _stimulus=recording.stimulus,
        )

    @property
    def units(self) -> pd.DataFrame:
        """The recording's units table."""
        return self.tables["units"]

    @property
    def trials(self) -> pd.DataFrame:
        """The recording's trials table (times in s)."""
        return self.tables["trials"]

    @property
    def signals(self) -> dict[str, pd.DataFrame]:
        """The recording's signals by name: `time` (s) and one column a dimension, with their `signal_units`."""
        return {name.removeprefix("signals/"): self.tables[name] for name in self.tables if name.startswith("signals/")}

    @property
    def stimulus(self) -> Stimulus | None:
        """The frames that the animal saw, read when first asked for; None where the recording has none."""
        if self._stimulus is None and self.directory is not None and (self.directory / STORE / "stimulus").is_dir():
            check_files(self.directory, read_manifest(self.directory), "stimulus/")
            self._stimulus = Stimulus.read(self.directory / STORE / "stimulus")
        return self._stimulus

    def count_type(self, bin_ticks: int) -> np.dtype:
        """The narrowest unsigned type in which counts of `bin_ticks` ticks never wrap; found once a bin size."""
        if bin_ticks not in self._count_types:
            self._count_types[bin_ticks] = count_type(self.ticks, self.unit, bin_ticks)
        return self._count_types[bin_ticks]
