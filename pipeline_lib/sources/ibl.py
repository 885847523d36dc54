"""Sessions of the International Brain Laboratory, as a local folder of ALF files (lab/Subjects/subject/date/number).

A row of the session sheet:

    KS014   ibl   cortexlab/Subjects/KS014/2019-12-07/001   regions: [MOs, CP], reaction_time: [0.08, 2.0]

ONE's own loader would unpickle what it finds; here arrays are read without pickle, and ONE (local mode) says how large
each dataset is when its cache tables lie above the folder. Nothing is written, and no network or home folder is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.sources.alf import AlfSession
from pipeline_lib.sources.ibl_signals import READERS as SIGNAL_READERS
from pipeline_lib.sources.location import checksums
from pipeline_lib.sources.options import Names, as_tuple
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.signals import signal_table, together
from pipeline_lib.sources.trials import column_text, condition_text, no_trials, trial_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

SORTERS = ("iblsorter", "pykilosort")
"""Which spike sorting is taken where there are several, the first that is there."""
SESSIONS = "*/Subjects/*/????-??-??/???/alf"
TRIALS = "_ibl_trials.table.pqt"
PASSING = "passingSpikes.table.pqt"
GOOD = 1.0
"""Label of the units that pass every quality criterion."""
LICENCE = "CC BY 4.0"
CITATION = "International Brain Laboratory 2025, A brain-wide map, Nature, doi 10.1038/s41586-025-09235-0"


Signal = Literal["licks", "motion_energy", "pose", "pupil"]


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection):
    """Which probes, units and trials to take."""

    probes: Names | None = None
    """Probes, such as probe00; all by default."""
    sorter: str | None = None
    """Folder of the spike sorting within a probe; by default iblsorter, then pykilosort, then the probe's own."""
    revision: str | None = None
    """Take of every dataset the newest revision not after this one, such as 2024-05-06; the newest by default."""
    min_label: float | None = 1.0
    """Least share of the quality criteria a unit passes; 1 is a good unit, null takes all."""
    atlas_mapping: Literal["Allen", "Beryl", "Cosmos"] = "Beryl"
    """Parcellation of the regions: the finest Allen structures, or the coarser Beryl or Cosmos."""
    population: Literal["region", "probe"] = "region"
    condition: Names | None = None
    """Columns of the trials that are the condition; by default `condition` where there is one, else contrast, side and
    choice."""
    reaction_time: tuple[float, float] | None = None
    """Least and greatest time from stimulus to first movement, s; other trials, and those without, are left out.
    The Brain-Wide Map uses [0.08, 2.0]."""
    observed: Literal["session", "trials"] = "session"
    """What was recorded: the whole session, or only its trials (simulated sessions, whose gaps ALF cannot say)."""
    wheel_rate: Annotated[float, Gt(0)] | None = 100.0
    """Samples per second of the signal `wheel` (position, rad; velocity, rad/s); null leaves it out."""
    signals: Signal | tuple[Signal, ...] = ()
    """More signals to take along, where the session has them."""
    voltage: tuple[Annotated[float, Ge(0)], Annotated[float, Gt(0)]] | None = None
    """Start and length (s) of a snippet of raw voltage for the figure `raw_voltage`, such as [600, 0.5]; fetched by
    ranges for every probe whose raw recording is published. Null: none."""
    band: Literal["ap", "lf"] = "ap"
    """Of the raw voltage: action potentials (30 kHz) or local field potential (2.5 kHz)."""


