"""fetch.json: which files a session was fetched as, from where, and what they were checked against.

It is the file that declares a session complete; the recording made from it takes its release, licence, citation and
checksums along, so that the report can print them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, write_json
from pipeline_lib.sources.download import Fetched, RemoteFile
from pipeline_lib.sources.origin import MANIFEST, VERSION, read_fetched
from pipeline_lib.sources.transport import remembered


@dataclass(frozen=True)
class Description:
    """What is known about a session besides its files."""

    location: str
    """As in the session sheet, such as allen:757216464."""
    source_id: str
    release: str
    licence: str
    citation: str
    details: dict[str, Any] = field(default_factory=dict)
    """Ids and facts that the source gives: lab, subject, date, probes, genotype, ..."""


Listed = tuple[list[RemoteFile], Description]
"""The files of a session, and what is known about it."""


def fetched_before(folder: Path) -> dict[str, Any]:
    """What fetch.json in `folder` says; nothing where it is of another version, or damaged: it is written anew."""
    try:
        return read_fetched(folder) or {}
    except InputError:
        return {}


def write_manifest(folder: Path, description: Description, files: Sequence[Fetched]) -> Path:
    """Write fetch.json of the session in `folder`; what it listed before, and is still here, stays listed, so
    that fetching what is there already changes nothing, and needs no right to write.
    """
    path = folder / MANIFEST
    if _manifest(folder, description, files) != fetched_before(folder):
        with exclusive(folder / LOCK):
            write_json(path, _manifest(folder, description, files))
    return path


def _manifest(folder: Path, description: Description, files: Sequence[Fetched]) -> dict[str, Any]:
    before = fetched_before(folder)
    listed = {
        item.file.path.relative_to(folder).as_posix(): {
            "url": remembered(item.file.url),
            "size": item.size,
            "sha256": item.sha256,
            "published": dict(item.file.digests),
            "checked": item.checked,
        }
        for item in files
        if item.file.path.is_relative_to(folder)
    }
    for name, entry in before.get("files", {}).items():
        # Another row of the session sheet may need other files of the same session.
        kept = listed[name]["sha256"] == entry["sha256"] if name in listed else (folder / name).is_file()
        if kept:
            listed[name] = entry
    return asdict(description) | {"version": VERSION, "files": listed}
