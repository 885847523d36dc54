"""Units of measurement of signals: text by column, kept with the table of a signal in its ``attrs["units"]``.

pandas writes the `attrs` of a table into a Parquet file and reads them back. A column without an entry is a number of
something that nobody named, or of nothing (a label, a likelihood).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

KEY = "units"


def keep_units(signal: "pd.DataFrame", units: Mapping[str, str]) -> None:
    """Let `signal` know the units of some of its columns, besides or in the place of those it knew; "" is none.

    >>> import pandas as pd
    >>> signal = pd.DataFrame({"time": [0.0], "speed": [3.0], "moving": [1.0]})
    >>> keep_units(signal, {"speed": "cm/s", "moving": ""})
    >>> signal.attrs
    {'units': {'speed': 'cm/s'}}
    """
    kept = {column: unit for column, unit in (signal.attrs.get(KEY, {}) | dict(units)).items() if unit}
    signal.attrs = {name: said for name, said in signal.attrs.items() if name != KEY} | ({KEY: kept} if kept else {})


def unit_of(signal: "pd.DataFrame", column: str) -> str:
    """The unit of a column, "" where none is known.

    >>> import pandas as pd
    >>> unit_of(pd.DataFrame({"time": [0.0], "speed": [3.0]}), "speed")
    ''
    """
    return str(signal.attrs.get(KEY, {}).get(column, ""))


def require_units_as_text(place: Path | str, name: str, signal: "pd.DataFrame") -> None:
    """Raise InputError where what the signal `name` says of units is anything but text for some of its columns."""
    units = signal.attrs.get(KEY, {})
    if not isinstance(units, dict):
        raise InputError(place, f"signals/{name}, units", repr(units)[:60], "a unit (text) by column")
    dimensions = [column for column in signal.columns if column != "time"]
    for column, unit in units.items():
        if column not in dimensions:
            accepted = f"units of its columns {', '.join(map(str, dimensions))}"
            raise InputError(place, f"signals/{name}, units", f"column {column!r}", accepted)
        if not isinstance(unit, str):
            raise InputError(place, f"signals/{name}, unit of {column}", repr(unit)[:60], "text, such as 'cm/s'")
