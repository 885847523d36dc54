"""Sessions of the Allen Visual Coding and Visual Behavior Neuropixels releases, as local NWB files.

The file is read with h5py in bulk: AllenSDK needs numpy below 1.24, and 300 times as long for the same spikes.

A row of the session sheet:

    s721123822   allen   session_721123822.nwb   regions: [VISp, VISl], stimulus: drifting_gratings, min_snr: 1
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.intervals import complement
from pipeline_lib.sources.allen_signals import read_signals
from pipeline_lib.sources.allen_trials import (
    Invalid,
    read_invalid_times,
    read_presentations,
    read_shown,
    read_task,
    spans_of,
)
from pipeline_lib.sources.films import read_films
from pipeline_lib.sources.hdf import HdfFile, rows_of
from pipeline_lib.sources.location import checksums, single_file
from pipeline_lib.sources.nwb import ELECTRODES, UNITS, electrode_rows, region_name
from pipeline_lib.sources.options import Names
from pipeline_lib.sources.presence import unit_intervals
from pipeline_lib.sources.selection import UnitSelection, select

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

REQUIRED_UNITS = ("id", "peak_channel_id", "quality", "isi_violations", "amplitude_cutoff", "presence_ratio")
TASK_PARAMETERS = "general/task_parameters"
"""Only Visual Behavior files have these."""
LICENCE = "Allen Institute terms of use"
BEHAVIOR_CITATION = "Allen Institute for Brain Science 2022, Visual Behavior Neuropixels dataset"
CITATION = "Siegle, Jia et al. 2021, Nature 592:86-92, doi 10.1038/s41586-020-03171-x"


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection):
    """Which units and stimuli to take. The thresholds are AllenSDK's defaults; null switches one off."""

    max_isi_violations: float | None = 0.5
    max_amplitude_cutoff: float | None = 0.1
    min_presence_ratio: float | None = 0.95
    min_snr: float | None = None
    quality: str | None = "good"
    in_brain: bool = True
    """Only units on a valid channel that lies in a structure."""
    trials: Literal["presentations", "task"] = "presentations"
    """What trials are: the presentations of stimuli, or (Visual Behavior) the trials of the task, by their outcome."""
    stimulus: Names | None = None
    """Stimuli whose presentations become trials, such as drifting_gratings; all by default."""
    condition: Names | None = None
    """Columns of the presentations that are the condition, such as stimulus_condition_id; by default the name of the
    stimulus and the parameters that vary within it."""
    population: Literal["region", "probe"] = "region"
    merge_below: Annotated[float, Gt(0)] | None = 0.1
    """Put presentations shorter than this (s) together: a showing of a film becomes one trial. Null: never."""
    running: bool = True
    """Take the running speed (cm/s) along as the signal `running`, where the file has it."""
    eye: bool = True
    """Take the signals `pupil` and (Visual Coding) `gaze` along, where the eye was filmed."""
    licks: bool = True
    """Take the signals `licks` and `rewards` along, where the animal did a task."""
    frames: tuple[Annotated[int, Gt(0)], Annotated[int, Gt(0)]] | None = None
    """Height and width of the frames of natural scenes and films that are taken along as the stimulus; null: none."""
    only_selected: bool = False
    """Of a remote file, fetch only the chosen units and the small tables, by ranges."""


