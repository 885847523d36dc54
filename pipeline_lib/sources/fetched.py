"""fetch.json: which files a session was fetched as, from where, and what they were checked against.

It is the file that declares a session complete; the recording made from it takes its release, licence, citation and
checksums along, so that the report can print them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import write_json
from pipeline_lib.sources.download import Fetched
from pipeline_lib.sources.remote import MANIFEST

if TYPE_CHECKING:
    from pipeline_lib.recording import Provenance

VERSION = 1


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


def write_manifest(folder: Path, description: Description, files: Sequence[Fetched]) -> Path:
    """Write fetch.json of the session in `folder`; a file that is the same as before keeps its entry, so that
    fetching what is there already changes nothing.
    """
    path = folder / MANIFEST
    before = json.loads(path.read_text()) if path.is_file() else {}
    listed = {
        item.file.path.relative_to(folder).as_posix(): {
            "url": item.file.url,
            "size": item.size,
            "sha256": item.sha256,
            "published": dict(item.file.digests),
            "checked": item.checked,
        }
        for item in files
        if item.file.path.is_relative_to(folder)
    }
    for name, entry in before.get("files", {}).items():
        if name in listed and listed[name]["sha256"] == entry["sha256"] and before.get("version") == VERSION:
            listed[name] = entry
    content = asdict(description) | {"version": VERSION, "files": listed}
    if content != before:
        write_json(path, content)
    return path


def add_origin(provenance: "Provenance", location: Path) -> None:
    """Complete `provenance` from the fetch.json of what was read at `location`; nothing where there is none.

    Raises
    ------
    InputError : a file that was read is not, byte for byte, the one that was fetched.
    """
    folder = location if location.is_dir() else location.parent
    path = folder / MANIFEST
    if not path.is_file():
        return
    manifest = json.loads(path.read_text())
    if manifest.get("version") != VERSION:
        raise InputError(path, "version", manifest.get("version"), f"{VERSION} (fetch the session again)")
    files = manifest["files"]
    for name, sha256 in provenance.files.items():
        # A reader names files from the folder that it found the session in, which may lie below this one.
        known = [entry for listed, entry in files.items() if listed == name or listed.endswith(f"/{name}")]
        if known and all(entry["sha256"] != sha256 for entry in known):
            raise InputError(folder / name, "SHA-256", sha256, f"{known[0]['sha256']}, as it was fetched (fetch again)")
    for name in ("source_id", "release", "licence", "citation"):
        if manifest[name]:
            setattr(provenance, name, manifest[name])
