"""Score all fits of a cohort in one process, into one table: scoring one takes less time than starting Python."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import collect, evaluate
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.published import MANIFEST, read_manifest


@dataclass(frozen=True)
class Scoring:
    """What every fit of a cohort is scored with: its data, and arguments of `evaluate`."""

    trains_dirs: Sequence[Path]
    split_path: Path
    recording_dirs: Sequence[Path]
    resamples: int = 1000
    decoding: Mapping[str, Target] = field(default_factory=dict)
    few_shot: Sequence[int] = ()

    def write(self, fit_dir: Path, train_dir: Path | None, out: Path) -> None:
        """Write the table of one fit, whose manifest says what it is called.

        Nothing is decoded where there is no `train_dir`, the fit's predictions of the training part. Rates averaged
        over seeds have no few-shot scores: those of the seeds may be of latents, of which there is no average.

        Raises
        ------
        InputError : no finished fit, or as `evaluate`.
        """
        told = read_manifest(fit_dir)
        if told is None:
            raise InputError(fit_dir, MANIFEST, "no such file", "the folder of a finished fit")
        evaluate(
            fit_dir,
            self.trains_dirs,
            self.split_path,
            self.recording_dirs,
            out,
            **{name: told[name] for name in ("cohort", "model", "seed")},
            resamples=self.resamples,
            decoding=self.decoding if train_dir else {},
            few_shot=self.few_shot if told["seed"] is not None else (),
            train_dir=train_dir,
        )


def evaluate_fits(scoring: Scoring, fit_dirs: Sequence[Path], train_dirs: Sequence[Path], out: Path) -> None:
    """Write the scores of several fits of a cohort as one table, whole or not at all.

    Parameters
    ----------
    fit_dirs : folders of the fits.
    train_dirs : for each, its predictions of the training part; empty where nothing is decoded.
    out : Parquet file to write.

    Raises
    ------
    InputError : not a `train_dirs` for each fit; of the first fit that cannot be scored, as `Scoring.write`.
    """
    if (scoring.decoding or train_dirs) and len(train_dirs) != len(fit_dirs):
        raise InputError("evaluate", "--train", f"{len(train_dirs)} given", f"one for each of {len(fit_dirs)} fits")
    training: Sequence[Path | None] = train_dirs or [None] * len(fit_dirs)
    with tempfile.TemporaryDirectory() as folder:
        tables = [Path(folder) / f"{number}.parquet" for number in range(len(fit_dirs))]
        for fit, train, table in zip(fit_dirs, training, tables, strict=True):
            scoring.write(fit, train, table)
        collect(tables, out)
