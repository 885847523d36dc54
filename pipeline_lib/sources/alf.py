"""The datasets of one session folder in the ALF layout, with their revisions."""

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.location import reading, require_columns

if TYPE_CHECKING:
    import pandas as pd

CACHE_TABLES = ("sessions.pqt", "datasets.pqt")

T = TypeVar("T")


class AlfSession:
    """Datasets of a session folder by their path without revision, such as "alf/probe00/spikes.times.npy".

    A dataset may lie in several revisions (`alf/probe00/#2024-05-06#/spikes.times.npy`): the newest counts, or the
    newest not after `revision`. Where ONE's cache tables lie above the folder, a file of another size than they list
    is an error.

    Raises
    ------
    InputError : no such folder, or one without datasets.
    """

    def __init__(self, folder: Path, revision: str | None = None) -> None:
        if not folder.is_dir():
            raise InputError(folder, "location", "no such folder", "a session folder, .../subject/date/number")
        self.folder = folder
        self.used: list[Path] = []
        files = sorted(file for file in (folder / "alf").rglob("*") if file.is_file())
        newest = newest_of(((file.relative_to(folder).as_posix(), file) for file in files), revision)
        self._files = {name: file for name, (file, _) in newest.items()}
        self.newest_revision = max((dated for _, dated in newest.values()), default="")
        """The newest revision any dataset is taken from, "" where there are none."""
        if not self._files:
            raise InputError(folder, "alf", "no dataset", "a session folder with ALF files in `alf`")
        self._sizes = _listed_sizes(folder.resolve())

    def has(self, name: str) -> bool:
        """Whether there is a dataset of this name."""
        return name in self._files

    @property
    def names(self) -> list[str]:
        """All datasets, sorted."""
        return sorted(self._files)

    def path(self, name: str) -> Path:
        """The file of a dataset. Raises InputError where there is none, or not as the cache tables say."""
        if name not in self._files:
            raise InputError(self.folder, name, "no such dataset", "a session with this dataset")
        path = self._files[name]
        size = self._sizes.get(path.relative_to(self.folder).as_posix())
        if size is not None and path.stat().st_size != size:
            accepted = f"{size} bytes, as datasets.pqt says (fetch the file, or the tables, again)"
            raise InputError(path, "file", f"{path.stat().st_size} bytes", accepted)
        if path not in self.used:
            self.used.append(path)
        return path

    def array(self, name: str, length: int | None = None) -> np.ndarray:
        """The numbers of a .npy dataset, a single column as a vector; never unpickled.

        Raises
        ------
        InputError : a broken file, one that is not of numbers, or one of another `length`.
        """
        path = self.path(name)
        with reading(path, "array"):
            values = np.load(path, allow_pickle=False)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values.ravel()
        if values.dtype.kind not in "iufb" or values.ndim == 0:
            raise InputError(path, "array", f"{values.dtype} of shape {values.shape}", "an array of numbers")
        if length is not None and len(values) != length:
            raise InputError(path, "array", f"{len(values)} rows", f"{length} rows")
        return values

    def timestamps(self, name: str, samples: int) -> np.ndarray:
        """Times of `samples` samples in s: as stored, or interpolated between pairs of sample number and time."""
        values = self.array(name)
        if values.ndim == 2 and values.shape[1] == 2:
            return np.interp(np.arange(samples), values[:, 0], values[:, 1])
        return values

    def table(self, name: str, required: Iterable[str] = ()) -> "pd.DataFrame":
        """A .pqt or .csv dataset; InputError where it is broken or lacks a `required` column."""
        import pandas as pd

        path = self.path(name)
        with reading(path, "table"):
            table = pd.read_csv(path, dtype="str") if path.suffix == ".csv" else pd.read_parquet(path)
        require_columns(table, path, required)
        return table


def folders_with(paths: Iterable[str], files: Collection[str]) -> list[str]:
    """The folders among `paths` that hold one of `files`, sorted."""
    return sorted({folder for folder, _, name in (path.rpartition("/") for path in paths) if name in files})


def newest_of(datasets: Iterable[tuple[str, T]], revision: str | None) -> dict[str, tuple[T, str]]:
    """Of `datasets` (path, anything) the newest revision that is not after `revision`, and which that is ("": none), by
    path without revision."""
    found: dict[str, tuple[T, str]] = {}
    for path, dataset in datasets:
        parts = path.split("/")
        dated = max((part.strip("#") for part in parts if part.startswith("#")), default="")
        name = "/".join(part for part in parts if not part.startswith("#"))
        if (revision is None or dated <= revision) and (name not in found or dated >= found[name][1]):
            found[name] = dataset, dated
    return found


def _listed_sizes(folder: Path) -> dict[str, int]:
    """Bytes of the session's datasets, by path, as ONE's cache tables in a parent folder list them; none without."""
    import pandas as pd

    roots = (parent for parent in folder.parents if all((parent / name).is_file() for name in CACHE_TABLES))
    root = next(roots, None)
    if root is None:
        return {}
    from one.api import One

    with reading(root / CACHE_TABLES[1], "cache tables"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = One(cache_dir=root, mode="local")
        session = one.path2eid(folder)
        if session is None:
            return {}
        datasets = one.list_datasets(session, details=True)
        sizes = pd.to_numeric(datasets["file_size"]).fillna(-1).astype("int64")
    return {str(path): int(size) for path, size in zip(datasets["rel_path"], sizes, strict=True) if size >= 0}
