"""The frames of an Allen session travel with its recording."""

from pathlib import Path

import h5py
import numpy as np

from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout


def test_frames_are_read_written_and_read_again(tmp_path: Path) -> None:
    recording = simulate("eif", {"neurons_per_area": 4, "coupled": 2, "trials": 10}, 0, "two areas")
    session = write_layout(recording, tmp_path / "session_1", "allen")
    begin = 0.5 + np.arange(20) / 30
    with h5py.File(session, "r+") as file:
        group = file["intervals"].create_group("natural_movie_one_presentations")
        columns = {"start_time": begin, "stop_time": begin + 1 / 30, "frame": np.tile(np.arange(10.0), 2)}
        group.attrs["colnames"] = np.array([*columns, "stimulus_name"], dtype=h5py.string_dtype())
        for name, column in columns.items():
            group[name] = column
        group["id"] = np.arange(20)
        group["stimulus_name"] = ["natural_movie_one"] * 20
    (tmp_path / "natural_movie_templates").mkdir()
    film = np.repeat(np.arange(10, dtype=np.uint8), 6 * 8).reshape(10, 6, 8)
    np.save(tmp_path / "natural_movie_templates/natural_movie_1.npy", film)
    options = {"frames": [3, 4], "stimulus": "natural_movie_one"}
    read_source("allen", "x", session, options).write(tmp_path / "recording")
    stimulus = Recording.read(tmp_path / "recording").stimulus
    assert stimulus.frames.shape == (10, 3, 4)
    assert np.allclose(stimulus.onset, begin)
    assert stimulus.frame.tolist() == [*range(10)] * 2
    assert Recording.read(tmp_path / "recording").trials["condition"].tolist() == ["natural_movie_one"] * 2
    assert read_source("allen", "x", session).stimulus is None
