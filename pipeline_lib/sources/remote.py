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
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline_lib.errors import InputError

MANIFEST = "fetch.json"
"""Declares the files of a session complete, and says where they came from."""
NUMBER = re.compile(r"\d{6,12}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IDENTIFIERS = {"allen": NUMBER, "allen-behavior": NUMBER, "ibl": UUID, "dandi": UUID}
WEB = ("https", "http", "s3")
ALLEN = {
    "allen": ("allen/visual-coding-neuropixels", "session_{}"),
    "allen-behavior": ("allen/visual-behavior-neuropixels", "ecephys_session_{}"),
}
ACCEPTED = "allen:ID, allen-behavior:ID, ibl:UUID, dandi:UUID, https://... or s3://..."


@dataclass(frozen=True)
class Remote:
    """A session by the scheme and the identifier of its location; for the web schemes the identifier is the address."""

    scheme: str
    identifier: str

    @property
    def text(self) -> str:
        """As it stands in the session sheet."""
        return self.identifier if self.scheme in WEB else f"{self.scheme}:{self.identifier}"

    def folder(self, data: Path | str) -> Path:
        """Where its files go, below the folder of downloads."""
        if self.scheme in ALLEN:
            release, name = ALLEN[self.scheme]
            return Path(data, release, name.format(self.identifier))
        if self.scheme in WEB:
            return Path(data, "web", hashlib.sha256(self.identifier.encode()).hexdigest()[:12])
        return Path(data, self.scheme, self.identifier)

    def location(self, data: Path | str) -> Path:
        """What the reader of the source is given: the file where there is one, else the folder."""
        folder = self.folder(data)
        if self.scheme in ALLEN:
            return folder / f"{folder.name}.nwb"
        if self.scheme in WEB:
            return folder / file_name(self.identifier)
        return folder

    def manifest(self, data: Path | str) -> Path:
        """The file that declares it complete."""
        return self.folder(data) / MANIFEST


def parse_remote(location: str, where: Any) -> Remote | None:
    """The remote session that a location names; None where it is a path.

    Raises
    ------
    InputError : a known scheme with an identifier that cannot be one.
    """
    scheme, colon, identifier = location.partition(":")
    if colon and scheme in WEB:
        if not urlsplit(location).netloc or not file_name(location):
            raise InputError(where, "location", repr(location), "the address of a file, such as https://HOST/PATH.nwb")
        return Remote(scheme, location)
    if not colon or scheme not in IDENTIFIERS:
        return None
    identifier = identifier.strip().lower()
    if not IDENTIFIERS[scheme].fullmatch(identifier):
        raise InputError(where, "location", repr(location), ACCEPTED)
    return Remote(scheme, identifier)


def file_name(url: str) -> str:
    """The name of the file at an address."""
    return unquote(urlsplit(url).path).rpartition("/")[2]
