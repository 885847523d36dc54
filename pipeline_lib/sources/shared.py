"""A folder of downloads that others share: looked into before the network is asked, and never written.

A laboratory keeps one, filled by anyone's `data` folder; every project names it in `downloads.cache`. A file found
there is linked, and checked like one that was fetched; one that is damaged there is fetched here.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.sources.ledger import NAME, Ledger


@dataclass(frozen=True)
class SharedDownloads:
    """The shared folder `cache`, laid out like `data`, the folder of this project's downloads."""

    cache: Path
    data: Path

    def __post_init__(self) -> None:
        if not self.cache.is_dir():
            raise InputError("downloads", "cache", f"no folder {self.cache}", "a folder that others' downloads fill")

    def lend(self, path: Path, url: str, ledger: Ledger) -> None:
        """Put a link at `path` to the file of that place in the shared folder, where there is one, and none here.

        What the first fetch of `url` hashed to, if that is known there only, goes into this project's `ledger`.
        """
        if os.path.lexists(path) or not path.is_relative_to(self.data):
            return
        shared = (self.cache / path.relative_to(self.data)).resolve()
        if not shared.is_file():
            return
        first = Ledger(self.cache / NAME).lookup(url)
        if first and not ledger.lookup(url):
            ledger.record(url, shared.stat().st_size, first)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first
            path.symlink_to(shared)
