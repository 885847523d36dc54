"""The Allen reader on the layout our writer makes (which AllenSDK opens), varied as real files vary."""

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.sources.conftest import refuses
from tests.sources.test_nwb import replace


@pytest.fixture
def path(recording, tmp_path):
    """Units 11, 3, 7, 20, 8, 100 on probes A, B, C, A, B, C."""
    return write_layout(recording, tmp_path, "allen")


def edit(path, **datasets):
    """Replace datasets of the file; `__` in a name is `/`."""
    with h5py.File(path, "r+") as file:
        for name, data in datasets.items():
            replace(file, name.replace("__", "/"), data)


def add_table(path, name, columns, ragged=()):
    """Add a table of intervals; a ragged column has as many values in every row."""
    with h5py.File(path, "r+") as file:
        group = file.create_group(f"intervals/{name}")
        rows = len(columns["start_time"])
        group["id"] = np.arange(rows)
        group.attrs["colnames"] = list(columns)
        for column, values in columns.items():
            group[column] = values
            if column in ragged:
                group[f"{column}_index"] = len(values) // rows * np.arange(1, rows + 1)


def test_quality_criteria(path):
    electrodes = "general__extracellular_ephys__electrodes__"
    values = {
        "units__isi_violations": [0.5, 0.51, 0.0, 0.0, 0.0, 0.0],
        "units__presence_ratio": [0.95, 1.0, 0.94, 1.0, 1.0, 1.0],
        "units__amplitude_cutoff": [0.1, 0.0, 0.0, np.nan, 0.0, 0.0],
        "units__quality": ["good", "good", "good", "good", "noise", "good"],
        f"{electrodes}location": ["VISp", "VISl", "CA1", "VISp", "VISl", ""],
    }
    edit(path, **values)

    def kept(**options):
        return list(read_source("allen", "s", path, options).units["unit_id"])

    assert kept() == ["11"]
    assert kept(max_isi_violations=None) == ["11", "3"]
    assert kept(min_presence_ratio=0.9) == ["11", "7"]
    assert kept(max_amplitude_cutoff=None) == ["11", "20"]
    assert kept(quality=None) == ["11", "8"]
    assert kept(in_brain=False) == ["11", "100"]
    edit(path, units__snr=[1.0, 9.0, 9.0, 9.0, 9.0, 9.0])
    assert kept(min_snr=1.0) == ["11"]
    with refuses(path.name, "none of 6"):
        kept(min_snr=1.01)
    assert read_source("allen", "s", path, {"in_brain": False}).units["region"].iloc[1] == "unknown"
    counts = read_source("allen", "s", path).provenance.counts
    assert (counts["units_before"], counts["units_after"]) == (6, 1)
    edit(path, **{f"{electrodes}valid_data": np.array([False] + [True] * 5)})
    with refuses(path.name, "none of 6"):
        read_source("allen", "s", path)
    with refuses(path.name, "units/snr"):
        with h5py.File(path, "r+") as file:
            del file["units/snr"]
        read_source("allen", "s", path, {"min_snr": 1})


def test_populations_and_probes(path):
    units = read_source("allen", "s", path, {"population": "probe"}).units
    assert list(units["population"]) == ["probeA", "probeB", "probeC", "probeA", "probeB", "probeC"]
    assert list(units["depth"]) == [20 * row for row in range(6)]


def test_a_unit_lies_where_its_peak_channel_does(path):
    """In real files neither units nor electrodes are in order of the channels."""
    with h5py.File(path, "r+") as file:
        channels = file["units/peak_channel_id"][:]
        replace(file, "units/peak_channel_id", channels[[4, 2, 0, 1, 5, 3]])
    units = read_source("allen", "s", path).units
    assert list(units["region"]) == ["VISl", "CA1", "VISp", "VISl", "CA1", "VISp"]
    assert list(units["probe"]) == ["probeB", "probeC", "probeA", "probeB", "probeC", "probeA"]
    assert list(units["depth"]) == [80, 40, 0, 20, 100, 60]


