"""NWB files that mean another thing than they seem to say: times in other units, numbers that stand for labels."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.seconds import check_together
from tests.sources.conftest import refuses
from tests.sources.nwb_file import replace, write_session


@pytest.fixture
def path(tmp_path):
    write_session(tmp_path / "session.nwb")
    return tmp_path / "session.nwb"


def test_an_enumeration_says_its_labels(path):
    """As many labels as trials: they would be taken for a column of their own, and the condition for numbers."""
    with h5py.File(path, "r+") as file:
        trials = file["intervals/trials"]
        replace(file, "intervals/trials/side", np.array([0, 3, 0, 3], dtype="u1"))
        trials["side_elements"] = np.array(["left", "centre", "up", "right"], dtype=object)
        trials["side"].attrs["elements"] = trials["side_elements"].ref
    trials = read_source("nwb", "s", path, {"condition": "side"}).trials
    assert list(trials["condition"]) == list(trials["side"]) == ["right", "left", "right"]
    assert "side_elements" not in trials
    with h5py.File(path, "r+") as file:
        file["intervals/trials/side"][1] = 4
    with refuses("session.nwb", "intervals/trials/side, row 1", "found 4", "4 labels, from 0 on"):
        read_source("nwb", "s", path)


@pytest.mark.parametrize("per_second", [1000, 30_000])
def test_spikes_in_milliseconds_or_samples_are_no_long_session(path, per_second):
    times = np.cumsum(np.random.default_rng(0).exponential(0.1, 400) + 0.002)
    with h5py.File(path, "r+") as file:
        replace(file, "units/spike_times", np.rint(times * per_second))
        replace(file, "units/spike_times_index", np.array([400] * 4))
    with refuses("session.nwb: units/spike_times", "hours, in which 0.0% of spikes follow another", "time_unit: s"):
        read_source("nwb", "s", path)
    assert read_source("nwb", "s", path, {"time_unit": "s"}).duration > 10 * 3600, "who says so is heard"


def test_trials_in_milliseconds_beside_spikes_in_seconds(path):
    options = {"signals": {"eye": "processing/behavior/gaze"}}
    for name in ("intervals/trials/stop_time", "units/obs_intervals", "processing/behavior/gaze/timestamps"):
        with h5py.File(path, "r+") as file:
            right = file[name][:]
            replace(file, name, right * 1e5)
        with refuses(f"session.nwb: {name.removesuffix('/timestamps')}", "with spikes up to 9.5 s", "time_unit: s"):
            read_source("nwb", "s", path, options)
        with h5py.File(path, "r+") as file:
            replace(file, name, right)
    assert read_source("nwb", "s", path, options).duration == 10


def test_a_session_of_many_hours_may_end_with_a_trial():
    where = Path("day1.nwb")
    for last, spikes in ((6 * 3600, 1.0), (30_000.0, 29_000.0), (30_000.0, 300.0)):
        check_together(last, spikes, where, "stop")
    with refuses("day1.nwb: stop", "up to 30000 s", "up to 299 s"):
        check_together(30_000.0, 299.0, where, "stop")
