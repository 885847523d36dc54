"""Tables that fits wrote of what they learned (`tables/{name}.parquet`), of one session."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import first_seeds
from pipeline_lib.recording import read_description


def fit_tables(recording: Path | str, fits: Sequence[Path | str], name: str) -> dict[str, pd.DataFrame]:
    """The table `name` of every model that wrote one, of the session of `recording`, by model.

    Raises
    ------
    NothingToDrawError : none did.
    """
    session = str(read_description(recording)["session"])
    found = {}
    for model, fit in first_seeds(fits).items():
        path = fit.directory / "tables" / f"{name}.parquet"
        if path.is_file():
            table = pd.read_parquet(path)
            table = table[table["session"] == session].drop(columns="session").reset_index(drop=True)
            if len(table):
                found[model] = table
    if not found:
        raise NothingToDrawError(f"No model fitted to {session} has a table of its {name}.")
    return found
