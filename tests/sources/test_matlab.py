"""MATLAB files of version 7.3, which store more than numbers as numbers."""

import h5py
import numpy as np

from pipeline_lib.sources import read_source
from tests.sources.conftest import refuses

SPIKES = "time,unit\n0.1,2\n0.25,10\n0.25,2\n1.0,1\n1.5,10\n"


def test_cells_of_a_new_matlab_file_are_no_conditions(tmp_path):
    """Version 7.3 keeps in a cell array where each text is; that text of a reference is the same for every trial."""
    (tmp_path / "spikes.csv").write_text(SPIKES)
    with h5py.File(tmp_path / "trials.mat", "w") as file:
        file["start"], file["stop"] = np.array([[0.0, 1.0]]), np.array([[0.5, 1.5]])
        cells = [file.create_dataset(f"#refs#/{side}", data=[[ord(letter) for letter in side]]) for side in "ab"]
        file["condition"] = np.array([[cell.ref for cell in cells]], dtype=h5py.ref_dtype)
    assert read_source("tables", "s", tmp_path).trials["condition"].tolist() == ["all", "all"]
    with refuses("trials.mat", "no column 'condition'"):
        read_source("tables", "s", tmp_path, {"condition": "condition"})


def test_what_a_new_matlab_file_stores_as_numbers(tmp_path):
    """Version 7.3: characters are their codes, an empty array is its shape, an object is the number of its store."""
    (tmp_path / "spikes.csv").write_text(SPIKES)
    sides = np.array([[ord(letter) for letter in side] for side in ("left ", "right")], dtype=np.uint16)
    with h5py.File(tmp_path / "trials.mat", "w") as file:
        file["start"], file["stop"], file["condition"] = [[0.0, 1.0]], [[0.5, 1.5]], sides.T
        file["condition"].attrs["MATLAB_class"] = np.bytes_("char")
        file["note"] = np.zeros((1, 6), np.uint32)
        file["note"].attrs["MATLAB_object_decode"] = np.int32(3)
    trials = read_source("tables", "s", tmp_path).trials
    assert trials["condition"].tolist() == ["left", "right"]
    assert list(trials) == ["start", "stop", "condition"]
    with h5py.File(tmp_path / "none.mat", "w") as file:
        for name in ("time", "unit"):
            file[name] = np.zeros(2, np.uint64)
            file[name].attrs["MATLAB_empty"] = np.uint8(1)
    with refuses("none.mat", "an empty recording"):
        read_source("tables", "s", tmp_path / "none.mat")
