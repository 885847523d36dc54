"""Fetch files from servers that fail: whole, verified, resumed, once.

A file arrives in ``.NAME.part`` beside its target. It is verified there (size, published checksum or the ledger of
first fetches, and that it opens), flushed to the disk and renamed. So a file under its own name is a verified file,
whenever a process was killed; and what is verified is never fetched again.
"""

import errno
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_lib.sources.digests import check_opens, differing, digests, matches_etag
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.ledger import Ledger
from pipeline_lib.sources.part import Origin, Part, owned_part
from pipeline_lib.sources.progress import Progress, readable
from pipeline_lib.sources.shared import SharedDownloads
from pipeline_lib.sources.transport import (
    Changed,
    DownloadError,
    Network,
    Transient,
    given_up,
    patiently,
    pause,
    remembered,
    request,
)

SPARE = 64 << 20
"""Bytes of the disk that a download leaves free."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNCONFIRMED = "bytes that the server's ETag does not confirm"
"""Not wrong for sure: the ETag may mean something else. So the file is fetched twice, and must be the same."""
PROGRESS = 1 << 20
"""Bytes that count as progress: a transfer that moved as many may fail anew as often as at first."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: from where, to where, and what is published about it."""

    url: str
    path: Path
    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    """Published checksums in hexadecimal, by algorithm: md5, sha256 or blake2b."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers to send, such as an authorisation; never written anywhere."""
    changes: bool = False
    """The file changes on the server from time to time (the index of a release), so its first fetch binds nobody."""


@dataclass(frozen=True)
class Fetched:
    """A verified file that is here now."""

    file: RemoteFile
    size: int
    sha256: str
    checked: str
    """Against what: "md5 as published", "S3 ETag", "ledger", "nothing published", or an accepted exception."""
    moved: int
    """Bytes that came over the network for it."""


@dataclass(frozen=True)
class Verdict:
    """What a file is (its SHA-256), what is wrong with it ("" if nothing is), and what it was checked against."""

    sha256: str
    problem: str
    checked: str


class Stopped(Exception):
    """Another file failed, so this one was left for a later run."""


