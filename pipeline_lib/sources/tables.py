"""A user's own data: spike times and unit ids in Parquet, CSV, TSV, npz or MATLAB files, with a mapping of columns.

A row of the session sheet:

    aplysia   tables   Jan1312da04spks.mat   array: spks, unit: 0, time: 1, sort: true, duration: 80

In a folder, files named spikes, units, trials and observed (with any known ending) and the folder `signals` are found
without being named.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError
from pipeline_lib.sources.cells import cell_arrays, load_cells
from pipeline_lib.sources.columns import SUFFIXES, column, load_columns, load_pieces, numbers, table_of, vector
from pipeline_lib.sources.companions import Companions, read_companions
from pipeline_lib.sources.location import checksums
from pipeline_lib.sources.options import Names, check_names
from pipeline_lib.sources.presence import spike_ranges
from pipeline_lib.sources.seconds import ENOUGH, check_seconds, check_together
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.spikes import check_spike_times
from pipeline_lib.sources.trials import ALL, column_text

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

UNKNOWN = "unknown"
WHOLE = re.compile(r"^(-?\d+)\.0+$")


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection, Companions):
    """Where the tables are and what their columns are called. File names are relative to the location."""

    spikes: str | None = None
    """The file of spikes; by default the location itself, or `spikes.*` in it."""
    time: str | int = "time"
    """Column (or variable, in npz and mat) of the spike times; a column number, from 0, with `array`."""
    unit: str | int = "unit"
    """Column (or variable) of the unit ids; a column number, from 0, with `array`."""
    array: str | None = None
    """The variable of an npz or mat file that is a matrix of one row a spike."""
    cells: str | None = None
    """The variable of a mat file that is a cell array with the spike times of a unit in each cell. The units are called
    1, 2, ..., as in MATLAB; `time` and `unit` are not asked for."""
    time_unit: Literal["s", "ms", "samples"] | None = None
    """Unit of every time in these files; by default s, where the times can be seconds (`sources.seconds`)."""
    sampling_rate: Annotated[float, Gt(0)] | None = None
    """Samples per second, for `time_unit: samples`."""
    sort: bool = False
    """Accept spikes that are not in order of time (grouped by unit, for example), and sort them."""
    units: str | None = None
    """A table of units; without one the units are those that spiked."""
    unit_id: str = "unit_id"
    """Column of `units` that holds the ids the spikes use; `region` and `population` name two more."""
    region: str = "region"
    population: str = "population"
    events: Names = ()
    """Columns of the trials that are times, where `time_unit` is not s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.signals, "source tables", "option signals")
        if (self.time_unit == "samples") != (self.sampling_rate is not None):
            accepted = "a rate in samples per second, with time_unit: samples and only then"
            raise InputError("source tables", "option sampling_rate", self.sampling_rate, accepted)
        if self.cells is not None and self.array is not None:
            raise InputError("source tables", "option cells", f"{self.cells}, and array {self.array}", "one of the two")
        numbers = isinstance(self.time, int), isinstance(self.unit, int)
        if any(numbers) != all(numbers) or all(numbers) != (self.array is not None):
            found = f"time {self.time!r}, unit {self.unit!r}, array {self.array!r}"
            raise InputError("source tables", "option array", found, "column numbers with an array, names without")

    def seconds(self, times: Any) -> np.ndarray:
        """Times of the files in seconds."""
        per_second = {"s": 1.0, "ms": 1000.0, "samples": self.sampling_rate or 1.0}[self.time_unit or "s"]
        seconds = super().seconds(times)
        return seconds if per_second == 1 else seconds / per_second


