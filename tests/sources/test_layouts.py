"""What a simulator writes in the layout of a real source comes back the same through that source's reader."""

import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.clock import to_ticks
from pipeline_lib.files import sha256_tree
from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.simulate.layouts import LAYOUTS, write_layout
from tests.sources.conftest import refuses

OPTIONS = {"allen": {}, "ibl": {"observed": "trials"}, "tables": {}}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(recording, tmp_path, layout):
    location = write_layout(recording, tmp_path / "written", layout)
    found = read_source(layout, "small session", location, OPTIONS[layout])
    np.testing.assert_array_equal(to_ticks(found.spike_times), to_ticks(recording.spike_times))
    np.testing.assert_array_equal(found.spike_units, recording.spike_units)
    named = ["unit_id", "region", "population"]
    pd.testing.assert_frame_equal(found.units[named], recording.units[named], check_dtype=False)
    trials = found.trials[list(recording.trials)]
    pd.testing.assert_frame_equal(trials, recording.trials, check_dtype=False)
    np.testing.assert_allclose(found.observed, recording.observed, atol=1e-9)
    assert found.duration == recording.duration
    assert found.truth.attributes == recording.truth.attributes
    for name, array in recording.truth.arrays.items():
        np.testing.assert_array_equal(found.truth.arrays[name], array)
    # The reader also finds the session from the folder that was written, and the tables survive their own format.
    again = read_source(layout, "small session", tmp_path / "written", OPTIONS[layout])
    np.testing.assert_array_equal(again.spike_times, found.spike_times)
    assert again.truth is not None
    found.write(tmp_path / "recording")
    assert Recording.read(tmp_path / "recording").provenance.source == layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truth_follows_the_selected_units(recording, tmp_path, layout):
    location = write_layout(recording, tmp_path, layout)
    found = read_source(layout, "s", location, {"regions": "CA1"})
    rows = np.flatnonzero(recording.units["region"] == "CA1")
    np.testing.assert_array_equal(
        found.truth.arrays["coupling"], recording.truth.arrays["coupling"][np.ix_(rows, rows)]
    )
    np.testing.assert_array_equal(found.truth.arrays["rates"], recording.truth.arrays["rates"][:, :, rows])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_recording_gives_the_same_bytes(recording, tmp_path, layout, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.0e9)
    write_layout(recording, tmp_path / "first", layout)
    time.sleep(1.1)  # HDF5 and Parquet would note whole seconds
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    write_layout(recording, tmp_path / "second", layout)
    assert sha256_tree(tmp_path / "first") == sha256_tree(tmp_path / "second")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_writing_again_replaces(recording, tmp_path, layout):
    write_layout(recording, tmp_path, layout)
    fewer = replace(recording, spike_times=recording.spike_times[:50], spike_units=recording.spike_units[:50])
    location = write_layout(fewer, tmp_path, layout)
    assert len(read_source(layout, "s", location).spike_times) == 50


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_session_without_trials_or_truth(recording, tmp_path, layout):
    bare = replace(recording, trials=recording.trials[:0], truth=None, observed=np.array([[0.0, 4.8]]))
    location = write_layout(bare, tmp_path, layout)
    found = read_source(layout, "s", location)
    assert len(found.trials) == 0
    assert found.truth is None
    np.testing.assert_array_equal(found.spike_times, recording.spike_times)


def test_what_a_layout_has_no_place_for_is_refused(recording, tmp_path):
    with refuses("layout", "'alen'", "'allen'"):
        write_layout(recording, tmp_path, "alen")
    intervals = pd.DataFrame({"unit": [0], "start": [0.0], "stop": [1.0]})
    with refuses("layout ibl", "unit_intervals"):
        write_layout(replace(recording, unit_intervals=intervals), tmp_path, "ibl")
    signal = {"pupil": pd.DataFrame({"time": [0.0], "pupil": [1.0]})}
    with refuses("layout allen", "signals/pupil", "running"):
        write_layout(replace(recording, signals=signal), tmp_path, "allen")
    with refuses("layout ibl", "units.region", "'area one', 'area two'"):
        regions = ["area one", "area two", *recording.units["region"][2:]]
        write_layout(replace(recording, units=recording.units.assign(region=regions)), tmp_path, "ibl")
    assert not [path for path in tmp_path.rglob("*") if path.name != ".lock"]


def test_tables_keep_signals(recording, tmp_path):
    signal = pd.DataFrame({"time": [0.1, 0.2], "x": [1.0, 2.0], "y": [3.0, 1 / 3]})
    location = write_layout(replace(recording, signals={"gaze": signal}), tmp_path, "tables")
    pd.testing.assert_frame_equal(read_source("tables", "s", location).signals["gaze"], signal)


def test_a_label_the_atlas_does_not_know_is_root(recording, tmp_path):
    units = recording.units.assign(region="lorenz", population="lorenz")
    location = write_layout(replace(recording, units=units), tmp_path, "ibl")
    assert set(read_source("ibl", "s", location).units["region"]) == {"root"}


def test_unit_ids_that_are_no_numbers_are_numbered_in_an_allen_file(recording, tmp_path):
    ids = [f"u{row}" for row in range(6)]
    truth = replace(recording.truth, attributes=recording.truth.attributes | {"unit_id": ids})
    named = replace(recording, units=recording.units.assign(unit_id=ids), truth=truth)
    found = read_source("allen", "s", write_layout(named, tmp_path, "allen"))
    assert list(found.units["unit_id"]) == ["0", "1", "2", "3", "4", "5"]
    np.testing.assert_array_equal(found.truth.arrays["coupling"], recording.truth.arrays["coupling"])


def test_pynwb_opens_the_allen_file(recording, tmp_path):
    import pynwb

    path = write_layout(recording, tmp_path, "allen")
    with pynwb.NWBHDF5IO(path, "r", load_namespaces=True) as io:
        nwb = io.read()
        assert [type(device).__name__ for device in nwb.devices.values()] == ["EcephysProbe"] * 3
        assert nwb.devices["probeA"].sampling_rate == 30000
        units = nwb.units.to_dataframe()
        for row, unit_id in enumerate(recording.units["unit_id"]):
            own = recording.spike_times[recording.spike_units == row]
            np.testing.assert_array_equal(units.loc[int(unit_id), "spike_times"], own)
        electrodes = nwb.electrodes.to_dataframe()
        peaks = electrodes.loc[units["peak_channel_id"]]
        assert list(peaks["location"]) == list(recording.units["region"])
        assert list(nwb.intervals["trial_presentations"]["stimulus_name"][:]) == list(recording.trials["condition"])
        assert nwb.invalid_times["tags"][0][-1] == "all_probes"


def test_one_opens_the_ibl_folder(recording, tmp_path):
    from one.api import One

    session = write_layout(recording, tmp_path, "ibl")
    one = One(cache_dir=tmp_path, mode="local")
    eid = one.search(subject="small_session")[0]
    assert one.eid2path(eid) == session
    spikes = one.load_object(eid, "spikes", collection="alf/probe00/pykilosort")
    np.testing.assert_array_equal(spikes["times"], recording.spike_times)
    np.testing.assert_array_equal(spikes["clusters"], recording.spike_units)
    clusters = one.load_object(eid, "clusters", collection="alf/probe00/pykilosort")
    assert list(clusters["uuids"].astype(str)) == list(recording.units["unit_id"])
    trials = one.load_object(eid, "trials", collection="alf")
    np.testing.assert_array_equal(trials["intervals"][:, 0], recording.trials["start"])
