"""Columns of a table in a file: Parquet, CSV, TSV, npz or MATLAB."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.signal_units import KEY
from pipeline_lib.sources.location import reading

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.sources.hdf import HdfFile

TEXT_TABLES = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pqt")
SUFFIXES = (*PARQUET, *TEXT_TABLES, ".npz", ".mat")
PIECE = 2**18
"""Rows of a long table that are read at a time: of text, each takes some hundred bytes until it is a number."""


def load_columns(path: Path, text: tuple[str, ...] = (), used: tuple[str, ...] = ()) -> Any:
    """The columns or variables of a file by name, as arrays; those named in `text` are read as text from CSV and TSV.

    Raises
    ------
    InputError : an unknown ending, a file that is broken, or a CSV or TSV in which a column named in `text` or `used`
        stands twice.
    """
    import pandas as pd

    suffix = path.suffix.lower()  # DAY1.CSV, as some programs write it
    with reading(path, "file"):
        if suffix in TEXT_TABLES:
            (columns,) = _text_pieces(path, TEXT_TABLES[suffix], text, used)
            return columns
        if suffix in PARQUET:
            return _with_index(pd.read_parquet(path))
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if suffix == ".mat":
            return _load_mat(path)
    raise InputError(path, "file", f"the ending {path.suffix!r}", ", ".join(SUFFIXES))


def load_pieces(path: Path, text: tuple[str, ...], used: tuple[str, ...]) -> Iterator[Any]:
    """What `load_columns` gives, `PIECE` rows of a Parquet, CSV or TSV file at a time; of other files, all at once.

    Of a Parquet file that has the columns of `text` and `used` there are only these. There is at least one piece.
    """
    suffix, wanted = path.suffix.lower(), {*text, *used}
    with reading(path, "file"):
        if suffix in TEXT_TABLES:
            yield from _text_pieces(path, TEXT_TABLES[suffix], text, used, PIECE)
            return
        if suffix in PARQUET:
            from pyarrow.parquet import ParquetFile

            with ParquetFile(path, pre_buffer=False) as file:  # else the whole file is held, as it is on disk
                if file.metadata.num_rows and wanted <= set(file.schema_arrow.names):
                    for batch in file.iter_batches(PIECE, columns=sorted(wanted)):
                        yield _with_index(batch.to_pandas())
                    return
    yield load_columns(path, text, used)


def _with_index(table: "pd.DataFrame") -> dict[str, np.ndarray]:
    """The columns of a table; pandas keeps an index apart, often the time."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    return {str(name): table[name].to_numpy() for name in table}


def stored_units(path: Path) -> dict[str, Any]:
    """Units of columns that a Parquet file says as pandas writes them (`attrs["units"]`); of other files none.

    Raises
    ------
    InputError : a broken file, or units that are no mapping.
    """
    import pandas as pd

    if path.suffix.lower() not in PARQUET:
        return {}
    with reading(path, "file"):
        units = pd.read_parquet(path, columns=[]).attrs.get(KEY, {})
    if not isinstance(units, dict):
        raise InputError(path, f"attrs[{KEY!r}]", repr(units)[:60], "a unit (text) by column")
    return units


