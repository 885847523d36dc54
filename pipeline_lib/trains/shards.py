"""One-dimensional Zarr v3 arrays in shards, written and read as a stream of chunks.

The bytes are those of Zarr's own `sharding_indexed` codec with the inner codecs bytes, blosc (zstd, byte shuffle) and
crc32c, so that every Zarr v3 reader opens the arrays. They are made here because zarr-python spends three times as
long on its own bookkeeping as on compressing, and because a reader that walks the files itself can name the one that
is damaged, where Zarr reads a missing file as zeros.
"""

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc

from pipeline_lib.errors import InputError

CHUNK = 2**17
"""Values in a chunk, the unit of compression. Shuffled, its bytes of one significance fill a block of zstd (128 KiB)
and so get an entropy code of their own: smaller at the fastest level than half the length at a slow one."""
SHARD = 2**21
"""Values in a shard, one file."""
_CHUNKS = SHARD // CHUNK
_LEVEL = 1
_ABSENT = 2**64 - 1
_CHECKSUM = 4


class ShardWriter:
    """Write the shards of the array at `directory` as its chunks arrive; memory stays at one compressed shard."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._chunks: list[bytes] = []
        self._shards = 0
        (directory / "c").mkdir(parents=True)

    def append(self, values: np.ndarray) -> None:
        """Add one chunk of CHUNK values; only the last chunk of the array may be shorter."""
        codec = Blosc(cname="zstd", clevel=_LEVEL, shuffle=Blosc.SHUFFLE, blocksize=CHUNK * values.itemsize)
        padding = CHUNK - len(values)
        if padding:
            values = np.concatenate([values, np.zeros(padding, values.dtype)])
        self._chunks.append(_with_checksum(codec.encode(values)))
        if len(self._chunks) == _CHUNKS:
            self._flush()

    def _flush(self) -> None:
        """Write the chunks at hand as one file: their bytes, then the offset and length of each, then a checksum."""
        index = np.full((_CHUNKS, 2), _ABSENT, dtype="<u8")
        lengths = np.array([len(chunk) for chunk in self._chunks], dtype="<u8")
        index[: len(lengths), 1] = lengths
        index[: len(lengths), 0] = np.cumsum(lengths) - lengths
        shard = b"".join([*self._chunks, _with_checksum(index.tobytes())])
        (self.directory / "c" / str(self._shards)).write_bytes(shard)
        self._chunks, self._shards = [], self._shards + 1

    def close(self, group: Any, dtype: str, length: int) -> None:
        """Write the last shard and the metadata of the array; `group` is the Zarr group it belongs to."""
        from zarr.codecs import BloscCodec, Crc32cCodec

        if self._chunks:
            self._flush()
        size = np.dtype(dtype).itemsize
        blosc = BloscCodec(cname="zstd", clevel=_LEVEL, shuffle="shuffle", typesize=size, blocksize=CHUNK * size)
        group.create_array(
            self.directory.name,
            shape=(length,),
            dtype=dtype,
            chunks=(CHUNK,),
            shards=(SHARD,),
            compressors=(blosc, Crc32cCodec()),
            dimension_names=("event",),
        )


def read_shards(directory: Path, dtype: Any, length: int) -> np.ndarray:
    """The whole array that a ShardWriter wrote at `directory`.

    Raises
    ------
    InputError : a shard is missing, truncated or damaged; the error names the file.
    """
    values = np.empty(length, dtype)
    for number, begin in enumerate(range(0, length, SHARD)):
        _read_shard(directory / "c" / str(number), values[begin : begin + SHARD])
    return values


def _read_shard(path: Path, values: np.ndarray) -> None:
    """Decode one shard into `values`."""
    codec = Blosc()
    try:
        shard = memoryview(path.read_bytes())
        index = np.frombuffer(_checked(shard[-(16 * _CHUNKS + _CHECKSUM) :]), dtype="<u8").reshape(_CHUNKS, 2)
        for (offset, size), begin in zip(index.tolist(), range(0, len(values), CHUNK), strict=False):
            chunk, part = _checked(shard[offset : offset + size]), values[begin : begin + CHUNK]
            if len(part) == CHUNK:
                codec.decode(chunk, out=part)
            else:
                part[:] = np.frombuffer(codec.decode(chunk), dtype=values.dtype)[: len(part)]
    except (OSError, ValueError, RuntimeError) as error:
        accepted = "the shard as it was written (convert the session again)"
        raise InputError(path, "shard", str(error), accepted) from error


def _with_checksum(content: bytes) -> bytes:
    return content + google_crc32c.value(content).to_bytes(_CHECKSUM, "little")


def _checked(content: memoryview) -> memoryview:
    """`content` without its trailing checksum; ValueError where the two do not agree."""
    body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if len(checksum) < _CHECKSUM or google_crc32c.value(bytes(body)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum does not agree with the bytes")
    return body