def files(location: Path, options: Options) -> list[Path]:
    """The files that `read` reads."""
    found = _Files(location)
    for role in ("spikes", "units", "trials", "observed"):
        found.path(role, getattr(options, role))
    found.signals(options.signals)
    return found.used


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a user's files.

    Units without a region have the region "unknown"; without a population, that of their region, or "all".

    Raises
    ------
    InputError : a missing or unreadable file, a missing column, spikes out of order, not finite, negative or beyond
        the session, a spike of a unit the units table does not list, times that cannot be seconds and are not said to
        be in another unit, a clock that was started long before the recording.
    """
    import pandas as pd

    from pipeline_lib.recording import Provenance, Recording

    files = _Files(location)
    spikes = files.path("spikes", options.spikes)
    if spikes is None:
        accepted = f"spikes with one of the endings {', '.join(SUFFIXES)}, or the option `spikes`"
        raise InputError(location, "spikes", "no such file", accepted)
    times, codes, ids = read_spikes(spikes, options)
    units = read_units(files.path("units", options.units), ids, options)
    rows = pd.Index(units["unit_id"]).drop_duplicates().get_indexer(ids).astype(np.int32)[codes]
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        found = f"unit {ids[codes[row]]!r}"
        raise InputError(spikes, f"column {options.unit}, row {row}", found, "a unit of the table of units")
    trying, observing = files.path("trials", options.trials), files.path("observed", options.observed)
    measured = files.signals(options.signals)
    trials, observed, signals, counts = read_companions(options, trying, observing, measured, location, options.events)

    last, tried = float(times.max()), trials["stop"].max() if len(trials) else 0.0
    if options.time_unit is None:
        check_seconds(times, rows, spikes, f"column {options.time}")
        check_together(tried, last, trying, f"column {options.stop}")
        check_together(observed.max(initial=0.0), last, observing, "column stop")
        for name, path in measured.items():
            check_together(signals[name]["time"].max(), last, path, "column time")
    duration = options.duration or max(last, observed.max(initial=0.0), tried)
    _require_before(times, duration, spikes, f"column {options.time}")
    _require_before(observed[:, 1], duration, observing, "column stop")
    if not len(observed) and options.unit_presence == "always":
        told = [trials["start"], *(signal["time"] for signal in signals.values())]
        first = min([float(times.min()), *(float(each.min()) for each in told if len(each))])
        _require_beginning(first, duration, times, spikes)
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=rows,
        units=units,
        trials=trials,
        duration=float(duration),
        observed=observed if len(observed) else np.array([[0.0, duration]]),
        provenance=Provenance("tables", session, files=checksums(files.used, location), counts=counts),
        signals=signals,
        unit_intervals=spike_ranges(times, rows, len(units)) if options.unit_presence == "spike_range" else None,
    )
    return select(recording, options, location)


def _require_before(times: np.ndarray, end: float, path: Path | None, field: str) -> None:
    late = times > end
    if late.any():
        row = int(np.argmax(late))
        raise InputError(path, f"{field}, row {row}", f"{times[row]} s", f"times in the session, 0 to {end} s")


def _require_beginning(first: float, end: float, times: np.ndarray, path: Path) -> None:
    """Raise InputError where nothing is known of the longer part of the session, before `first` (s): on a clock that
    was started earlier, it would count as time in which no unit fired."""
    if len(times) >= ENOUGH and first > end - first:
        accepted = "times since the start of the recording, or a table of when that was (option observed: start, stop)"
        raise InputError(path, "session", f"nothing before {first:g} s of {end:g} s", accepted)


class _Files:
    """The files of a location; `used` are those that were asked for."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self.folder = location if location.is_dir() else location.parent
        self.used: list[Path] = []

    def path(self, role: str, name: str | None) -> Path | None:
        """The file `name`; where it is None, the location itself for spikes, or `role.*` of a folder, or None."""
        found: Path | None
        if name is not None:
            found = self.folder / name
            if not found.is_file():
                raise InputError(found, f"option {role}", "no such file", f"a file in {self.folder}")
        elif self.location.is_file():
            found = self.location if role == "spikes" else None
        else:
            candidates = [self.folder / f"{role}{suffix}" for suffix in SUFFIXES]
            existing = [file for file in candidates if file.is_file()]
            if len(existing) > 1:
                accepted = f"one file, or the option `{role}`"
                raise InputError(self.folder, role, ", ".join(file.name for file in existing), accepted)
            found = existing[0] if existing else None
        if found is not None:
            self.used.append(found)
        return found

    def signals(self, named: dict[str, str]) -> dict[str, Path]:
        """The file of every signal, by name."""
        if named:
            return {name: self.folder / file for name, file in named.items() if self.path(f"signals, {name}", file)}
        if not self.location.is_dir():
            return {}
        found = {file.stem: file for file in sorted((self.folder / "signals").glob("[!.]*")) if file.suffix in SUFFIXES}
        check_names(found, str(self.folder / "signals"), "file name")
        self.used.extend(found.values())
        return found


