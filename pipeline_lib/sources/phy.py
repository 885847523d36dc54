"""The folder of Kilosort, curated in phy or not yet: spikes as samples and clusters, and what is known of the clusters.

A row of the session sheet:

    day1   phy   sorted/day1   trials: trials.csv, start: stim_on, stop: trial_end, condition: choice

Read are `spike_times.npy` (samples from the start of the recording), `spike_clusters.npy`, the `sample_rate` in
`params.py` (which is never run) and every `cluster_*.tsv`, whose columns the table of units takes over. Trials and the
other tables that options name are in seconds from the same start.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Gt

from pipeline_lib.errors import InputError, refuse_rows
from pipeline_lib.sources.columns import column, load_columns, table_of
from pipeline_lib.sources.companions import Companions, read_companions
from pipeline_lib.sources.location import checksums, reading
from pipeline_lib.sources.options import Names, as_tuple, check_names
from pipeline_lib.sources.presence import spike_ranges
from pipeline_lib.sources.seconds import check_together
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.sources.spikes import check_spike_times
from pipeline_lib.sources.trials import ALL, column_text

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

TIMES, CLUSTERS, PARAMETERS = "spike_times.npy", "spike_clusters.npy", "params.py"
SAMPLE_RATE = re.compile(r"^\s*sample_rate\s*=([^#\n]*)", re.MULTILINE)
UNKNOWN, UNSORTED = "unknown", "unsorted"
LABELS = ("group", "KSLabel")
"""Columns that say what a cluster is, the one that goes before first: a person's word, then Kilosort's."""


@dataclass(frozen=True, kw_only=True)
class Options(UnitSelection, Companions):
    """Which clusters are units, and the tables beside them. File names are relative to the location."""

    groups: Names = ("good",)
    """Clusters to keep: good, mua, noise, as phy says (`group`), or Kilosort where phy does not (`KSLabel`); or
    unsorted, of which neither says anything."""
    sampling_rate: Annotated[float, Gt(0)] | None = None
    """Samples per second; by default `sample_rate` of `params.py`."""
    region: str = UNKNOWN
    """Region of all units, where no `cluster_*.tsv` has a column `region`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.signals, "source phy", "option signals")


def locate(location: Path) -> Path:
    """`location`, the folder of `spike_times.npy`; InputError where it is none."""
    if not (location / TIMES).is_file():
        raise InputError(location, "location", f"no {TIMES} in it", "the folder that Kilosort wrote and phy opens")
    return location


def files(location: Path, options: Options) -> list[Path]:
    """The files that `read` reads."""
    written = [TIMES, CLUSTERS]
    if options.sampling_rate is None:
        written.append(PARAMETERS)
    for name in written:
        if not (location / name).is_file():
            accepted = "what Kilosort writes" + (", or the option sampling_rate" if name == PARAMETERS else "")
            raise InputError(location / name, "file", "no such file", accepted)
    named = {"trials": options.trials, "observed": options.observed} | options.signals
    for name, file in named.items():
        if file is not None and not (location / file).is_file():
            raise InputError(location / file, f"option {name}", "no such file", f"a file in {location}")
    return [*(location / file for file in (*written, *filter(None, named.values()))), *_cluster_tables(location)]


def read(session: str, location: Path, options: Options) -> "Recording":
    """The recording of a sorted session: its units are the clusters of the chosen groups.

    Raises
    ------
    InputError : a missing or broken file, not a cluster a spike, no sampling rate, no cluster of the groups, trials or
        observations that are not in seconds.
    """
    from pipeline_lib.recording import Provenance, Recording

    used = files(location, options)
    times, clusters = _spikes(location, options)
    ids, rows = np.unique(clusters, return_inverse=True)
    units, labels = _units(location, ids, options)
    kept = np.isin(labels, as_tuple(options.groups))
    if not kept.any():
        here = ", ".join(f"{(labels == label).sum()} {label}" for label in sorted(set(labels)))
        found = f"{', '.join(as_tuple(options.groups))}, of clusters that are {here}"
        raise InputError(location, "option groups", found, "a group that is here")

    trying, observing = (location / name if name else None for name in (options.trials, options.observed))
    measured = {name: location / file for name, file in options.signals.items()}
    trials, observed, signals, counts = read_companions(options, trying, observing, measured, location)

    last, tried = float(times.max()), float(trials["stop"].max()) if len(trials) else 0.0
    _require_seconds(tried, last, trying, f"column {options.stop}")
    _require_seconds(observed.max(initial=0.0), last, observing, "column stop")
    duration = options.duration or max(last, tried, observed.max(initial=0.0))
    recording = Recording(
        session=session,
        spike_times=times,
        spike_units=rows.astype(np.int32),
        units=units,
        trials=trials,
        duration=float(duration),
        observed=observed if len(observed) else np.array([[0.0, duration]]),
        provenance=Provenance("phy", session, files=checksums(used, location), counts=counts),
        signals=signals,
        unit_intervals=spike_ranges(times, rows, len(ids)) if options.unit_presence == "spike_range" else None,
    )
    return select(recording, options, location, keep=kept)


