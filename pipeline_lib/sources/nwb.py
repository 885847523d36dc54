"""Any NWB file with a units table, read through h5py in bulk (importing pynwb alone would cost 2.3 CPU-s a job).

A row of the session sheet:

    guo   nwb   sub-1.nwb   condition: type, unit_presence: spike_range
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.intervals import complement
from pipeline_lib.signal_units import keep_units
from pipeline_lib.sources.given_units import SignalUnits, give_units
from pipeline_lib.sources.hdf import HdfFile, rows_of
from pipeline_lib.sources.location import checksums, single_file
from pipeline_lib.sources.options import Names, check_names
from pipeline_lib.sources.presence import spike_ranges, unit_intervals
from pipeline_lib.sources.seconds import check_seconds, check_together
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.signals import signal_table
from pipeline_lib.sources.spikes import check_spike_times
from pipeline_lib.sources.trials import column_text, condition_text, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

UNITS = "units"
ELECTRODES = "general/extracellular_ephys/electrodes"
UNSAID = ("", "n/a", "na", "no unit", "none", "unknown", "siunit")
"""What files write for the unit of a series where they do not know it."""
DEPTHS = ("depth", "rel_y", "probe_vertical_position")


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection, SignalUnits):
    """How to read an NWB file."""

    trials_table: str = "trials"
    """The table under `intervals` that becomes the trials; a file without `trials` has none."""
    condition: Names | None = None
    """The column of the trials that is their condition, or several to join; by default `condition`, if there is one."""
    region: str | None = None
    """The column of the units that is their region; by default the location of their electrodes, else `region`."""
    population: str = "region"
    """The column of the units (region, probe, or one of the file's) that is their population."""
    signals: dict[str, str] = field(default_factory=dict)
    """Time series to keep, name -> path in the file, such as `{running: processing/behavior/running_speed}`."""
    unit_presence: Literal["obs_intervals", "spike_range", "always"] | None = None
    """When a unit was there: its `obs_intervals`, from its first to its last spike (`spike_range`), or `always`. By
    default `obs_intervals` where the file has them, else `always`. A unit without an interval in `obs_intervals`, or
    without two spikes in `spike_range`, was never there: it is masked throughout, not silent. For units that were there
    and silent take `always`."""
    invalid_times: bool = True
    """Nothing was observed in what the file's table `invalid_times` lists, which NWB keeps for times to be removed from
    analysis; false keeps them."""
    sort: bool = False
    """Accept units whose spike times are out of order, and sort them."""
    time_unit: Literal["s"] | None = None
    """`s`: the times are the seconds that NWB asks for, although they do not look it (`sources.seconds`)."""
    only_selected: bool = False
    """Of a remote file, fetch only the chosen units and the small tables, by ranges."""
    time_offset: float = 0.0
    """Seconds added to every time of the file, for files whose clock starts before 0; of the columns of its trials, to
    those whose name ends with `_time` or `_times`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.signals, "source nwb", "option signals")


def locate(location: Path) -> Path:
    """The NWB file at `location`, or the only one in it."""
    return single_file(location, (".nwb", ".h5", ".hdf5"))


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of an NWB file.

    The session ends at its last spike, trial or observation. Trials without a finite start and stop are left out and
    counted; NaN in event columns stays NaN (the event did not happen).

    Raises
    ------
    InputError : no file, a broken one, one that links to other files, or one that does not fit the options.
    """
    from pipeline_lib.recording import Provenance, Recording

    with HdfFile(location) as file:
        times, ends = read_spikes(file, options)
        units = read_units(file, len(ends), options)
        trials, counts = read_trials(file, options)
        intervals = read_presence(file, times, ends, options)
        invalid = read_invalid_times(file, options)
        signals = {}
        for name, series in options.signals.items():
            signals[name], left_out = read_series(file, name, series, options.time_offset)
            counts |= left_out
            if name not in options.signal_units:
                keep_units(signals[name], dict.fromkeys(signals[name].columns.drop("time"), series_unit(file, series)))
        give_units(signals, options, location)
        provenance = Provenance(
            source="nwb",
            source_id=file.text("identifier"),
            citation=file.text("general/related_publications"),
            files=checksums([location], location),
            counts=counts,
        )
    rows = rows_of(ends)
    last = {
        f"{UNITS}/spike_times": times.max(initial=0),
        f"intervals/{options.trials_table}/stop_time": trials["stop"].max() if len(trials) else 0.0,
        f"{UNITS}/obs_intervals": 0.0 if intervals is None else intervals["stop"].max(),
    }
    if options.time_unit is None and len(times):
        measured = {options.signals[name]: signal["time"].max() for name, signal in signals.items()}
        accepted = "seconds (with the option time_unit: s, these are)"
        check_seconds(times, rows, location, f"{UNITS}/spike_times", accepted)
        for name, end in (last | measured).items():
            check_together(end, times.max(), location, name)
    duration = max(0.0, *last.values())
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=rows,
        units=units,
        trials=trials,
        duration=float(duration),
        observed=complement(invalid, duration) if len(invalid) else np.array([[0.0, duration]]),
        provenance=provenance,
        signals=signals,
        unit_intervals=intervals,
    )
    return select(recording, options, location)


