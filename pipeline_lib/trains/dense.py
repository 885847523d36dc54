"""Dense counts beside the events, for streaming fits, figures and other tools."""

from typing import Any

import numpy as np

from pipeline_lib.clock import bin_ticks, to_seconds
from pipeline_lib.trains.binning import count_events, count_type
from pipeline_lib.trains.events import events_between

_CHUNK_CELLS = 2**20
_SHARD_CHUNKS = 32


def write_counts(root: Any, bin_size: float, units: int, duration_ticks: int) -> None:
    """Add the counts of the whole session in bins of `bin_size` ms to the group `counts` of the store `root`.

    ``{bin}ms`` (time, unit) is uint8, or wider where a bin holds more than 255 spikes of a unit; ``time_{bin}ms`` is
    the start of each bin in s. The last bin may reach beyond the session. Events are read back from the store a slab
    of time at a time, so memory does not grow with the session.
    """
    width = bin_ticks(bin_size)
    bins = -(-duration_ticks // width)
    rows = max(1, min(bins, _CHUNK_CELLS // units))
    dtype = np.dtype(np.uint8)
    while (wider := _write_array(root, f"{bin_size:g}ms", width, (bins, units), rows, dtype)) != dtype:
        dtype = wider
    counts = root["counts"]
    time, name = to_seconds(np.arange(bins) * width), f"time_{bin_size:g}ms"
    counts.create_array(name, data=time, dimension_names=(name,), attributes={"units": "s"})
    if "unit" not in counts:
        counts.create_array("unit", data=np.arange(units, dtype=np.int32), dimension_names=("unit",))


def _write_array(root: Any, name: str, width: int, shape: tuple[int, int], rows: int, dtype: np.dtype) -> np.dtype:
    """Write the counts as `dtype`; stop and return a wider type at the first slab that needs it, else `dtype`."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    shards = min(_SHARD_CHUNKS, -(-shape[0] // rows))
    blosc = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=dtype.itemsize)
    array = root.require_group("counts").create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(rows, shape[1]),
        shards=(rows * shards, shape[1]),
        compressors=(blosc, Crc32cCodec()),
        dimension_names=(f"time_{name}", "unit"),
        overwrite=True,
    )
    for first in range(0, shape[0], rows * shards):
        bins = min(rows * shards, shape[0] - first)
        ticks, unit = events_between(root["events"], first * width, (first + bins) * width)
        needed = np.promote_types(count_type(ticks, unit, width), dtype)
        if needed != dtype:
            return needed
        counts = np.empty((1, bins, shape[1]), dtype)
        count_events(counts, ticks, unit, np.array([first * width]), width)
        array[first : first + bins] = counts[0]
    return dtype
