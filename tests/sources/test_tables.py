import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.sources import read_source
from tests.sources.conftest import refuses

TIMES = np.array([0.1, 0.25, 0.25, 1.0, 1.5])
UNITS = np.array([2, 10, 2, 1, 10])
ARRAY = {"array": "spks", "unit": 0, "time": 1}


def write_spikes(path, times=TIMES, units=UNITS):
    """The spikes in the format of the file's ending."""
    frame = pd.DataFrame({"time": times, "unit": units})
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".npz":
        np.savez(path, time=times, unit=units)
    elif path.name == "v73.mat":
        with h5py.File(path, "w") as file:
            file["time"], file["unit"] = np.asarray(times)[None], np.asarray(units)[None]
    else:
        scipy.io.savemat(path, {"time": times, "unit": units})
    return path


@pytest.mark.parametrize("name", ["spikes.parquet", "spikes.csv", "spikes.tsv", "spikes.npz", "spikes.mat", "v73.mat"])
def test_every_format_gives_the_same_recording(tmp_path, name):
    recording = read_source("tables", "s", write_spikes(tmp_path / name))
    np.testing.assert_array_equal(recording.spike_times, TIMES)
    assert list(recording.units["unit_id"]) == ["1", "2", "10"]
    assert list(recording.spike_units) == [1, 2, 1, 0, 2]
    assert set(recording.units["region"]) == {"unknown"}
    assert set(recording.units["population"]) == {"all"}
    assert recording.duration == 1.5
    assert list(recording.provenance.files) == [name]


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_matrix_of_one_row_a_spike(tmp_path, version):
    path, matrix = tmp_path / "m.mat", np.stack([UNITS.astype(float), TIMES], axis=1)
    if version == "5":
        scipy.io.savemat(path, {"spks": matrix})
    else:
        with h5py.File(path, "w") as file:
            file["spks"] = matrix.T
    recording = read_source("tables", "s", path, ARRAY)
    np.testing.assert_array_equal(recording.spike_times, TIMES)
    assert list(recording.units["unit_id"]) == ["1", "2", "10"]
    with refuses("m.mat", "spks", "(5, 2)", "at least 4 columns"):
        read_source("tables", "s", path, ARRAY | {"time": 3})
    with refuses("m.mat", "column spikes", "spks"):
        read_source("tables", "s", path, ARRAY | {"array": "spikes"})


