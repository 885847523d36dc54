"""Behaviour in Allen session files: running, pupil and gaze, licks and rewards, in the places of either release."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
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
FILTERED = "processing/filtered_gaze_mapping"
RAW = "processing/raw_gaze_mapping"
ELLIPSES = "processing/eye_tracking/pupil_ellipse_fits"
TRACKED = "acquisition/EyeTracking"
"""In Visual Behavior files: ellipses in pixels, no mapping to the screen."""
GROUPS = (RUNNING, "processing/licking", "processing/rewards", FILTERED, RAW, "processing/eye_tracking", TRACKED)
"""Where signals lie in the file."""


def read_signals(file: HdfFile, running: bool, eye: bool, licks: bool) -> "Signals":
    """The signals that are asked for and there, by name, and by name how many samples were left out.

    `running` (cm/s); `pupil` and `gaze`, see `read_eye`; `licks` (1 at the time of each) and `rewards` (ml).
    """
    found = []
    if running:
        found.append(read_running(file))
    if eye:
        found.append(read_eye(file))
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


def read_eye(file: HdfFile) -> "Signals":
    """The signals `pupil` and `gaze`; nothing where the eye was not filmed.

    Visual Coding: `pupil` (area, cm2; half axes of the fitted ellipse, pixels) and `gaze` (x, y on the screen, deg);
    the mapping without blinks and outliers is taken where the file has it. Visual Behavior: `pupil` alone (area,
    pixels2; half axes and centre x, y in the film, pixels), without likely blinks. Samples without a fit are left out
    and counted.
    """
    if file.find(f"{TRACKED}/pupil_tracking") is not None:
        return _read_tracked(file)
    mapping = next((path for path in (FILTERED, RAW) if file.find(f"{path}/pupil_area") is not None), None)
    if mapping is None:
        return {}, {}
    area = file.floats(f"{mapping}/pupil_area/data")
    time = _times(file, f"{mapping}/pupil_area/timestamps", f"{RAW}/eye_area/timestamps")
    columns, names, units = [area], ["area"], ["cm²"]
    if file.find(ELLIPSES) is not None:
        fits = file.table(ELLIPSES, ("width", "height"))
        if len(fits) == len(area):
            columns += [fits[name].to_numpy(dtype=float) for name in ("width", "height")]
            names += ["width", "height"]
            units += ["pixels"] * 2
    found = [known_signal("pupil", time, np.stack(columns, axis=1), file.path, mapping, names, units)]
    place = f"{mapping}/screen_coordinates_spherical"
    if file.find(place) is not None:
        gaze = file.floats(f"{place}/data", dimensions=2)[:, ::-1]  # the file holds y, then x
        time = _times(file, f"{place}/timestamps", f"{RAW}/eye_area/timestamps")
        found.append(known_signal("gaze", time, gaze, file.path, place, ("x", "y"), ("deg", "deg")))
    return together(found)


def _read_tracked(file: HdfFile) -> "Signals":
    place = f"{TRACKED}/pupil_tracking"
    centre = file.floats(f"{place}/data", dimensions=2)
    columns = [file.floats(f"{place}/{name}") for name in ("area", "width", "height")]
    blinks = f"{TRACKED}/likely_blink/data"
    lengths = {len(column) for column in (centre, *columns)}
    blink = file.values(blinks).astype(bool) if file.find(blinks) is not None else np.zeros(len(centre), dtype=bool)
    if lengths != {len(blink)} or centre.shape[1] != 2:
        found = f"{sorted(lengths)} samples, {len(blink)} of {blinks}"
        raise InputError(file.path, place, found, "as many samples of area, width, height, x and y")
    values = np.where(blink[:, None], np.nan, np.stack([*columns, *centre.T], axis=1))
    time = _times(file, f"{place}/timestamps", f"{TRACKED}/eye_tracking/timestamps")
    names, units = ("area", "width", "height", "x", "y"), ("pixels²", *["pixels"] * 4)
    return known_signal("pupil", time, values, file.path, place, names, units)


def _times(file: HdfFile, own: str, shared: str) -> np.ndarray:
    """Timestamps of a series; those of one film share one clock, by links that a part of the file does not have."""
    return file.floats(shared if file.find(own) is None and file.find(shared) is not None else own)
