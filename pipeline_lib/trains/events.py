"""Spikes as one time-sorted stream of integer events, in memory and on disk.

A spike is packed into one unsigned 64-bit key, ``tick << 16 | unit``: sorting the keys sorts by time and, within a
tick, by unit, so that the same spikes give the same bytes in whatever order they came.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.clock import TICKS_PER_SECOND, to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.trains.shards import CHUNK, ShardWriter, read_shards

MAX_UNITS = 65_534
"""Units a session may have: a unit is a uint16 on disk."""
_UNIT_BITS = np.uint64(16)
_SLAB = 2**16


def keys_of_units(spike_times: Sequence[np.ndarray], duration: float) -> Iterator[np.ndarray]:
    """Sorted blocks of keys, from the spike times (s, any order) of each unit.

    Units are sorted by themselves in nearly all data, so the session is cut into slabs of time of about 65,000 spikes,
    and a slab at a time is packed and merged while it is in the processor's cache.

    Raises
    ------
    InputError : a time is not finite, negative or after `duration`.
    """
    trains = [_sorted_times(times, unit, duration) for unit, times in enumerate(spike_times)]
    edges = np.linspace(0, duration, sum(map(len, trains)) // _SLAB + 2)[1:]
    cuts = np.array([np.searchsorted(times, edges[:-1]) for times in trains], dtype=np.int64).reshape(len(trains), -1)
    stops = np.column_stack([cuts, [len(times) for times in trains]])
    return _slabs(trains, np.diff(stops, axis=1, prepend=0), pack(to_ticks(edges), 0))


def _sorted_times(times: np.ndarray, unit: int, duration: float) -> np.ndarray:
    times = np.asarray(times, dtype=np.float64)
    if not (times[1:] >= times[:-1]).all():  # also where there is a NaN, which sorting puts last
        times = np.sort(times)
    if len(times) and not (times[0] >= 0 and times[-1] <= duration):
        found = times[0] if times[0] < 0 else times[-1]
        raise InputError(f"spike times of unit {unit}", "time", f"{found} s", f"finite times from 0 to {duration} s")
    return times


def _slabs(trains: list[np.ndarray], counts: np.ndarray, edges: np.ndarray) -> Iterator[np.ndarray]:
    """Pack and merge slab after slab: `counts` (unit, slab) of sorted `trains`; `edges`, the key each slab ends at."""
    units, begins = np.arange(len(trains), dtype=np.uint64), np.zeros(len(trains), np.int64)
    held = np.empty(0, np.uint64)
    for count, edge in zip(counts.T, edges, strict=True):
        stops = begins + count
        parts = [times[begin:stop] for times, begin, stop in zip(trains, begins.tolist(), stops.tolist(), strict=True)]
        keys = pack(to_ticks(np.concatenate(parts)), np.repeat(units, count))
        keys = sort_keys(np.concatenate([held, keys]) if len(held) else keys)
        # Times on both sides of an edge may round to its tick: those wait for the next slab.
        complete = np.searchsorted(keys, edge)
        yield keys[:complete]
        held, begins = keys[complete:], stops
    yield held


def sort_keys(keys: np.ndarray) -> np.ndarray:
    """`keys` in ascending order.

    A radix sort on the leading 16 bits of their range (numpy's stable sort of 16-bit integers) brings them nearly in
    order; merging what is left is then quick. Together a quarter of the time of numpy's sort of 64-bit integers where
    that is not vectorised.
    """
    if not len(keys):
        return keys
    lowest = keys.min()
    shift = max(int(keys.max() - lowest).bit_length() - 16, 0)
    leading = ((keys - lowest) >> np.uint64(shift)).astype(np.uint16)
    keys = keys.take(np.argsort(leading, kind="stable"), mode="clip")  # the mode that checks no bounds
    keys.sort(kind="stable")
    return keys


def keys_of_parquet(path: Path, units: int, duration: float, batch_rows: int) -> Iterator[np.ndarray]:
    """Sorted blocks of keys from a recording's spikes.parquet, of which `batch_rows` rows are held at a time.

    Raises
    ------
    InputError : a time is not finite, negative, out of order or after `duration`; a unit is not a row of `units`; the
        file is missing or damaged.
    """
    held = np.empty(0, np.uint64)
    row, latest = 0, 0.0
    for times, unit in _batches(path, batch_rows):
        where = f"{path}, rows from {row}"
        _require_times(times, latest, duration, where)
        if (np.diff(times) < 0).any():
            raise InputError(where, "time", "times out of order", "sorted times")
        if len(unit) and (unit.min() < 0 or unit.max() >= units):
            raise InputError(where, "unit", f"{unit.min()} to {unit.max()}", f"rows of units, 0 to {units - 1}")
        if not len(times):
            continue
        ticks = to_ticks(times)
        keys = np.concatenate([held, pack(ticks, unit)])
        keys.sort(kind="stable")
        # The last tick may go on in the next batch, with a lower unit.
        complete = np.searchsorted(keys, pack(ticks[-1:], 0)[0])
        held = keys[complete:]
        if complete:
            yield keys[:complete]
        row, latest = row + len(times), float(times[-1])
    if len(held):
        yield held


def _batches(path: Path, rows: int) -> Iterator[list[np.ndarray]]:
    """Times and units of a recording's spikes, `rows` of them at a time."""
    import pyarrow.parquet as parquet

    columns = {"time": "float64", "unit": "int32"}
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                yield [batch[name].cast(kind).to_numpy(zero_copy_only=False) for name, kind in columns.items()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(path, "table", str(error).splitlines()[0], "a readable table of time and unit") from error


def pack(ticks: np.ndarray, unit: np.ndarray | int) -> np.ndarray:
    """Keys (uint64) of the spikes of `unit` at `ticks`."""
    keys = ticks.astype(np.uint64)
    keys <<= _UNIT_BITS
    keys |= np.asarray(unit).astype(np.uint64, copy=False)
    return keys


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ticks (int64) and units (uint16) of keys."""
    return (keys >> _UNIT_BITS).view(np.int64), keys.astype(np.uint16)  # the cast keeps the low 16 bits


def tick_type(duration_ticks: int) -> np.dtype:
    """The type of resident ticks: int32, int64 in sessions over 5.9 hours; signed, so that differences may be < 0."""
    return np.dtype(np.int32 if duration_ticks < 2**31 else np.int64)


def _require_times(times: np.ndarray, earliest: float, latest: float, where: str) -> None:
    if len(times) and not (times.min() >= earliest and times.max() <= latest):  # also False for NaN
        bad = int(np.argmin((times >= earliest) & (times <= latest)))
        accepted = f"times from {earliest} to {latest} s, in order"
        raise InputError(where, f"time, row {bad} of these", f"{times[bad]} s", accepted)


def write_events(group: Any, path: Path, blocks: Iterable[np.ndarray], duration_ticks: int) -> tuple[int, int]:
    """Write sorted blocks of keys as the arrays of the Zarr group `events` at `path`.

    ``delta`` (event) ticks since the event before, since 0 for the first; uint32 (uint64 in sessions over 11.9 hours).
    ``unit`` (event) uint16. ``anchor`` (chunk) int64, tick of the first event of each chunk. ``index``
    (second) int64, number of the first event at or after each second; its last entry is the number of events.

    Returns
    -------
    spikes : events written.
    duration_ticks : the argument, or the tick after the last event where that is later.
    """
    dtype = "uint32" if duration_ticks < 2**32 - 1 else "uint64"
    delta, unit = ShardWriter(path / "delta"), ShardWriter(path / "unit")
    anchors: list[int] = []
    index: list[np.ndarray] = []
    spikes, second, last = 0, 0, 0
    for keys in _rechunk(blocks):
        ticks, units = unpack(keys)
        delta.append(np.diff(ticks, prepend=last).astype(dtype))
        unit.append(units)
        anchors.append(int(ticks[0]))
        last = int(ticks[-1])
        seconds = np.arange(second, last // TICKS_PER_SECOND + 1)
        index.append(spikes + np.searchsorted(ticks, seconds * TICKS_PER_SECOND))
        spikes, second = spikes + len(keys), second + len(seconds)
    duration_ticks = max(duration_ticks, last + 1)
    rest = -(-duration_ticks // TICKS_PER_SECOND) + 1 - second
    index.append(np.full(rest, spikes))
    delta.close(group, dtype, spikes)
    unit.close(group, "uint16", spikes)
    group.create_array("anchor", data=np.array(anchors, np.int64), dimension_names=("chunk",))
    group.create_array("index", data=np.concatenate(index).astype(np.int64), dimension_names=("second",))
    return spikes, duration_ticks


def _rechunk(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same keys in blocks of CHUNK, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= CHUNK:
            keys = np.concatenate(held)
            whole = count - count % CHUNK
            yield from keys[:whole].reshape(-1, CHUNK)
            held, count = [keys[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def read_events(group: Any, path: Path, duration_ticks: int) -> tuple[np.ndarray, np.ndarray]:
    """All events: sorted ticks (`tick_type`) and units (uint16)."""
    delta = group["delta"]
    ticks = read_shards(path / "delta", delta.dtype, delta.shape[0])
    dtype = tick_type(duration_ticks)
    ticks = ticks.view(dtype) if dtype.itemsize == ticks.itemsize else ticks.astype(dtype)
    np.add.accumulate(ticks, dtype=ticks.dtype, out=ticks)
    return ticks, read_shards(path / "unit", np.uint16, len(ticks))


def events_between(group: Any, start_tick: int, stop_tick: int) -> tuple[np.ndarray, np.ndarray]:
    """Ticks (int64) and units (uint16) of the events in [start_tick, stop_tick); reads their chunks only."""
    index = group["index"]
    second = min(start_tick // TICKS_PER_SECOND, index.shape[0] - 1)
    first, stop = int(index[second]), int(index[min(-(-stop_tick // TICKS_PER_SECOND), index.shape[0] - 1)])
    begin = first - first % CHUNK
    if first == stop:
        return np.empty(0, np.int64), np.empty(0, np.uint16)
    ticks = group["delta"][begin:stop].astype(np.int64)
    ticks[0] = group["anchor"][begin // CHUNK]
    ticks = np.cumsum(ticks)[first - begin :]
    inside = slice(*np.searchsorted(ticks, [start_tick, stop_tick]))
    return ticks[inside], group["unit"][first:stop][inside]
