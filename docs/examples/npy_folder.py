"""A lab's folder of .npy: `times_UNIT.npy`, spike times of a unit (ms), and `trials.npy`, rows of start (ms), side."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.sources.location import checksums
from pipeline_lib.sources.selection import UnitSelection, select


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection):
    """Reading options: those that choose units, as every source has them, and the source's own, each with a default."""

    region: str = "unknown"
    """Where all units of the folder are."""
    trial: float = 1.0
    """Seconds of a trial."""


def read(session: str, location: Path, options: Options) -> Recording:
    """The recording of a folder: times in seconds from the start of the session, units as rows of a table."""
    files = sorted(location.glob("times_*.npy"))
    if not files:
        raise InputError(location, "files", "no times_UNIT.npy", "one for each unit")
    trains = [np.load(file) / 1000 for file in files]
    times, rows = np.concatenate(trains), np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    order = np.argsort(times, kind="stable")
    names = [file.stem.removeprefix("times_") for file in files]
    start, side = np.load(location / "trials.npy").T
    start = start / 1000
    trials = pd.DataFrame(
        {"start": start, "stop": start + options.trial, "condition": np.where(side > 0, "right", "left")}
    )
    duration = max(times.max(), trials["stop"].max())
    recording = Recording(
        session=session,
        spike_times=times[order],
        spike_units=rows[order].astype(np.int32),
        units=pd.DataFrame({"unit_id": names, "region": options.region, "population": options.region}),
        trials=trials,
        duration=float(duration),
        observed=np.array([[0.0, duration]]),
        provenance=Provenance("npy_folder", session, files=checksums([*files, location / "trials.npy"], location)),
    )
    return select(recording, options, location)
