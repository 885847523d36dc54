"""Recording: the tables of one session, whatever source they came from.

On disk, under ``results/recordings/{session}/``::

    spikes.parquet          time (float64, s, session clock, non-decreasing), unit (int32, row of `units`)
    units.parquet           unit_id (text), region (text), population (text), then the source's own columns
    trials.parquet          start, stop (float64, s), condition (text), then event columns (s) and the source's own
    unit_intervals.parquet  unit, start, stop: only where units come and go; a unit without a row is always observed
    signals/<name>.parquet  time (s) and one column a dimension; their units, where known (`signal_units`)
    stimulus.zarr           the frames that were shown, and when: only where the source has them and they were asked for
    candidates.parquet      unit_id, region, kept, rate, presence, violations, excerpt (some spike times of those left
                            out, s) of all units before the selection: only where it left some out
    truth.zarr              what a model should recover: of simulators rates, latents, couplings; of a benchmark's files
                            mean responses (of its test trials, too: no fit reads them)
    recording.json          provenance, selection, observation intervals; declares the recording complete
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.files import exclusive, read_json, whole_directory, write_json
from pipeline_lib.published import read_parquet
from pipeline_lib.signal_units import require_units_as_text
from pipeline_lib.stimulus import Stimulus

SCHEMA_VERSION = 1
UNIT_COLUMNS = ("unit_id", "region", "population")
TRIAL_COLUMNS = ("start", "stop", "condition")
FINITE = "a finite number"
OPTIONAL = ("unit_intervals.parquet", "candidates.parquet", "signals", "stimulus.zarr", "truth.zarr")
"""What only some recordings have beside their tables."""


@dataclass
class Provenance:
    """Where a recording came from and what was done to it before it was written.

    >>> Provenance("tables", "day1", licence="CC-BY-4.0", citation="Nobody et al. (2026)").release
    ''
    """

    source: str
    source_id: str
    release: str = ""
    licence: str = ""
    citation: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file the recording was made from, by name."""
    selection: dict[str, Any] = field(default_factory=dict)
    """The options that chose units and trials, as applied."""
    counts: dict[str, int] = field(default_factory=dict)
    """Units, spikes and trials before and after the selection (`units_before`, `units_after` and so on)."""


