"""Behaviour in Allen session files: running, eye, licks and rewards, in the places of either release."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.sources import eye_tracking
from pipeline_lib.sources.hdf import HdfFile
from pipeline_lib.sources.signals import known_signal, together

if TYPE_CHECKING:
    from pipeline_lib.sources.signals import Signals

RUNNING = "processing/running"
SPEED = f"{RUNNING}/speed"
"""Running speed in Visual Behavior files, filtered; Visual Coding has `running_speed` with starts and ends."""
SPEED_UNIT = "cm/s"
LICKS = "processing/licking/licks"
REWARDS = "processing/rewards/volume"
GROUPS = (RUNNING, "processing/licking", "processing/rewards", *eye_tracking.GROUPS)
"""Where signals lie in the file."""


def read_signals(file: HdfFile, running: bool, eye: bool, licks: bool) -> "Signals":
    """The signals that are asked for and there, by name, and by name how many samples were left out.

    `running` (cm/s); `pupil` and `gaze`, see `eye_tracking`; `licks` (1 at the time of each) and `rewards` (ml).
    """
    found = []
    if running:
        found.append(read_running(file))
    if eye:
        found.append(eye_tracking.read_eye(file))
    if licks:
        found += [_events(file, "licks", LICKS), _events(file, "rewards", REWARDS)]
    return together(found)


def read_running(file: HdfFile) -> "Signals":
    """The signal `running`, nothing where the file has none.

    A sample of Visual Coding lasts from its timestamp to its end time and is placed at its middle.

    InputError where times and end times do not match.
    """
    if file.find(SPEED) is not None:
        time = file.floats(f"{SPEED}/timestamps")
        return known_signal("running", time, file.floats(f"{SPEED}/data"), file.path, SPEED, units=[SPEED_UNIT])
    if file.find(f"{RUNNING}/running_speed") is None:
        return {}, {}
    start = file.values(f"{RUNNING}/running_speed/timestamps")
    values = file.floats(f"{RUNNING}/running_speed/data")
    ends = f"{RUNNING}/running_speed_end_times/timestamps"
    if start.ndim == 2 and start.shape[0] == 2:  # the older files: starts, then ends
        time = start.mean(axis=0)
    elif file.find(ends) is not None:
        stop = file.floats(ends)
        if stop.shape != start.shape:
            raise InputError(file.path, ends, f"shape {stop.shape}", f"shape {start.shape}, as running_speed has")
        time = (start + stop) / 2
    else:
        time = start
    return known_signal("running", time, values, file.path, f"{RUNNING}/running_speed", units=[SPEED_UNIT])


def _events(file: HdfFile, name: str, path: str) -> "Signals":
    """Events as a signal: their times and, for rewards, their size; nothing where there was none."""
    if file.find(f"{path}/timestamps") is None:
        return {}, {}
    time = file.floats(f"{path}/timestamps")
    values, unit = (file.floats(f"{path}/data"), "ml") if path == REWARDS else (np.ones(len(time)), "")
    if not (len(time) and len(time) == len(values)):
        return {}, {f"{name}_samples_left_out": len(time)}
    order = np.argsort(time, kind="stable")
    return known_signal(name, time[order], values[order], file.path, path, (name.removesuffix("s"),), (unit,))
