"""Units of measurement of signals, from files that say them, sources that know them and options that give them."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.sessions import ibl_folder
from tests.sources.behavior_file import make_behavior_file
from tests.sources.conftest import refuses
from tests.sources.nwb_file import write_session

SPEED = "processing/behavior/speed"
NWB = {"signals": {"running": SPEED, "eye": "processing/behavior/gaze"}}


def units(recording: Recording) -> dict[str, dict[str, str]]:
    """By signal, those that say any."""
    return {name: table.attrs["units"] for name, table in recording.signals.items() if table.attrs}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    write_session(path)
    return path


@pytest.fixture
def nwb(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pristine, tmp_path / "session.nwb"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's tables: `hand` in CSV, `running` in Parquet that says its units, the time's among them."""
    pd.DataFrame({"time": [0.5, 1.0, 9.0], "unit": [1, 2, 1]}).to_csv(tmp_path / "spikes.csv", index=False)
    (tmp_path / "signals").mkdir()
    (tmp_path / "signals/hand.csv").write_text("time,x,angle\n0,1,2\n1,3,4\n")
    save_running(tmp_path, {"time": "s", "speed": "m/s"})
    return tmp_path


def save_running(folder: Path, said: object) -> None:
    running = pd.DataFrame({"time": [0.0, 1.0], "speed": [5.0, 6.0]})
    running.attrs["units"] = said
    running.to_parquet(folder / "signals/running.parquet")


def test_a_series_of_an_nwb_file_has_the_unit_that_the_file_says(nwb: Path) -> None:
    assert units(read_source("nwb", "s", nwb, NWB)) == {
        "running": {"running": "m/s"},
        "eye": dict.fromkeys(("eye_0", "eye_1"), "deg"),
    }


@pytest.mark.parametrize("said", ["unknown", " N/A", "", None])
def test_a_series_whose_unit_nobody_knew_has_none(nwb: Path, said: str | None) -> None:
    with h5py.File(nwb, "r+") as file:
        del file[SPEED]["data"].attrs["unit"]
        if said is not None:
            file[SPEED]["data"].attrs["unit"] = np.bytes_(said)
    assert set(units(read_source("nwb", "s", nwb, NWB))) == {"eye"}


def test_a_unit_that_is_no_text_is_refused_unless_an_option_gives_another(nwb: Path) -> None:
    with h5py.File(nwb, "r+") as file:
        file[SPEED]["data"].attrs["unit"] = 3.5
    with refuses("session.nwb", f"{SPEED}/data.unit", "3.5", "text", "signal_units"):
        read_source("nwb", "s", nwb, NWB)
    given = {"signal_units": {"running": "cm/s", "eye.eye_1": "rad"}}
    found = units(read_source("nwb", "s", nwb, NWB | given))
    assert found == {"running": {"running": "cm/s"}, "eye": {"eye_0": "deg", "eye_1": "rad"}}


def test_options_say_the_units_of_tables_and_go_before_those_of_a_file(folder: Path) -> None:
    assert units(read_source("tables", "s", folder)) == {"running": {"speed": "m/s"}}
    given = {"signal_units": {"hand.angle": "deg", "hand": "mm", "running": "cm/s"}}
    recording = read_source("tables", "s", folder, given)
    assert units(recording) == {"hand": {"x": "mm", "angle": "deg"}, "running": {"speed": "cm/s"}}
    assert recording.provenance.selection == given
    assert not units(read_source("tables", "s", folder, {"signal_units": {"running": ""}}))


@pytest.mark.parametrize("source", ["tables", "nwb", "phy", "nlb", "neuroformer_dictionary"])
def test_units_given_as_anything_but_text_are_refused(source: str, tmp_path: Path) -> None:
    with refuses(f"source {source}: option signal_units.running: found 5; accepted: text"):
        read_source(source, "s", tmp_path, {"signal_units": {"running": 5}})


def test_units_of_a_signal_that_is_not_there_are_refused(folder: Path) -> None:
    with refuses("option signal_units", "no signal 'hand.z'", "hand.x"):
        read_source("tables", "s", folder, {"signal_units": {"hand.z": "mm"}})
    shutil.rmtree(folder / "signals")
    with refuses("option signal_units", "a session with signals"):
        read_source("tables", "s", folder, {"signal_units": {"hand": "mm"}})


