"""NWB files made by pynwb, then read by us; and the same files damaged."""

import shutil

import h5py
import numpy as np
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.nwb import region_name
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.store import Trains
from tests.sources.conftest import refuses
from tests.sources.nwb_file import SPIKES, replace, write_session


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    write_session(path)
    return path


@pytest.fixture
def path(pristine, tmp_path):
    """A copy to damage."""
    return shutil.copy(pristine, tmp_path / "session.nwb")


def test_spikes_units_and_presence(path):
    recording = read_source("nwb", "s", path)
    for row, times in enumerate(SPIKES):
        np.testing.assert_array_equal(recording.spike_times[recording.spike_units == row], times)
    units = recording.units
    assert list(units["unit_id"]) == ["0", "10", "20", "30"]
    assert list(units["region"]) == ["CA1", "CA1", "VISp", "VISp"]
    assert list(units["population"]) == list(units["region"])
    assert list(units["probe"]) == ["shank1", "shank1", "shank0", "shank0"]
    assert list(units["depth"]) == [60, 40, 20, 0]
    assert list(units["label"]) == [f"unit {k}" for k in range(4)]
    assert list(recording.unit_intervals["unit"]) == [0, 0, 1, 2, 3]
    assert list(recording.unit_intervals["stop"]) == [4, 10, 10, 10, 10]
    assert recording.duration == 10
    assert recording.provenance.source_id == "id-7"


def test_a_column_called_population_is_one_of_the_files(path):
    """Files that we export have it."""
    with h5py.File(path, "r+") as file:
        file["units/population"] = ["deep", "deep", "shallow", "deep"]
        file["units"].attrs["colnames"] = [*file["units"].attrs["colnames"], "population"]
    units = read_source("nwb", "s", path, {"population": "population"}).units
    assert list(units["population"]) == ["deep", "deep", "shallow", "deep"]
    assert (
        list(units["region"])
        == ["CA1", "CA1", "VISp", "VISp"]
        == list(read_source("nwb", "s", path).units["population"])
    )


def test_trials_keep_events_that_did_not_happen(path):
    recording = read_source("nwb", "s", path, {"condition": ["side"]})
    trials = recording.trials
    assert list(trials["start"]) == [1, 4, 6]
    assert list(trials["condition"]) == ["R", "L", "R"]
    np.testing.assert_array_equal(trials["go_time"], [np.nan, 4.5, 6.5])
    assert recording.provenance.counts["trials_before"] == 4
    assert recording.provenance.counts["trials_without_times"] == 1
    assert set(read_source("nwb", "s", path).trials["condition"]) == {"all"}
    joined = read_source("nwb", "s", path, {"condition": ["side", "go_time"]}).trials
    assert list(joined["condition"]) == ["side=R go_time=none", "side=L go_time=4.5", "side=R go_time=6.5"]
    with refuses("session.nwb", "'sid'", "side"):
        read_source("nwb", "s", path, {"condition": "sid"})


def test_another_table_of_intervals(path):
    assert read_source("nwb", "s", path, {"trials_table": "flashes"}).duration == 12
    with refuses("session.nwb", "intervals/blinks", "flashes, trials"):
        read_source("nwb", "s", path, {"trials_table": "blinks"})
    with h5py.File(path, "r+") as file:
        del file["intervals/trials"]
    assert len(read_source("nwb", "s", path).trials) == 0


def test_presence(path):
    by_spikes = read_source("nwb", "s", path, {"unit_presence": "spike_range"}).unit_intervals
    assert by_spikes.to_numpy().tolist() == [[0, 0.5, 9.5], [1, 0, 0], [2, 0.25, 2.0], [3, 3.0, 3.0]]
    assert read_source("nwb", "s", path, {"unit_presence": "always"}).unit_intervals is None
    with h5py.File(path, "r+") as file:
        del file["units/obs_intervals"], file["units/obs_intervals_index"]
    assert read_source("nwb", "s", path).unit_intervals is None
    with refuses("session.nwb", "units/obs_intervals", "nothing there"):
        read_source("nwb", "s", path, {"unit_presence": "obs_intervals"})


def test_a_unit_without_an_observation_interval_was_never_observed(path):
    """Silent or not: the column says when a spike could have been seen, and pynwb has every unit say so."""
    with h5py.File(path, "r+") as file:
        replace(file, "units/obs_intervals_index", np.array([2, 2, 3, 3]))
        replace(file, "units/obs_intervals", file["units/obs_intervals"][:3])
    recording = read_source("nwb", "s", path)
    assert recording.unit_intervals.to_numpy().tolist() == [[0, 0, 4], [0, 6, 10], [1, 0, 0], [2, 0, 10], [3, 0, 0]]
    mask = observed_windows(Trains.from_recording(recording), np.array([0]), bins=10, bin_ticks=100_000)
    assert mask.any(axis=(0, 1)).tolist() == [True, False, True, False]
    assert read_source("nwb", "s", path, {"min_rate": 0.1}).units["unit_id"].tolist() == ["0", "20"]
    with h5py.File(path, "r+") as file:
        replace(file, "units/obs_intervals_index", np.zeros(4, dtype=int))
        replace(file, "units/obs_intervals", np.empty((0, 2)))
    with refuses("session.nwb", "units/obs_intervals", "no interval of any unit", "unit_presence: always"):
        read_source("nwb", "s", path)


