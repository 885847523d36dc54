"""A stand-in for a session file of Allen Visual Behavior Neuropixels: what differs from Visual Coding, where it lies.

Paths, columns and types as released files have them (AllenSDK's writer, and listings of DANDI:001051, which the same
writer made): `processing/running/speed`, `acquisition/EyeTracking`, licks and rewards, `intervals/trials`, natural
images with frames and flags, and no `running_speed`, no gaze mapping.
"""

from pathlib import Path

import h5py
import numpy as np

IMAGES = "Natural_Images_Lum_Matched_set_ophys_G_2019_presentations"
FLASHES = 24
TEXT = h5py.string_dtype()


def make_behavior_file(path: Path) -> Path:
    """Change an Allen file of our writer, of at least 4.8 s, into one of the other release."""
    with h5py.File(path, "r+") as file:
        del file["intervals/trial_presentations"]
        if "running" in file["processing"]:
            del file["processing/running"]
        file.create_group("general/task_parameters").attrs["task"] = "change detection"
        _images(file)
        _task(file)
        _behavior(file)
    return path


def _table(file: h5py.File, path: str, columns: dict[str, object]) -> None:
    group = file.create_group(path)
    group["id"] = np.arange(len(columns["start_time"]), dtype=np.int32)
    group.attrs["colnames"] = np.array(list(columns), dtype=TEXT)
    for name, values in columns.items():
        array = np.asarray(values)
        group.create_dataset(name, data=array.astype(object) if array.dtype.kind == "U" else array, dtype=_kind(array))


def _kind(array: np.ndarray) -> object:
    return TEXT if array.dtype.kind in "OU" else None


def _images(file: h5py.File) -> None:
    start = 0.1 + 0.19 * np.arange(FLASHES)
    row = np.arange(FLASHES)
    omitted = row == 5
    names = np.where(omitted, "omitted", np.where(row < 12, "im000_r", "im106_r"))
    columns = {
        "start_time": start,
        "stop_time": start + 0.12,
        "stimulus_name": np.full(FLASHES, IMAGES.removesuffix("_presentations")),
        "stimulus_block": np.zeros(FLASHES, dtype=np.int32),
        "image_name": names,
        "active": row < 18,
        "is_change": row == 12,
        "is_image_novel": np.zeros(FLASHES, dtype=bool),
        "omitted": omitted,
        "rewarded": row == 12,
        "flashes_since_change": row.astype(float),
        "start_frame": (60 * start).astype(np.int32),
        "end_frame": (60 * start + 15).astype(np.int32),
        "duration": np.full(FLASHES, 0.12),
    }
    _table(file, f"intervals/{IMAGES}", columns)
    columns = {
        "start_time": [4.7],
        "stop_time": [4.8],
        "stimulus_name": ["spontaneous"],
        "stimulus_block": np.array([1], dtype=np.int32),
        "active": np.array([False]),
    }
    _table(file, "intervals/spontaneous_presentations", columns)


def _task(file: h5py.File) -> None:
    columns = {
        "start_time": [0.1, 1.5, 2.2, 3.4],
        "stop_time": [1.4, 2.1, 3.3, 4.6],
        "go": [False, True, True, False],
        "catch": [False, False, False, True],
        "hit": [False, True, False, False],
        "miss": [False, False, True, False],
        "false_alarm": [False] * 4,
        "correct_reject": [False, False, False, True],
        "aborted": [True, False, False, False],
        "auto_rewarded": [False] * 4,
        "initial_image_name": ["im000_r", "im000_r", "im106_r", "im106_r"],
        "change_image_name": ["", "im106_r", "im000_r", "im106_r"],
        "change_time": [np.nan, 1.8, 2.6, 3.9],
        "response_time": [0.7, 2.0, np.nan, np.nan],
        "reward_time": [np.nan, 2.01, np.nan, np.nan],
    }
    _table(file, "intervals/trials", columns)
    file["intervals/trials/lick_times"] = [0.7, 2.0, 2.05]
    file["intervals/trials/lick_times_index"] = np.array([1, 3, 3, 3], dtype=np.uint8)


def _behavior(file: h5py.File) -> None:
    time = np.arange(0, 4.8, 1 / 60)
    file["processing/running/speed/data"] = 30 + 5 * np.sin(time)
    file["processing/running/speed/timestamps"] = time
    file["processing/running/speed_unfiltered/data"] = np.zeros(len(time))
    file["processing/running/speed_unfiltered/timestamps"] = time
    file["processing/licking/licks/data"] = np.array([42, 120, 123])
    file["processing/licking/licks/timestamps"] = [0.7, 2.0, 2.05]
    file["processing/rewards/volume/data"] = [0.007]
    file["processing/rewards/volume/timestamps"] = [2.01]
    frames = np.arange(0, 4.8, 1 / 60)
    for name in ("eye_tracking", "pupil_tracking", "corneal_reflection_tracking"):
        series = file.create_group(f"acquisition/EyeTracking/{name}")
        series["data"] = np.stack([100 + frames, 50 - frames], axis=1)
        for row, column in enumerate(("area", "area_raw", "width", "height", "angle")):
            series[column] = (row + 1) * np.ones(len(frames))
        if name == "eye_tracking":
            series["timestamps"] = frames
        else:
            series["timestamps"] = h5py.SoftLink("/acquisition/EyeTracking/eye_tracking/timestamps")
    file["acquisition/EyeTracking/likely_blink/data"] = (frames >= 1.0) & (frames < 1.5)
    file["acquisition/EyeTracking/likely_blink/timestamps"] = h5py.SoftLink(
        "/acquisition/EyeTracking/eye_tracking/timestamps"
    )
