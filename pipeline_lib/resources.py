"""What a job will need, from the size of its recordings: asked of a cluster before the job starts.

Every figure is multiplied by the attempt: a job that was killed for memory or time comes back with more.
"""

import errno
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_lib.clock import TICKS_PER_SECOND

BASE_MEGABYTES = 2000
"""An interpreter with torch, and room."""
SPIKE_BYTES = 20
"""Of a spike while its session is converted or held open; measured in benchmarks/trains.py."""
BIN_BYTES = {"fit": 8, "evaluate": 16}
"""Of a bin of a unit: counts, masks and one copy of both; rates, counts and masks of the parts that are scored."""
BYTES_TO_RECORD = 4
"""Of a byte that a session is read from. Measured from 4 to 16 million spikes: 2.5 (IBL), 3.5 (NWB of Allen); with 20
million, CSV: 1.5."""
ROW_BYTES = 40
"""Of a spike in a Parquet file, which may take 2 bytes there or 20. Measured with 20 million: 30, to sort text 40."""
BASE_MINUTES = 30
MINUTES_PER_GIGABIN = {"fit": 240, "evaluate": 60}


def bins(manifests: Sequence[Path | str], bin_size: float) -> float:
    """Bins of all units of these sessions.

    Parameters
    ----------
    manifests : manifest.json of their spike-train stores, or the stores' folders.
    bin_size : ms.

    Raises
    ------
    FileNotFoundError : not converted yet; Snakemake then asks again when they are.
    """
    total = 0.0
    for manifest in map(_manifest, manifests):
        total += manifest["units"] * manifest["duration_ticks"] / TICKS_PER_SECOND * 1000 / bin_size
    return total


def _manifest(path: Path | str) -> dict[str, Any]:
    """Of a store, given as itself or as its folder; read once, though all the fits of a cohort ask."""
    file = Path(path)
    if file.suffix != ".json":
        file /= "manifest.json"
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        # Snakemake waits for a file that is missing if it is one of the job's inputs, spelt as it spells it.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


@cache
def _read(file: Path, changed: int) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def megabytes(kind: str, manifests: Sequence[Path | str], bin_size: float, attempt: int = 1) -> int:
    """Memory of a "fit" or an "evaluate" job of these sessions."""
    spikes = sum(_manifest(path)["spikes"] for path in manifests)
    needed = BIN_BYTES[kind] * bins(manifests, bin_size) + SPIKE_BYTES * spikes
    return int((BASE_MEGABYTES + needed / 1e6) * attempt)


def size(location: Path | str) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is neither."""
    files = [Path(location), *Path(location).rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def rows(files: Iterable[Path | str]) -> int:
    """Rows of those of the files that are Parquet; of a broken one none, which the job names."""
    total = 0
    for file in map(Path, files):
        if file.suffix.lower() in (".parquet", ".pqt"):
            from pyarrow.parquet import read_metadata

            with suppress(OSError, ValueError):
                total += read_metadata(file).num_rows
    return total


def megabytes_to_record(read: int, rows: int = 0, attempt: int = 1) -> int:
    """Memory of a "record" job that reads so many bytes, with so many rows of Parquet among them."""
    return int((BASE_MEGABYTES + (BYTES_TO_RECORD * read + ROW_BYTES * rows) / 1e6) * attempt)


def minutes(kind: str, manifests: Sequence[Path | str], bin_size: float, attempt: int = 1) -> int:
    """Run time to ask for; a fit that needs longer is checkpointed at its end and goes on in the next attempt."""
    return int((BASE_MINUTES + MINUTES_PER_GIGABIN[kind] * bins(manifests, bin_size) / 1e9) * attempt)
