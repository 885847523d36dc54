"""Fetch a session to the folder of downloads, whatever its source, and write its fetch.json."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.sources.download import Downloader, Fetched, RemoteFile
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetch_allen import behavior_files, coding_files
from pipeline_lib.sources.fetch_dandi import dandi_files
from pipeline_lib.sources.fetch_ibl import ibl_files
from pipeline_lib.sources.fetched import Description, Listed, write_manifest
from pipeline_lib.sources.ledger import NAME
from pipeline_lib.sources.remote import ACCEPTED, WEB, Remote, file_name, parse_remote
from pipeline_lib.sources.sdk import fetch_with_sdk
from pipeline_lib.sources.shared import SharedDownloads
from pipeline_lib.sources.subset import fetch_selected
from pipeline_lib.sources.transport import Network, remembered
from pipeline_lib.sources.voltage import fetch_voltage

ENVIRONMENTS = ".environments"
"""Folder in the cache for environments of programs that need their own."""

Lister = Callable[[Remote, Path, dict[str, Any], Downloader], Listed]


def web_file(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> Listed:
    """Any file by its address; nothing is known about it but what the server says."""
    file = RemoteFile(remote.identifier, folder / file_name(remote.identifier))
    address = remembered(remote.identifier)
    return [file], Description(address, address, "", "", "")


LISTERS: dict[str, Lister] = {
    "allen": coding_files,
    "allen-behavior": behavior_files,
    "ibl": ibl_files,
    "dandi": dandi_files,
} | dict.fromkeys(WEB, web_file)


def fetch(
    location: str,
    data: Path,
    source: str = "",
    options: dict[str, Any] | None = None,
    ledger: Path | None = None,
    accept: Sequence[str] = (),
    sdk: bool = False,
    network: Network | None = None,
    cache: Path | None = None,
    endpoints: Endpoints | None = None,
) -> Path:
    """Fetch what `location` of the session sheet names into the cache `data`; the path of its fetch.json.

    What is there and verified is not fetched again. Several processes may fetch into one cache; where all is there,
    nothing is written to it.

    Parameters
    ----------
    source : the source that will read the session; needed where `options` say `only_selected`.
    options : reading options of the session; they decide which files are needed.
    ledger : the ledger of first fetches; by default in `data`. Keep it under version control to bind others to it.
    sdk : fetch sessions of Allen Visual Coding through AllenSDK instead of from the bucket.
    accept : SHA-256 of files to take although they do not match what is published.
    cache : a folder of others' downloads, looked into before the network is asked, and never written.

    Raises
    ------
    DownloadError : the session cannot be had; one line says why and what to do.
    InputError : the location is none of a remote session.
    """
    remote = parse_remote(location, "--location", options)
    if remote is None:
        raise InputError("--location", "location", repr(location), ACCEPTED)
    shared = SharedDownloads(cache, data) if cache else None
    downloader = Downloader(ledger or data / NAME, network, accept, shared, endpoints)
    folder, options = remote.folder(data), options or {}
    files, description = LISTERS[remote.scheme](remote, folder, options, downloader)
    fetched: list[Fetched] = []
    nwb = next((file for file in files if file.path.suffix == ".nwb"), None)
    if options.get("only_selected") and nwb is not None:
        part, details = fetch_selected(nwb, source, options, downloader)
        description = replace(description, details=description.details | details)
        fetched, files = [part], [file for file in files if file is not nwb]
    elif sdk and remote.scheme == "allen":
        session = int(remote.identifier)
        fetched = fetch_with_sdk(folder.parent, data / ENVIRONMENTS, downloader, session)
        written = {item.file.path for item in fetched}
        files = [file for file in files if file.path not in written]
    fetched += downloader.fetch_all(files)
    if remote.scheme == "ibl" and options.get("voltage"):
        fetch_voltage(remote, folder, options, downloader)
    return write_manifest(folder, description, fetched)
