"""Licks, motion energy, pose and pupil of an IBL session."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import read_source
from tests.servers.sessions import ibl_folder

ALL = {"signals": ["licks", "motion_energy", "pose", "pupil"]}


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return ibl_folder(tmp_path)


def test_signals_as_the_files_hold_them(session: Path) -> None:
    alf = session / "alf"
    times = np.load(alf / "_ibl_leftCamera.times.npy")
    pd.DataFrame({"pupilDiameter_smooth": np.where(times < 1, np.nan, times)}).to_parquet(
        alf / "_ibl_leftCamera.features.pqt"
    )
    licks = np.load(alf / "licks.times.npy")
    np.save(alf / "licks.times.npy", licks[::-1])
    pd.DataFrame({"nose_x": times}).to_parquet(alf / "_ibl_leftCamera.dlc.pqt")  # the older tracker is not asked
    signals = read_source("ibl", "x", session, ALL).signals
    assert set(signals) == {"wheel", "licks", "motion_energy_left", "pose_left", "pupil"}
    assert np.array_equal(signals["licks"]["time"], licks)
    assert np.array_equal(
        signals["motion_energy_left"]["motion_energy"], np.load(alf / "leftCamera.ROIMotionEnergy.npy")
    )
    assert list(signals["pose_left"]) == ["time", "paw_l_x", "paw_l_y", "paw_l_likelihood"]
    assert np.array_equal(signals["pupil"]["diameter"], times[times >= 1])


def test_a_point_without_one_of_its_coordinates_is_no_sample(session: Path) -> None:
    """Nor is one without a time; two at one time are two."""
    alf = session / "alf"
    times = np.array([0.5, 0.5, 1.0, np.nan, 2.0])
    np.save(alf / "_ibl_leftCamera.times.npy", times)
    pose = {"nose_x": [1.0, 2.0, np.nan, 4.0, 5.0], "nose_y": [1.0, 2.0, 3.0, 4.0, 5.0]}
    pd.DataFrame(pose).to_parquet(alf / "_ibl_leftCamera.lightningPose.pqt")
    recording = read_source("ibl", "x", session, {"signals": "pose"})
    assert recording.signals["pose_left"].to_numpy().tolist() == [[0.5, 1, 1], [0.5, 2, 2], [2.0, 5, 5]]
    assert recording.provenance.counts["pose_left_samples_left_out"] == 2


def test_only_what_is_asked_for(session: Path) -> None:
    assert set(read_source("ibl", "x", session).signals) == {"wheel"}
    assert set(read_source("ibl", "x", session, {"signals": "licks"}).signals) == {"wheel", "licks"}
    with pytest.raises(InputError, match="motion_energy"):
        read_source("ibl", "x", session, {"signals": "nose"})


@pytest.mark.parametrize("time", [np.empty(0), np.full(3, np.nan)])
def test_a_session_in_which_nothing_was_licked_has_no_such_signal(session: Path, time: np.ndarray) -> None:
    np.save(session / "alf" / "licks.times.npy", time)
    recording = read_source("ibl", "x", session, {"signals": "licks"})
    assert set(recording.signals) == {"wheel"}
    assert recording.provenance.counts["licks_samples_left_out"] == len(time)


def test_more_times_than_frames_are_cut_and_fewer_refused(session: Path) -> None:
    path = session / "alf/_ibl_leftCamera.times.npy"
    times = np.load(path)
    np.save(path, np.append(times, times[-1] + 1))
    signal = read_source("ibl", "x", session, {"signals": "motion_energy"}).signals["motion_energy_left"]
    assert np.array_equal(signal["time"], times)
    np.save(path, times[:-1])
    with pytest.raises(InputError, match="a time a frame"):
        read_source("ibl", "x", session, {"signals": "motion_energy"})


def test_good_units_alone_are_not_taken_for_all(session: Path) -> None:
    for path in (session / "alf").rglob("spikes.*.npy"):
        path.unlink()
    assert len(read_source("ibl", "x", session).spike_times)
    with pytest.raises(InputError, match="good units alone"):
        read_source("ibl", "x", session, {"min_label": None})
