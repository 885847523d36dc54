"""The ledger of first fetches: what a file without a published checksum hashed to when it was fetched first.

A line a file: SHA-256, size, address. Lines are only ever added, so that the ledger can be kept under version control
and merged; a later fetch, on any machine, must give the same bytes.
"""

from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.files import exclusive
from pipeline_lib.sources.transport import remembered

NAME = "ledger.tsv"


class Ledger:
    """The ledger in the file `path`, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lookup(self, url: str) -> str:
        """SHA-256 of the first fetch of `url`, "" where it is not known; the last line about an address counts.

        InputError for a line that is none of the ledger.
        """
        found, url = "", remembered(url)
        for number, line in enumerate(self._lines(), start=1):
            columns = line.split("\t")
            if len(columns) != 3 or len(columns[0]) != 64:
                raise InputError(self.path, f"line {number}", repr(line[:60]), "SHA-256, size and address, with tabs")
            if columns[2] == url:
                found = columns[0]
        return found

    def record(self, url: str, size: int, sha256: str) -> None:
        """Add a line about `url`; a process killed in between leaves no broken line behind for the next one."""
        with exclusive(self.path.with_name(f".{self.path.name}.lock")):
            if self.lookup(url) == sha256:
                return
            content = self.path.read_bytes() if self.path.exists() else b""
            with self.path.open("r+b" if content else "w+b") as handle:
                handle.truncate(content.rfind(b"\n") + 1)
                handle.seek(0, 2)
                handle.write(f"{sha256}\t{size}\t{remembered(url)}\n".encode())

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        text = self.path.read_text()
        return text[: text.rfind("\n") + 1].splitlines()
