"""What an IBL session recorded beside the spikes: licks, motion energy, pose and pupil from the videos."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.alf import AlfSession
from pipeline_lib.sources.signals import signal_table

if TYPE_CHECKING:
    import pandas as pd

CAMERAS = ("left", "right", "body")
TRACKERS = ("lightningPose", "dlc")
PUPIL = "pupilDiameter_smooth"


def read_licks(alf: AlfSession) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    """The signal `licks`: the time of every lick, and 1."""
    name = "alf/licks.times.npy"
    if not alf.has(name):
        return {}, {}
    time = np.sort(alf.array(name))
    return _one("licks", time, np.ones(len(time)), alf, name, ("lick",))


def read_motion_energy(alf: AlfSession) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    """The signals `motion_energy_left`, `_right` and `_body`: change of the image from frame to frame."""
    return _of_cameras(alf, "motion_energy", lambda camera: _energy(alf, camera))


def read_pose(alf: AlfSession) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    """The signals `pose_left`, `_right` and `_body`: x, y (pixels) and likelihood of every point that is tracked."""
    return _of_cameras(alf, "pose", lambda camera: _pose(alf, camera))


def read_pupil(alf: AlfSession) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    """The signal `pupil`: its diameter (pixels), smoothed, from the left camera."""
    name = "alf/_ibl_leftCamera.features.pqt"
    if not alf.has(name):
        return {}, {}
    table = alf.table(name, (PUPIL,))
    time = _frame_times(alf, "left", len(table))
    return _one("pupil", time, table[PUPIL].to_numpy(dtype=float), alf, name, ("diameter",))


READERS: dict[str, Callable[[AlfSession], "tuple[dict[str, pd.DataFrame], dict[str, int]]"]] = {
    "licks": read_licks,
    "motion_energy": read_motion_energy,
    "pose": read_pose,
    "pupil": read_pupil,
}


def _energy(alf: AlfSession, camera: str) -> "tuple[str, np.ndarray, tuple[str, ...]] | None":
    name = f"alf/{camera}Camera.ROIMotionEnergy.npy"
    return (name, alf.array(name), ("motion_energy",)) if alf.has(name) else None


def _pose(alf: AlfSession, camera: str) -> "tuple[str, np.ndarray, tuple[str, ...]] | None":
    names = [f"alf/_ibl_{camera}Camera.{tracker}.pqt" for tracker in TRACKERS]
    name = next((name for name in names if alf.has(name)), None)
    if name is None:
        return None
    table = alf.table(name).select_dtypes("number")
    return name, table.to_numpy(dtype=float), tuple(map(str, table.columns))


def _of_cameras(
    alf: AlfSession, signal: str, read: "Callable[[str], tuple[str, np.ndarray, tuple[str, ...]] | None]"
) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    signals: dict[str, pd.DataFrame] = {}
    counts: dict[str, int] = {}
    for camera in CAMERAS:
        if (found := read(camera)) is not None:
            name, values, columns = found
            time = _frame_times(alf, camera, len(values))
            one, left_out = _one(f"{signal}_{camera}", time, values, alf, name, columns)
            signals |= one
            counts |= left_out
    return signals, counts


def _frame_times(alf: AlfSession, camera: str, frames: int) -> np.ndarray:
    """Times of the frames, s. Cameras report more times than the film has frames when it was cut at the end."""
    name = f"alf/_ibl_{camera}Camera.times.npy"
    time = alf.array(name)
    if len(time) < frames:
        raise InputError(alf.path(name), "array", f"{len(time)} times for {frames} frames", "a time a frame")
    return time[:frames]


def _one(
    signal: str, time: np.ndarray, values: np.ndarray, alf: AlfSession, name: str, columns: tuple[str, ...]
) -> "tuple[dict[str, pd.DataFrame], dict[str, int]]":
    """One signal by its name; none where no sample is finite."""
    finite = np.isfinite(values if values.ndim == 2 else values[:, None]).all(axis=1) & np.isfinite(time)
    if not finite.any():
        return {}, {f"{signal}_samples_left_out": len(values)}
    table, left_out = signal_table(signal, time, values, alf.path(name), name, columns)
    return {signal: table}, left_out