def test_presentations_become_trials_with_the_parameters_that_vary(path):
    gratings = {
        "start_time": [0.1, 1.1, 2.1, 3.1],
        "stop_time": [0.6, 1.6, 2.6, 3.6],
        "stimulus_name": ["gratings"] * 4,
        "stimulus_block": [1.0, 1.0, 3.0, 3.0],
        "stimulus_index": [0, 0, 0, 0],
        "orientation": [0.0, 45.0, 0.0, np.nan],
        "contrast": [0.8, 0.8, 0.8, 0.8],
        "phase": ["[0.0, 0.0]", "[0.0, 0.0]", "[1.5, 1.5]", "N/A"],
    }
    pictures = {
        "start_time": [3.8, np.nan],
        "stop_time": [4.0, 4.2],
        "stimulus_name": ["pictures"] * 2,
        "stimulus_block": [4.0, 4.0],
        "stimulus_index": [0, 0],
        "frame": [7.0, 8.0],
        "phase": [0.0, 0.0],
    }
    add_table(path, "gratings_presentations", gratings)
    add_table(path, "pictures_presentations", pictures)
    recording = read_source("allen", "s", path, {"stimulus": ["gratings", "pictures"]})
    assert list(recording.trials["condition"]) == [
        "gratings orientation=0 phase=[0.0, 0.0]",
        "gratings orientation=45 phase=[0.0, 0.0]",
        "gratings orientation=0 phase=[1.5, 1.5]",
        "gratings",
        "pictures frame=7",
    ]
    assert list(recording.trials["phase"])[3:] == ["", "0"]  # text here, a number there: text in all
    assert recording.provenance.counts["trials_before"] == 6
    assert recording.provenance.counts["trials_without_times"] == 1
    chosen = read_source("allen", "s", path, {"stimulus": "gratings", "condition": "orientation"})
    assert list(chosen.trials["condition"]) == ["0", "45", "0", "none"]
    assert len(read_source("allen", "s", path).trials) == 10
    with refuses(path.name, "option stimulus", "'grating'", "gratings, pictures, trial"):
        read_source("allen", "s", path, {"stimulus": "grating"})


def test_what_is_a_parameter_and_what_an_event(path):
    """A value that is missing somewhere varies; numbers that happen to be times of some presentations are no events."""
    gratings = {
        "start_time": [0.1, 1.1, 2.1],
        "stop_time": [0.6, 1.6, 2.6],
        "stimulus_name": ["gratings"] * 3,
        "contrast": [0.8, np.nan, 0.8],
        "phase": [0.5, 1.25, 90.0],
        "lick_time": [0.3, np.nan, 2.5],
    }
    add_table(path, "gratings_presentations", gratings)
    trials = read_source("allen", "s", path, {"stimulus": "gratings"}).trials
    expected = ["gratings contrast=0.8 phase=0.5", "gratings phase=1.25", "gratings contrast=0.8 phase=90"]
    assert list(trials["condition"]) == expected


def test_invalid_times_are_not_observed(recording, path):
    with h5py.File(path, "r+") as file:
        del file["intervals/invalid_times"]
    tags = ["EcephysSession", "1", "all_probes", "EcephysProbe", "1001", "probeA", "EcephysSession", "1", "stimulus"]
    columns = {"start_time": [1.0, 2.0, 3.5], "stop_time": [1.5, 3.0, 3.7], "tags": tags}
    add_table(path, "invalid_times", columns, ragged=("tags",))
    found = read_source("allen", "s", path)
    end = recording.trials["stop"].max()
    assert found.observed.tolist() == [[0.0, 1.0], [1.5, end]]
    assert set(found.unit_intervals["unit"]) == {0, 3}
    assert found.unit_intervals.loc[found.unit_intervals["unit"] == 3, ["start", "stop"]].to_numpy().tolist() == [
        [0.0, 2.0],
        [3.0, end],
    ]
    assert found.provenance.counts["trials_invalid"] == 1
    assert len(found.trials) == len(recording.trials) - 1
    assert 3.0 not in set(found.trials["start"])
    others = recording.trials.drop(index=3)  # each trial keeps its own columns
    np.testing.assert_allclose(found.trials["go_cue"], others["go_cue"])
    assert list(found.trials["condition"]) == list(others["condition"])


