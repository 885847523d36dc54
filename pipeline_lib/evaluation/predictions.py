"""The store predictions.zarr of a fit, as it is opened by whatever scores, draws or submits it.

`pipeline_lib.training.predictions` says what is in it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.coupling import CouplingMatrices
from pipeline_lib.published import PREDICTIONS, require_undamaged

if TYPE_CHECKING:
    import zarr


def open_predictions(directory: Path | str) -> "zarr.Group":
    """The predictions of a fit, or its further ones, to read; InputError where there are none."""
    import zarr

    store = Path(directory) / PREDICTIONS
    if not store.is_dir():
        accepted = "a finished fit (to have it made anew, remove its folder)"
        raise InputError(directory, PREDICTIONS, "no such store", accepted)
    return zarr.open_group(str(store), mode="r")


def open_undamaged(directory: Path | str) -> "zarr.Group":
    """`open_predictions` of what agrees with the hash in its manifest, InputError for anything else."""
    require_undamaged(directory, PREDICTIONS)
    return open_predictions(directory)


def rows_of(predictions: "zarr.Group", session: str, samples: np.ndarray | pd.Index) -> np.ndarray:
    """Where `samples`, rows of the split, lie in the arrays of a session; -1 where one was not predicted."""
    return pd.Index(np.asarray(predictions[f"{session}/sample"][:])).get_indexer(samples)


def couplings_of(predictions: "zarr.Group", session: str) -> CouplingMatrices | None:
    """Couplings of a session; None where the model has none."""
    if f"{session}/couplings" not in predictions:
        return None
    stored = predictions[f"{session}/couplings"]
    strength, filters = (np.asarray(stored[name][:]) for name in ("strength", "filters"))
    return CouplingMatrices(strength, filters, float(stored.attrs["bin_size"]))