@pytest.mark.parametrize(
    ("said", "words"), [("mm", ("running.parquet", "by column")), ({"speed": [1]}, ("of speed", "[1]", "text"))]
)
def test_a_table_that_says_its_units_in_another_way_is_refused(folder: Path, said: object, words: tuple) -> None:
    save_running(folder, said)
    with refuses(*words):
        read_source("tables", "s", folder)


def test_units_given_for_a_sorted_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "spike_times.npy", np.array([3000, 6000]))
    np.save(tmp_path / "spike_clusters.npy", np.array([0, 0]))
    (tmp_path / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n")
    (tmp_path / "wheel.csv").write_text("time,speed\n0,1\n0.2,2\n")
    options = {"sampling_rate": 30_000, "signals": {"wheel": "wheel.csv"}, "signal_units": {"wheel": "rad/s"}}
    assert units(read_source("phy", "s", tmp_path, options)) == {"wheel": {"speed": "rad/s"}}


def test_units_given_for_movement_of_the_benchmark(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "input.h5", "w") as file:
        file["train_spikes_heldin"] = np.ones((2, 4, 1))
        file["train_behavior"] = np.zeros((2, 4, 2))
    found = units(read_source("nlb", "s", tmp_path, {"signal_units": {"behavior": "mm/s"}}))
    assert found == {"behavior": {"dimension_0": "mm/s", "dimension_1": "mm/s"}}


def test_units_given_for_behaviours_of_a_dictionary(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", spikes=np.ones((2, 40), int), speed=np.zeros(8), pupil=np.zeros(8))
    options = {"signal_units": {"speed": "cm/s"}}
    assert units(read_source("neuroformer_dictionary", "s", tmp_path / "s.npz", options)) == {
        "speed": {"value": "cm/s"}
    }


def test_units_of_an_ibl_session(tmp_path: Path) -> None:
    session = ibl_folder(tmp_path)
    times = np.load(session / "alf/_ibl_leftCamera.times.npy")
    pd.DataFrame({"pupilDiameter_smooth": times}).to_parquet(session / "alf/_ibl_leftCamera.features.pqt")
    recording = read_source("ibl", "x", session, {"signals": ["licks", "motion_energy", "pose", "pupil"]})
    assert units(recording) == {
        "wheel": {"position": "rad", "velocity": "rad/s"},
        "pose_left": {"paw_l_x": "pixels", "paw_l_y": "pixels"},
        "pupil": {"diameter": "pixels"},
    }


def test_units_of_an_allen_session(recording: Recording, tmp_path: Path) -> None:
    running = pd.DataFrame({"time": [0.0, 0.1, 0.2], "running": [1.0, 2.0, 3.0]})
    path = write_layout(replace(recording, signals={"running": running}), tmp_path, "allen")
    with h5py.File(path, "r+") as file:
        time = np.array([0.0, 0.1])
        mapping = "processing/filtered_gaze_mapping"
        for name, values in (("pupil_area", np.ones(2)), ("screen_coordinates_spherical", np.ones((2, 2)))):
            file[f"{mapping}/{name}/data"], file[f"{mapping}/{name}/timestamps"] = values, time
        fits = file.create_group("processing/eye_tracking/pupil_ellipse_fits")
        fits["width"] = fits["height"] = np.ones(2)
    assert units(read_source("allen", "s", path)) == {
        "running": {"running": "cm/s"},
        "pupil": {"area": "cm²", "width": "pixels", "height": "pixels"},
        "gaze": {"x": "deg", "y": "deg"},
    }


def test_units_of_a_visual_behavior_session(recording: Recording, tmp_path: Path) -> None:
    found = units(read_source("allen", "s", make_behavior_file(write_layout(recording, tmp_path, "allen"))))
    pupil = {"area": "pixels²", **dict.fromkeys(("width", "height", "x", "y"), "pixels")}
    assert found == {"running": {"running": "cm/s"}, "pupil": pupil, "rewards": {"reward": "ml"}}


def test_simulated_units_stay_with_the_tables_that_they_are_written_to(tmp_path: Path) -> None:
    made = simulate("video", {"units": 8, "targets": 2, "duration": 5.0}, 0, "film")
    expected = {"gaze": {"x": "pixels", "y": "pixels"}, "running": {"speed": "cm/s"}}
    assert units(made) == expected
    assert units(read_source("tables", "film", write_layout(made, tmp_path, "tables"))) == expected
    factors = simulate("glm_factors", {"neurons_per_area": 3, "coupled": 1, "trials": 2, "running": 1.0}, 0, "areas")
    assert units(factors) == {"running": {"speed": "cm/s"}}
