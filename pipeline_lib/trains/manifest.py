"""manifest.json of a store: what is in it, and a hash of every file, so that damage has a name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import read_json, sha256_file, write_json
from pipeline_lib.published import MANIFEST

FORMAT_VERSION = 1
STORE = "trains.zarr"
ENTRIES = {"session": str, "content_hash": str, "spikes": int, "units": int, "duration_ticks": int, "files": dict}


def write_manifest(directory: Path, content: Mapping[str, Any], bin_sizes: list[float]) -> None:
    """Hash the store in `directory` and declare it complete.

    `content_hash` covers what the store says about the session. Dense counts, and the root's copy of all metadata,
    follow from the rest and do not enter, so that storing another bin size refits no model.
    """
    store = directory / STORE
    names = sorted(file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file())
    files = {name: sha256_file(store / name) for name in names}
    content = dict(content) | {"format_version": FORMAT_VERSION}
    own = {name: digest for name, digest in files.items() if not name.startswith("counts/") and name != "zarr.json"}
    content_hash = hashlib.sha256(json.dumps([content, own], sort_keys=True).encode()).hexdigest()
    more = {"bin_sizes": bin_sizes, "content_hash": content_hash, "files": files}
    write_json(directory / MANIFEST, content | more)


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """The manifest of a complete store; InputError where there is none or of another version."""
    path = Path(directory) / MANIFEST
    if not path.exists():
        raise InputError(directory, MANIFEST, "no such file", "a complete spike-train store (was it converted?)")
    manifest = read_json(path, "the manifest as it was written")
    if manifest.get("format_version") != FORMAT_VERSION:
        found = manifest.get("format_version")
        raise InputError(path, "format_version", found, f"{FORMAT_VERSION} (convert the session again)")
    for name, kind in ENTRIES.items():
        if not isinstance(manifest.get(name), kind):
            accepted = "the manifest as it was written (convert the session again)"
            raise InputError(path, name, repr(manifest.get(name))[:60], accepted)
    return manifest


def check_files(directory: Path, manifest: Mapping[str, Any], *prefixes: str) -> None:
    """Raise InputError for a file of the store that is missing, or that starts with a prefix and differs from its hash.

    Zarr would read a missing file as zeros, and a damaged one without a checksum as other numbers.
    """
    for name, digest in manifest["files"].items():
        path = directory / STORE / name
        accepted = "the store as it was written (convert the session again)"
        if not path.is_file():
            raise InputError(path, "file", "no such file", accepted)
        if name.startswith(prefixes) and sha256_file(path) != digest:
            raise InputError(path, "content", "bytes that do not agree with their hash", accepted)
