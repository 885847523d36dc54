"""Sessions of the Allen Institute's two Neuropixels surveys, from their public buckets.

Visual Coding: nothing is published about the files but the bucket's ETags, so the ledger binds later fetches to the
first one. Visual Behavior: the release's manifest names a version and a BLAKE2b checksum of every file.
"""

import functools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipeline_lib.sources.allen import BEHAVIOR_CITATION, CITATION, LICENCE
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.fetched import Description, Listed
from pipeline_lib.sources.remote import ALLEN, Remote
from pipeline_lib.sources.transport import DownloadError, Transient, patiently, request

BEHAVIOR_RELEASE = "0.5.0"
TEMPLATES = {"natural_movie": "natural_movie_templates", "natural_scenes": "natural_scene_templates"}


def coding_files(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> Listed:
    """The NWB of a Visual Coding session and the release's table of sessions; with `frames`, the shown films, too."""
    bucket, release = downloader.endpoints.allen_coding, folder.parent
    files = [
        RemoteFile(f"{bucket}/{remote.name}/{remote.name}.nwb", folder / f"{remote.name}.nwb"),
        coding_table("sessions.csv", release.parent.parent, downloader),
    ]
    if options.get("frames"):
        for part in TEMPLATES.values():
            for key in listed(f"{bucket}/{part}/", downloader):
                files.append(RemoteFile(key, release / part / unquote(urlsplit(key).path).rpartition("/")[2]))
    return files, Description(remote.text, remote.identifier, "visual-coding-neuropixels", LICENCE, CITATION)


def coding_table(name: str, data: Path, downloader: Downloader) -> RemoteFile:
    """One of the tables of the Visual Coding release: sessions.csv, probes.csv, channels.csv or units.csv."""
    return RemoteFile(f"{downloader.endpoints.allen_coding}/{name}", data / ALLEN["allen"][0] / name)


def behavior_files(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> Listed:
    """The NWB of a Visual Behavior session, of the version that the release's manifest names. Raises DownloadError."""
    name = f"{remote.name}.nwb"
    path = behavior_manifest(folder.parent, downloader)
    entries = json.loads(path.read_text())["data_files"].values()
    found = [entry for entry in entries if urlsplit(entry["url"]).path.endswith(f"/{name}")]
    if not found:
        raise DownloadError(remote.text, f"no {name} in {path.name}", "a session of this release: verb `sessions`")
    file = behavior_file(found[0], folder / name)
    release = f"visual-behavior-neuropixels {BEHAVIOR_RELEASE}"
    return [file], Description(remote.text, remote.identifier, release, LICENCE, BEHAVIOR_CITATION)


def behavior_manifest(folder: Path, downloader: Downloader) -> Path:
    """The manifest of the Visual Behavior release, fetched into `folder`."""
    name = f"visual-behavior-neuropixels_project_manifest_v{BEHAVIOR_RELEASE}.json"
    file = RemoteFile(f"{downloader.endpoints.allen_behavior}/manifests/{name}", folder / name)
    return downloader.fetch(file).file.path


def behavior_file(entry: dict[str, str], path: Path) -> RemoteFile:
    """A file of the manifest: its version in the bucket, and its checksum."""
    parts = urlsplit(entry["url"])
    bucket = parts.netloc.partition(".")[0]
    return RemoteFile(
        f"s3://{bucket}{quote(unquote(parts.path))}?versionId={entry['version_id']}",
        path,
        digests={"blake2b": entry["file_hash"]},
    )


def listed(prefix: str, downloader: Downloader, page: int = 1000) -> list[str]:
    """The objects of a bucket below ``s3://BUCKET/PREFIX/``, as addresses. Raises DownloadError where there is none."""
    parts = urlsplit(prefix)
    found: list[str] = []
    token = ""
    while True:
        query = f"s3://{parts.netloc}/?list-type=2&max-keys={page}&prefix={quote(parts.path.lstrip('/'))}"
        if token:
            query += f"&continuation-token={quote(token, safe='')}"
        tree = patiently(prefix, downloader.network, functools.partial(_xml, query, downloader))
        found += [str(node.text) for node in tree.iter() if node.tag.endswith("}Key") or node.tag == "Key"]
        token = next((str(node.text) for node in tree.iter() if node.tag.endswith("NextContinuationToken")), "")
        if not token:
            break
    keys = [key for key in found if key.rpartition("/")[2] not in ("", ".", "..")]
    if not keys:
        raise DownloadError(prefix, "nothing there", "a prefix with objects")
    return [f"s3://{parts.netloc}/{quote(key)}" for key in sorted(keys)]


def _xml(url: str, downloader: Downloader) -> ElementTree.Element:
    with request(url, downloader.network) as answer:
        body = answer.body()
    try:
        return ElementTree.fromstring(re.sub(rb"<!DOCTYPE[^>]*>", b"", body))
    except ElementTree.ParseError:
        raise Transient("an answer that is not XML") from None
