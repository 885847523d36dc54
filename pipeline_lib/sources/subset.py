"""The part of a remote NWB file that a session needs: chosen units and the small tables, fetched by ranges.

Spike times of the chosen units are read from where they lie in the file: exactly their bytes where the column is stored
in one piece, else the chunks that hold them. What arrives is written as a small NWB file with only these units, which
the reader of the source reads like the whole.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import atomic_file, sha256_file
from pipeline_lib.sources import allen, allen_signals, nwb
from pipeline_lib.sources.download import Downloader, Fetched, RemoteFile
from pipeline_lib.sources.fetched import fetched_before
from pipeline_lib.sources.hdf import HdfFile
from pipeline_lib.sources.location import reading
from pipeline_lib.sources.options import parse_options
from pipeline_lib.sources.ranges import RangeFile
from pipeline_lib.sources.remote import selecting
from pipeline_lib.sources.selection import passes, require_some
from pipeline_lib.sources.transport import remembered, without_secrets

RAGGED = ("spike_times", "obs_intervals", "electrodes")
"""Columns of several values a unit that readers use; spike amplitudes and waveforms stay where they are."""
COPIED = ("identifier", "session_description", "session_start_time", "general", "intervals")
LARGEST = 64 << 20
"""Bytes of a dataset beyond which it is not one of the small tables, and is left out."""


class RemoteHdf(HdfFile):
    """An HDF5 file on a server."""

    def __init__(self, handle: RangeFile) -> None:
        import h5py

        self.path = Path(without_secrets(handle.url))
        self.handle = handle
        with reading(self.path, "file"):
            self._file = h5py.File(handle, "r")


def fetch_selected(
    file: RemoteFile, source: str, options: dict[str, Any], downloader: Downloader
) -> tuple[Fetched, dict[str, Any]]:
    """Write the part of `file` that `options` select to its path; and how much of the whole it is.

    Rate and number of units (`min_rate`, `max_units`) choose among what is fetched, when it is read.

    Raises
    ------
    DownloadError : the server cannot answer ranges, or fails as in a download.
    InputError : the file is no NWB file with units, or no unit is selected; what cannot be read is fetched afresh
        first, for no checksum covers ranges.
    """
    chosen = selecting(options)
    if here := _here(file, chosen):
        return here
    left = downloader.network.downloads
    while True:
        try:
            return _fetch(file, source, options, downloader, chosen)
        except InputError as error:
            left -= 1
            unreadable = error.__cause__ is not None
            if not (left and unreadable):
                raise
            print(f"{file.path}: {error.found}; fetching it afresh", file=sys.stderr, flush=True)


def _fetch(
    file: RemoteFile, source: str, options: dict[str, Any], downloader: Downloader, chosen: dict[str, Any]
) -> tuple[Fetched, dict[str, Any]]:
    with RangeFile(file.url, downloader.network, file.headers) as handle:
        remote = RemoteHdf(handle)
        with remote:
            rows, count = selected_rows(remote, source, options)
            with atomic_file(file.path) as part, reading(remote.path, "units"):
                write_part(remote, part, rows, source, options)
        details = {
            "selection": chosen,
            "units": {"in the whole file": count, "here": len(rows)},
            "bytes": {"of the whole file": handle.size, "moved": handle.moved},
            "version": handle.tag,
        }
        moved = handle.moved
    size, sha256 = file.path.stat().st_size, sha256_file(file.path)
    return Fetched(file, size, sha256, f"ranges of version {details['version'] or 'unknown'}", moved), details


def _here(file: RemoteFile, chosen: dict[str, Any]) -> tuple[Fetched, dict[str, Any]] | None:
    """The same part, if it was fetched before and is as it was."""
    before = fetched_before(file.path.parent)
    entry, details = before.get("files", {}).get(file.path.name), before.get("details", {})
    same = entry is not None and entry["url"] == remembered(file.url) and details.get("selection") == chosen
    if not (same and file.path.is_file()) or sha256_file(file.path) != entry["sha256"]:
        return None
    return Fetched(file, entry["size"], entry["sha256"], entry["checked"], moved=0), details


def selected_rows(file: HdfFile, source: str, options: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Rows of the units that `options` of `source` select, before rates are looked at; and how many there are.

    InputError where none passes.
    """
    count = len(file.require("units/id"))
    if source == "allen":
        settings: Any = parse_options(source, allen.Options, options)
        units, kept = allen.read_units(file, count, settings)
    else:
        settings = parse_options(source, nwb.Options, options)
        units = nwb.read_units(file, count, settings)
        kept = np.ones(count, dtype=bool)
    kept &= passes(units, settings, file.path)
    require_some(kept, units, file.path)
    return np.flatnonzero(kept), count


