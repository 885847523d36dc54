"""Visual Behavior Neuropixels: its files hold behaviour at other places, and trials of a task."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.files import FileServer
from tests.sources.behavior_file import FLASHES, make_behavior_file
from tests.sources.conftest import refuses
from tests.sources.fetching import QUICK


@pytest.fixture
def path(recording: Recording, tmp_path: Path) -> Path:
    return make_behavior_file(write_layout(recording, tmp_path, "allen"))


def test_spikes_units_and_origin(path: Path, recording: Recording) -> None:
    found = read_source("allen", "s", path)
    np.testing.assert_array_equal(found.spike_times, recording.spike_times)
    assert list(found.units["region"]) == list(recording.units["region"])
    assert found.provenance.release == "visual-behavior-neuropixels"
    assert "Visual Behavior" in found.provenance.citation


def test_flashes_become_trials_by_image_and_flags(path: Path) -> None:
    """Frame numbers and flash counts differ from flash to flash; they are no parameters of the stimulus."""
    trials = read_source("allen", "s", path).trials
    assert len(trials) == FLASHES + 1
    name = "Natural_Images_Lum_Matched_set_ophys_G_2019"
    conditions = trials["condition"].value_counts().to_dict()
    flags = "active={} is_change={} omitted={}"
    expected = {
        f"{name} image_name=im000_r {flags.format(True, False, False)}": 11,
        f"{name} image_name=omitted {flags.format(True, False, True)}": 1,
        f"{name} image_name=im106_r {flags.format(True, True, False)}": 1,
        f"{name} image_name=im106_r {flags.format(True, False, False)}": 5,
        f"{name} image_name=im106_r {flags.format(False, False, False)}": 6,
        "spontaneous": 1,
    }
    assert conditions == expected
    by_image = read_source("allen", "s", path, {"stimulus": name, "condition": "image_name"}).trials
    assert by_image["condition"].value_counts().to_dict() == {"im106_r": 12, "im000_r": 11, "omitted": 1}


def test_trials_of_the_task_by_outcome(path: Path) -> None:
    trials = read_source("allen", "s", path, {"trials": "task"}).trials
    assert list(trials["condition"]) == ["aborted", "hit", "miss", "correct_reject"]
    np.testing.assert_array_equal(trials["change_time"], [np.nan, 1.8, 2.6, 3.9])
    named = read_source("allen", "s", path, {"trials": "task", "condition": ["initial_image_name", "go"]}).trials
    assert named["condition"][1] == "initial_image_name=im000_r go=True"
    with h5py.File(path, "r+") as file:
        del file["intervals/trials"]
    with refuses(path.name, "option trials", "trials: presentations"):
        read_source("allen", "s", path, {"trials": "task"})


def test_behaviour(path: Path) -> None:
    recording = read_source("allen", "s", path)
    signals = recording.signals
    assert set(signals) == {"running", "pupil", "licks", "rewards"}
    np.testing.assert_allclose(signals["running"]["running"], 30 + 5 * np.sin(signals["running"]["time"]))
    assert signals["licks"]["time"].tolist() == [0.7, 2.0, 2.05]
    assert signals["rewards"].to_numpy().tolist() == [[2.01, 0.007]]
    pupil = signals["pupil"]
    assert not pupil["time"].between(1.0, 1.5, inclusive="left").any(), "blinks are left out"
    assert recording.provenance.counts["pupil_samples_left_out"] == 30
    np.testing.assert_allclose(pupil["x"], 100 + pupil["time"])
    np.testing.assert_allclose(pupil[["area", "width", "height"]], [[1, 3, 4]] * len(pupil))
    none = read_source("allen", "s", path, {"running": False, "eye": False, "licks": False})
    assert not none.signals


def test_rewards_are_put_in_order_of_time_with_their_sizes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for name, values in {"timestamps": [3.0, 1.0, 2.0], "data": [0.003, 0.001, 0.002]}.items():
            del file[f"processing/rewards/volume/{name}"]
            file[f"processing/rewards/volume/{name}"] = values
    rewards = read_source("allen", "s", path).signals["rewards"]
    assert rewards.to_numpy().tolist() == [[1.0, 0.001], [2.0, 0.002], [3.0, 0.003]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("processing/running/speed/timestamps", "processing/running/speed"),
        ("acquisition/EyeTracking/likely_blink/data", "pupil_tracking"),
        ("acquisition/EyeTracking/eye_tracking/timestamps", "pupil_tracking"),
    ],
)
def test_lengths_that_disagree(path: Path, name: str, words: str) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][:-1]
        del file[name]
        file[name] = values
    with refuses(path.name, words):
        read_source("allen", "s", path)


def test_a_part_by_ranges_has_the_same_behaviour(path: Path, server: FileServer, tmp_path: Path) -> None:
    """Series of the eye share their clock by links, which a part of the file does not have."""
    options = {"regions": ["VISp"], "only_selected": True}
    manifest = fetch(server.put("/whole.nwb", path.read_bytes()), tmp_path, "allen", options, network=QUICK)
    part, whole = (read_source("allen", "s", place, options) for place in (manifest.parent, path))
    assert set(part.units["region"]) == {"VISp"}
    assert part.trials.equals(whole.trials)
    assert set(part.signals) == set(whole.signals)
    assert all(part.signals[name].equals(whole.signals[name]) for name in whole.signals)
