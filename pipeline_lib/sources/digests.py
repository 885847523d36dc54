"""Is a file the one that was published? Checksums, S3 ETags, and whether a file of its kind opens at all."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline_lib.errors import InputError

NUMPY = b"\x93NUMPY"
MEBIBYTE = 1 << 20
PART_SIZES = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 1000, 1024)
"""Part sizes (MiB) that S3 clients upload with."""


def digests(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Checksums of a file by algorithm, in hexadecimal, in one pass."""
    hashes = {name: hashlib.new(name) for name in algorithms}
    buffer = memoryview(bytearray(MEBIBYTE))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            for each in hashes.values():
                each.update(buffer[:count])
    return {name: each.hexdigest() for name, each in hashes.items()}


def differing(found: Mapping[str, str], published: Mapping[str, str]) -> str:
    """The first algorithm by which a file is not the published one, "" where there is none."""
    return next((name for name, value in published.items() if found[name] != value.lower()), "")


def matches_etag(path: Path, etag: str) -> bool | None:
    """Whether an S3 ETag confirms the file: its MD5, or that of its parts' MD5s for some usual size of the parts.

    None where the ETag is of another form. False is a doubt, not a proof: the parts may be of an unusual size, or the
    server not S3.
    """
    value, _, count = etag.strip('"').partition("-")
    if len(value) != 32 or not set(value) <= set("0123456789abcdef") or not (count.isdecimal() or not count):
        return None
    if not count:
        return digests(path, ["md5"])["md5"] == value
    size = path.stat().st_size
    fitting = [mebibytes * MEBIBYTE for mebibytes in PART_SIZES if -(-size // (mebibytes * MEBIBYTE)) == int(count)]
    return any(_etag(path, part) == value for part in fitting)


def _etag(path: Path, part: int) -> str:
    parts = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(part):
            parts.update(hashlib.md5(chunk, usedforsecurity=False).digest())
    return parts.hexdigest()


def check_opens(path: Path, suffix: str) -> None:
    """Raise ValueError where a file cannot be what its ending says: an error page, or a file cut short."""
    try:
        with path.open("rb") as handle:
            numpy = handle.read(len(NUMPY)) == NUMPY
        if suffix == ".npy" or (suffix == ".h5" and numpy):  # AllenSDK keeps NumPy arrays under the ending .h5
            _check_npy(path)
        elif suffix == ".json":
            json.loads(path.read_bytes())
        elif suffix in (".nwb", ".h5", ".hdf5"):
            import h5py

            # HDF5 would take a lock of its own, and this file is held by its download.
            with h5py.File(path, "r", locking=False) as file:
                file.keys()
        elif suffix in (".pqt", ".parquet"):
            import pyarrow.parquet as parquet

            with parquet.ParquetFile(path) as table:
                table.metadata.num_rows  # noqa: B018  reading the footer is the check
    except (OSError, ValueError, InputError) as error:
        raise ValueError(f"it does not open as {suffix} ({' '.join(str(error).split())[:120]})") from None


def _check_npy(path: Path) -> None:
    import numpy as np

    values = np.lib.format.open_memmap(path, mode="r")
    expected = values.offset + values.nbytes
    if path.stat().st_size != expected:
        raise ValueError(f"{path.stat().st_size} bytes where its header says {expected}")
