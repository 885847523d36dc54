"""Reading tables of HDF5 files (NWB, MATLAB 7.3) in bulk, without trusting them.

A file may be cut short, hold tables whose columns disagree, or hold links to other files of the machine; each ends in
an InputError with the file and the dataset. Links within the file are followed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.sources.location import reading

if TYPE_CHECKING:
    import pandas as pd

MAX_LINKS = 16
LABELS = "_elements"
"""What the labels of an enumeration are called after the name of its column."""


class HdfFile:
    """An HDF5 file open for reading; paths in it are from its root, such as "units/spike_times"."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        if not path.is_file():
            raise InputError(path, "file", "no such file", "an existing HDF5 file")
        with reading(path, "file"):
            self._file = h5py.File(path, "r")

    def __enter__(self) -> "HdfFile":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def find(self, path: str) -> Any:
        """The h5py group or dataset at `path`, None where there is none; InputError for a link to another file."""
        with reading(self.path, path):
            return self._walk(path, 0)

    def _walk(self, path: str, links: int) -> Any:
        import h5py

        node = self._file
        if links > MAX_LINKS:
            raise InputError(self.path, path, "links that lead in a circle", "a group or dataset")
        for name in filter(None, path.split("/")):
            link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                self._refuse_outside(f"{node.name}/{name}", link.filename)
            if isinstance(link, h5py.SoftLink):
                target = link.path if link.path.startswith("/") else f"{node.name}/{link.path}"
                node = self._walk(target, links + 1)
            else:
                node = node[name]
        return node

    def _refuse_outside(self, path: str, target: str) -> None:
        raise InputError(self.path, path, f"a link to another file ({target})", "data within the file")

    def require(self, path: str) -> Any:
        """Like `find`; InputError where there is nothing, with the names that are there."""
        node = self.find(path)
        if node is None:
            parent = path
            while parent and not self.names(parent):
                parent = parent.rpartition("/")[0]
            names = ", ".join(self.names(parent)) or "nothing"
            raise InputError(self.path, path, "nothing there", f"what {parent or 'the file'} holds: {names}")
        return node

    def names(self, path: str) -> list[str]:
        """What the group at `path` holds, sorted; nothing where there is no group."""
        node = self.find(path)
        with reading(self.path, path):
            return sorted(map(str, node)) if hasattr(node, "keys") else []

    def attribute(self, path: str, name: str) -> Any:
        """An attribute of the group or dataset at `path`, text decoded; None where there is none."""
        node = self.require(path)
        with reading(self.path, f"{path}.{name}"):
            value = node.attrs.get(name)
            return value.decode() if isinstance(value, bytes) else value

    def values(self, path: str) -> np.ndarray:
        """The dataset at `path` in one read, in native byte order; text as an object array of str.

        InputError for a group.
        """
        import h5py

        dataset = self.require(path)
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(self.path, path, "a group", "a dataset")
        with reading(self.path, path):
            self._check_storage(dataset)
            return _native(dataset[()])

    def _check_storage(self, dataset: Any) -> None:
        for name, _, _ in dataset.external or ():
            self._refuse_outside(dataset.name, name)
        for source in dataset.virtual_sources() if dataset.is_virtual else ():
            if source.file_name != ".":
                self._refuse_outside(dataset.name, source.file_name)

    def text(self, path: str) -> str:
        """A text dataset at `path` (several lines or values joined), "" where there is none."""
        if self.find(path) is None:
            return ""
        return "; ".join(str(item) for item in np.atleast_1d(self.values(path)))

    def floats(self, path: str, dimensions: int = 1) -> np.ndarray:
        """The numeric dataset at `path` as float64; InputError for text or another number of dimensions."""
        values = self.values(path)
        if values.dtype.kind not in "iufb" or values.ndim != dimensions:
            found = f"{'text' if values.dtype.kind == 'O' else values.dtype} of shape {values.shape}"
            raise InputError(self.path, path, found, f"numbers in {dimensions} dimension(s)")
        return values.astype(np.float64, copy=False)

    def ends(self, path: str, length: int) -> np.ndarray:
        """The VectorIndex at `path`: where each row of its ragged column ends, (rows,) int64, of any integer type.

        Raises
        ------
        InputError : it decreases, or does not end at `length`, the number of values.
        """
        ends = self.floats(path).astype(np.int64)
        if (np.diff(ends, prepend=0, append=length) < 0).any() or ends[-1:].sum() != length:
            found = f"{len(ends)} rows ending at {ends[-1]}" if len(ends) else "no row"
            raise InputError(self.path, path, found, f"row ends that never decrease, the last at {length}")
        return ends

    def references(self, path: str) -> list[Any]:
        """What a dataset of object references points to, row after row; None for an empty reference."""
        dataset = self.require(path)
        with reading(self.path, path):
            return [self._file[reference] if reference else None for reference in np.ravel(dataset[()])]

    def table(self, path: str, required: Iterable[str] = ()) -> "pd.DataFrame":
        """The columns of the DynamicTable at `path` that hold one value a row, in the order the file names them.

        An enumeration (hdmf's EnumData) holds its labels. Columns of several values a row (ragged, or of more
        dimensions) and of references are not in it, nor is what the file does not name as a column and is of another
        length.

        Raises
        ------
        InputError : a `required` column is missing, two columns differ in length, or a value has no label.
        """
        import h5py
        import pandas as pd

        group = self.require(path)
        if not isinstance(group, h5py.Group):
            raise InputError(self.path, path, "a dataset", "a table (a group of columns)")
        with reading(self.path, f"{path}.colnames"):
            listed = [str(name) for name in _native(np.atleast_1d(group.attrs.get("colnames", [])))]
        present = self.names(path)
        columns: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(["id", *listed, *present]):
            ragged = f"{name}_index" in present or (name.endswith("_index") and name.removesuffix("_index") in present)
            labels = name.endswith(LABELS) and self._labels(f"{path}/{name.removesuffix(LABELS)}") is not None
            if ragged or labels or not self._one_value_a_row(f"{path}/{name}"):
                continue
            values = self._labelled(f"{path}/{name}")
            first = next(iter(columns), name)
            rows = len(columns.get(first, values))
            if len(values) == rows:
                columns[name] = values
            elif name in listed or not listed:
                raise InputError(self.path, f"{path}/{name}", f"{len(values)} rows", f"{rows} rows, as {first} has")
        for name in required:
            if name not in columns:
                accepted = f"a table with one value a row in {name}"
                raise InputError(self.path, f"{path}/{name}", "no such column", accepted)
        return pd.DataFrame(columns)

    def _labels(self, path: str) -> np.ndarray | None:
        """The labels of the enumeration at `path`, None where there is none."""
        import h5py

        elements = self.attribute(path, "elements") if self.find(path) is not None else None
        if not isinstance(elements, h5py.Reference):
            return None
        with reading(self.path, f"{path}.elements"):
            return self.values(self._file[elements].name)

    def _labelled(self, path: str) -> np.ndarray:
        """The column at `path`; of an enumeration, what its numbers stand for."""
        values, labels = self.values(path), self._labels(path)
        if labels is None or values.dtype.kind not in "iu":
            return values
        bad = (values < 0) | (values >= len(labels))
        refuse_rows(bad, self.path, path, values, f"one of {len(labels)} labels, from 0 on")
        return labels[values]

    def _one_value_a_row(self, path: str) -> bool:
        """Whether at `path` is a vector of numbers or texts, not of references, arrays or records."""
        import h5py

        node = self.find(path)
        with reading(self.path, path):
            if not isinstance(node, h5py.Dataset) or node.ndim != 1:
                return False
            return node.dtype.kind in "iufbSU" or h5py.check_string_dtype(node.dtype) is not None


def rows_of(ends: np.ndarray) -> np.ndarray:
    """The row of each value of a ragged column whose rows end there (values,) int32."""
    return np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(ends, prepend=0))


def _native(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace").astype(object)
    if values.dtype.kind == "O":
        decode = np.frompyfunc(lambda item: item.decode("utf-8", "replace") if isinstance(item, bytes) else item, 1, 1)
        return np.asarray(decode(values), dtype=object)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