def _text_pieces(
    path: Path, between: str, text: tuple[str, ...], used: tuple[str, ...], rows: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Columns that have a name, so many `rows` at a time, or all; of others the first numbers the rows, where pandas or
    R wrote it."""
    import pandas as pd

    look: dict[str, Any] = {"header": None, "nrows": 1, "dtype": "str", "keep_default_na": False}
    header = pd.read_csv(path, sep=between, skipinitialspace=True, **look).iloc[0]
    bare = header.str.rstrip()
    for name in bare[bare.duplicated()]:  # the second of two would be called `name.1`
        if name in {*text, *used}:
            raise InputError(path, "header", f"{name!r} twice", "once each column that is used")
    kinds = dict.fromkeys(header[bare.isin(text)], "str")
    tables: Any = pd.read_csv(path, sep=between, dtype=kinds, skipinitialspace=True, chunksize=rows)
    for table in [tables] if rows is None else tables:
        longer = not isinstance(table.index, pd.RangeIndex)  # pandas took the first column for names of the rows
        whole = len(header) == 1 and any(sign in header[0] for sign in ",;\t|")
        if longer or whole:
            accepted = f"a name for every value of a row, {between!r} between them and . before the decimals"
            raise InputError(path, "header", f"{len(header)} names ({between.join(header)[:60]!r})", accepted)
        yield {str(name).rstrip(): _without_spaces(table[name]).to_numpy() for name in table.columns[bare != ""]}


def _without_spaces(column: "pd.Series") -> "pd.Series":
    """Text without spaces at its end: "good " is no other label than "good"."""
    from pandas.api.types import is_string_dtype

    return column.str.rstrip() if is_string_dtype(column.dropna()) else column


def _load_mat(path: Path) -> dict[str, np.ndarray]:
    import h5py
    import scipy.io

    from pipeline_lib.sources.hdf import HdfFile

    if not h5py.is_hdf5(path):
        return {name: _cells(value) for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    with HdfFile(path) as file:
        # Groups, references and objects (structures, cells, strings) are no columns.
        found = {name: file.find(name) for name in file.names("")}
        names = [name for name, each in found.items() if isinstance(each, h5py.Dataset)]
        names = [name for name in names if h5py.check_ref_dtype(found[name].dtype) is None]
        return {name: _matrix(file, name) for name in names if "MATLAB_object_decode" not in found[name].attrs}


def _matrix(file: "HdfFile", name: str) -> np.ndarray:
    """A variable of MATLAB 7.3, which lies transposed; text is stored as numbers, an empty array as its shape."""
    values = file.values(name)
    if file.attribute(name, "MATLAB_empty"):
        return np.empty(0)
    if file.attribute(name, "MATLAB_class") == "char":
        rows = np.atleast_2d(values.T).astype("<u2")
        return np.array([row.tobytes().decode("utf-16-le", "replace").rstrip() for row in rows])
    return values.T


def _cells(values: np.ndarray) -> np.ndarray:
    """What the cells of a MATLAB array hold: each is read as an array of its own, of one text or number."""
    if values.dtype.kind == "U":
        return np.char.rstrip(values)  # the rows of a matrix of characters are filled up with spaces
    if values.dtype.kind != "O":
        return values
    held = [each.item() if each.size == 1 else str(each) if each.size else None for each in values.ravel()]
    return np.array(held, dtype=object).reshape(values.shape)


def table_of(path: Path, columns: Any) -> "pd.DataFrame":
    """Columns of one value a row as a table; InputError where they differ in length."""
    import pandas as pd

    vectors = {name: vector(path, columns, name) for name in columns}
    for name, values in vectors.items():
        first, rows = next(iter(vectors)), len(next(iter(vectors.values())))
        if len(values) != rows:
            raise InputError(path, f"column {name}", f"{len(values)} values, {rows} of {first}", "as many of both")
    return pd.DataFrame(vectors)


def column(path: Path, columns: Any, name: str) -> np.ndarray:
    """One of the `columns`; InputError, with the names of all, where there is none of that name."""
    if name not in columns:
        listed = f"one of {', '.join(map(str, columns))}, named by an option of the session sheet"
        accepted = listed if len(columns) else "a file with columns"
        raise InputError(path, f"column {name}", "no such column", accepted)
    return np.asarray(columns[name])


def vector(path: Path, columns: Any, name: str) -> np.ndarray:
    """One of the `columns`, a value a row; InputError where it is not."""
    values = column(path, columns, name)
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()  # MATLAB knows no vectors
    if values.ndim != 1:
        raise InputError(path, f"column {name}", f"shape {values.shape}", "one value a row")
    return values


def numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """The column `values` (rows,), as it is; InputError, with the first row that holds no number, where one does."""
    import pandas as pd

    if values.dtype.kind in "iuf" or len(values) == 0:
        return values
    none = pd.to_numeric(pd.Series(values), errors="coerce").isna() & pd.notna(values)
    row = int(np.argmax(none)) if values.dtype.kind in "OU" else 0
    found = " ".join(repr(values[row]).split())[:60]
    raise InputError(path, f"column {name}, row {row}", f"{found} ({values.dtype})", "numbers")