def read_spikes(path: Path, options: Options) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Spike times (spikes,) in s, the row in the ids of each spike's unit (spikes,), and the ids as text.

    Raises
    ------
    InputError : no such column, no spike, not an id a time, or a time that is no number, negative or out of order.
    """
    if options.cells is not None:
        return _read_cells(path, options.cells, options)
    times, codes, known = [], [], dict[Any, int]()
    for columns in load_pieces(path, text=(str(options.unit),), used=(str(options.time),)):
        time, unit = _times_and_units(path, columns, options)
        times.append(time)
        codes.append(_numbered(unit, known, path, f"column {options.unit}"))
    seconds = options.seconds(numbers(path, str(options.time), _joined(times)))
    del times
    if len(seconds) == 0:
        raise InputError(path, "spikes", "an empty recording", "at least one spike")
    check_spike_times(seconds, path, f"column {options.time}", None, options.sort)
    return seconds, *_in_order(_joined(codes), known, path, f"column {options.unit}")


def _times_and_units(path: Path, columns: Any, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Times and unit ids (spikes,), as they stand in these columns or variables of the file."""
    cells, time = cell_arrays(path), str(options.time)
    if options.array is None and cells and (time in cells or time not in columns):
        accepted = f"a vector of times, or the option cells where each cell of {' or '.join(cells)} is a unit"
        raise InputError(path, f"column {time}", "a cell array" if time in cells else "no such column", accepted)
    if options.array is not None:
        matrix = column(path, columns, options.array)
        last = max(int(options.time), int(options.unit))
        if matrix.ndim != 2 or matrix.shape[1] <= last:
            accepted = f"a matrix of one row a spike, with at least {last + 1} columns"
            raise InputError(path, options.array, f"shape {matrix.shape}", accepted)
        times, units = matrix[:, int(options.time)], matrix[:, int(options.unit)]
    else:
        times, units = (vector(path, columns, str(name)) for name in (options.time, options.unit))
    if len(times) != len(units):
        raise InputError(path, f"column {options.unit}", f"{len(units)} ids, {len(times)} times", "as many of both")
    return times, units


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Pieces of a column, in the type in which pandas would have read the whole."""
    import pandas as pd

    if all(piece.dtype.kind in "iuf" for piece in pieces):
        return np.concatenate(pieces)
    return pd.concat(map(pd.Series, pieces), ignore_index=True).to_numpy()  # truth values would become numbers


def _read_cells(path: Path, name: str, options: Options) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What `read_spikes` returns, of a cell array with a unit in each cell, some of which may be empty."""
    trains = load_cells(path, name)
    spikes = [len(train) for train in trains]
    if not sum(spikes):
        raise InputError(path, name, "an empty recording", "at least one spike")
    times = options.seconds(np.concatenate(trains))
    check_spike_times(times, path, name, np.cumsum(spikes), options.sort)
    return times, np.repeat(np.arange(len(trains)), spikes), [str(number) for number in range(1, len(trains) + 1)]


def unit_ids(values: np.ndarray, path: Path, field: str) -> tuple[np.ndarray, list[str]]:
    """The row in the ids of every value (values,), and the ids as text in natural order.

    Whole numbers are written without a fraction, in text (3.0) too. Raises InputError for a value that is missing.
    """
    known: dict[Any, int] = {}
    return _in_order(_numbered(values, known, path, field), known, path, field)


def _numbered(values: np.ndarray, known: dict[Any, int], path: Path, field: str) -> np.ndarray:
    """The number of every value (values,) among the `known` ones, to which new ones are added; -1 where none is."""
    import pandas as pd

    try:
        codes, found = pd.factorize(values)
    except TypeError:
        raise InputError(path, field, f"{type(values[0]).__name__}", "one number or text a row") from None
    numbers = [known.setdefault(value, len(known)) for value in found]
    return np.array([*numbers, -1], dtype=np.int32)[codes]  # a missing one has the code -1, which is the last


def _in_order(codes: np.ndarray, known: dict[Any, int], path: Path, field: str) -> tuple[np.ndarray, list[str]]:
    """What `unit_ids` returns, of values by their number among the `known` ones."""
    import pandas as pd

    if (codes < 0).any():
        raise InputError(path, f"{field}, row {np.argmax(codes < 0)}", "no id", "an id in every row")
    texts = [WHOLE.sub(r"\1", text) for text in column_text(pd.Series(list(known)), missing="")]
    ids = list(dict.fromkeys(texts))
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]) if ids[row].isdecimal() else np.inf, ids[row]))
    place = {ids[row]: number for number, row in enumerate(order)}
    return np.array([place[text] for text in texts], dtype=np.int32)[codes], [ids[row] for row in order]


def read_units(path: Path | None, ids: list[str], options: Options) -> "pd.DataFrame":
    """The units table: the contract's columns, then those of the file. Without a file, the units are `ids`."""
    import pandas as pd

    if path is None:
        return pd.DataFrame({"unit_id": ids, "region": UNKNOWN, "population": ALL})
    columns = load_columns(path, text=(options.unit_id, options.region, options.population))
    codes, listed = unit_ids(vector(path, columns, options.unit_id), path, f"column {options.unit_id}")
    own = table_of(path, columns)
    table = pd.DataFrame({"unit_id": [listed[code] for code in codes], "region": UNKNOWN, "population": ALL})
    for name, source in (("region", options.region), ("population", options.population)):
        if source in own:
            table[name] = column_text(own[source], missing=UNKNOWN)
    if options.region in own and options.population not in own:
        table["population"] = table["region"]
    return pd.concat([table, own.drop(columns=[name for name in table if name in own])], axis=1)
