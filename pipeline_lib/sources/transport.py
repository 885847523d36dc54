"""One request for the bytes of a remote file from some offset on, over HTTP(S) or from a public S3 bucket.

Every way in which a server fails is sorted into two: `Transient`, worth another try, and `DownloadError`, which is not.
No wait is without an end: connecting, the first byte, and every later byte have their time-outs.
"""

import email.utils
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from pipeline_lib import __version__
from pipeline_lib.errors import InputError

T = TypeVar("T")

CHUNK = 1 << 20
RETRIED = {408, 425, 429, 500, 502, 503, 504, 509}
LEAST_RATE = 1024
"""Bytes a second below which a transfer counts as stalled."""


@dataclass(frozen=True)
class Network:
    """How patient a download is. Times in seconds."""

    connect: float = 15.0
    """Longest time to connect."""
    stall: float = 60.0
    """Longest time without new bytes; a transfer below 1 kB/s over this time is given up and resumed, too."""
    attempts: int = 6
    """Failures in a row before a file is given up; a transfer that moved a mebibyte starts the count again."""
    downloads: int = 3
    """Fresh downloads of a file whose checksum does not match, before it is given up."""
    backoff: float = 1.0
    """Longest wait before the second try; it doubles with every further one, up to `longest_wait`."""
    longest_wait: float = 60.0
    parallel: int = 4
    """Files fetched at a time by one process."""

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise InputError("downloads", "parallel", self.parallel, "at least 1 file at a time")


class DownloadError(InputError):
    """A file cannot be had: one line with the address, what the server said and what to do."""

    def __init__(self, url: str, found: object, accepted: str) -> None:
        super().__init__(without_secrets(url), "download", found, accepted)

    def __reduce__(self) -> tuple:
        return type(self), (self.where, self.found, self.accepted)