def test_the_session_ends_with_the_last_that_was_measured(recording, tmp_path):
    recording.signals["running"] = pd.DataFrame({"time": [0.0, 4.0], "running": [1.0, 2.0]})
    path = write_layout(recording, tmp_path, "allen")
    assert read_source("allen", "s", path).duration == 4.8
    add_table(path, "late_presentations", {"start_time": [5.0], "stop_time": [5.5], "stimulus_name": ["late"]})
    assert read_source("allen", "s", path).duration == 5.5
    running = "processing__running__running_speed"
    edit(path, **{f"{running}__timestamps": [0.0, 6.0], f"{running}_end_times__timestamps": [0.02, 6.02]})
    assert read_source("allen", "s", path).duration == pytest.approx(6.01)
    with h5py.File(path, "r+") as file:
        del file["intervals/invalid_times"]
    columns = {"start_time": [6.5], "stop_time": [7.0], "tags": ["EcephysSession", "1", "all_probes"]}
    add_table(path, "invalid_times", columns, ragged=("tags",))
    found = read_source("allen", "s", path)
    assert found.duration == 7.0 and found.observed[-1].tolist() == [0.0, 6.5]


def test_running_speed_is_placed_at_the_middle_of_its_samples(recording, tmp_path):
    running = pd.DataFrame({"time": [0.0, 0.1, 0.2], "running": [1.0, np.nan, 3.0]})
    recording.signals["running"] = running.assign(running=[1.0, 2.0, 3.0])
    path = write_layout(recording, tmp_path, "allen")
    assert read_source("allen", "s", path).signals["running"]["time"].tolist() == [0.0, 0.1, 0.2]
    edit(
        path,
        processing__running__running_speed__data=np.array([1.0, np.nan, 3.0]),
        processing__running__running_speed_end_times__timestamps=np.array([0.02, 0.12, 0.22]),
    )
    found = read_source("allen", "s", path)
    np.testing.assert_allclose(found.signals["running"], [[0.01, 1.0], [0.21, 3.0]])
    assert found.provenance.counts["running_samples_left_out"] == 1
    assert not read_source("allen", "s", path, {"running": False}).signals
    running = "processing__running__running_speed"
    edit(path, **{f"{running}__timestamps": np.array([[0.0, 0.1, 0.2], [0.04, 0.14, 0.24]])})  # as older files have it
    np.testing.assert_allclose(read_source("allen", "s", path).signals["running"], [[0.02, 1.0], [0.22, 3.0]])
    edit(path, **{f"{running}__timestamps": np.array([0.0, 0.1, 0.2])})
    edit(path, processing__running__running_speed_end_times__timestamps=np.array([0.02]))
    with refuses(path.name, "running_speed_end_times", "(1,)", "(3,)"):
        read_source("allen", "s", path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("units/peak_channel_id", lambda x: x + 1, ("units/peak_channel_id, row 5", "channel 6")),
        ("units/spike_times", lambda x: -x, ("units/spike_times, row", "from 0 s on")),
        ("units/spike_times", lambda x: x * np.nan, ("units/spike_times, row 0", "nan")),
        ("units/spike_times_index", lambda x: x - 1, ("units/spike_times_index",)),
        ("intervals/invalid_times/start_time", lambda x: x * np.nan, ("intervals/invalid_times",)),
        ("intervals/invalid_times/stop_time", lambda x: x[:2], ("intervals/invalid_times",)),
        ("intervals/invalid_times/tags_index", lambda x: x[:2], ("intervals/invalid_times/tags_index",)),
        ("intervals/trial_presentations/stimulus_name", lambda x: x[:2], ("trial_presentations", "2 rows")),
    ],
)
def test_damage_names_file_and_dataset(path, name, change, words):
    with h5py.File(path, "r+") as file:
        replace(file, name, change(file[name][:]))
    with refuses(path.name, *words):
        read_source("allen", "s", path)


@pytest.mark.parametrize(
    "name",
    [
        "units/spike_times",
        "units/quality",
        "units/isi_violations",
        "general/extracellular_ephys/electrodes",
        "general/extracellular_ephys/electrodes/valid_data",
        "intervals/trial_presentations/stimulus_name",
        "intervals/invalid_times/tags_index",
    ],
)
def test_a_missing_dataset_is_named(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
    with refuses(path.name, name):
        read_source("allen", "s", path)
