"""Dense chunks: a folder of Parquet tables of counts, a file a chunk of consecutive bins and consecutive units.

A row of the session sheet:

    f475ae14   chunks   ibl_f475ae14   bin_size: 5

Every file, at any depth, is named ``<text>_<first bin>-<last bin>_<first unit>-<last unit>.parquet``, ends excluded,
and holds a row a unit and a column a bin: counts, or True where the unit fired at all. The public example data of
python-lfads are such files. Observed is what some file holds, unit by unit.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError
from pipeline_lib.intervals import merged
from pipeline_lib.sources.location import checksums, reading
from pipeline_lib.sources.presence import unit_intervals
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.spikes import spikes_of
from pipeline_lib.sources.trials import ALL, trial_table

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

NAME = re.compile(r".*_(\d{1,12})-(\d{1,12})_(\d{1,5})-(\d{1,5})\.parquet")


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection):
    """How the tables are to be understood."""

    bin_size: Annotated[float, Gt(0)] = 5.0
    """Milliseconds in a bin (a column of the tables)."""
    region: str = "unknown"
    """Region of all units: the tables do not say."""


class Chunk(NamedTuple):
    """A file, and the bins and units that it holds, ends excluded."""

    path: Path
    first_bin: int
    last_bin: int
    first_unit: int
    last_unit: int


def locate(location: Path) -> Path:
    """`location`, a folder that must exist. InputError where it does not."""
    if not location.is_dir():
        raise InputError(location, "location", "no such folder", "a folder of chunks")
    return location


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a folder of chunks: a trial a stretch of bins, with the column `folder` that its file lies in.

    The n spikes of a bin are placed at the middles of n equal parts of it, so that this bin size, and any that it
    divides, gives the counts of the files back.

    Raises
    ------
    InputError : no file of that name, a table of another size or without counts, or a unit's bin that is in two files.
    """
    import pandas as pd

    from pipeline_lib.recording import Provenance, Recording

    chunks = find_chunks(location)
    seconds = options.bin_size / 1000
    spikes = [read_chunk(chunk) for chunk in chunks]
    own = held_bins(chunks)
    ids = np.unique(own[:, 0])
    spans = np.array([chunk[1:3] for chunk in chunks], dtype=np.float64) * seconds
    folders = pd.DataFrame({"folder": [chunk.path.parent.relative_to(location).as_posix() for chunk in chunks]})
    distinct = ~pd.DataFrame(spans).duplicated().to_numpy()
    start, stop = spans[distinct].T
    trials, counts = trial_table(start, stop, [ALL] * len(start), folders[distinct])
    recording = Recording(
        session=session,
        spike_times=np.concatenate([time for time, _ in spikes]) * seconds,
        spike_units=np.searchsorted(ids, np.concatenate([unit for _, unit in spikes])),
        units=pd.DataFrame({"unit_id": ids.astype(str), "region": options.region, "population": ALL}),
        trials=trials,
        duration=float(spans.max()),
        observed=merged(spans),
        provenance=Provenance(
            "chunks", session, files=checksums([chunk.path for chunk in chunks], location), counts=counts
        ),
        unit_intervals=unit_intervals(np.searchsorted(ids, own[:, 0]), own[:, 1:] * seconds, range(len(ids))),
    )
    return select(recording, options, location)


def find_chunks(location: Path) -> list[Chunk]:
    """The chunks of a folder, in order of their bins and units. Raises InputError where a name cannot be one."""
    chunks = []
    for path in sorted(location.rglob("[!.]*.parquet")):
        name = NAME.fullmatch(path.name)
        if name is None:
            accepted = "TEXT_FIRSTBIN-LASTBIN_FIRSTUNIT-LASTUNIT.parquet"
            raise InputError(path, "name", path.name, accepted)
        chunk = Chunk(path, *map(int, name.groups()))
        if chunk.last_bin <= chunk.first_bin or chunk.last_unit <= chunk.first_unit:
            raise InputError(path, "name", path.name, "ends after their beginnings")
        chunks.append(chunk)
    if not chunks:
        raise InputError(location, "location", "no file *.parquet", "a folder of chunks")
    return sorted(chunks, key=lambda chunk: chunk[1:])


def read_chunk(chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """The spikes of a chunk: when, in bins (float64) from the recording's start, and of which unit, in time order.

    Raises
    ------
    InputError : the table is not of the size that the name says, or holds anything but counts.
    """
    import pandas as pd

    with reading(chunk.path, "table"):
        table = pd.read_parquet(chunk.path).to_numpy()
    shape = (chunk.last_unit - chunk.first_unit, chunk.last_bin - chunk.first_bin)
    if table.shape != shape:
        raise InputError(chunk.path, "table", f"shape {table.shape}", f"{shape}, units by bins, as the name says")
    if table.dtype.kind not in "bui" or (table.dtype.kind == "i" and table.min() < 0):
        raise InputError(chunk.path, "table", f"{table.dtype}, not counts", "counts of spikes, or True and False")
    (column, row), within = spikes_of(table.T)
    return chunk.first_bin + column + within, chunk.first_unit + row


def held_bins(chunks: list[Chunk]) -> np.ndarray:
    """The stretches that each unit is in (intervals, 3): unit, first bin, last bin, in order; some may touch.

    Raises
    ------
    InputError : two chunks both hold some bin of some unit.
    """
    sizes = [chunk.last_unit - chunk.first_unit for chunk in chunks]
    unit = np.concatenate([np.arange(chunk.first_unit, chunk.last_unit) for chunk in chunks])
    file = np.repeat(np.arange(len(chunks)), sizes)
    first, last = (np.array([chunk[field] for chunk in chunks])[file] for field in (1, 2))
    order = np.lexsort((first, unit))
    unit, first, last, file = unit[order], first[order], last[order], file[order]
    overlap = (unit[1:] == unit[:-1]) & (first[1:] < last[:-1])
    if overlap.any():
        at = int(np.argmax(overlap))
        one, two = chunks[file[at]].path, chunks[file[at + 1]].path
        found = f"unit {unit[at]}, bin {first[at + 1]}, which is in {one.name} too"
        raise InputError(two, "table", found, "every bin of a unit in one file")
    return np.stack([unit, first, last], axis=1)
