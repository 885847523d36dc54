"""Sessions of the International Brain Laboratory, as a local folder of ALF files (lab/Subjects/subject/date/number).

A row of the session sheet:

    KS014   ibl   cortexlab/Subjects/KS014/2019-12-07/001   regions: [MOs, CP], reaction_time: [0.08, 2.0]

ONE's own loader would unpickle what it finds; here arrays are read without pickle, and ONE (local mode) says how large
each dataset is when its cache tables lie above the folder. Nothing is written, and no network or home folder is used.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.sources.alf import AlfSession, folders_with
from pipeline_lib.sources.ibl_signals import READERS as SIGNAL_READERS
from pipeline_lib.sources.ibl_signals import read_wheel
from pipeline_lib.sources.ibl_trials import read_trials, task_folder
from pipeline_lib.sources.location import checksums
from pipeline_lib.sources.options import Names, as_tuple
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.signals import together
from pipeline_lib.sources.trials import column_text

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

SORTERS = ("iblsorter", "pykilosort")
"""Which spike sorting is taken where there are several, the first that is there."""
SESSIONS = "*/Subjects/*/????-??-??/???/alf"
TIMES, PASSING = "spikes.times.npy", "passingSpikes.table.pqt"
"""All spikes; or those of good units alone."""
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

    alf = AlfSession(location, options.revision)
    folders = chosen_sortings(alf.names, options.probes, options.sorter, location)
    probes = [read_probe(alf, folder, options) for folder in folders]
    offsets = np.cumsum([0, *(len(units) for _, _, units in probes)])
    times = np.concatenate([times for times, _, _ in probes])
    unit = np.concatenate([rows + offset for (_, rows, _), offset in zip(probes, offsets, strict=False)])
    units = pd.concat([units for _, _, units in probes], ignore_index=True)
    early = times < 0
    times, unit = times[~early], unit[~early].astype(np.int32)

    task = task_folder(alf)
    trials, counts = read_trials(alf, task, options)
    counts["spikes_before_clock"] = int(early.sum())
    wheel = read_wheel(alf, task, options.wheel_rate) if options.wheel_rate else ({}, {})
    signals, left_out = together([wheel, *(SIGNAL_READERS[name](alf) for name in as_tuple(options.signals))])
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
            release=options.revision or alf.newest_revision,
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


def sortings(datasets: Iterable[str]) -> dict[str, dict[str, str]]:
    """The spike sortings among the paths of datasets: folders such as alf/probe00/pykilosort, by probe and by sorter
    ("" for the folder of the probe itself).
    """
    found: dict[str, dict[str, str]] = {}
    for folder in folders_with(datasets, (TIMES, PASSING)):
        if match := re.fullmatch(r"alf/(probe\w+)(?:/(.+))?", folder):
            found.setdefault(match[1], {})[match[2] or ""] = folder
    return found


def preferred(found: dict[str, str], sorter: str | None) -> str | None:
    """Of the sortings of a probe that of `sorter`; by default of the first of `SORTERS`, else the shortest name."""
    wanted = [sorter] if sorter else [*SORTERS, *sorted(found, key=len)]
    return next((found[name] for name in wanted if name in found), None)


def chosen_sortings(datasets: Iterable[str], probes: Names | None, sorter: str | None, where: Path | str) -> list[str]:
    """The folder of the spike sorting of every probe, such as alf/probe00/pykilosort, among the paths of datasets.

    InputError for a probe or a sorter that is not there.
    """
    found, chosen = sortings(datasets), []
    for probe in as_tuple(probes) or tuple(found):
        if probe not in found:
            raise InputError(where, "option probes", repr(probe), ", ".join(found) or "no probe here")
        folder = preferred(found[probe], sorter)
        if folder is None:
            raise InputError(where, "option sorter", repr(sorter), ", ".join(sorted(found[probe])))
        chosen.append(folder)
    if not chosen:
        raise InputError(where, "alf/probe*", "no spike sorting", f"{TIMES} or {PASSING} of a probe")
    return chosen


def read_probe(alf: AlfSession, collection: str, options: Options) -> "tuple[np.ndarray, np.ndarray, pd.DataFrame]":
    """Spike times (spikes,) in s, clusters (spikes,) and the table of all clusters of one spike sorting.

    InputError where these disagree, or where the file holds good units alone and others are asked for.
    """
    times, clusters, source = _read_spikes(alf, collection, options)
    channels = alf.array(f"{collection}/clusters.channels.npy").astype(np.int64)
    if times.shape != clusters.shape or times.ndim != 1:
        raise InputError(source, "clusters", f"shape {clusters.shape}, times {times.shape}", "one cluster a spike")
    refuse_rows(~np.isfinite(times), source, "times", times, "a finite time in s")
    outside = (clusters < 0) | (clusters >= len(channels))
    refuse_rows(outside, source, "clusters", clusters, f"clusters 0 to {len(channels) - 1}")
    return times.astype(np.float64), clusters.astype(np.int64), _read_clusters(alf, collection, channels, options)


def _read_spikes(alf: AlfSession, collection: str, options: Options) -> tuple[np.ndarray, np.ndarray, Path]:
    """Times and clusters of all spikes, or of those of good units where there are no others, and their file."""
    passing = f"{collection}/{PASSING}"
    if alf.has(f"{collection}/{TIMES}"):
        clusters = f"{collection}/spikes.clusters.npy"
        return alf.array(f"{collection}/{TIMES}"), alf.array(clusters), alf.path(clusters)
    if options.min_label != GOOD:
        accepted = f"{GOOD:g}: {PASSING} holds good units alone (fetch the session with the option as it is here)"
        raise InputError(alf.folder, "option min_label", options.min_label, accepted)
    table = alf.table(passing, ("times", "clusters"))
    return table["times"].to_numpy(), table["clusters"].to_numpy(), alf.path(passing)


def _read_clusters(alf: AlfSession, collection: str, channels: np.ndarray, options: Options) -> "pd.DataFrame":
    """The units table of all clusters, good or not, with the metrics of their quality where there are any."""
    import pandas as pd

    probe = collection.split("/")[1]
    units = pd.DataFrame({"unit_id": cluster_ids(alf, collection, probe, len(channels))})
    units["region"] = cluster_regions(alf, collection, channels, options.atlas_mapping)
    units["population"] = units["region"] if options.population == "region" else probe
    units["probe"] = probe
    if alf.has(f"{collection}/clusters.depths.npy"):
        units["depth"] = alf.array(f"{collection}/clusters.depths.npy", len(channels))
    name = f"{collection}/clusters.metrics.pqt"
    if options.min_label is not None and not alf.has(name):
        accepted = "a session with this dataset, or the option min_label: null, which takes all clusters"
        raise InputError(alf.folder, name, "no such dataset", accepted)
    if alf.has(name):
        metrics = alf.table(name, ("cluster_id", "label")).drop_duplicates("cluster_id").set_index("cluster_id")
        metrics = metrics.reindex(np.arange(len(channels))).drop(columns=list(units), errors="ignore")
        units = pd.concat([units, metrics.reset_index(drop=True)], axis=1)
    return units


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