def test_invalid_times_are_not_observed_unless_asked_for(path):
    with h5py.File(path, "r+") as file:
        file["intervals/invalid_times/start_time"] = np.array([5.0, 2.0])
        file["intervals/invalid_times/stop_time"] = np.array([6.0, 3.0])
    assert read_source("nwb", "s", path).observed.tolist() == [[0, 2], [3, 5], [6, 10]]
    later = read_source("nwb", "s", path, {"time_offset": 1.0})
    assert later.observed.tolist() == [[0, 3], [4, 6], [7, 11]]
    assert read_source("nwb", "s", path, {"invalid_times": False}).observed.tolist() == [[0, 10]]
    with h5py.File(path, "r+") as file:
        replace(file, "intervals/invalid_times/stop_time", np.array([6.0, np.nan]))
    with refuses("session.nwb", "intervals/invalid_times", "invalid_times: false"):
        read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:
        replace(file, "intervals/invalid_times/start_time", np.array([-1.0, 2.0]))
        replace(file, "intervals/invalid_times/stop_time", np.array([60.0, 3.0]))
    with refuses("session.nwb", "observed"):
        read_source("nwb", "s", path)


def test_signals(path):
    signals = {"running": "processing/behavior/speed", "eye": "processing/behavior/gaze"}
    recording = read_source("nwb", "s", path, {"signals": signals})
    assert recording.signals["running"].to_numpy().tolist() == [[0.5, 10], [1.0, 20], [2.0, 40]]
    assert recording.provenance.counts["running_samples_left_out"] == 1
    assert list(recording.signals["eye"]) == ["time", "eye_0", "eye_1"]
    assert list(recording.signals["eye"]["time"]) == [0.0, 0.1, 0.4]
    with refuses("session.nwb", "processing/behavior/spead/data", "gaze, speed"):
        read_source("nwb", "s", path, {"signals": {"running": "processing/behavior/spead"}})


def test_selection_and_columns(path):
    recording = read_source("nwb", "s", path, {"query": {"snr": ">=0.5"}, "regions": "VISp", "population": "label"})
    assert list(recording.units["unit_id"]) == ["20", "30"]
    assert list(recording.units["population"]) == ["unit 2", "unit 3"]
    assert set(recording.unit_intervals["unit"]) == {0, 1}
    assert read_source("nwb", "s", path, {"region": "label"}).units["region"].iloc[0] == "unit 0"
    with refuses("session.nwb", "region", "'area'", "snr"):
        read_source("nwb", "s", path, {"region": "area"})


def test_an_offset_moves_every_time(path):
    options = {"time_offset": 5.0, "signals": {"eye": "processing/behavior/gaze"}}
    recording = read_source("nwb", "s", path, options)
    assert recording.spike_times[0] == 5.25
    assert list(recording.trials["start"]) == [6, 9, 11]
    assert recording.trials["go_time"].iloc[1] == 9.5
    assert recording.unit_intervals["start"].min() == 5
    assert recording.signals["eye"]["time"].iloc[0] == 5
    assert recording.duration == 15


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">u8", "f4"])
def test_index_and_times_of_any_type_and_byte_order(path, dtype):
    expected = read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:
        replace(file, "units/spike_times_index", file["units/spike_times_index"][:].astype(dtype))
        replace(file, "units/spike_times", file["units/spike_times"][:].astype(">f8"))
        replace(file, "units/snr", file["units/snr"][:].astype(">f4"))
    found = read_source("nwb", "s", path)
    assert found.units["snr"].dtype.isnative
    np.testing.assert_array_equal(found.spike_times, expected.spike_times)
    np.testing.assert_array_equal(found.spike_units, expected.spike_units)


def test_links_within_the_file_are_followed(path):
    with h5py.File(path, "r+") as file:
        file.move("units/spike_times", "scratch_times")
        file["units/spike_times"] = h5py.SoftLink("/scratch_times")
        file.move("units", "moved")
        file["units"] = h5py.SoftLink("moved")
        file.move("intervals/trials/go_time", "intervals/trials/clock")
        file["intervals/trials/go_time"] = h5py.SoftLink("clock")  # from the folder of the link
        file["general/related_publications"] = np.array(["one", "two"], dtype=object)
    recording = read_source("nwb", "s", path)
    assert len(recording.spike_times) == 6
    assert recording.trials["go_time"].notna().sum() == 2
    assert recording.provenance.citation == "one; two"