def _require_seconds(last: float, spikes: float, where: Path | None, field: str) -> None:
    """Raise InputError where times up to `last` cannot be seconds beside `spikes` up to those (s)."""
    try:
        check_together(last, spikes, where, field)
    except InputError as error:
        raise InputError(error.where, field, error.found, "seconds from the start of the recording") from None


def _spikes(location: Path, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Times (spikes,) in s, in any order, and clusters (spikes,)."""
    samples, clusters = _array(location / TIMES, "iuf"), _array(location / CLUSTERS, "iu")
    if len(samples) != len(clusters):
        found = f"{len(clusters)} values, {len(samples)} times"
        raise InputError(location / CLUSTERS, "array", found, "as many of both")
    if len(samples) == 0:
        raise InputError(location / TIMES, "array", "an empty recording", "at least one spike")
    times = samples / (options.sampling_rate or _sampling_rate(location / PARAMETERS))
    check_spike_times(times, location / TIMES, "samples", None, sort=True)
    refuse_rows(samples % 1 != 0, location / TIMES, "array", samples, "whole numbers, of samples and not seconds")
    return times, clusters


def _array(path: Path, kinds: str) -> np.ndarray:
    """The numbers of a .npy file, one a spike: Kilosort writes a column, others a vector."""
    with reading(path, "file"):
        values = np.load(path, allow_pickle=False)
    if values.dtype.kind not in kinds or values.ndim == 0 or values.size != len(values):
        accepted = "a whole number a spike" if "f" not in kinds else "a number a spike"
        raise InputError(path, "array", f"{values.dtype} of shape {values.shape}", accepted)
    return values.ravel()


def _sampling_rate(parameters: Path) -> float:
    """`sample_rate` of params.py, found as text: the file is somebody's program, and is not run.

    InputError for anything but one number: what an expression would give, or the last of two, is not guessed.
    """
    with reading(parameters, "file"):
        found = SAMPLE_RATE.findall(parameters.read_text(encoding="utf-8", errors="replace"))
    rate = 0.0
    if len(found) == 1:
        with contextlib.suppress(ValueError):
            rate = float(found[0])
    if not 0 < rate < np.inf:
        text = " and ".join(each.strip() for each in found) or "nothing"
        raise InputError(parameters, "sample_rate", text, "`sample_rate = 30000.`, or the option sampling_rate")
    return rate


def _cluster_tables(location: Path) -> list[Path]:
    """Tables of clusters; `cluster_info.tsv`, which sums up the others, first."""
    return sorted(location.glob("cluster_*.tsv"), key=lambda file: (file.name != "cluster_info.tsv", file.name))


def _units(location: Path, ids: np.ndarray, options: Options) -> "tuple[pd.DataFrame, np.ndarray]":
    """The table of units, a row a cluster that spiked, and the label of each (units,)."""
    import pandas as pd

    known = pd.DataFrame(index=pd.Index(ids))
    for file in _cluster_tables(location):
        own = table_of(file, load_columns(file, used=("cluster_id", "id", "region", *LABELS)))
        key = "id" if "id" in own and "cluster_id" not in own else "cluster_id"  # older cluster_info.tsv
        clusters = pd.Index(column(file, own, key))
        if clusters.has_duplicates:
            raise InputError(file, f"column {key}", f"{clusters[clusters.duplicated()][0]} twice", "a row a cluster")
        for name, values in own.drop(columns=key).items():
            found = pd.Series(values.to_numpy(), index=clusters).reindex(known.index)
            known[name] = found.where(found.notna(), known[name]) if name in known else found
    labels = pd.Series(None, index=known.index, dtype=object)
    for name in LABELS:
        if name in known:
            labels = labels.where(labels.notna(), known[name])
    named = "region" in known
    region = column_text(known["region"], missing=options.region) if named else [options.region] * len(ids)
    table = pd.DataFrame({"unit_id": [str(int(each)) for each in ids], "region": region})
    table["population"] = region if named or options.region != UNKNOWN else ALL
    for name in known.columns.difference(["region", "unit_id", "population"], sort=False):
        text = known[name].dtype.kind not in "iufb"
        table[name] = column_text(known[name], missing="") if text else known[name].to_numpy()
    return table, np.array(column_text(labels, missing=UNSORTED))