@pytest.mark.parametrize(
    ("animal", "units", "spikes", "last"), [("Feb1312da06", 125, 17059, 90), ("Jan1312da04", 102, 12503, 80)]
)
def test_real_aplysia(shared_data, animal, units, spikes, last):
    path = shared_data / "aplysia_humphries" / f"{animal}spks.mat"
    matrix = scipy.io.loadmat(path)["spks"]
    with refuses(path.name, "column 1, row", "sort: true"):
        read_source("tables", animal, path, ARRAY)
    recording = read_source("tables", animal, path, ARRAY | {"sort": True, "duration": last})
    assert (len(recording.units), len(recording.spike_times)) == (units, spikes)
    assert list(recording.units["unit_id"]) == [str(number) for number in range(1, units + 1)]
    for row in (0, units // 2, units - 1):
        np.testing.assert_array_equal(
            recording.spike_times[recording.spike_units == row], matrix[matrix[:, 0] == row + 1, 1]
        )
    with refuses(path.name, "column 1, row", "0 to 50.0 s"):
        read_source("tables", animal, path, ARRAY | {"sort": True, "duration": 50})


def test_the_session_ends_with_what_was_measured_last(tmp_path):
    pd.DataFrame({"time": [0.5, 1.0], "unit": ["a", "a"]}).to_csv(tmp_path / "spikes.csv", index=False)
    assert read_source("tables", "s", tmp_path).duration == 1.0
    pd.DataFrame({"start": [0.0], "stop": [2.0]}).to_csv(tmp_path / "trials.csv", index=False)
    assert read_source("tables", "s", tmp_path).duration == 2.0
    pd.DataFrame({"start": [0.0], "stop": [3.0]}).to_csv(tmp_path / "observed.csv", index=False)
    assert read_source("tables", "s", tmp_path).duration == 3.0


def test_a_listed_unit_that_never_fires_was_not_there_where_its_spikes_say_when_it_was(tmp_path):
    pd.DataFrame({"time": [0.5, 1.0], "unit": ["a", "a"]}).to_csv(tmp_path / "spikes.csv", index=False)
    pd.DataFrame({"unit_id": ["a", "silent"]}).to_csv(tmp_path / "units.csv", index=False)
    found = read_source("tables", "s", tmp_path, {"unit_presence": "spike_range"}).unit_intervals
    assert found.to_numpy().tolist() == [[0, 0.5, 1.0], [1, 0.0, 0.0]]


def test_time_units_and_mapped_columns(tmp_path):
    frame = pd.DataFrame({"t": [300, 600, 9000], "who": ["b", "a", "b"]})
    frame.to_csv(tmp_path / "spk.csv", index=False)
    pd.DataFrame({"cell": ["a", "b", "c"], "area": ["V1", "LM", None], "depth": [1.0, 2.0, 3.0]}).to_csv(
        tmp_path / "cells.csv"
    )
    trials = pd.DataFrame(
        {"on": [3000, 0], "off": [6000, 2400], "kind": [2, 1], "side": ["L", "R"], "cue": [np.nan, 300]}
    )
    trials.to_csv(tmp_path / "runs.csv", index=False)
    pd.DataFrame({"time": [0, 30], "x": [1.0, 2.0]}).to_csv(tmp_path / "eye.csv", index=False)
    options = {"spikes": "spk.csv", "time": "t", "unit": "who", "time_unit": "samples", "sampling_rate": 30000}
    options |= {
        "units": "cells.csv",
        "unit_id": "cell",
        "region": "area",
        "trials": "runs.csv",
        "start": "on",
        "stop": "off",
    }
    options |= {"condition": ["kind", "side"], "events": "cue", "signals": {"pupil": "eye.csv"}}
    recording = read_source("tables", "s", tmp_path, options)
    np.testing.assert_allclose(recording.spike_times, [0.01, 0.02, 0.3])
    assert list(recording.units["region"]) == ["V1", "LM", "unknown"]
    assert list(recording.units["population"]) == ["V1", "LM", "unknown"]
    assert list(recording.spike_units) == [1, 0, 1]
    assert list(recording.trials["condition"]) == ["kind=1 side=R", "kind=2 side=L"]
    np.testing.assert_allclose(recording.trials["start"], [0, 0.1])
    np.testing.assert_allclose(recording.trials["cue"], [0.01, np.nan])
    np.testing.assert_allclose(recording.signals["pupil"]["time"], [0, 0.001])
    assert sorted(recording.provenance.files) == ["cells.csv", "eye.csv", "runs.csv", "spk.csv"]
    assert recording.provenance.selection["condition"] == ["kind", "side"]


def test_times_in_text_are_read_to_the_last_digit(tmp_path):
    times = np.sort(np.random.default_rng(1).uniform(0, 5000, 2000))
    path = write_spikes(tmp_path / "spikes.csv", times, np.zeros(2000, dtype=int))
    np.testing.assert_array_equal(read_source("tables", "s", path).spike_times, times)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 5)), min_size=1, max_size=40))
def test_sorting_keeps_every_spike_with_its_unit(tmp_path, spikes):
    times, units = np.array(spikes, dtype=float).T
    path = write_spikes(tmp_path / "spikes.parquet", times / 1e4, units)
    recording = read_source("tables", "s", path, {"sort": True})
    ids = recording.units["unit_id"].to_numpy()[recording.spike_units].astype(float)
    expected = np.lexsort((np.arange(len(times)), times))
    np.testing.assert_array_equal(recording.spike_times, times[expected] / 1e4)
    np.testing.assert_array_equal(ids, units[expected])


@pytest.mark.parametrize("suffix", ["parquet", "csv", "npz", "mat"])
@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.1, 0.3, 0.2, 0.4, 0.5], ("row 2", "0.2 s after 0.3 s", "sort: true")),
        ([-0.1, 0.3, 0.4, 0.5, 0.6], ("row 0", "-0.1 s", "from 0 s on")),
        ([0.1, 0.3, np.nan, 0.4, 0.5], ("row 2", "nan", "finite")),
        ([0.1, 0.3, 0.4, 0.5, np.inf], ("row 4", "inf", "finite")),
    ],
)
def test_bad_times_name_file_column_and_row(tmp_path, suffix, times, words):
    path = write_spikes(tmp_path / f"spikes.{suffix}", np.array(times))
    with refuses(str(path), "column time", *words):
        read_source("tables", "s", path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "npz", "mat"])
def test_an_empty_table(tmp_path, suffix):
    path = write_spikes(tmp_path / f"spikes.{suffix}", np.empty(0), np.empty(0))
    with refuses(str(path)):
        read_source("tables", "s", path)


