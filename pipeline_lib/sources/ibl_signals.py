"""What an IBL session recorded beside the spikes: the wheel, licks, motion energy, pose and pupil from the videos."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources.alf import AlfSession
from pipeline_lib.sources.signals import known_signal, together

if TYPE_CHECKING:
    from pipeline_lib.sources.signals import Signals

CAMERAS = ("left", "right", "body")
TRACKERS = ("lightningPose", "dlc")
PUPIL = "pupilDiameter_smooth"
COORDINATES = ("_x", "_y")
"""How columns of a point's place in the film end."""


def read_wheel(alf: AlfSession, task: str, rate: float) -> "Signals":
    """The signal `wheel` on an even grid of `rate` Hz: the encoder reports only when the wheel moves."""
    name = f"{task}/_ibl_wheel.position.npy"
    if not alf.has(name):
        return {}, {}
    position = alf.array(name)
    stamps = f"{task}/_ibl_wheel.timestamps.npy"
    time, place = alf.timestamps(stamps, len(position)), alf.path(stamps)
    found, left_out = known_signal("wheel", time, position, place, "wheel", ("position",))
    if "wheel" not in found:
        return found, left_out
    known = found["wheel"]
    start, stop = known["time"].iloc[[0, -1]]
    grid = np.arange(np.ceil(start * rate), np.floor(stop * rate) + 1) / rate
    even = np.interp(grid, known["time"], known["position"])
    velocity = np.gradient(even, 1 / rate) if len(even) > 1 else np.zeros(len(even))
    values, names, units = np.stack([even, velocity], axis=1), ("position", "velocity"), ("rad", "rad/s")
    return known_signal("wheel", grid, values, place, "wheel", names, units)[0], left_out


def read_licks(alf: AlfSession) -> "Signals":
    """The signal `licks`: the time of every lick, and 1."""
    name = "alf/licks.times.npy"
    if not alf.has(name):
        return {}, {}
    time = np.sort(alf.array(name))
    return known_signal("licks", time, np.ones(len(time)), alf.path(name), name, ("lick",))


def read_motion_energy(alf: AlfSession) -> "Signals":
    """The signals `motion_energy_left`, `_right` and `_body`: change of the image from frame to frame."""
    several = []
    for camera in CAMERAS:
        name = f"alf/{camera}Camera.ROIMotionEnergy.npy"
        if alf.has(name):
            several.append(_of_camera(alf, "motion_energy", camera, name, alf.array(name), ["motion_energy"]))
    return together(several)


def read_pose(alf: AlfSession) -> "Signals":
    """The signals `pose_left`, `_right` and `_body`: x, y (pixels) and likelihood of every point that is tracked."""
    several = []
    for camera in CAMERAS:
        name = next(filter(alf.has, (f"alf/_ibl_{camera}Camera.{tracker}.pqt" for tracker in TRACKERS)), None)
        if name is not None:
            table = alf.table(name).select_dtypes("number")
            columns = [str(column) for column in table]
            several.append(_of_camera(alf, "pose", camera, name, table.to_numpy(dtype=float), columns))
    return together(several)


def read_pupil(alf: AlfSession) -> "Signals":
    """The signal `pupil`: its diameter (pixels), smoothed, from the left camera."""
    name = "alf/_ibl_leftCamera.features.pqt"
    if not alf.has(name):
        return {}, {}
    table = alf.table(name, (PUPIL,))
    time = _frame_times(alf, "left", len(table))
    values = table[PUPIL].to_numpy(dtype=float)
    return known_signal("pupil", time, values, alf.path(name), name, ("diameter",), ("pixels",))


READERS: "dict[str, Callable[[AlfSession], Signals]]" = {
    "licks": read_licks,
    "motion_energy": read_motion_energy,
    "pose": read_pose,
    "pupil": read_pupil,
}


def _of_camera(
    alf: AlfSession, signal: str, camera: str, name: str, values: np.ndarray, columns: list[str]
) -> "Signals":
    """What the dataset `name` says of each frame of a camera: `values` (frames,) or (frames, columns)."""
    time = _frame_times(alf, camera, len(values))
    units = ["pixels" if column.endswith(COORDINATES) else "" for column in columns]
    return known_signal(f"{signal}_{camera}", time, values, alf.path(name), name, columns, units)


def _frame_times(alf: AlfSession, camera: str, frames: int) -> np.ndarray:
    """Times of the frames, s. Cameras report more times than the film has frames when it was cut at the end."""
    name = f"alf/_ibl_{camera}Camera.times.npy"
    time = alf.array(name)
    if len(time) < frames:
        raise InputError(alf.path(name), "array", f"{len(time)} times for {frames} frames", "a time a frame")
    return time[:frames]
