"""Frames of scenes and films: the right picture at the right time, at the asked size."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.sources.films import averaged, read_films
from pipeline_lib.stimulus import Stimulus


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Scene k is grey of k; frame k of the film of 100 + k, under the ending that AllenSDK gives it."""
    (tmp_path / "natural_scene_templates").mkdir()
    for number in range(5):
        picture = Image.fromarray(np.full((8, 12), number, np.uint8))
        picture.save(tmp_path / f"natural_scene_templates/natural_scene_{number}.tiff")
    film = np.repeat(np.arange(100, 110, dtype=np.uint8), 6 * 4).reshape(10, 6, 4)
    (tmp_path / "natural_movie_templates").mkdir()
    with (tmp_path / "natural_movie_templates/natural_movie_1.h5").open("wb") as handle:
        np.save(handle, film)
    return tmp_path


@pytest.fixture
def presentations() -> pd.DataFrame:
    names = ["natural_scenes"] * 4 + ["natural_movie_one"] * 3 + ["drifting_gratings"]
    frames = [4, -1, 0, 3, 0, 1, 2, np.nan]
    return pd.DataFrame(
        {"start_time": [9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 0.0], "stimulus_name": names, "frame": frames}
    )


def test_the_picture_of_every_presentation(release: Path, presentations: pd.DataFrame, tmp_path: Path) -> None:
    stimulus = read_films(presentations, release, (4, 6))
    assert stimulus.frames.shape == (6, 4, 6)
    assert stimulus.onset.tolist() == [1.0, 2.0, 3.0, 6.0, 7.0, 9.0]
    assert stimulus.frames[stimulus.frame, 0, 0].tolist() == [100, 101, 102, 3, 0, 4]
    stimulus.onset[:] += 5000 + 1 / 3  # after an hour four bytes would be late by a quarter of a millisecond
    stimulus.write(tmp_path / "stimulus.zarr")
    again = Stimulus.read(tmp_path / "stimulus.zarr")
    assert all(np.array_equal(getattr(again, name), getattr(stimulus, name)) for name in ("frames", "onset", "frame"))


def test_nothing_to_show(presentations: pd.DataFrame, release: Path) -> None:
    assert read_films(presentations[-1:], release, (4, 6)) is None
    assert read_films(presentations.drop(columns="frame"), release, (4, 6)) is None


def test_missing_template_and_frame_beyond_the_film(presentations: pd.DataFrame, release: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="option frames"):
        read_films(presentations[:4].replace({"frame": {0: 77}}), release, (4, 6))
    with pytest.raises(InputError, match="frame 77 was shown"):
        read_films(presentations[4:].replace({"frame": {2: 77}}), release, (4, 6))


def test_averaging_is_the_mean_of_what_a_pixel_covers() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    expected = np.rint(picture.reshape(10, 3, 10, 4).mean(axis=(1, 3)))
    assert np.abs(averaged(picture, (10, 10)).astype(int) - expected).max() <= 1