@pytest.mark.parametrize("name", ["spikes.parquet", "spikes.npz", "spikes.mat", "v73.mat"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.98])
def test_a_truncated_file(tmp_path, name, share):
    path = write_spikes(tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with refuses(str(path)):
        read_source("tables", "s", path)


def test_missing_files_columns_and_ids(tmp_path):
    with refuses("nowhere.csv", "no such file"):
        read_source("tables", "s", tmp_path / "nowhere.csv")
    with refuses("spikes", "no such file", "option `spikes`"):
        read_source("tables", "s", tmp_path)
    path = write_spikes(tmp_path / "spikes.csv")
    with refuses("spikes.csv", "column when", "time, unit"):
        read_source("tables", "s", tmp_path, {"time": "when"})
    with refuses("units.txt", "option units", "no such file"):
        read_source("tables", "s", tmp_path, {"units": "units.txt"})
    (tmp_path / "notes.txt").write_text("time,unit\n0,1\n")
    with refuses("notes.txt", "'.txt'", ".parquet"):
        read_source("tables", "s", tmp_path / "notes.txt")
    path.write_text("time,unit\n0.1,1\n0.2,\n")
    with refuses("spikes.csv", "column unit, row 1", "no id"):
        read_source("tables", "s", path)
    path.write_text("time,unit\n0.1,1\nsoon,2\n")
    with refuses("spikes.csv", "column time", "numbers"):
        read_source("tables", "s", path)
    write_spikes(tmp_path / "spikes.npz")
    with refuses("spikes.csv, spikes.npz", "one file"):
        read_source("tables", "s", tmp_path)


def test_units_the_table_does_not_list_and_units_listed_twice(tmp_path):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "units.csv").write_text("unit_id\n1\n2\n")
    with refuses("spikes.csv", "column unit, row 1", "unit '10'"):
        read_source("tables", "s", tmp_path)
    (tmp_path / "units.csv").write_text("unit_id\n1\n2\n10\n2\n")
    with refuses("units.unit_id", "'2' twice"):
        read_source("tables", "s", tmp_path)


def test_a_silent_unit_of_the_table_is_kept(tmp_path):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "units.csv").write_text("unit_id,region\n10,A\n007,B\n1,A\n2,A\n")
    recording = read_source("tables", "s", tmp_path)
    assert list(recording.units["unit_id"]) == ["10", "007", "1", "2"]
    assert list(recording.spike_units) == [3, 0, 3, 2, 0]


def test_trials_without_times_are_left_out_and_counted(tmp_path):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "trials.csv").write_text("start,stop,condition,note\n1,2,b,\n,,a,x\n0,1,,y\n")
    recording = read_source("tables", "s", tmp_path)
    assert list(recording.trials["condition"]) == ["none", "b"]
    assert list(recording.trials["note"]) == ["y", ""]
    assert recording.provenance.counts["trials_without_times"] == 1
    (tmp_path / "trials.csv").write_text("start,stop\n5,6\n,\n2,1\n")
    with refuses("trials.csv", "column stop, row 2", "1.0 s, with a start at 2.0 s"):  # as the file counts rows
        read_source("tables", "s", tmp_path)
    (tmp_path / "trials.csv").write_text("begin,stop\n2,1\n")
    with refuses("trials.csv", "column start", "begin, stop"):
        read_source("tables", "s", tmp_path)
    (tmp_path / "trials.csv").write_text("start,stop\n1,2\n")
    with refuses("trials.csv", "condition", "'kind'", "start, stop"):
        read_source("tables", "s", tmp_path, {"condition": "kind"})


def test_rows_longer_than_their_header_are_refused(tmp_path):
    """pandas would take the first value for a name of the row, and 0 to 1 s would be read as 1 to 2 s."""
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "trials.csv").write_text("start,stop\n0,1,2\n")
    with refuses("trials.csv", "header", "2 names"):
        read_source("tables", "s", tmp_path)


def test_an_index_that_pandas_keeps_apart_is_a_column(tmp_path):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "signals").mkdir()
    speed = pd.Series([1.0, 2.0], index=pd.Index([0.5, 0.75], name="time"), name="speed")
    speed.to_frame().to_parquet(tmp_path / "signals/running.parquet")
    (tmp_path / "signals/._running.parquet").write_bytes(b"what macOS leaves on other disks")
    running = read_source("tables", "s", tmp_path).signals["running"]
    assert running.to_dict("list") == {"time": [0.5, 0.75], "speed": [1.0, 2.0]}


