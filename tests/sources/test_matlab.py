"""MATLAB files of version 7.3, which store more than numbers as numbers."""

import h5py
import numpy as np
import pytest
import scipy.io

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


def write_cells(path, cells):
    """A cell array `spikes` of two rows and two columns, as MATLAB writes it by default or with -v7.3."""
    if path.stem == "v5":
        held = np.empty((2, 2), dtype=object)
        for place, values in enumerate(cells):
            held[place % 2, place // 2] = values
        scipy.io.savemat(path, {"spikes": held, "rate": 30_000.0})
        return
    with h5py.File(path, "w") as file:
        made = []
        for number, values in enumerate(cells):  # an empty array is stored as its shape
            stored = values.T if values.size else np.zeros(2, np.uint64)
            made.append(file.create_dataset(f"#refs#/{number}", data=stored))
            if not values.size:
                made[-1].attrs["MATLAB_empty"] = np.uint8(1)
        references = np.array([each.ref for each in made], dtype=h5py.ref_dtype).reshape(2, 2)
        file.create_dataset("spikes", data=references).attrs["MATLAB_class"] = np.bytes_("cell")


@pytest.mark.parametrize("name", ["v5.mat", "v73.mat"])
def test_a_cell_array_with_a_unit_in_each_cell(tmp_path, name):
    """One unit's times stand in a column, another's in a row, one is a single spike, and one never fired."""
    cells = [np.array([[0.1], [0.7]]), np.empty((0, 0)), np.array([[0.2, 0.3, 2.0]]), np.array([[0.4]])]
    write_cells(tmp_path / name, cells)
    recording = read_source("tables", "s", tmp_path / name, {"cells": "spikes"})
    assert list(recording.units["unit_id"]) == ["1", "2", "3", "4"]
    for unit, times in enumerate(cells):
        np.testing.assert_array_equal(recording.spike_times[recording.spike_units == unit], times.ravel())
    assert read_source("tables", "s", tmp_path / name, {"cells": "spikes", "time_unit": "ms"}).duration == 0.002
    with refuses(name, "option cells", "'trains'", "one of spikes"):
        read_source("tables", "s", tmp_path / name, {"cells": "trains"})
    with refuses(name, "column time", "no such column", "the option cells", "spikes"):
        read_source("tables", "s", tmp_path / name)


@pytest.mark.parametrize("name", ["v5.mat", "v73.mat"])
def test_cells_that_hold_no_spike_times(tmp_path, name):
    good = [np.array([[0.1], [0.7]])] * 3
    write_cells(tmp_path / name, [*good, np.ones((2, 3))])
    with refuses(name, "spikes{4}", "a vector of numbers"):
        read_source("tables", "s", tmp_path / name, {"cells": "spikes"})
    write_cells(tmp_path / name, [*good, np.array([[2.0, 1.0]])])
    with refuses(name, "spikes, row 7", "1.0 s after 2.0 s", "sort: true"):
        read_source("tables", "s", tmp_path / name, {"cells": "spikes"})
    write_cells(tmp_path / name, [np.empty((0, 0))] * 4)
    with refuses(name, "an empty recording"):
        read_source("tables", "s", tmp_path / name, {"cells": "spikes"})
    np.savez(tmp_path / "s.npz", time=[0.1], unit=[1])
    with refuses("s.npz", "option cells", "a .mat file"):
        read_source("tables", "s", tmp_path / "s.npz", {"cells": "spikes"})
    with refuses("option cells", "one of the two"):
        read_source("tables", "s", tmp_path / name, {"cells": "spikes", "array": "spikes", "time": 0, "unit": 1})