def locate(location: Path) -> Path:
    """The session folder at `location`, or the only one in it (the folder of ONE's cache tables, for example).

    InputError where there are none or several.
    """
    if (location / "alf").is_dir():
        return location
    found = sorted(folder.parent for folder in location.glob(SESSIONS) if folder.is_dir())
    if len(found) != 1:
        accepted = "a session folder (.../subject/date/number, with `alf` in it), or a folder with one session"
        raise InputError(location, "location", f"{len(found)} sessions", accepted)
    return found[0]


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a session folder.

    Spikes of all probes are merged; those before the session's clock starts are left out and counted.

    Raises
    ------
    InputError : the folder, a dataset or a column is missing, a file is broken, or arrays of a probe disagree.
    """
    import pandas as pd

    from pipeline_lib.recording import Provenance, Recording

    location = locate(location)
    alf = AlfSession(location, options.revision)
    probes = [read_probe(alf, name, options) for name in choose_probes(alf, options)]
    offsets = np.cumsum([0, *(len(units) for _, _, units in probes)])
    times = np.concatenate([times for times, _, _ in probes])
    unit = np.concatenate([rows + offset for (_, rows, _), offset in zip(probes, offsets, strict=False)])
    units = pd.concat([units for _, _, units in probes], ignore_index=True)
    early = times < 0
    times, unit = times[~early], unit[~early].astype(np.int32)

    trials, counts = read_trials(alf, options)
    counts["spikes_before_clock"] = int(early.sum())
    found = [SIGNAL_READERS[name](alf) for name in as_tuple(options.signals)]
    if options.wheel_rate is not None and alf.has("alf/_ibl_wheel.position.npy"):
        wheel, left_out = read_wheel(alf, options.wheel_rate)
        found.insert(0, ({"wheel": wheel}, left_out))
    signals, left_out = together(found)
    counts |= left_out
    stops = [times.max(initial=0.0), trials["stop"].max() if len(trials) else 0.0]
    stops += [signal["time"].iloc[-1] for signal in signals.values()]
    duration = float(max(stops))
    observed = np.array([[0.0, duration]])
    if options.observed == "trials":
        if len(trials) == 0:
            raise InputError(location, "option observed", "trials, and there are none", "session")
        observed = trials[["start", "stop"]].to_numpy()
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=unit,
        units=units,
        trials=trials,
        duration=duration,
        observed=observed,
        provenance=Provenance(
            source="ibl",
            source_id="/".join(location.resolve().parts[-3:]),
            release=options.revision or alf.newest_revision(),
            licence=LICENCE,
            citation=CITATION,
            files=checksums(alf.used, location),
            counts=counts,
        ),
        signals=signals,
    )
    keep = None
    if options.min_label is not None:
        keep = (units["label"] >= options.min_label).to_numpy()
    return select(recording, options, location, keep)


def choose_probes(alf: AlfSession, options: Options) -> list[str]:
    """The collection of the spike sorting of every probe, such as alf/probe00/pykilosort.

    InputError for a probe or a sorter that is not there.
    """
    collections = alf.collections_with(("spikes.times.npy", PASSING))
    sortings: dict[str, list[str]] = {}
    for collection in collections:
        parts = collection.split("/")
        if len(parts) > 1 and parts[0] == "alf" and parts[1].startswith("probe"):
            sortings.setdefault(parts[1], []).append(collection)
    chosen = as_tuple(options.probes) or tuple(sortings)
    if not chosen:
        raise InputError(alf.folder, "alf/probe*", "no spike sorting", f"spikes.times.npy or {PASSING} of a probe")
    result = []
    for probe in chosen:
        if probe not in sortings:
            raise InputError(alf.folder, "option probes", repr(probe), ", ".join(sortings) or "no probe here")
        found = {collection.partition(f"{probe}/")[2]: collection for collection in sortings[probe]}
        wanted = [options.sorter] if options.sorter else [*SORTERS, *sorted(found, key=len)]
        sorter = next((name for name in wanted if name in found), None)
        if sorter is None:
            raise InputError(alf.folder, "option sorter", repr(options.sorter), ", ".join(sorted(found)))
        result.append(found[sorter])
    return result


def read_probe(alf: AlfSession, collection: str, options: Options) -> "tuple[np.ndarray, np.ndarray, pd.DataFrame]":
    """Spike times (spikes,) in s, clusters (spikes,) and the table of all clusters of one spike sorting.

    InputError where these disagree, or where the file holds good units alone and others are asked for.
    """
    import pandas as pd

    passing = f"{collection}/{PASSING}"
    if alf.has(f"{collection}/spikes.times.npy"):
        times = alf.array(f"{collection}/spikes.times.npy")
        source = alf.path(f"{collection}/spikes.clusters.npy")
        clusters = alf.array(f"{collection}/spikes.clusters.npy")
    else:
        if options.min_label != GOOD:
            accepted = f"{GOOD:g}: {PASSING} holds good units alone (fetch the session with the option as it is here)"
            raise InputError(alf.folder, "option min_label", options.min_label, accepted)
        source = alf.path(passing)
        table = alf.table(passing, ("times", "clusters"))
        times, clusters = table["times"].to_numpy(), table["clusters"].to_numpy()
    channels = alf.array(f"{collection}/clusters.channels.npy").astype(np.int64)
    if times.shape != clusters.shape or times.ndim != 1:
        raise InputError(source, "clusters", f"shape {clusters.shape}, times {times.shape}", "one cluster a spike")
    refuse_rows(~np.isfinite(times), source, "times", times, "a finite time in s")
    outside = (clusters < 0) | (clusters >= len(channels))
    refuse_rows(outside, source, "clusters", clusters, f"clusters 0 to {len(channels) - 1}")

    probe = collection.split("/")[1]
    units = pd.DataFrame({"unit_id": cluster_ids(alf, collection, probe, len(channels))})
    units["region"] = cluster_regions(alf, collection, channels, options.atlas_mapping)
    units["population"] = units["region"] if options.population == "region" else probe
    units["probe"] = probe
    if alf.has(f"{collection}/clusters.depths.npy"):
        units["depth"] = alf.array(f"{collection}/clusters.depths.npy", len(channels))
    name = f"{collection}/clusters.metrics.pqt"
    if options.min_label is not None or alf.has(name):
        metrics = alf.table(name, ("cluster_id", "label")).drop_duplicates("cluster_id").set_index("cluster_id")
        metrics = metrics.reindex(np.arange(len(channels))).drop(columns=list(units), errors="ignore")
        units = pd.concat([units, metrics.reset_index(drop=True)], axis=1)
    return times.astype(np.float64), clusters.astype(np.int64), units


def cluster_ids(alf: AlfSession, collection: str, probe: str, count: int) -> list[str]:
    """The universal ids of the clusters where the release has them, else probe and number.

    InputError where they are not one a cluster.
    """
    path = f"{collection}/clusters.uuids.csv"
    if not alf.has(path):
        return [f"{probe}_{number}" for number in range(count)]
    ids = column_text(alf.table(path).iloc[:, 0], missing="")
    if len(ids) != count or not all(ids):
        found = f"{len(ids)} ids, {ids.count('')} empty"
        raise InputError(alf.path(path), "uuids", found, f"{count} ids, one a cluster")
    return ids


def cluster_regions(alf: AlfSession, collection: str, channels: np.ndarray, mapping: str) -> list[str]:
    """The acronym of the region each cluster's channel lies in; "unknown" where the probe was not traced.

    InputError for a channel that was not located.
    """
    name = "channels.brainLocationIds_ccf_2017.npy"
    # The tracing belongs to the probe: it may lie beside the sorting or one folder up.
    found = [folder for folder in (collection, collection.rpartition("/")[0]) if alf.has(f"{folder}/{name}")]
    if not found:
        return ["unknown"] * len(channels)
    locations = alf.array(f"{found[0]}/{name}").astype(np.int64)
    outside = (channels < 0) | (channels >= len(locations))
    path = alf.path(f"{collection}/clusters.channels.npy")
    refuse_rows(outside, path, "channels", channels, f"channels 0 to {len(locations) - 1}")
    return acronyms(locations[channels], mapping, alf.path(f"{found[0]}/{name}"))


def acronyms(ids: np.ndarray, mapping: str, path: Path) -> list[str]:
    """Acronyms of the Allen CCF for location ids (units,), in a coarser `mapping`; the sign of an id is its side.

    InputError for an id that the atlas lacks.
    """
    from iblatlas.regions import BrainRegions

    regions = BrainRegions()
    known, place = np.unique(ids, return_inverse=True)
    strange = ~np.isin(known, regions.id)
    if strange.any():
        raise InputError(path, "location ids", int(known[strange][0]), "ids of the Allen CCF 2017")
    return [str(name) for name in np.asarray(regions.id2acronym(known, mapping=mapping))[place]]


def read_trials(alf: AlfSession, options: Options) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Trials with every column of the table (events in s, contrasts, choice, feedback), and how many were left out."""
    path = f"alf/{TRIALS}"
    if not alf.has(path):
        return no_trials(), {}
    table = alf.table(path, ("intervals_0", "intervals_1"))
    columns = as_tuple(options.condition) or tuple(name for name in ("condition",) if name in table)
    if columns:
        condition = condition_text(table, columns, alf.path(path), "trials")
    else:
        condition = task_conditions(alf.table(path, ("contrastLeft", "contrastRight", "choice")))
    in_time = np.ones(len(table), dtype=bool)
    if options.reaction_time is not None:
        moved = alf.table(path, ("stimOn_times", "firstMovement_times"))
        in_time = (moved["firstMovement_times"] - moved["stimOn_times"]).between(*options.reaction_time).to_numpy()
    rest = table.drop(columns=["intervals_0", "intervals_1"])
    start, stop = (table[name].to_numpy(dtype=float) for name in ("intervals_0", "intervals_1"))
    texts = np.array(condition, dtype=object)
    trials, counts = trial_table(start[in_time], stop[in_time], texts[in_time], rest[in_time])
    return trials, counts | {"trials_before": len(table), "trials_reaction_time": int((~in_time).sum())}