def test_data_outside_the_file_are_refused(path, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["spike_times"] = np.arange(6.0)
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
        file["units/spike_times"] = h5py.ExternalLink("secret.h5", "spike_times")
    with refuses("session.nwb", "units/spike_times", "secret.h5", "within the file"):
        read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
        file["hop"] = h5py.ExternalLink("secret.h5", "/")
        file["units/spike_times"] = h5py.SoftLink("/hop/spike_times")
    with refuses("session.nwb", "secret.h5"):
        read_source("nwb", "s", path)
    (tmp_path / "raw").write_bytes(np.arange(6.0).tobytes())
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
        file.create_dataset("units/spike_times", (6,), "f8", external=[(str(tmp_path / "raw"), 0, 48)])
    with refuses("session.nwb", "units/spike_times", "raw", "within the file"):
        read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
        layout = h5py.VirtualLayout((6,), "f8")
        layout[:] = h5py.VirtualSource("secret.h5", "spike_times", shape=(6,))
        file.create_virtual_dataset("units/spike_times", layout)
    with refuses("session.nwb", "units/spike_times", "secret.h5"):
        read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:
        del file["units/spike_times"]
        file["units/spike_times"] = h5py.SoftLink("/units/spike_times")
    with refuses("session.nwb", "circle"):
        read_source("nwb", "s", path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("units/spike_times", lambda x: np.r_[np.nan, x[1:]], ("row 0", "nan")),
        ("units/spike_times", lambda x: np.r_[x[:3], -0.25, x[4:]], ("row 3", "-0.25 s")),
        ("units/spike_times", lambda x: np.r_[x[1], x[0], x[2:]], ("row 1", "0.5 s after 1.0 s", "sort: true")),
        ("units/spike_times", lambda x: x[:0], ()),
        ("units/spike_times", lambda x: x.reshape(3, 2), ("shape (3, 2)",)),
        ("units/spike_times", lambda x: x[:-1], ("spike_times_index", "the last at 5")),
        ("units/spike_times", lambda x: x.astype("S8"), ("text of shape (6,)", "numbers")),
        ("units/spike_times_index", lambda x: x[[0, 2, 1, 3]], ("never decrease",)),
        ("units/spike_times_index", lambda x: x + 1, ("the last at 6",)),
        ("units/spike_times_index", lambda x: x[:-1], ("the last at 6",)),
        ("units/spike_times_index", lambda x: x[1:], ("4 rows, 3 spike trains",)),
        ("units/id", lambda x: x[:2], ("units/",)),
        ("units/snr", lambda x: x[:2], ("units/", "2 rows", "4 rows")),
        ("units/electrodes", lambda x: x + 1, ("row 0", "found 4", "rows 0 to 3")),
        ("units/obs_intervals", lambda x: x[:, :1], ("units/obs_intervals", "(5, 1)")),
        ("units/obs_intervals", lambda x: x * np.nan, ("units/obs_intervals", "finite")),
        ("intervals/trials/stop_time", lambda x: x - 5, ("trials.stop", "before its start")),
        ("intervals/trials/start_time", lambda x: x[:2], ("intervals/trials", "2 rows")),
    ],
)
def test_damage_names_file_and_dataset(path, name, change, words):
    with h5py.File(path, "r+") as file:
        replace(file, name, change(file[name][:]))
    with refuses("session.nwb", *words):
        read_source("nwb", "s", path)