class Downloader:
    """What the downloads of a run share: patience, the ledger, accepted exceptions, and the servers of the sources.

    `accept` holds the SHA-256 of files to take although they do not match what is published: some published checksums
    are stale. Every such file is named on standard error and in the session's fetch.json. `shared` goes first.
    """

    def __init__(
        self,
        ledger: Path,
        network: Network | None = None,
        accept: Sequence[str] = (),
        shared: SharedDownloads | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        self.ledger = Ledger(ledger)
        self.shared = shared
        self.network = network or Network()
        self.endpoints = endpoints or Endpoints.from_environment()
        self.accept = frozenset(value.lower() for value in accept)
        self._stopped = threading.Event()

    def fetch_all(self, files: Sequence[RemoteFile]) -> list[Fetched]:
        """Fetch files, `network.parallel` at a time; after a failure the others stop, to be resumed in a later run.

        Raises
        ------
        DownloadError : see `fetch`.
        """
        self._stopped.clear()
        progress = Progress(sum(file.size or 0 for file in files))
        with ThreadPoolExecutor(self.network.parallel) as pool:
            jobs = [pool.submit(self.fetch, file, progress) for file in files]
            try:
                wait(jobs, return_when=FIRST_EXCEPTION)
            finally:
                if not all(job.done() for job in jobs):
                    self._stopped.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        errors = [error for job in jobs if not job.cancelled() and (error := job.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        progress.finish()
        return [job.result() for job in jobs]

    def fetch(self, file: RemoteFile, progress: Progress | None = None) -> Fetched:
        """Fetch one file, or find that it is here already.

        Raises
        ------
        DownloadError : the server refuses, fails `network.attempts` times in a row, or gives other bytes than the
            published ones in `network.downloads` fresh downloads; or the disk is full.
        """
        progress = progress or Progress(file.size or 0)
        if self.shared:
            self.shared.lend(file.path, file.url, self.ledger)
        if here := self._verified(file, progress):
            return here
        with owned_part(file.path) as part:
            if part.waited and (here := self._verified(file, progress)):
                part.discard()
                return here
            try:
                return self._fetch(file, part, progress)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                raise _disk_full(file, part.size) from None

    def _verified(self, file: RemoteFile, progress: Progress) -> Fetched | None:
        """The file, if it is here and right; None if it must be fetched."""
        if not file.path.is_file():
            return None
        tag, size = "", file.size
        known = file.digests or file.changes or self.ledger.lookup(file.url)
        if not known:  # put here by hand: at least it has the size of the remote file, then
            tag, size = patiently(file.url, self.network, lambda: self._ask(file))
        verdict = self._judge(file, file.path, size, tag)
        if verdict.problem:
            print(f"{file.path}: {verdict.problem}; fetching it again", file=sys.stderr, flush=True)
            return None
        if not known:
            self.ledger.record(file.url, file.path.stat().st_size, verdict.sha256)
        count = file.path.stat().st_size
        progress.add(count, moved=False)
        return Fetched(file, count, verdict.sha256, verdict.checked, moved=0)

    def _ask(self, file: RemoteFile) -> tuple[str, int | None]:
        """Version and size of the remote file, by asking for its first byte: all of it would be on its way at once."""
        try:
            with request(file.url, self.network, stop=1, headers=file.headers) as answer:
                return answer.tag, answer.size
        except Changed:  # no such byte
            return "", 0

    def _judge(self, file: RemoteFile, path: Path, size: int | None, tag: str) -> Verdict:
        found = digests(path, {*file.digests, "sha256"})
        sha256, here, first = found["sha256"], path.stat().st_size, self.ledger.lookup(file.url)
        problem, checked = "", "nothing published"
        if size is not None and here != size:
            problem = f"{here} bytes where {size} are published"
        elif file.digests:
            name = differing(found, file.digests)
            problem = f"{name} {found[name]} where {file.digests[name]} is published" if name else ""
            checked = " and ".join(file.digests) + " as published"
        elif first and not file.changes:
            problem = f"SHA-256 {sha256} where the first fetch gave {first} ({self.ledger.path})" * (sha256 != first)
            checked = "ledger"
        elif (confirmed := matches_etag(path, tag)) is not None:
            problem, checked = ("", "S3 ETag") if confirmed else (UNCONFIRMED, "two downloads alike")
        if problem in ("", UNCONFIRMED) and not file.digests:
            try:
                check_opens(path, file.path.suffix)
            except ValueError as error:
                problem = str(error)
        if problem and sha256 in self.accept:
            print(f"{file.path}: accepted although {problem}", file=sys.stderr, flush=True)
            problem, checked = "", f"accepted although {problem}"
        return Verdict(sha256, problem, checked)

    def _fetch(self, file: RemoteFile, part: Part, progress: Progress) -> Fetched:
        seen = []
        for _ in range(self.network.downloads):
            origin = self._transfer(file, part, progress)
            verdict = self._judge(file, part.path, file.size if file.size is not None else origin.size, origin.tag)
            if not verdict.problem or (verdict.problem == UNCONFIRMED and verdict.sha256 in seen):
                size = part.size
                if not file.digests and not file.changes:
                    self.ledger.record(file.url, size, verdict.sha256)
                part.publish()
                return Fetched(file, size, verdict.sha256, verdict.checked, part.received)
            print(f"{file.path}: {verdict.problem}; fetching it afresh", file=sys.stderr, flush=True)
            seen.append(verdict.sha256)
            part.clear()
        part.discard()
        same = ", the same bytes each time" if len(set(seen)) == 1 else ""
        raise DownloadError(
            file.url,
            f"{verdict.problem}, in {len(seen)} downloads{same}",
            f"the published file; if its published checksum is known to be stale, run fetch with --accept {seen[-1]}",
        )

    def _transfer(self, file: RemoteFile, part: Part, progress: Progress) -> Origin:
        """Bring the part to the end of the remote file; what it is a part of."""
        failures, furthest = 0, part.size
        progress.add(part.size, moved=False)
        while True:
            try:
                return self._receive(file, part, progress)
            except Changed:
                part.clear()
                problem = Transient("the file changed on the server while it was fetched")
            except Transient as reason:
                problem = reason
            # Only ground never reached before counts: a server that cannot resume may cut at the same byte for ever.
            failures = 1 if part.size - furthest >= PROGRESS else failures + 1
            furthest = max(furthest, part.size)
            if failures >= self.network.attempts:
                raise given_up(file.url, problem, failures)
            pause(failures, problem.wait, self.network)

    def _receive(self, file: RemoteFile, part: Part, progress: Progress) -> Origin:
        """One answer of the server: the rest of the file, or all of it; what it is a part of."""
        origin, start, tag = part.origin(), 0, ""
        # Without a tag and without a checksum nobody could tell whether the rest belongs to the same file.
        if origin is not None and origin.url == remembered(file.url) and part.size and (origin.tag or file.digests):
            if part.size == origin.size:
                return origin
            start, tag = part.size, origin.tag
        with request(file.url, self.network, start, tag=tag, headers=file.headers) as answer:
            if origin is None or answer.start == 0:
                origin = Origin(remembered(file.url), answer.tag, answer.size)
                part.begin(origin)
            _require_space(file, (origin.size or 0) - part.size)
            for chunk in answer.chunks():
                if self._stopped.is_set():
                    raise Stopped
                part.append(chunk)
                progress.add(len(chunk))
        return origin


def _require_space(file: RemoteFile, needed: int) -> None:
    free = shutil.disk_usage(file.path.parent).free
    if needed + SPARE > free:
        found = f"no room: {readable(needed)} needed, {readable(free)} free in {file.path.parent}"
        raise DownloadError(file.url, found, "free space, or another folder for downloads (config key data)")


def _disk_full(file: RemoteFile, here: int) -> DownloadError:
    found = f"the disk of {file.path.parent} is full (or a limit on file sizes is reached) after {here} bytes"
    return DownloadError(file.url, found, "free space; what is here is kept, and the next run goes on from it")
