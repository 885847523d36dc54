"""Fetch a session to the folder of downloads, whatever its source, and write its fetch.json."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import exclusive
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetch_allen import behavior_files, coding_files
from pipeline_lib.sources.fetch_dandi import dandi_files
from pipeline_lib.sources.fetch_ibl import ibl_files
from pipeline_lib.sources.fetched import Description, write_manifest
from pipeline_lib.sources.ledger import NAME
from pipeline_lib.sources.remote import ACCEPTED, WEB, Remote, file_name, parse_remote
from pipeline_lib.sources.transport import Network

Lister = Callable[[Remote, Path, dict[str, Any], Downloader, Endpoints], tuple[list[RemoteFile], Description]]


def web_file(
    remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader, endpoints: Endpoints
) -> tuple[list[RemoteFile], Description]:
    """Any file by its address; nothing is known about it but what the server says."""
    file = RemoteFile(remote.identifier, folder / file_name(remote.identifier))
    return [file], Description(remote.text, remote.identifier, "", "", "")


LISTERS: dict[str, Lister] = {
    "allen": coding_files,
    "allen-behavior": behavior_files,
    "ibl": ibl_files,
    "dandi": dandi_files,
} | dict.fromkeys(WEB, web_file)


def fetch(
    location: str,
    data: Path,
    options: dict[str, Any] | None = None,
    ledger: Path | None = None,
    accept: Sequence[str] = (),
    network: Network | None = None,
    endpoints: Endpoints | None = None,
) -> Path:
    """Fetch what `location` of the session sheet names into the cache `data`; the path of its fetch.json.

    What is there and verified is not fetched again. Several processes may fetch into one cache.

    Parameters
    ----------
    options : reading options of the session; they decide which files are needed.
    ledger : the ledger of first fetches; by default in `data`. Keep it under version control to bind others to it.
    accept : SHA-256 of files to take although they do not match what is published.

    Raises
    ------
    DownloadError : the session cannot be had; one line says why and what to do.
    InputError : the location is none of a remote session.
    """
    remote = parse_remote(location, "--location")
    if remote is None:
        raise InputError("--location", "location", repr(location), ACCEPTED)
    downloader = Downloader(ledger or data / NAME, network, accept)
    folder = remote.folder(data)
    files, description = LISTERS[remote.scheme](
        remote, folder, options or {}, downloader, endpoints or Endpoints.from_environment()
    )
    fetched = downloader.fetch_all(files)
    with exclusive(folder / ".lock"):
        return write_manifest(folder, description, fetched)
