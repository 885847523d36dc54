"""The rates of a part of a session, as a submission needs them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.predictions import open_predictions, rows_of
from pipeline_lib.published import PREDICTIONS
from pipeline_lib.trains.manifest import read_manifest
from pipeline_lib.trains.splits import Split


def sessions(trains_dirs: Sequence[Path | str]) -> list[str]:
    """The session of each folder of trains."""
    return [str(read_manifest(Path(directory))["session"]) for directory in trains_dirs]


def rates_of(directory: Path | str, split: Split, session: str, part: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The samples of a part, in the order of the split, and their rates [S, T, N] (spikes a bin).

    Raises
    ------
    InputError : no predictions of the session, or of one of its samples.
    """
    predictions, where = open_predictions(directory), Path(directory) / PREDICTIONS
    if session not in predictions:
        raise InputError(where, session, "no such group", "a session of the fit")
    samples = split.part(session, part)
    rows = rows_of(predictions, session, samples.index)
    if not len(rows) or (rows < 0).any():
        raise InputError(where, f"{session}/sample", f"not all of {part}", f"predictions of every {part} window")
    return samples, np.asarray(predictions[f"{session}/rates"][:])[rows]