def locate(location: Path) -> Path:
    """The NWB file at `location`, or the only one in it."""
    return single_file(location, (".nwb",))


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of an Allen session file.

    Invalid times of all probes are unobserved; those of one probe end the observation of its units; presentations
    within invalid times of the stimulus are left out and counted. The session ends at its last spike, presentation,
    invalid time or running sample.

    Raises
    ------
    InputError : no file, a broken one, a table without a column that Allen files have, or no unit left.
    """
    from pipeline_lib.recording import Provenance, Recording

    with HdfFile(location) as file:
        times = file.floats(f"{UNITS}/spike_times")
        ends = file.ends(f"{UNITS}/spike_times_index", len(times))
        known = np.isfinite(times) & (times >= 0)
        refuse_rows(~known, location, f"{UNITS}/spike_times", times, "finite times from 0 s on", " s")
        units, keep = read_units(file, len(ends), options)
        invalid = read_invalid_times(file)
        read_trials = read_task if options.trials == "task" else read_presentations
        trials, counts = read_trials(file, options, invalid)
        signals, left_out = read_signals(file, options.running, options.eye, options.licks)
        counts |= left_out
        stimulus = None
        if options.frames is not None:
            stimulus = read_films(read_shown(file), location.parent.parent, options.frames)
        behavior = file.find(TASK_PARAMETERS) is not None
        provenance = Provenance(
            source="allen",
            source_id=file.text("identifier"),
            release="visual-behavior-neuropixels" if behavior else "visual-coding-neuropixels",
            licence=LICENCE,
            citation=BEHAVIOR_CITATION if behavior else CITATION,
            files=checksums([location], location),
            counts=counts,
        )
    stops = [times.max(initial=0.0), *(interval.stop for interval in invalid)]
    stops += [trials["stop"].max()] if len(trials) else []
    stops += [signal["time"].iloc[-1] for signal in signals.values()]
    duration = float(max(stops))
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=rows_of(ends),
        units=units,
        trials=trials,
        duration=duration,
        observed=complement(spans_of(invalid, "all_probes"), duration),
        provenance=provenance,
        signals=signals,
        stimulus=stimulus,
        unit_intervals=probe_intervals(units, invalid, duration),
    )
    return select(recording, options, location, keep)


def read_units(file: HdfFile, count: int, options: Options) -> "tuple[pd.DataFrame, np.ndarray]":
    """All units of the file, and which of them pass the release's quality criteria, as bool (units,).

    Raises
    ------
    InputError : not a spike train a unit, a column is missing, or a peak channel is none of the electrodes.
    """
    import pandas as pd

    own = file.table(UNITS, REQUIRED_UNITS if options.min_snr is None else (*REQUIRED_UNITS, "snr"))
    if len(own) != count:
        raise InputError(file.path, UNITS, f"{len(own)} rows, {count} spike trains", "as many of both")
    electrodes = file.table(ELECTRODES, ("id", "location", "probe_id", "valid_data"))
    channel = electrode_rows(file, electrodes, own["peak_channel_id"])
    if (channel < 0).any():
        row = int(np.argmax(channel < 0))
        found = f"channel {own['peak_channel_id'].iloc[row]}"
        raise InputError(file.path, f"{UNITS}/peak_channel_id, row {row}", found, f"an id of {ELECTRODES}")
    peak = electrodes.iloc[channel].reset_index(drop=True)
    regions = [region_name(value) for value in peak["location"]]
    names = probe_names(file)
    probes = [names.get(int(probe), str(probe)) for probe in peak["probe_id"]]
    table = pd.DataFrame(
        {
            "unit_id": own["id"].astype(str),
            "region": regions,
            "population": regions if options.population == "region" else probes,
            "probe": probes,
        }
    )
    if "probe_vertical_position" in peak:
        table["depth"] = peak["probe_vertical_position"]
    return pd.concat([table, own.drop(columns="id")], axis=1), passes_criteria(own, peak, regions, options)


def passes_criteria(
    units: "pd.DataFrame", peak: "pd.DataFrame", regions: Sequence[str], options: Options
) -> np.ndarray:
    """Which units pass the thresholds of `options`, as bool (units,); a missing value does not pass."""
    kept = np.ones(len(units), dtype=bool)
    for column, limit, sign in (
        ("isi_violations", options.max_isi_violations, 1),
        ("amplitude_cutoff", options.max_amplitude_cutoff, 1),
        ("presence_ratio", options.min_presence_ratio, -1),
        ("snr", options.min_snr, -1),
    ):
        if limit is not None:
            kept &= sign * units[column].to_numpy(dtype=np.float64) <= sign * limit
    if options.quality is not None:
        kept &= (units["quality"] == options.quality).to_numpy()
    if options.in_brain:
        kept &= peak["valid_data"].to_numpy(dtype=bool) & (np.array(regions) != "unknown")
    return kept


def probe_names(file: HdfFile) -> dict[int, str]:
    """Name of every probe (probeA, ...) by its id."""
    folder = ELECTRODES.rpartition("/")[0]
    groups = [name for name in file.names(folder) if hasattr(file.find(f"{folder}/{name}"), "keys")]
    ids = {name: file.attribute(f"{folder}/{name}", "probe_id") for name in groups}
    return {int(number): name for name, number in ids.items() if number is not None}


def probe_intervals(units: "pd.DataFrame", invalid: Sequence[Invalid], duration: float) -> "pd.DataFrame | None":
    """When the units of probes with invalid times were observed; None where no probe has any."""
    import pandas as pd

    tables = []
    for probe in sorted(set(units["probe"])):
        spans = spans_of(invalid, probe)
        if len(spans):
            valid = complement(spans, duration)
            rows = np.flatnonzero(units["probe"] == probe)
            tables.append(unit_intervals(np.repeat(rows, len(valid)), np.tile(valid, (len(rows), 1)), rows))
    return pd.concat(tables).sort_values(["unit", "start"], ignore_index=True) if tables else None
