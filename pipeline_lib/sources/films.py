"""The natural scenes and films of Allen sessions, from the templates of their release."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.digests import NUMPY
from pipeline_lib.sources.location import reading
from pipeline_lib.stimulus import Stimulus

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = {"one": 1, "two": 2, "three": 3}
MOVIE = re.compile(r"natural_movie_(one|two|three)\w*")
SCENES = "natural_scenes"


def read_films(presentations: "pd.DataFrame", folder: Path, size: tuple[int, int]) -> Stimulus | None:
    """The natural scenes and films among the presentations of an Allen session, each frame averaged to `size`.

    Parameters
    ----------
    presentations : columns start_time (s), stimulus_name and frame; blank sweeps have frame -1.
    folder : holds natural_movie_templates and natural_scene_templates, as fetched with the option `frames`.
    size : height and width of the frames.

    Raises
    ------
    InputError : a template is missing or broken, or a presentation shows a frame that it does not have.
    """
    if "frame" not in presentations:
        return None
    pictures: list[np.ndarray] = []
    onsets, rows = [], []
    count = 0
    for name, shown in presentations.groupby("stimulus_name", sort=True):
        number = shown["frame"].to_numpy(dtype=float)
        seen = np.isfinite(number) & (number >= 0)
        movie = MOVIE.fullmatch(str(name))
        if not seen.any() or not (name == SCENES or movie):
            continue
        known, place = np.unique(number[seen].astype(np.int64), return_inverse=True)
        pictures.append(_film(folder, NUMBERS[movie[1]], known, size) if movie else _scenes(folder, known, size))
        onsets.append(shown["start_time"].to_numpy(dtype=float)[seen])
        rows.append(place.astype(np.int32) + count)
        count += len(known)
    if not pictures:
        return None
    onset, row = np.concatenate(onsets), np.concatenate(rows)
    order = np.argsort(onset, kind="stable")
    return Stimulus(np.concatenate(pictures), onset[order], row[order].astype(np.int32))


def _scenes(folder: Path, numbers: Iterable[int], size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    scenes = []
    for number in numbers:
        path = folder / "natural_scene_templates" / f"natural_scene_{number}.tiff"
        _require(path)
        with reading(path, "image"), Image.open(path) as image:
            scenes.append(averaged(np.asarray(image), size))
    return np.stack(scenes)


def _film(folder: Path, movie: int, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    stem = folder / "natural_movie_templates" / f"natural_movie_{movie}"
    path = next((path for path in (stem.with_suffix(".h5"), stem.with_suffix(".npy")) if path.exists()), stem)
    _require(path)
    with reading(path, "film"), path.open("rb") as handle:
        numpy = handle.read(len(NUMPY)) == NUMPY  # AllenSDK keeps NumPy arrays under the ending .h5
    with reading(path, "film"):
        film = np.load(path, mmap_mode="r", allow_pickle=False) if numpy else _hdf_film(path)
    if film.ndim != 3 or numbers.max() >= len(film):
        found = f"shape {film.shape}, and frame {numbers.max()} was shown"
        raise InputError(path, "film", found, "frames (n, height, width) for every presentation")
    return np.stack([averaged(np.asarray(film[number]), size) for number in numbers])


def _hdf_film(path: Path) -> np.ndarray:
    from pipeline_lib.sources.hdf import HdfFile

    with HdfFile(path) as file:
        names = file.names("")
        return file.values(names[0] if names else "data")


def averaged(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A grey picture (height, width) of 0 to 255 at another size; every new pixel is the mean of what it covers."""
    from PIL import Image

    if picture.ndim == 3:
        picture = picture.mean(axis=2)
    image = Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))
    return np.rint(resized).clip(0, 255).astype(np.uint8)


def _require(path: Path) -> None:
    if not path.is_file():
        raise InputError(path, "file", "no such file", "the templates of the release (fetch with the option frames)")
