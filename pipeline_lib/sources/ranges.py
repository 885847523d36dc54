"""A remote file that is read in places: h5py opens it as if it were here, and only what is read is fetched."""

import io
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline_lib.sources.transport import Changed, DownloadError, Network, patiently, request

BLOCK = 1 << 15
"""Bytes of the grid that the file is kept in."""
AHEAD = 8
"""Blocks fetched at once where nothing was said before: the small structures of an HDF5 file lie close together."""
GAP = 2
"""Blocks between two wanted ones that are fetched along rather than asked for apart."""
LONGEST = 512
"""Blocks of one request, so that several connections share a long one."""


class RangeFile(io.RawIOBase):
    """The file at `url`, seekable; all of its bytes are of one version, or reading ends in an error.

    `moved` counts the bytes that came over the network and `asked` the requests.

    Raises
    ------
    DownloadError : the server cannot answer ranges, does not say how large the file is, or fails as in a download.
    """

    def __init__(self, url: str, network: Network, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.url, self.network, self.headers = url, network, dict(headers or {})
        self.tag, self.size, self.moved, self.asked = "", 0, 0, 0
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self._lock = threading.Lock()
        self._fetch(0, 1)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Fill `buffer` from here; the bytes read, fewer only at the end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self._position))
        first, last = self._position // BLOCK, -(-(self._position + count) // BLOCK)
        missing = [block for block in range(first, last) if block not in self._blocks]
        if missing:
            self._fetch(missing[0], max(missing[-1] + 1, missing[0] + AHEAD))
        done = 0
        while done < count:
            block, inside = divmod(self._position + done, BLOCK)
            piece = self._blocks[block][inside : inside + count - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += count
        return count

    def prefetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetch the bytes of `spans` (start, stop), those close together in one request, several at a time."""
        wanted = sorted({block for start, stop in spans for block in range(start // BLOCK, -(-stop // BLOCK))})
        runs: list[list[int]] = []
        for block in (block for block in wanted if block not in self._blocks):
            if runs and block - runs[-1][1] <= GAP and block - runs[-1][0] < LONGEST:
                runs[-1][1] = block + 1
            else:
                runs.append([block, block + 1])
        with ThreadPoolExecutor(self.network.parallel) as pool:
            list(pool.map(lambda run: self._fetch(*run), runs))

    def _fetch(self, first: int, last: int) -> None:
        """Fetch the blocks from `first` to `last` (excluded), with the patience of a download."""
        try:
            body = patiently(self.url, self.network, lambda: self._once(first * BLOCK, last * BLOCK))
        except Changed:
            accepted = "a server that answers ranges of one version; fetch the whole file instead"
            raise DownloadError(self.url, "a range of another version, or none", accepted) from None
        for block in range(first, last):
            inside = (block - first) * BLOCK
            self._blocks[block] = body[inside : inside + BLOCK]

    def _once(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size) if self.size else stop
        with request(self.url, self.network, start, stop, self.tag, self.headers) as answer:
            other = self.tag and answer.tag != self.tag
            if answer.headers.get("Content-Range") is None or answer.size is None or other:
                raise Changed
            body = answer.body()
        with self._lock:
            self.tag, self.size = answer.tag, answer.size
            self.moved += len(body)
            self.asked += 1
        return body
