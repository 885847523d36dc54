"""Sessions that are somewhere else: what a location of the session sheet may say, and where its files go.

=====================  ========================================================================
``allen:ID``           a session of Allen Visual Coding Neuropixels
``allen-behavior:ID``  a session of Allen Visual Behavior Neuropixels
``ibl:UUID``           a session (eid) or insertion (pid) of the International Brain Laboratory
``dandi:UUID``         an asset of the DANDI archive
``https://``, ``s3://``  any file
=====================  ========================================================================

Only text is looked at here: the plan of a run is made without network.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline_lib.errors import InputError

NUMBER = re.compile(r"\d{6,12}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IDENTIFIERS = {"allen": NUMBER, "allen-behavior": NUMBER, "ibl": UUID, "dandi": UUID}
WEB = ("https", "http", "s3")
ALLEN = {
    "allen": ("allen/visual-coding-neuropixels", "session_{}"),
    "allen-behavior": ("allen/visual-behavior-neuropixels", "ecephys_session_{}"),
}
READERS = {"allen": ("allen", "nwb"), "allen-behavior": ("allen", "nwb"), "ibl": ("ibl",), "dandi": ("nwb", "allen")}
"""Sources that can read what is fetched; any, from the web."""
ACCEPTED = "allen:ID, allen-behavior:ID, ibl:UUID, dandi:UUID, https://... or s3://..."


@dataclass(frozen=True)
class Remote:
    """A session by the scheme and the identifier of its location; for the web schemes the identifier is the address.

    `part` names what is chosen of it, "" for all: every part, and the whole, has a folder of its own.
    """

    scheme: str
    identifier: str
    part: str = ""

    @property
    def text(self) -> str:
        """As it stands in the session sheet."""
        return self.identifier if self.scheme in WEB else f"{self.scheme}:{self.identifier}"

    @property
    def name(self) -> str:
        """What its release calls it: the name of its folder and, for Allen sessions, of its file."""
        if self.scheme in ALLEN:
            return ALLEN[self.scheme][1].format(self.identifier)
        if self.scheme in WEB:
            return hashlib.sha256(self.identifier.encode()).hexdigest()[:12]
        return self.identifier

    def folder(self, data: Path | str) -> Path:
        """Where its files go, below the folder of downloads."""
        place = ALLEN[self.scheme][0] if self.scheme in ALLEN else "web" if self.scheme in WEB else self.scheme
        return Path(data, place, f"{self.name}.{self.part}" if self.part else self.name)

    def location(self, data: Path | str) -> Path:
        """What the reader of the source is given: the file where there is one, else the folder."""
        folder = self.folder(data)
        if self.scheme in ALLEN:
            return folder / f"{self.name}.nwb"
        if self.scheme in WEB:
            return folder / file_name(self.identifier)
        return folder


def parse_remote(location: str, where: Any, options: Mapping[str, Any] | None = None) -> Remote | None:
    """The remote session that a location names; None where it is a path.

    `options` are those it is read with: with `only_selected` they choose a part of the file.

    Raises
    ------
    InputError : a known scheme with an identifier that cannot be one.
    """
    scheme, colon, identifier = location.partition(":")
    if colon and scheme in WEB:
        if not urlsplit(location).netloc or file_name(location) in ("", ".", ".."):
            raise InputError(where, "location", repr(location), "the address of a file, such as https://HOST/PATH.nwb")
        return Remote(scheme, location, _part(options or {}))
    if not colon or scheme not in IDENTIFIERS:
        return None
    identifier = identifier.strip().lower()
    if not IDENTIFIERS[scheme].fullmatch(identifier):
        raise InputError(where, "location", repr(location), ACCEPTED)
    return Remote(scheme, identifier, _part(options or {}))


def selecting(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide which part of a file is fetched; rate and number of units choose when it is read."""
    return {name: value for name, value in sorted(options.items()) if name not in ("min_rate", "max_units")}


def _part(options: Mapping[str, Any]) -> str:
    if not options.get("only_selected"):
        return ""
    return "part_" + hashlib.sha256(json.dumps(selecting(options), sort_keys=True).encode()).hexdigest()[:8]


def file_name(url: str) -> str:
    """The name of the file at an address."""
    return unquote(urlsplit(url).path).rpartition("/")[2]
