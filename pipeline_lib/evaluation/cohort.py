"""Score all fits of a cohort in one process, into one table: scoring one takes less time than starting Python."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import Scoring, collect, evaluate


def evaluate_fits(scoring: Scoring, fit_dirs: Sequence[Path], train_dirs: Sequence[Path], out: Path) -> None:
    """Write the scores of several fits of a cohort as one table, whole or not at all.

    Parameters
    ----------
    fit_dirs : folders of the fits.
    train_dirs : for each, its predictions of the training part; empty where nothing is decoded.
    out : Parquet file to write.

    Raises
    ------
    InputError : not a `train_dirs` for each fit; of the first fit that cannot be scored, as `evaluate`.
    """
    if (scoring.decoding or train_dirs) and len(train_dirs) != len(fit_dirs):
        raise InputError("evaluate", "--train", f"{len(train_dirs)} given", f"one for each of {len(fit_dirs)} fits")
    training: Sequence[Path | None] = train_dirs or [None] * len(fit_dirs)
    with tempfile.TemporaryDirectory() as folder:
        tables = [Path(folder) / f"{number}.parquet" for number in range(len(fit_dirs))]
        for fit, train, table in zip(fit_dirs, training, tables, strict=True):
            evaluate(fit, scoring, table, train)
        collect(tables, out)
