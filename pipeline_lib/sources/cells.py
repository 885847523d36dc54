"""Cell arrays of MATLAB with the spike times of a unit in each cell, as many labs keep them (`spikes{3}`)."""

from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.hdf import HdfFile
from pipeline_lib.sources.location import reading


def cell_arrays(path: Path) -> list[str]:
    """The names of the cell arrays in a file; none in one that is not MATLAB's."""
    import h5py
    import scipy.io

    if path.suffix.lower() != ".mat":
        return []
    with reading(path, "file"):
        if not h5py.is_hdf5(path):
            return [name for name, _, kind in scipy.io.whosmat(path) if kind == "cell"]
    with HdfFile(path) as file:
        found = {name: file.find(name) for name in file.names("")}
        datasets = {name: each for name, each in found.items() if isinstance(each, h5py.Dataset)}
        return [name for name, each in datasets.items() if h5py.check_ref_dtype(each.dtype) is not None]


def load_cells(path: Path, name: str) -> list[np.ndarray]:
    """The numbers in each cell of the cell array `name`, (numbers,) each, in MATLAB's order: down its columns.

    Raises
    ------
    InputError : no cell array of that name, or a cell that holds something else than a vector of numbers.
    """
    import h5py
    import scipy.io

    known = cell_arrays(path)
    if name not in known:
        accepted = f"one of {', '.join(known)}" if known else "the name of a cell array in a .mat file"
        raise InputError(path, "option cells", repr(name), accepted)
    with reading(path, "file"):
        if not h5py.is_hdf5(path):
            held = list(scipy.io.loadmat(path, variable_names=[name])[name].ravel(order="F"))
        else:
            with HdfFile(path) as file:  # it lies transposed: its rows are MATLAB's columns; an empty cell is its shape
                cells = [each.name for each in file.references(name)]
                held = [np.empty(0) if file.attribute(each, "MATLAB_empty") else file.values(each) for each in cells]
    for number, values in enumerate(held, start=1):
        if values.size and (values.dtype.kind not in "iuf" or values.size != max(values.shape)):
            found = f"{values.dtype} of shape {values.shape}"
            raise InputError(path, f"{name}{{{number}}}", found, "a vector of numbers, the spike times of one unit")
    return [values.ravel() for values in held]