@dataclass
class Truth:
    """What a simulator or a benchmark knows and a model should recover, in the axes of a recording's units and trials.

    Arrays (each optional): `coupling` (sender, receiver), signed strength, 0 where there is no synapse;
    `coupling_filters` (sender, receiver, lag), `history_filters` (unit, lag); `rates` (trial, bin, unit) in spikes/s,
    `latents` (trial, bin, dimension); `psth` (condition, bin, unit) in counts a bin, with `psth_condition` (trial,), -1
    for none, and `psth_jitter` (trial,), bins by which the trial begins later than the PSTH. Attributes: `bin_size` in
    ms of the time axes, `trial_start` (s) per trial, `unit_id` per unit, and the simulator's settings.

    >>> truth = Truth({"coupling": np.array([[0.0, 1.0], [0.0, 0.0]])}, {"unit_id": ["a", "b"]})
    >>> truth.select_units(["b", "a"]).arrays["coupling"]
    array([[0., 0.],
           [1., 0.]])
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]

    UNIT_AXES: ClassVar[dict[str, tuple[int, ...]]] = {
        "coupling": (0, 1),
        "coupling_filters": (0, 1),
        "synapse": (0, 1),
        "history_filters": (0,),
        "rates": (2,),
        "psth": (2,),
        "loadings": (0,),
        "receptive_fields": (0,),
        "speed_gains": (0,),
        "coupling_input": (2,),
        "background_input": (2,),
    }

    def select_units(self, unit_ids: list[str]) -> "Truth":
        """The truth of these units, in this order. Raises InputError for a unit it does not know."""
        rows = {unit_id: row for row, unit_id in enumerate(self.attributes["unit_id"])}
        missing = [unit_id for unit_id in unit_ids if unit_id not in rows]
        if missing:
            raise InputError("truth.zarr", "unit_id", f"no unit {missing[0]!r}", "the units of the recording")
        order = np.array([rows[unit_id] for unit_id in unit_ids])
        arrays = dict(self.arrays)
        for name, axes in self.UNIT_AXES.items():
            for axis in axes if name in arrays else ():
                arrays[name] = np.take(arrays[name], order, axis=axis)
        return Truth(arrays, self.attributes | {"unit_id": list(unit_ids)})

    def write(self, path: Path | str) -> None:
        """Write as a Zarr group; `path` must not exist."""
        import zarr

        group = zarr.create_group(str(path), zarr_format=3, attributes=self.attributes)
        for name, array in sorted(self.arrays.items()):
            group.create_array(name, data=np.ascontiguousarray(array))

    @classmethod
    def read(cls, path: Path | str, names: Collection[str] | None = None) -> "Truth":
        """Read what `write` wrote; with `names`, those of the arrays alone."""
        import zarr

        group = zarr.open_group(str(path), mode="r")
        wanted = {name: array for name, array in sorted(group.arrays()) if names is None or name in names}
        return cls({name: array[:] for name, array in wanted.items()}, dict(group.attrs))


@dataclass
class Recording:
    """One session: spikes, units, trials, signals, and where they came from.

    `spike_times` (spikes,) float64, s; `spike_units` (spikes,) int32, rows of `units`; `observed` (intervals, 2)
    float64, s: when the session was recorded at all; `duration`: end of the session, s.

    >>> units = pd.DataFrame({"unit_id": ["a", "b"], "region": "CA1", "population": "CA1"})
    >>> trials = pd.DataFrame({"start": [0.0, 2.0], "stop": [1.0, 3.0], "condition": ["left", "right"]})
    >>> times, unit = np.array([0.2, 0.7, 2.1]), np.array([0, 1, 0])
    >>> observed = np.array([[0.0, 3.0]])
    >>> session = Recording("day1", times, unit, units, trials, 3.0, observed, Provenance("mine", "day1"))
    >>> session.write("recordings/day1")
    >>> len(Recording.read("recordings/day1").trials)
    2
    """

    session: str
    spike_times: np.ndarray
    spike_units: np.ndarray
    units: pd.DataFrame
    trials: pd.DataFrame
    duration: float
    observed: np.ndarray
    provenance: Provenance
    signals: dict[str, pd.DataFrame] = field(default_factory=dict)
    unit_intervals: pd.DataFrame | None = None
    truth: Truth | None = None
    stimulus: Stimulus | None = None
    candidates: pd.DataFrame | None = None

    def validate(self, where: Path | str | None = None) -> None:
        """Raise InputError at the first table, column and row that breaks the contract of this module.

        >>> from pipeline_lib.sources.simulate import simulate
        >>> session = simulate("glm", {"units": 4, "duration": 5}, seed=0, session="day1")
        >>> session.spike_times[2] = 4.9
        >>> session.validate()
        Traceback (most recent call last):
            ...
        pipeline_lib.errors.InputError: recording day1: spikes.time, row 3: found ...
        """
        place = str(where or f"recording {self.session}")
        require_units(place, self.units)
        self._validate_spikes(place)
        require_trials(place, self.trials)
        require_intervals(place, self.observed, self.duration)
        self._validate_unit_intervals(place)
        for name, signal in self.signals.items():
            if "time" not in signal.columns or len(signal.columns) < 2:
                raise InputError(place, f"signals/{name}", list(signal.columns), "time and at least one dimension")
            _require_sorted(place, f"signals/{name}.time", signal["time"].to_numpy())
            require_units_as_text(place, name, signal)

    def _validate_spikes(self, place: str) -> None:
        times, units = self.spike_times, self.spike_units
        if times.dtype.kind not in "iuf" or units.dtype.kind not in "iu":
            raise InputError(place, "spikes", f"{times.dtype} times, {units.dtype} units", "times in s, rows of units")
        if len(times) != len(units):
            raise InputError(place, "spikes", f"{len(times)} times, {len(units)} units", "as many of both")
        if len(times) == 0:
            raise InputError(place, "spikes", "an empty recording", "at least one spike")
        _require_sorted(place, "spikes.time", times)
        if times[0] < 0:
            raise InputError(place, "spikes.time, row 0", f"{times[0]} s", "times from 0 s on")
        if times[-1] > self.duration:
            found = f"{times[-1]} s"
            raise InputError(place, "spikes.time, last row", found, f"times in the session, 0 to {self.duration} s")
        accepted = f"rows of units, 0 to {len(self.units) - 1}"
        refuse_rows((units < 0) | (units >= len(self.units)), place, "spikes.unit", units, accepted)

    def _validate_unit_intervals(self, place: str) -> None:
        own = self.unit_intervals
        if own is not None:
            _require_columns(place, "unit_intervals", own, ("unit", "start", "stop"))
            unit, accepted = own["unit"].to_numpy(), f"rows of units, 0 to {len(self.units) - 1}"
            known = own["unit"].between(0, len(self.units) - 1).to_numpy()
            refuse_rows(~known, place, "unit_intervals.unit", unit, accepted)
            _require_forward(place, "unit_intervals", own)

    def write(self, directory: Path | str) -> None:
        """Validate, then write the tables; the directory is complete once it holds recording.json."""
        self.validate()
        directory = Path(directory)
        with exclusive(directory / ".lock"), whole_directory(directory, "recording.json", OPTIONAL) as writing:
            units = self.spike_units.astype(np.int32, copy=False)
            spikes = pd.DataFrame({"time": self.spike_times, "unit": units}, copy=False)
            spikes.to_parquet(writing / "spikes.parquet", index=False, compression="zstd")
            self.units.to_parquet(writing / "units.parquet", index=False)
            self.trials.to_parquet(writing / "trials.parquet", index=False)
            for name, table in {"unit_intervals": self.unit_intervals, "candidates": self.candidates}.items():
                if table is not None:
                    table.to_parquet(writing / f"{name}.parquet", index=False)
            for name, signal in self.signals.items():
                (writing / "signals").mkdir(exist_ok=True)
                signal.to_parquet(writing / "signals" / f"{name}.parquet", index=False)
            if self.truth is not None:
                self.truth.write(writing / "truth.zarr")
            if self.stimulus is not None:
                self.stimulus.write(writing / "stimulus.zarr")
            description = {
                "schema_version": SCHEMA_VERSION,
                "session": self.session,
                "duration": float(self.duration),
                "observed": self.observed.tolist(),
                **self.provenance.__dict__,
            }
            write_json(writing / "recording.json", description)

    @classmethod
    def read(cls, directory: Path | str) -> "Recording":
        """Read and validate what `write` wrote.

        Raises
        ------
        InputError : the directory is not a complete recording, or a table breaks the contract.
        """
        directory = Path(directory)
        description = read_description(directory)
        spikes = read_parquet(directory / "spikes.parquet")
        _require_columns(str(directory), "spikes", spikes, ("time", "unit"))
        intervals, candidates = directory / "unit_intervals.parquet", directory / "candidates.parquet"
        truth, stimulus = directory / "truth.zarr", directory / "stimulus.zarr"
        names = Provenance.__dataclass_fields__
        recording = cls(
            session=description["session"],
            spike_times=spikes["time"].to_numpy(),
            spike_units=spikes["unit"].to_numpy(),
            units=read_parquet(directory / "units.parquet"),
            trials=read_parquet(directory / "trials.parquet"),
            duration=description["duration"],
            observed=np.array(description["observed"], dtype=np.float64),
            provenance=Provenance(**{name: description[name] for name in names}),
            signals={file.stem: read_parquet(file) for file in sorted((directory / "signals").glob("[!.]*.parquet"))},
            unit_intervals=read_parquet(intervals) if intervals.exists() else None,
            truth=Truth.read(truth) if truth.exists() else None,
            stimulus=Stimulus.read(stimulus) if stimulus.exists() else None,
            candidates=read_parquet(candidates) if candidates.exists() else None,
        )
        recording.validate(directory)
        return recording


def read_description(directory: Path | str) -> dict[str, Any]:
    """recording.json of a complete recording, as a dictionary; InputError where there is none or of another version.

    >>> from pipeline_lib.sources.simulate import simulate
    >>> simulate("glm", {"units": 4, "duration": 5}, seed=0, session="day1").write("recordings/described")
    >>> read_description("recordings/described")["duration"]
    5.0
    """
    path = Path(directory) / "recording.json"
    if not path.exists():
        raise InputError(directory, "recording.json", "no such file", "a complete recording directory")
    remedy = "make the recording again"
    description = read_json(path, f"the file as it was written ({remedy})")
    if description.get("schema_version") != SCHEMA_VERSION:
        raise InputError(path, "schema_version", description.get("schema_version"), f"{SCHEMA_VERSION} ({remedy})")
    for name in ("session", "duration", "observed", *Provenance.__dataclass_fields__):
        if name not in description:
            raise InputError(path, name, "no such entry", f"the file as it was written ({remedy})")
    try:
        observed, duration = np.array(description["observed"], dtype=np.float64), float(description["duration"])
    except (ValueError, TypeError) as error:
        raise InputError(path, "observed and duration", str(error), "numbers, s") from error
    require_intervals(str(path), observed, duration)
    return description


def require_units(place: str, units: pd.DataFrame) -> None:
    """Raise InputError where `units` is not what a recording's is: its columns, and one row a unit."""
    _require_columns(place, "units", units, UNIT_COLUMNS)
    if len(units) == 0:
        raise InputError(place, "units", "no unit", "at least one (was every unit removed by the selection?)")
    repeated = units["unit_id"][units["unit_id"].duplicated()]
    if len(repeated):
        raise InputError(place, "units.unit_id", f"{repeated.iloc[0]!r} twice", "one row a unit")


