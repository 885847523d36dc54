"""Where the files of a recording came from: what fetch.json, beside them, says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError
from pipeline_lib.sources.remote import MANIFEST

if TYPE_CHECKING:
    from pipeline_lib.recording import Provenance

VERSION = 1


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
