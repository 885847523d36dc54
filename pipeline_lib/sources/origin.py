"""Where the files of a recording came from: what fetch.json, beside them, says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError
from pipeline_lib.sources.location import reading

if TYPE_CHECKING:
    from pipeline_lib.recording import Provenance

MANIFEST = "fetch.json"
"""Declares the files of a session complete, and says where they came from."""
VERSION = 1
DESCRIBED = ("source_id", "release", "licence", "citation")
"""Entries that a recording takes over, where they are not empty."""


def read_fetched(folder: Path) -> dict[str, Any] | None:
    """What fetch.json in `folder` says; None where there is none. InputError for one of another version, or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    with reading(path, "content"):
        manifest = dict(json.loads(path.read_text()))
        if manifest.get("version") != VERSION:
            raise InputError(path, "version", manifest.get("version"), f"{VERSION} (fetch the session again)")
        missing = [name for name in ("details", *DESCRIBED) if name not in manifest]
        if missing or not all(isinstance(entry["sha256"], str) for entry in manifest["files"].values()):
            raise ValueError(f"no {', '.join(missing) or 'SHA-256 of a file'}")
    return manifest


def add_origin(provenance: "Provenance", location: Path) -> None:
    """Complete `provenance` from the fetch.json of what was read at `location`; nothing where there is none.

    Raises
    ------
    InputError : a file that was read is not, byte for byte, the one that was fetched; or fetch.json is damaged.
    """
    folder = location if location.is_dir() else location.parent
    manifest = read_fetched(folder)
    if manifest is None:
        return
    files = manifest["files"]
    for name, sha256 in provenance.files.items():
        # A reader names files from the folder that it found the session in, which may lie below this one.
        known = [entry for listed, entry in files.items() if listed == name or listed.endswith(f"/{name}")]
        if known and all(entry["sha256"] != sha256 for entry in known):
            raise InputError(folder / name, "SHA-256", sha256, f"{known[0]['sha256']}, as it was fetched (fetch again)")
    for name in DESCRIBED:
        if manifest[name]:
            setattr(provenance, name, manifest[name])