def read_spikes(file: HdfFile, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Spike times (spikes,) in s, unit after unit, and where each unit ends (units,)."""
    column = f"{UNITS}/spike_times"
    times = file.floats(column) + options.time_offset
    ends = file.ends(f"{column}_index", len(times))
    check_spike_times(times, file.path, column, ends, options.sort)
    return times, ends


def read_units(file: HdfFile, count: int, options: Options) -> "pd.DataFrame":
    """The units table: the contract's columns, probe and depth where known, then the file's own columns.

    Raises
    ------
    InputError : not a row a spike train, or no such column as the options `region` and `population` name.
    """
    import pandas as pd

    own = file.table(UNITS)
    if len(own.columns) == 0:
        own = pd.DataFrame({"id": np.arange(count)})
    if len(own) != count:
        raise InputError(file.path, UNITS, f"{len(own)} rows, {count} spike trains", "as many of both")
    ids = own.pop("id") if "id" in own else np.arange(count)
    electrodes = unit_electrodes(file, own)
    table: dict[str, Any] = {"unit_id": [str(value) for value in ids]}
    located = "location" in electrodes
    region = options.region or ("region" if "region" in own and not located else None)
    if region is not None:
        _require_column(file.path, own, region, "region")
        table["region"] = [region_name(text) for text in column_text(own[region], missing="")]  # some are numbers
    elif located:
        table["region"] = [region_name(value) for value in electrodes["location"]]
    else:
        table["region"] = ["unknown"] * count
    table["population"] = own["population"].to_numpy() if "population" in own else table["region"]
    if "group_name" in electrodes:
        table["probe"] = [region_name(value) for value in electrodes["group_name"]]
    elif file.find(f"{UNITS}/electrode_group") is not None:
        groups = file.references(f"{UNITS}/electrode_group")
        table["probe"] = [group.name.rpartition("/")[2] if group else "unknown" for group in groups]
    depths = [own[name] for name in DEPTHS if name in own] + [electrodes[name] for name in DEPTHS if name in electrodes]
    if depths:
        table["depth"] = depths[0].to_numpy()
    rest = own.drop(columns=[name for name in own if name in table])
    units = pd.concat([pd.DataFrame(table), rest], axis=1)
    _require_column(file.path, units, options.population, "population")
    return units.assign(population=column_text(units[options.population], missing="unknown"))


def unit_electrodes(file: HdfFile, units: "pd.DataFrame") -> "pd.DataFrame":
    """The row of the electrodes table of every unit (its first electrode); empty rows for a unit without one, and no
    column where no unit has one.

    A unit names its electrodes by row (`electrodes`, as NWB says) or by id (`peak_channel_id`, as Allen files do).

    Raises
    ------
    InputError : not a list of electrodes a unit, or a row or id that the electrodes table does not have.
    """
    import pandas as pd

    if file.find(ELECTRODES) is None:
        return pd.DataFrame(index=units.index)
    electrodes = file.table(ELECTRODES)
    rows = np.full(len(units), -1)
    column = f"{UNITS}/electrodes"
    if file.find(column) is not None:
        listed = file.floats(column).astype(np.int64)
        ends = np.arange(1, len(listed) + 1)
        if file.find(f"{column}_index") is not None:
            ends = file.ends(f"{column}_index", len(listed))
        if len(ends) != len(units):
            raise InputError(file.path, column, f"{len(ends)} rows", f"{len(units)} rows, as there are units")
        bad = (listed < 0) | (listed >= len(electrodes))
        refuse_rows(bad, file.path, column, listed, f"rows 0 to {len(electrodes) - 1}")
        starts = np.concatenate([[0], ends[:-1]])
        some = ends > starts
        rows[some] = listed[starts[some]]
    elif "peak_channel_id" in units and "id" in electrodes:
        rows = electrode_rows(file, electrodes, units["peak_channel_id"])
    return electrodes.reindex(rows).set_index(units.index) if (rows >= 0).any() else pd.DataFrame(index=units.index)


def electrode_rows(file: HdfFile, electrodes: "pd.DataFrame", ids: "pd.Series") -> np.ndarray:
    """The row of the electrodes table of each id, -1 for one that it does not list. InputError for ids listed twice."""
    import pandas as pd

    listed = pd.Index(electrodes["id"])
    if not listed.is_unique:
        found = f"{listed[listed.duplicated()][0]} twice"
        raise InputError(file.path, f"{ELECTRODES}/id", found, "one row an electrode")
    return listed.get_indexer(ids)


def region_name(location: object) -> str:
    """The region in a location text; `brain_region: X; ...`, a list some labs write there, is X; nothing is unknown."""
    if not isinstance(location, str):
        return "unknown"
    for part in location.split(";"):
        name, colon, value = part.partition(":")
        if colon and name.strip() == "brain_region":
            location = value
    name = location.strip()
    return "unknown" if name.lower() in ("", "none", "nan", "n/a", "unknown") else name


def read_trials(file: HdfFile, options: Options) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials in order of their start, with the file's own columns, and how many there were before and were dropped."""
    path = f"intervals/{options.trials_table}"
    if options.trials_table == "trials" and file.find(path) is None:
        return no_trials(), {}
    file.require(path)
    table = file.table(path, ("start_time", "stop_time"))
    for name in table.columns[table.columns.str.endswith(("_time", "_times"))]:
        if table[name].dtype.kind in "iuf":
            table[name] += options.time_offset
    condition = condition_text(table, options.condition, file.path, path)
    start, stop = (file.floats(f"{path}/{name}") + options.time_offset for name in ("start_time", "stop_time"))
    rest = table.drop(columns=["id", "start_time", "stop_time"], errors="ignore")
    return trial_table(start, stop, condition, rest)


def read_presence(file: HdfFile, times: np.ndarray, ends: np.ndarray, options: Options) -> "pd.DataFrame | None":
    """When each unit was observed: columns unit, start, stop; None where every unit always was.

    Raises
    ------
    InputError : `obs_intervals` that are not finite, none at all, or not a row a unit.
    """
    column = f"{UNITS}/obs_intervals"
    presence = options.unit_presence or ("obs_intervals" if file.find(column) is not None else "always")
    if presence == "always":
        return None
    if presence == "spike_range":
        return spike_ranges(times, rows_of(ends), len(ends))
    intervals = file.floats(column, dimensions=2) + options.time_offset
    if intervals.shape[1] != 2 or not np.isfinite(intervals).all():
        raise InputError(file.path, column, f"shape {intervals.shape}", "finite (intervals, 2) start and stop in s")
    rows = file.ends(f"{column}_index", len(intervals))
    if len(rows) != len(ends):
        raise InputError(file.path, column, f"{len(rows)} rows", f"{len(ends)} rows, as there are units")
    if not len(intervals):
        raise InputError(file.path, column, "no interval of any unit", "intervals, or the option unit_presence: always")
    return unit_intervals(rows_of(rows), intervals, range(len(rows)))


def read_invalid_times(file: HdfFile, options: Options) -> np.ndarray:
    """Times (intervals, 2) in s that the file wants removed from analysis.

    Raises
    ------
    InputError : a time that is not finite, or a stop before its start.
    """
    path = "intervals/invalid_times"
    if not options.invalid_times or file.find(path) is None:
        return np.empty((0, 2))
    start, stop = (file.floats(f"{path}/{name}") + options.time_offset for name in ("start_time", "stop_time"))
    if len(start) != len(stop) or not (np.isfinite(start) & np.isfinite(stop) & (start <= stop)).all():
        found = f"{len(start)} starts, {len(stop)} stops, not all finite and in order"
        raise InputError(file.path, path, found, "a start and a later stop a row, or the option invalid_times: false")
    return np.stack([start, stop], axis=1)


def read_series(file: HdfFile, name: str, path: str, offset: float) -> "tuple[pd.DataFrame, dict[str, int]]":
    """The TimeSeries at `path` in its own unit, with times from `timestamps`, or from `starting_time` and its rate.

    Raises
    ------
    InputError : no such series, values that are no numbers, or neither timestamps nor a positive rate.
    """
    values = file.values(f"{path}/data")
    if values.dtype.kind not in "iufb":
        raise InputError(file.path, f"{path}/data", str(values.dtype), "numbers")
    conversion, shift = (file.attribute(f"{path}/data", key) for key in ("conversion", "offset"))
    values = values * (1.0 if conversion is None else float(conversion)) + (0.0 if shift is None else float(shift))
    if file.find(f"{path}/timestamps") is not None:
        time = file.floats(f"{path}/timestamps")
    else:
        start = float(file.floats(f"{path}/starting_time", dimensions=0))
        rate = file.attribute(f"{path}/starting_time", "rate")
        if rate is None or not float(rate) > 0:
            raise InputError(file.path, f"{path}/starting_time.rate", rate, "a positive sampling rate, Hz")
        time = start + np.arange(len(values)) / float(rate)
    return signal_table(name, time + offset, values, file.path, path)


def series_unit(file: HdfFile, path: str) -> str:
    """The unit of the values of the TimeSeries at `path`, "" where the file says none.

    Raises
    ------
    InputError : it is no text.
    """
    unit = file.attribute(f"{path}/data", "unit")
    if unit is None:
        return ""
    if not isinstance(unit, str):
        accepted = "text, or the unit in the option signal_units"
        raise InputError(file.path, f"{path}/data.unit", repr(unit)[:60], accepted)
    return "" if unit.strip().lower() in UNSAID else unit.strip()


def _require_column(path: Path, table: "pd.DataFrame", name: str, field: str) -> None:
    if name not in table.columns:
        raise InputError(path, field, f"no column {name!r}", f"one of {', '.join(map(str, table.columns))}")
