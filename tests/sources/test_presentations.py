"""Short presentations become trials; long ones stay as they are."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.presentations import merge_short
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout


def _film(showings: int, frames: int, start: float, seconds: float = 1 / 30) -> pd.DataFrame:
    count = showings * frames
    begin = start + np.arange(count) * seconds
    return pd.DataFrame(
        {
            "start_time": begin,
            "stop_time": begin + seconds,
            "stimulus_name": "natural_movie_one",
            "stimulus_block": 3.0,
            "frame": np.tile(np.arange(frames, dtype=float), showings),
        }
    )


def test_every_showing_of_a_film_is_a_trial() -> None:
    merged = merge_short(_film(4, 30, 10.0), 0.1)
    assert np.allclose(merged["start_time"], 10 + np.arange(4))
    assert np.allclose(merged["stop_time"], 11 + np.arange(4))
    assert merged["presentations"].tolist() == [30] * 4
    assert merged["frame"].isna().all()
    assert merged["stimulus_block"].tolist() == [3.0] * 4


def test_a_pause_and_a_block_begin_a_trial() -> None:
    together = pd.concat([_film(1, 30, 0.0), _film(1, 30, 5.0).assign(frame=lambda table: table["frame"] + 30)])
    assert len(merge_short(together.reset_index(drop=True), 0.1)) == 2
    blocks = _film(1, 30, 0.0).assign(stimulus_block=[1.0] * 10 + [2.0] * 20)
    assert merge_short(blocks, 0.1)["presentations"].tolist() == [10, 20]


def test_long_presentations_are_not_touched() -> None:
    begin = np.arange(10) * 2.0
    table = pd.DataFrame(
        {"start_time": begin, "stop_time": begin + 2, "stimulus_name": "drifting_gratings", "orientation": begin}
    )
    merged = merge_short(table, 0.1)
    pd.testing.assert_frame_equal(merged.drop(columns="presentations"), table)
    assert (merged["presentations"] == 1).all()


def test_scenes_are_put_together_until_long_enough() -> None:
    """Every second of scenes that change every 250 ms; what is left over at the end is a shorter trial."""
    begin = 3 + np.arange(22) * 0.25
    table = pd.DataFrame(
        {
            "start_time": begin,
            "stop_time": begin + 0.25,
            "stimulus_name": "natural_scenes",
            "frame": np.random.default_rng(0).integers(0, 118, 22).astype(float),
            "contrast": 0.8,
        }
    )
    merged = merge_short(table, 1.0)
    assert merged["presentations"].tolist() == [4] * 5 + [2]
    assert np.allclose(merged["stop_time"] - merged["start_time"], [1.0] * 5 + [0.5])
    assert merged["contrast"].tolist() == [0.8] * 6


@pytest.mark.parametrize(
    ("below", "start", "stop", "columns", "counts"),
    [
        (0.5, [0, 2, 2.25], [2, 2.25, 2.5], {}, [1, 2]),  # a long one is a trial by itself
        (0.25, [0, 0.25, 0.5], [0.25, 0.5, 0.75], {}, [1, 1, 1]),  # as long as asked for
        (1.0, [0, 0.25, 0.75], [0.25, 0.5, 1.0], {}, [2, 1]),  # a pause as long as what went before
        (1.0, [0, 0.25, 0.5], [0.25, 0.5, 0.75], {"stimulus_block": [1.0, 2.0, 1.0]}, [1, 1, 1]),
        (0.5, np.arange(4) / 4, np.arange(1, 5) / 4, {"frame": [0.0, 10.0, 20.0, 30.0]}, [2, 2]),  # in order: no film
        (1.0, [0, 0.5], [0.375, 0.625], {}, [2]),  # half as long as the first of them, not as the second
        (1.0, [0, 0.25], [0.125, 0.625], {}, [1, 1]),
        (1.0, [0, 0.25, 0.5], [0.25, 0.5, 0.75], {"stimulus_name": ["x", "y", "y"]}, [1, 2]),
        (0.3, np.arange(60) / 10, np.arange(1, 61) / 10, {}, [3] * 20),  # sums of tenths are not exact
        (0.2, np.arange(60) / 10, np.arange(1, 61) / 10, {}, [2] * 30),  # 0.4 + 0.2 is more than 0.6
    ],
)
def test_what_goes_together(below: float, start: list, stop: list, columns: dict, counts: list[int]) -> None:
    table = pd.DataFrame({"start_time": start, "stop_time": stop, "stimulus_name": "x"} | columns)
    assert merge_short(table, below)["presentations"].tolist() == counts


def test_a_film_goes_on_where_a_frame_was_dropped_or_shown_twice() -> None:
    film = _film(2, 30, 0.0)
    film.loc[10, "frame"], film.loc[45, "frame"] = 9.0, 16.0
    assert merge_short(film, 0.1)["presentations"].tolist() == [30, 30]


def test_no_presentation() -> None:
    assert len(merge_short(_film(1, 1, 0.0).iloc[:0], 0.1)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_merging_loses_no_time_and_no_presentation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = rng.choice([0.03, 0.25, 2.0], 200)
    pause = rng.choice([0.0, 0.0, 1.0], 200)
    begin = np.cumsum(length + pause) - length
    table = pd.DataFrame({"start_time": begin, "stop_time": begin + length, "stimulus_name": "x"})
    merged = merge_short(table, 0.5)
    assert merged["presentations"].sum() == 200
    assert (merged["stop_time"].to_numpy()[:-1] <= merged["start_time"].to_numpy()[1:] + 1e-9).all()
    covered = (merged["stop_time"] - merged["start_time"]).sum()
    assert covered == pytest.approx(length.sum() + _pauses_inside(merged, begin, begin + length))


def _pauses_inside(merged: pd.DataFrame, start: np.ndarray, stop: np.ndarray) -> float:
    gaps = start[1:] - stop[:-1]
    trial = np.searchsorted(merged["start_time"], start, side="right")
    return float(gaps[np.diff(trial) == 0].sum())


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """An Allen session with a film, eye tracking with a blink, and running."""
    recording = simulate("eif", {"neurons_per_area": 4, "coupled": 2, "trials": 10}, 0, "two areas")
    path = write_layout(recording, tmp_path / "release/session_1", "allen")
    end = float(recording.duration)
    with h5py.File(path, "r+") as file:
        film = _film(3, 30, 0.0)
        group = file["intervals"].create_group("natural_movie_one_presentations")
        group.attrs["colnames"] = np.array(list(film), dtype=h5py.string_dtype())
        group["id"] = np.arange(len(film))
        film["stimulus_index"] = 1.0
        for name, column in film.items():
            group.create_dataset(name, data=column.tolist())
        time = np.arange(0, end, 1 / 30)
        area = np.sin(time) + 2
        area[50:60] = np.nan
        processing = file.require_group("processing")
        for name, data in (("eye_area", area), ("pupil_area", area)):
            series = processing.require_group(f"raw_gaze_mapping/{name}")
            series["data"], series["timestamps"] = data, time
        gaze = processing.require_group("raw_gaze_mapping/screen_coordinates_spherical")
        gaze["data"] = np.stack([np.full(len(time), 5.0), np.full(len(time), -7.0)], axis=1)
        gaze["timestamps"] = time
        fits = processing.require_group("eye_tracking/pupil_ellipse_fits")
        fits.attrs["colnames"] = np.array(["width", "height"], dtype=h5py.string_dtype())
        for name in ("id", "width", "height"):
            fits[name] = np.arange(len(time), dtype=float)
    return path


def test_film_and_eye_of_a_session(session: Path) -> None:
    recording = read_source("allen", "x", session, {"stimulus": "natural_movie_one"})
    assert len(recording.trials) == 3
    assert recording.trials["condition"].tolist() == ["natural_movie_one"] * 3
    pupil, gaze = recording.signals["pupil"], recording.signals["gaze"]
    assert list(pupil) == ["time", "area", "width", "height"]
    assert recording.provenance.counts["pupil_samples_left_out"] == 10
    assert np.allclose(pupil["area"], np.sin(pupil["time"]) + 2)
    assert (gaze[["x", "y"]].to_numpy() == [-7.0, 5.0]).all()
    single = read_source("allen", "x", session, {"stimulus": "natural_movie_one", "merge_below": None, "eye": False})
    assert len(single.trials) == 90
    assert "pupil" not in single.signals


def test_presentations_are_put_in_order_of_time_before_they_are_put_together(session: Path) -> None:
    film = {"stimulus": "natural_movie_one"}
    expected = read_source("allen", "x", session, film).trials
    with h5py.File(session, "r+") as file:
        for column in file["intervals/natural_movie_one_presentations"].values():
            column[...] = column[:][::-1]
    pd.testing.assert_frame_equal(read_source("allen", "x", session, film).trials, expected)


def test_the_mapping_without_blinks_and_outliers_goes_before_the_raw_one(session: Path) -> None:
    with h5py.File(session, "r+") as file:
        raw = file["processing/raw_gaze_mapping"]
        for name, change in (("pupil_area", 10.0), ("screen_coordinates_spherical", 20.0)):
            series = file.create_group(f"processing/filtered_gaze_mapping/{name}")
            series["data"], series["timestamps"] = raw[f"{name}/data"][:] + change, raw[f"{name}/timestamps"][:]
    signals = read_source("allen", "x", session).signals
    assert np.allclose(signals["pupil"]["area"], np.sin(signals["pupil"]["time"]) + 12)
    assert (signals["gaze"][["x", "y"]].to_numpy() == [13.0, 25.0]).all()
