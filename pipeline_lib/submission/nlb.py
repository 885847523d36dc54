"""A submission to the Neural Latents Benchmark: expected counts of its trials, in one HDF5 file (Pei et al. 2021).

A group a dataset; every array is float32 [trial, bin, unit], spikes a bin::

    {train,eval}_rates_{heldin,heldout}       the bins of the window
    eval_rates_{heldin,heldout}_forward       the bins after it, where the split holds some out

"eval" is the test part. "train" is there where predictions of the training part are given (the benchmark fits its
decoder of movement to them): training and validation part, which in the benchmark's files are one. Trials are in the
order of the split, units in the order of their rows. Rates are all that a submission holds: the scorer has the spikes,
movement and PSTHs that it compares them with.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import atomic_file
from pipeline_lib.published import PREDICTIONS, require_undamaged
from pipeline_lib.submission.predictions import rates_of, sessions
from pipeline_lib.trains.nlb_arrays import nlb_parts, write_nlb
from pipeline_lib.trains.splits import Split


def write(
    fit_dir: Path | str,
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    out: Path | str,
    train_dir: Path | str | None = None,
    name: str | None = None,
) -> None:
    """Write the datasets of a fit to the file `out`, in the place of those of the same name; others in it stay.

    Parameters
    ----------
    fit_dir : folder of a fit.
    trains_dirs, split_path : the data it was fitted to.
    train_dir : folder with predictions of the training part (see `pipeline_lib.training.predict`).
    name : of the dataset, such as mc_maze or mc_maze_20; default: the session's.

    Raises
    ------
    InputError : a name for several sessions, windows of several lengths, missing or damaged predictions, or a file
        `out` that is not HDF5.
    """
    import h5py

    split, names = Split.read(split_path), sessions(trains_dirs)
    if name is not None and len(names) > 1:
        raise InputError("export", "name", name, f"a fit to one session (this one: {', '.join(names)})")
    for directory in (fit_dir, train_dir or fit_dir):
        require_undamaged(directory, PREDICTIONS)
    datasets = {}
    for session in names:
        arrays = _arrays(split, session, rates_of(fit_dir, split, session, "test")[1], "eval")
        if train_dir is not None:
            parts = [rates_of(train_dir, split, session, "train"), rates_of(fit_dir, split, session, "validation")]
            order = np.argsort(np.concatenate([samples.index for samples, _ in parts]))
            training = _arrays(split, session, np.concatenate([rates for _, rates in parts])[order], "train")
            arrays |= {key: array for key, array in training.items() if not key.endswith("_forward")}
        datasets[name or session] = arrays
    with atomic_file(out) as part:
        if Path(out).is_file():
            if not h5py.is_hdf5(out):
                raise InputError(out, "file", "another kind of file", "an HDF5 file, or the path of a new one")
            shutil.copyfile(out, part)
        with h5py.File(part, "a") as file:
            for dataset, arrays in datasets.items():
                if dataset in file:
                    del file[dataset]
                write_nlb(file, arrays, dataset)


def _arrays(split: Split, session: str, rates: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """Rates [S, T, N] by what the benchmark calls their units and bins."""
    if not np.isfinite(rates).all():
        accepted = "windows of one length: the benchmark has no other"
        raise InputError(f"split of cohort {split.cohort}", "bins", "windows of different length", accepted)
    return nlb_parts(rates, split, session, f"{prefix}_rates")