@pytest.mark.parametrize(
    "name",
    [
        "units",
        "units/spike_times",
        "units/spike_times_index",
        "units/obs_intervals_index",
        "intervals/trials/start_time",
    ],
)
def test_a_missing_dataset_is_named(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
    with refuses("session.nwb", name):
        read_source("nwb", "s", path)


def test_sort_accepts_disorder(path):
    with h5py.File(path, "r+") as file:
        replace(file, "units/spike_times", file["units/spike_times"][:][[2, 0, 1, 3, 4, 5]])
    assert list(read_source("nwb", "s", path, {"sort": True}).spike_times) == [0.25, 0.5, 1.0, 2.0, 3.0, 9.5]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with refuses("session.nwb", "file"):
        read_source("nwb", "s", path)


def test_the_location(path, tmp_path):
    (tmp_path / "._session.nwb").write_bytes(b"what macOS leaves on other disks")
    assert len(read_source("nwb", "s", tmp_path).units) == 4
    shutil.copy(path, tmp_path / "other.nwb")
    with refuses(str(tmp_path), "other.nwb, session.nwb"):
        read_source("nwb", "s", tmp_path)
    with refuses("absent.nwb", "no such file"):
        read_source("nwb", "s", tmp_path / "absent.nwb")


def test_real_guo2017(shared_data):
    options = {"condition": ["type", "response"], "unit_presence": "spike_range"}
    recording = read_source("nwb", "guo", shared_data / "guo2017_dandi000009", options)
    assert (len(recording.units), len(recording.spike_times), len(recording.trials)) == (4, 34057, 412)
    assert set(recording.units["region"]) == {"Thalamus"}
    assert recording.trials["cue_start_time"].isna().sum() == 70
    assert recording.duration == pytest.approx(5232.4, abs=0.1)
    np.testing.assert_allclose(recording.trials["start"][:3], [2.3, 322.1, 1498.9], atol=0.05)
    expected = [[1498.9, 2422.7], [1880.0, 2405.3], [1499.3, 3982.6], [1498.9, 5203.9]]
    np.testing.assert_allclose(recording.unit_intervals[["start", "stop"]], expected, atol=0.05)
    assert recording.provenance.counts["trials_before"] == 412
    assert "type=non-performing response=N/A" in set(recording.trials["condition"])


def test_the_first_electrode_of_a_unit_says_where_it_is(path):
    """Before the unit's own region, but not before its own depth; a unit without electrodes is nowhere."""
    with h5py.File(path, "r+") as file:
        replace(file, "units/electrodes", np.array([3, 0, 1, 0]))
        replace(file, "units/electrodes_index", np.array([2, 2, 3, 4]))
        file["units/region"] = np.array(["CA3"] * 4, dtype=object)
    units = read_source("nwb", "s", path).units
    assert list(units["region"]) == ["CA1", "unknown", "VISp", "VISp"]
    assert list(units["probe"]) == ["shank1", "unknown", "shank0", "shank0"]
    np.testing.assert_array_equal(units["depth"], [60, np.nan, 20, 0])
    with h5py.File(path, "r+") as file:
        file["units/depth"] = np.arange(4.0)
    assert list(read_source("nwb", "s", path).units["depth"]) == [0, 1, 2, 3]


def test_names_that_some_labs_give(path):
    assert region_name("brain_region: CA3; depth: 5") == "CA3"
    assert region_name("None") == region_name(" N/A ") == "unknown"
    with h5py.File(path, "r+") as file:
        file.move("intervals/trials/side", "intervals/trials/condition")
        file["processing/behavior/speed/data"].attrs["offset"] = 5.0
    recording = read_source("nwb", "s", path, {"signals": {"speed": "processing/behavior/speed"}})
    assert list(recording.trials["condition"]) == ["R", "L", "R"]
    assert recording.signals["speed"]["speed"].tolist() == [15.0, 25.0, 45.0]


def test_the_units_own_region_where_no_electrode_has_one(path):
    """As `trains.export.to_nwb` writes it."""
    with h5py.File(path, "r+") as file:
        del file["units/electrodes"], file["units/electrodes_index"]
        file["units/region"] = np.array(["CA3", "CA3", "", "V1"], dtype=object)
        groups = file["units/electrode_group"][()]
        groups[1] = h5py.Reference()
        file["units/electrode_group"][...] = groups
    units = read_source("nwb", "s", path).units
    assert list(units["region"]) == list(units["population"]) == ["CA3", "CA3", "unknown", "V1"]
    assert list(units["probe"]) == ["shank1", "unknown", "shank0", "shank0"]


def test_regions_that_are_numbers(path):
    """Ids of an atlas: they were all "unknown"."""
    with h5py.File(path, "r+") as file:
        file["units/area"] = np.array([385.0, np.nan, 382.0, 385.0])
    units = read_source("nwb", "s", path, {"region": "area"}).units
    assert list(units["region"]) == ["385", "unknown", "382", "385"]


def test_what_is_no_column_of_a_table(path):
    """The labels of an enumeration lie beside its column; a column that the file names must be whole."""
    with h5py.File(path, "r+") as file:
        file["intervals/trials/side_elements"] = np.array(["left", "right"], dtype=object)
        file["intervals/trials/block"] = np.arange(4)  # one value a trial, although not named
    recording = read_source("nwb", "s", path)
    assert list(recording.trials["block"]) == [1, 0, 3]
    assert not [name for name in recording.units if name.endswith("_index")]
    with h5py.File(path, "r+") as file:
        replace(file, "intervals/trials/side", np.array(["L", "R"], dtype=object))
    with refuses("intervals/trials/side", "2 rows", "4 rows, as id has"):
        read_source("nwb", "s", path)
    with h5py.File(path, "r+") as file:  # where none is named, all are columns
        del file["intervals/trials"].attrs["colnames"], file["intervals/trials/side_elements"]
    with refuses("intervals/trials/side", "2 rows"):
        read_source("nwb", "s", path)
