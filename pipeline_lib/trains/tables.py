"""Tables inside a Zarr group: one array a column, so that xarray opens a table as a Dataset."""

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError

_LONGEST_NAME = 255
"""Bytes that file systems allow a name."""


def write_table(parent: Any, name: str, frame: pd.DataFrame, dimension: str) -> None:
    """Write `frame` as the group `name` of the Zarr group `parent`, its rows along `dimension`.

    Numbers and truth values keep their type; text is a string array; anything else (text with gaps, lists) is JSON
    text, marked by the attribute `json`. The index of `frame` is not kept.

    Raises
    ------
    InputError : a column whose name would not do as that of a directory of its own.
    """
    names = [_array_name(column) for column in frame.columns]
    for column, array_name in zip(frame.columns, names, strict=True):
        if not 0 < len(array_name.encode()) <= _LONGEST_NAME or names.count(array_name) > 1:
            raise InputError(name, "column", repr(column)[:60], "names of some letters that no other column has")
    group = parent.create_group(name, attributes={"columns": list(frame.columns)})
    for column, array_name in zip(frame.columns, names, strict=True):
        values = frame[column].to_numpy()
        attributes = {}
        if values.dtype.kind not in "biuf":
            values = values.astype(object)
            if not all(isinstance(value, str) for value in values):
                attributes["json"] = True
                values = np.array([json.dumps(value, default=_plain) for value in values], dtype=object)
        dtype = values.dtype if values.dtype != object else "string"
        array = group.create_array(
            array_name, shape=values.shape, dtype=dtype, dimension_names=(dimension,), attributes=attributes
        )
        if len(values):
            array[:] = values


def read_table(parent: Any, name: str) -> pd.DataFrame:
    """The table that `write_table` wrote as `name` in the Zarr group `parent`."""
    group = parent[name]
    columns = {}
    for column in group.attrs["columns"]:
        array = group[_array_name(column)]
        values = array[:]
        if values.dtype.kind not in "biuf":
            values = values.astype(object)
            if array.attrs.get("json"):
                values = pd.Series([json.loads(value) for value in values], dtype=object).infer_objects()
        columns[column] = values
    return pd.DataFrame(columns, columns=group.attrs["columns"])


def _array_name(column: str) -> str:
    """The name of a column's array: a slash or a leading dot would change the hierarchy."""
    return quote(column, safe=" ()[]%+,;=&@").replace(".", "%2E") if not column.isidentifier() else column


def _plain(value: Any) -> Any:
    """A value JSON does not know as one it does; missing values of any kind become null."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value.item() if isinstance(value, np.generic) else str(value)