def task_conditions(table: "pd.DataFrame") -> list[str]:
    """Side and contrast of the stimulus and the side the mouse reported, such as `left 25% chose right`.

    The contrast of the side without a stimulus is NaN. A choice is 1 for left, -1 for right, 0 for none.
    """
    left, right = (table[name].to_numpy(dtype=float) for name in ("contrastLeft", "contrastRight"))
    side = np.where(np.isfinite(left), "left", np.where(np.isfinite(right), "right", "no"))
    contrast = np.nan_to_num(np.where(np.isfinite(left), left, right))
    reported = table["choice"].to_numpy(dtype=float)
    choice = np.where(reported == 1, "chose left", np.where(reported == -1, "chose right", "no choice"))
    rows = zip(side, contrast, choice, strict=True)
    return [f"{where} {100 * strength:g}% {answer}" for where, strength, answer in rows]


def read_wheel(alf: AlfSession, rate: float) -> "tuple[pd.DataFrame, dict[str, int]]":
    """Wheel position and velocity on an even grid of `rate` Hz: the encoder reports only when the wheel moves."""
    position = alf.array("alf/_ibl_wheel.position.npy")
    time = alf.timestamps("alf/_ibl_wheel.timestamps.npy", len(position))
    place = alf.path("alf/_ibl_wheel.timestamps.npy")
    known, left_out = signal_table("wheel", time, position, place, "wheel", ("position",))
    start, stop = known["time"].iloc[[0, -1]]
    grid = np.arange(np.ceil(start * rate), np.floor(stop * rate) + 1) / rate
    even = np.interp(grid, known["time"], known["position"])
    velocity = np.gradient(even, 1 / rate) if len(even) > 1 else np.zeros(len(even))
    table, _ = signal_table("wheel", grid, np.stack([even, velocity], axis=1), place, "wheel", ("position", "velocity"))
    return table, left_out