class Transient(Exception):
    """A failure that another try may not meet; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Changed(Exception):
    """The remote file is no longer the one whose first bytes are here already."""


@dataclass
class Answer:
    """A server's answer: the file's bytes from `start` on.

    `size` is that of the whole file and `end` where this body ends (None where the server does not say); `tag` names
    this version of the file (a strong ETag, or a date), "" where there is none.
    """

    url: str
    start: int
    end: int | None
    size: int | None
    tag: str
    headers: Mapping[str, str]
    _response: Any = field(repr=False)
    _stall: float

    def chunks(self) -> Iterator[bytes]:
        """The body, as it comes. Raises Transient where it is cut, stalls, or trickles below `LEAST_RATE`."""
        import requests
        import urllib3

        raw, began, moved = self._response.raw, time.monotonic(), 0
        received = 0
        try:
            # read1 returns what has arrived; read would wait for a whole chunk, its time-out starting anew every byte.
            while chunk := raw.read1(CHUNK):
                received, moved = received + len(chunk), moved + len(chunk)
                yield chunk
                if (elapsed := time.monotonic() - began) > self._stall:
                    if moved < LEAST_RATE * elapsed:
                        raise Transient(f"only {moved} bytes in {elapsed:.0f} s")
                    began, moved = time.monotonic(), 0
        except urllib3.exceptions.ReadTimeoutError:
            raise Transient(f"no byte for {self._stall:g} s, after {self.start + received}") from None
        except (urllib3.exceptions.HTTPError, requests.RequestException, ConnectionError, TimeoutError) as error:
            raise Transient(f"cut after {self.start + received} bytes ({type(error).__name__})") from None
        if self.end is not None and self.start + received != self.end:
            raise Transient(f"cut after {self.start + received} of {self.end} bytes")

    def body(self) -> bytes:
        """The whole body at once."""
        return b"".join(self.chunks())

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *raised: object) -> None:
        self._response.close()


def request(
    url: str,
    network: Network,
    start: int = 0,
    stop: int | None = None,
    tag: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask for `url` from byte `start` on, up to `stop` (excluded) where given, if the file is still the one of `tag`.

    A server that ignores the range, or whose file is another one by now, answers with `start` 0. `url` may be
    ``s3://BUCKET/KEY`` (with ``?versionId=`` for one version).

    Raises
    ------
    Transient : worth another try.
    Changed : the range lies beyond the file, or the server answers a range of another version.
    DownloadError : the server refuses for good (not found, not allowed), or the address is none.
    """
    import requests

    sent = {"Accept-Encoding": "identity", "User-Agent": f"trainyard/{__version__}"} | dict(headers or {})
    ranged = start > 0 or stop is not None
    if ranged:
        sent["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if tag:
            sent["If-Range"] = tag
    try:
        response = _session().get(
            https_address(url), headers=sent, stream=True, timeout=(network.connect, network.stall)
        )
    except (requests.Timeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise Transient(_reason(error, network)) from None
    except (requests.RequestException, ValueError) as error:
        raise DownloadError(url, f"{type(error).__name__}", "an address such as https://... or s3://...") from None
    try:
        return _answer(url, response, start if ranged else 0, tag, network)
    except BaseException:
        response.close()
        raise


def _answer(url: str, response: Any, start: int, tag: str, network: Network) -> Answer:
    status, headers = response.status_code, response.headers
    if status == 416:
        raise Changed
    if status in RETRIED:
        raise Transient(f"HTTP status {status}", _retry_after(headers.get("Retry-After", "")))
    if status not in (200, 206):
        raise DownloadError(url, f"HTTP status {status} {response.reason}".rstrip(), _advice(status))
    found = _tag(headers)
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    if status == 200:
        return Answer(url, 0, size, size, found, headers, response, network.stall)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
    # Not every server looks at If-Range, so the version of what it sends is compared here, too.
    if match is None or int(match[1]) != start or (tag and found and found != tag):
        raise Changed
    whole = int(match[3]) if match[3].isdecimal() else None
    return Answer(url, start, int(match[2]) + 1, whole, found, headers, response, network.stall)


def patiently(url: str, network: Network, once: Callable[[], T]) -> T:
    """What `once` returns, called again after `Transient` up to the attempts of `network`, with growing waits.

    Raises
    ------
    DownloadError : none of them succeeded.
    """
    failures = 0
    while True:
        try:
            return once()
        except Transient as problem:
            failures += 1
            if failures >= network.attempts:
                raise given_up(url, problem, failures) from None
            pause(failures, problem.wait, network)


def given_up(url: str, problem: Transient, failures: int) -> DownloadError:
    """The error for a server that never answered as it should."""
    return DownloadError(url, f"{problem}, {failures} times in a row", "an answer; try again later")


def pause(failures: int, asked: float, network: Network) -> None:
    """Wait before another try: what the server asked for, and a random share of a span that doubles every time.

    The randomness (full jitter) keeps many jobs from coming back at the same moment.
    """
    import random

    longest = min(network.longest_wait, network.backoff * 2 ** (failures - 1))
    time.sleep(min(asked, network.longest_wait) + random.uniform(0, longest))


def https_address(url: str) -> str:
    """The address to ask for `url`: that of the public bucket for s3://, below AWS_ENDPOINT_URL_S3 where it is set.

    The key is percent-encoded in the s3:// address already (IBL keys hold a `#`, which is %23).
    """
    parts = urlsplit(url)
    if parts.scheme != "s3":
        return url
    query = f"?{parts.query}" if parts.query else ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", "").rstrip("/")
    if endpoint:
        return f"{endpoint}/{parts.netloc}{parts.path}{query}"
    return f"https://{parts.netloc}.s3.amazonaws.com{parts.path}{query}"


def without_secrets(url: str) -> str:
    """`url` for people and logs: without password and query, but for an S3 version."""
    parts = urlsplit(url)
    version = parse_qs(parts.query).get("versionId")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + (f"?versionId={version[0]}" if version else "")


def remembered(url: str) -> str:
    """`url` as files may keep it: without password, and with the query (which may hold a signature) as its hash."""
    parts = urlsplit(url)
    digest = hashlib.sha256(parts.query.encode()).hexdigest()[:12]
    hidden = parts.query and not re.fullmatch(r"versionId=[^&]*", parts.query)
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return without_secrets(url) + (f"?query-sha256={digest}" if hidden else "") + fragment


def _tag(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag


def _retry_after(text: str) -> float:
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _advice(status: int) -> str:
    if status in (401, 403):
        return "a login that may read it (for IBL set ALYX_LOGIN and ALYX_PASSWORD, or ALYX_TOKEN)"
    if status in (404, 410):
        return "a file that is there: check the id, or that it is in this release"
    return "status 200"


def _reason(error: Exception, network: Network) -> str:
    import requests

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {network.connect:g} s"
    if isinstance(error, requests.Timeout):
        return f"no answer within {network.stall:g} s"
    return f"no connection ({type(error).__name__})"


_sessions = threading.local()


def _session() -> Any:
    """The requests session of this thread and process: it keeps connections, and knows the user's proxies."""
    import requests

    if getattr(_sessions, "owner", None) != os.getpid():
        _sessions.session, _sessions.owner = requests.Session(), os.getpid()
    return _sessions.session
