"""A session as an NWB file of pynwb, with what such files hold."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

SPIKES = [[0.5, 1.0, 9.5], [], [0.25, 2.0], [3.0]]
REGIONS = ["VISp", "CA1"]


def write_session(path: Path) -> None:
    """A file with everything: text, ragged and NaN columns, electrodes, observation intervals, two kinds of series."""
    import pynwb

    start = datetime(2020, 1, 1, tzinfo=UTC)
    nwb = pynwb.NWBFile(session_description="d", identifier="id-7", session_start_time=start)
    device = nwb.create_device(name="probe")
    groups = [nwb.create_electrode_group(f"shank{k}", "d", REGIONS[k], device) for k in range(2)]
    for k in range(4):
        nwb.add_electrode(location=REGIONS[k // 2], group=groups[k // 2], rel_x=0.0, rel_y=20.0 * k)
    nwb.add_unit_column("snr", "s")
    nwb.add_unit_column("label", "l")
    for k, times in enumerate(SPIKES):
        nwb.add_unit(
            spike_times=times,
            obs_intervals=[[0.0, 10.0]] if k else [[0.0, 4.0], [6.0, 10.0]],
            electrodes=[3 - k],
            electrode_group=groups[(3 - k) // 2],
            waveform_mean=[0.0, 1.0],
            snr=[2.0, np.nan, 0.5, 3.0][k],
            label=f"unit {k}",
            id=10 * k,
        )
    nwb.add_trial_column("side", "s")
    nwb.add_trial_column("go_time", "g")
    for k, (begin, end) in enumerate([(4.0, 5.0), (1.0, 2.0), (np.nan, 3.0), (6.0, 7.5)]):
        nwb.add_trial(start_time=begin, stop_time=end, side="LR"[k % 2], go_time=[4.5, np.nan, 0.0, 6.5][k])
    other = pynwb.epoch.TimeIntervals(name="flashes", description="d")
    other.add_interval(start_time=0.0, stop_time=12.0)
    nwb.add_time_intervals(other)
    behavior = nwb.create_processing_module("behavior", "d")
    speed = np.array([1.0, 2.0, np.nan, 4.0])
    behavior.add(pynwb.TimeSeries(name="speed", data=speed, unit="m/s", starting_time=0.5, rate=2.0, conversion=10.0))
    stamps = np.array([0.0, 0.1, 0.4])
    behavior.add(pynwb.TimeSeries(name="gaze", data=np.arange(6.0).reshape(3, 2), unit="deg", timestamps=stamps))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)


def replace(file: Any, name: str, data: np.ndarray) -> None:
    """Put other data in a dataset's place, with its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = data
    file[name].attrs.update(attributes)
