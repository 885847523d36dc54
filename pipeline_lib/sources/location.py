"""The files of a session: where they are, what they hash to, and what to say when one cannot be read."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file

if TYPE_CHECKING:
    import pandas as pd


def single_file(location: Path, suffixes: tuple[str, ...]) -> Path:
    """`location` itself, or the only file in it that ends with one of `suffixes`, but for hidden ones.

    Raises
    ------
    InputError : no such path, no such file in the folder, or more than one.
    """
    if not location.exists():
        raise InputError(location, "location", "no such file or folder", f"an existing {' or '.join(suffixes)} file")
    if location.is_file():
        return location
    found = sorted(file for file in location.glob("[!.]*") if file.is_file() and file.suffix in suffixes)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(location, "location", names, f"one {' or '.join(suffixes)} file, or the path of the file")
    return found[0]


def checksums(files: Iterable[Path], root: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path from `root` (a folder, or the file itself)."""
    folder = root if root.is_dir() else root.parent
    return {
        (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix(): sha256_file(file)
        for file in sorted(set(files))
    }


@contextlib.contextmanager
def reading(path: Path | str, field: str) -> Iterator[None]:
    """Raise InputError about `field` of `path` for whatever a parser raises: on a broken file each fails in its way."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        accepted = "text in UTF-8" if isinstance(error, UnicodeDecodeError) else "a whole, readable file"
        raise InputError(path, field, f"{type(error).__name__} ({text})", accepted) from error


def require_columns(table: "pd.DataFrame", path: Path | str, columns: Iterable[str]) -> None:
    """Raise InputError where the table of `path` lacks one of `columns`."""
    for column in columns:
        if column not in table.columns:
            accepted = f"a table with it (here: {', '.join(map(str, table.columns))})"
            raise InputError(path, f"column {column}", "no such column", accepted)