def require_trials(place: str, trials: pd.DataFrame) -> None:
    """Raise InputError where `trials` is not what a recording's is: its columns, times and a condition in each row."""
    _require_columns(place, "trials", trials, TRIAL_COLUMNS)
    _require_forward(place, "trials", trials)
    missing = trials["condition"].isna().to_numpy()
    if missing.any():
        raise InputError(place, f"trials.condition, row {int(np.argmax(missing))}", "nothing", "text in every row")


def require_intervals(place: str, observed: np.ndarray, duration: float) -> None:
    """Raise InputError where `observed` is not what a recording's is: (intervals, 2), from 0 to `duration` s, in order.

    What lies after the end would be sampled as time in which no unit fired.
    """
    if observed.ndim != 2 or observed.shape[1:] != (2,) or len(observed) == 0:
        raise InputError(place, "observed", f"shape {observed.shape}", "(intervals, 2), at least one")
    flat = observed.ravel()
    refuse_rows(~np.isfinite(flat), place, "observed", flat, FINITE)
    if (np.diff(flat) < 0).any() or flat[0] < 0:
        raise InputError(place, "observed", observed.tolist()[:3], "sorted intervals that do not overlap")
    if flat[-1] > duration:
        raise InputError(place, "observed", f"{flat[-1]} s", f"intervals in the session, 0 to {duration} s")


def _require_columns(place: str, table: str, frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(place, f"{table}.{missing[0]}", "no such column", f"columns {', '.join(columns)}")


def _require_forward(place: str, table: str, frame: pd.DataFrame) -> None:
    start, stop = (frame[column].to_numpy(dtype=float) for column in ("start", "stop"))
    for name, times in (("start", start), ("stop", stop)):
        refuse_rows(~np.isfinite(times), place, f"{table}.{name}", times, FINITE)
    back = stop < start
    if back.any():
        row = int(np.argmax(back))  # of this table, which is in order; in the file, the times are to be looked for
        found = f"{stop[row]} s, with a start at {start[row]} s"
        raise InputError(place, f"{table}.stop, row {row}", found, "a stop not before its start")


def _require_sorted(place: str, column: str, times: np.ndarray) -> None:
    refuse_rows(~np.isfinite(times), place, column, times, FINITE)
    steps = np.diff(times)
    if len(steps) and steps.min() < 0:
        row = int(np.argmax(steps < 0)) + 1
        raise InputError(place, f"{column}, row {row}", f"{times[row]} s after {times[row - 1]} s", "sorted times")
