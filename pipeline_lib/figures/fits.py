"""What a figure reads of a fit: predictions, couplings and tables, by path, without torch and the model's code."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.coupling import CouplingMatrices
from pipeline_lib.evaluation.predictions import couplings_of, open_predictions, rows_of
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.palette import model_order
from pipeline_lib.published import PREDICTIONS, read_parquet, require_undamaged
from pipeline_lib.recording import read_description

if TYPE_CHECKING:
    import zarr

DISCOVERY = 0.05
"""False-discovery rate at which a tested coupling counts as found."""


@dataclass(frozen=True)
class Fit:
    """A finished fit, `fits/{cohort}/{model}/seed{seed}`."""

    directory: Path
    cohort: str
    model: str
    seed: int

    @classmethod
    def at(cls, directory: Path | str) -> "Fit":
        """The fit whose files lie in `directory`; InputError where the path is not one of a fit."""
        directory = Path(directory)
        seed = directory.name.removeprefix("seed")
        if not directory.name.startswith("seed") or not seed.isdigit():
            raise InputError(directory, "fit", directory.name, "a path that ends in {cohort}/{model}/seed{seed}")
        return cls(directory, directory.parent.parent.name, directory.parent.name, int(seed))

    def prediction(self, session: str, samples: np.ndarray) -> np.ndarray:
        """Expected counts a bin [S, T, N] of windows, rows `samples` of the split; InputError where there are none."""
        found = self._windows(session, "rates", samples)
        if found is None:
            raise InputError(self.directory / PREDICTIONS, session, "no such group", "a session of the cohort")
        return found

    def latents(self, session: str, samples: np.ndarray) -> np.ndarray | None:
        """Latents [S, T, D] of windows, NaN beyond the end of a ragged one; None where the model has none."""
        return self._windows(session, "latents", samples)

    def extras(self, session: str) -> list[str]:
        """Names of what else the model says of each window of a session."""
        group = self._group()
        return sorted(group[f"{session}/extras"].array_keys()) if f"{session}/extras" in group else []

    def extra(self, session: str, name: str, samples: np.ndarray) -> np.ndarray:
        """One of `extras` of windows, [S, ...]; InputError where the fit has none of this name."""
        found = self._windows(session, f"extras/{name}", samples)
        if found is None:
            accepted = ", ".join(self.extras(session)) or "a model that has extras"
            raise InputError(self.directory / PREDICTIONS, session, f"no {name}", accepted)
        return found

    def has_table(self, name: str) -> bool:
        """Whether the fit wrote the table `name` of what it learned."""
        return self._table(name).is_file()

    def table(self, name: str, session: str) -> pd.DataFrame:
        """Rows of a session in such a table; InputError where the fit wrote none of this name."""
        table = read_parquet(self._table(name))
        return table[table["session"] == session].drop(columns="session").reset_index(drop=True)

    def _table(self, name: str) -> Path:
        return self.directory / "tables" / f"{name}.parquet"

    def couplings(self, session: str) -> CouplingMatrices | None:
        """Couplings of a session, or None where the model has none."""
        return couplings_of(self._group(), session)

    def _windows(self, session: str, name: str, samples: np.ndarray) -> np.ndarray | None:
        group = self._group()
        if f"{session}/{name}" not in group:
            return None
        rows = rows_of(group, session, samples)
        if (rows < 0).any():
            missing = f"no sample {samples[rows < 0][0]}"
            raise InputError(self.directory / PREDICTIONS, "sample", missing, "predictions of this split")
        return np.asarray(group[f"{session}/{name}"][:][rows])

    def _group(self) -> "zarr.Group":
        _look_at(self.directory)
        return open_predictions(self.directory)


@cache
def _look_at(directory: Path) -> None:
    """Refuse damaged predictions, looked at once: several figures are drawn of a fit."""
    require_undamaged(directory, PREDICTIONS)


def first_seeds(directories: Sequence[Path | str]) -> dict[str, Fit]:
    """One fit a model, that of its lowest seed, by model: what a figure of single trials shows."""
    fits = sorted((Fit.at(directory) for directory in directories), key=lambda fit: (fit.model, fit.seed))
    lowest = {fit.model: fit for fit in reversed(fits)}
    return {model: lowest[model] for model in model_order(lowest)}


def fit_tables(recording: Path | str, fits: Sequence[Path | str], name: str) -> dict[str, pd.DataFrame]:
    """The table `name` of every model that wrote one, of the session of `recording`, by model.

    Raises
    ------
    NothingToDrawError : none did.
    """
    session = str(read_description(recording)["session"])
    tables = {model: fit.table(name, session) for model, fit in first_seeds(fits).items() if fit.has_table(name)}
    found = {model: table for model, table in tables.items() if len(table)}
    if not found:
        raise NothingToDrawError(f"No model fitted to {session} has a table of its {name}.")
    return found


def first_with(fits: Sequence[Path | str], name: str, otherwise: str) -> Fit:
    """The first fit that wrote the table `name`, in the order of models; NothingToDrawError `otherwise`."""
    fit = next((fit for fit in first_seeds(fits).values() if fit.has_table(name)), None)
    if fit is None:
        raise NothingToDrawError(otherwise)
    return fit