def test_ids_that_are_bytes_padded_or_no_ids(tmp_path):
    times = np.array([0.5, 1.0])
    np.savez(tmp_path / "spikes.npz", time=times, unit=np.array([b"a", b"b"]))
    assert read_source("tables", "s", tmp_path / "spikes.npz").units["unit_id"].tolist() == ["a", "b"]
    scipy.io.savemat(tmp_path / "spikes.mat", {"time": times, "unit": np.array(["a", "long"])})
    assert read_source("tables", "s", tmp_path / "spikes.mat").units["unit_id"].tolist() == ["a", "long"]
    pd.DataFrame({"time": times, "unit": [[1], [2]]}).to_parquet(tmp_path / "spikes.parquet")
    with refuses("spikes.parquet", "column unit", "ndarray", "one number or text a row"):
        read_source("tables", "s", tmp_path / "spikes.parquet")


def test_a_pickle_in_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "spikes.npz", time=np.array([{"a": 1}], dtype=object), unit=np.array([1]))
    with refuses("spikes.npz", "ValueError"):
        read_source("tables", "s", tmp_path / "spikes.npz")


@pytest.mark.parametrize("kind", ["mat", "npz"])
def test_tables_of_trials_and_units_in_arrays(tmp_path, kind):
    """MATLAB knows no vectors, and keeps texts in cells."""
    write_spikes(tmp_path / "spikes.csv")
    save = scipy.io.savemat if kind == "mat" else lambda path, arrays: np.savez(path, **arrays)
    text = object if kind == "mat" else "U5"
    save(tmp_path / f"units.{kind}", {"unit_id": np.array([2, 10, 1]), "region": np.array(["CA1", "V1", "V1"], text)})
    sides = np.array(["left", "right"], text)
    save(tmp_path / f"trials.{kind}", {"start": np.arange(2.0), "stop": np.arange(2.0) + 0.5, "condition": sides})
    recording = read_source("tables", "s", tmp_path)
    assert recording.units[["unit_id", "region"]].to_numpy().tolist() == [["2", "CA1"], ["10", "V1"], ["1", "V1"]]
    assert recording.trials.to_numpy().tolist() == [[0.0, 0.5, "left"], [1.0, 1.5, "right"]]


@pytest.mark.parametrize(
    ("name", "arrays", "words"),
    [
        ("trials", {"start": [0.0, 1.0], "stop": [0.5]}, ("column stop", "1 values")),
        ("units", {"unit_id": [1, 2, 10], "region": ["CA1"]}, ("column region", "1 values")),
        ("units", {"unit_id": [1, 2, 10], "waveform": np.zeros((3, 5))}, ("column waveform", "(3, 5)")),
        ("observed", {"start": [0.0], "stop": [1.0, 2.0]}, ("column stop", "2 values")),
        ("signals/running", {"time": [0.0, 1.0], "x": [1.0], "y": [1.0, 2.0]}, ("column x", "1 values")),
        (
            "signals/running",
            {"time": [0.0], "x": [1.0], "day": [np.datetime64("2026-01-01")]},
            ("column day", "numbers"),
        ),
        (
            "signals/running",
            {"time": [0.0, 1.0], "x": [1.0, 2.0], "y": [np.nan, np.nan]},
            ("signal running", "no finite sample", "finite in every column", "signals of their own"),
        ),
    ],
)
def test_arrays_that_make_no_table(tmp_path, name, arrays, words):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "signals").mkdir()
    np.savez(tmp_path / f"{name}.npz", **arrays)
    with refuses(f"{name}.npz", *words):
        read_source("tables", "s", tmp_path)


def test_nothing_is_observed_after_the_end_of_the_session(tmp_path):
    write_spikes(tmp_path / "spikes.csv")
    (tmp_path / "observed.csv").write_text("start,stop\n0,1\n1.2,90\n")
    assert read_source("tables", "s", tmp_path).duration == 90
    with refuses("observed.csv", "column stop, row 1", "90.0 s", "0 to 2.0 s"):
        read_source("tables", "s", tmp_path, {"duration": 2.0})


def test_spaces_after_commas_are_no_part_of_names_and_ids(tmp_path):
    (tmp_path / "day.csv").write_text("time, unit\n0.5, a\n0.75, b\n")
    assert list(read_source("tables", "s", tmp_path / "day.csv").units["unit_id"]) == ["a", "b"]


def test_another_format_of_numbers_is_named(tmp_path):
    (tmp_path / "day.csv").write_text("time;unit\n0,5;7\n")
    with refuses("day.csv", "header", "',' between them", ". before the decimals"):
        read_source("tables", "s", tmp_path / "day.csv")