def write_part(file: RemoteHdf, path: Path, rows: np.ndarray, source: str, options: dict[str, Any]) -> None:
    """Write the small tables of `file` and its units `rows` to the new NWB file `path`."""
    import h5py

    signals = list(options.get("signals", {}).values()) if source == "nwb" else list(allen_signals.GROUPS)
    with h5py.File(path, "w", libver=("earliest", "v110")) as target:
        _copy_attributes(file.require(""), target)
        for name in (*COPIED, *signals):
            if file.find(name) is not None:
                _copy(file, name, target)
        _copy_units(file, target, rows)


def _copy(file: RemoteHdf, name: str, target: Any) -> None:
    """Copy the group or dataset `name`, but for links, references and what is large."""
    import h5py

    node = file.require(name)
    if isinstance(node, h5py.Dataset):
        references = node.dtype.kind == "O" and h5py.check_string_dtype(node.dtype) is None
        if not references and node.id.get_storage_size() <= LARGEST:
            file.handle.prefetch(_spans(node, 0, len(node) if node.shape else 0))
            _write(target, name, node, node[()])
        return
    _copy_attributes(node, target.require_group(name))
    for member in node:
        if isinstance(node.get(member, getlink=True), h5py.HardLink):
            _copy(file, f"{name}/{member}", target)


def _copy_units(file: RemoteHdf, target: Any, rows: np.ndarray) -> None:
    """The units table with only `rows`: its plain columns, and those of several values that readers use."""
    import h5py

    units = file.require("units")
    group = target.create_group("units")
    _copy_attributes(units, group)
    kept = []
    for name in units:
        column = units[name]
        references = column.dtype.kind == "O" and h5py.check_string_dtype(column.dtype) is None
        if name.endswith("_index") or column.ndim == 0 or references:
            continue
        if f"{name}_index" in units:
            if name not in RAGGED:
                continue
            ends = file.ends(f"units/{name}_index", len(column))
            starts = np.concatenate([[0], ends[:-1]])
            lengths = (ends - starts)[rows]
            spans = [span for row in rows for span in _spans(column, int(starts[row]), int(ends[row]))]
            file.handle.prefetch(spans)
            values = [column[starts[row] : ends[row]] for row in rows]
            _write(target, f"units/{name}", column, np.concatenate(values))
            index = np.cumsum(lengths).astype(np.uint64)
            _write(target, f"units/{name}_index", units[f"{name}_index"], index)
        elif column.ndim == 1:
            file.handle.prefetch(_spans(column, 0, len(column)))
            _write(target, f"units/{name}", column, column[()][rows])
        else:
            continue
        kept.append(name)
    names = [name for name in np.asarray(units.attrs.get("colnames", []), dtype=object) if name in kept]
    group.attrs["colnames"] = np.array(names, dtype=h5py.string_dtype())


def _spans(dataset: Any, start: int, stop: int) -> list[tuple[int, int]]:
    """Where rows `start` to `stop` (excluded) of a dataset lie in the file; nothing where they are not in one place."""
    if stop <= start:
        return []
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            return []
        size = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        return [(offset + start * size, offset + stop * size)]
    if dataset.ndim > 1:
        return []
    length = dataset.chunks[0]
    chunks = [dataset.id.get_chunk_info_by_coord((at,)) for at in range(start // length * length, stop, length)]
    return [(chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in chunks if chunk.byte_offset is not None]


def _write(target: Any, name: str, like: Any, values: Any) -> None:
    """Write `values` under `name`, with the type and attributes of the dataset `like`."""
    dataset = target.create_dataset(name, data=values, dtype=like.dtype if like.dtype.kind == "O" else None)
    _copy_attributes(like, dataset)


def _copy_attributes(node: Any, target: Any) -> None:
    import h5py

    for name, value in node.attrs.items():
        values = np.atleast_1d(np.asarray(value, dtype=object))
        if not any(isinstance(each, h5py.Reference) for each in values):
            target.attrs[name] = value
