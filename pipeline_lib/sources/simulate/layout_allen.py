"""A session as an Allen Visual Coding Neuropixels NWB file: one probe a region, one channel a unit.

Every column AllenSDK asks for is there; quality metrics hold made-up values that pass its default filters. Times when
nothing was recorded are invalid times of all probes.
"""

import json
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.files import whole_directory
from pipeline_lib.intervals import complement
from pipeline_lib.recording import Truth

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

CREATED = "2020-01-01T00:00:00+00:00"
ROOT = uuid.uuid5(uuid.NAMESPACE_DNS, "simulated.sessions")
EXTENSION = "ndx-aibs-ecephys"
SAMPLING_RATE, LFP_RATE = 30000.0, 1250.0  # Hz
CHANNEL_PITCH = 20  # um
AMPLITUDE = 1e-4  # V
FIRST_PROBE = 1001
STIMULUS_BLOCK = 2.0  # AllenSDK reads a block made only of 0 and 1 as bool


def write_allen(recording: "Recording", directory: Path) -> Path:
    """Write `session_{id}.nwb`, which the source `allen` reads; return its path. The id follows from the session."""
    import h5py

    session_id = str(zlib.crc32(recording.session.encode()))
    name = f"session_{session_id}.nwb"
    ids = unit_ids(recording.units["unit_id"].tolist())
    with whole_directory(directory, final=name) as writing:
        with h5py.File(writing / name, "w", libver=("earliest", "v110")) as file:
            nwb = NwbWriter(file, session_id)
            write_head(nwb, recording.session, session_id)
            groups = write_probes(nwb, recording.units["region"].tolist())
            write_electrodes(nwb, recording.units["region"].tolist(), groups)
            write_units(nwb, recording, ids)
            write_presentations(nwb, recording)
            write_invalid_times(nwb, recording, session_id)
            write_running(nwb, recording)
            write_extension(nwb)
        if recording.truth is not None:
            attributes = recording.truth.attributes | {"unit_id": [str(number) for number in ids]}
            Truth(recording.truth.arrays, attributes).write(writing / "truth.zarr")
    return directory / name


def unit_ids(texts: list[str]) -> np.ndarray:
    """Unit ids as the whole numbers they are, or the row numbers where some are not (units,) int64."""
    whole = all(text.isdecimal() and str(int(text)) == text for text in texts)
    return np.array(texts, dtype=np.int64) if whole else np.arange(len(texts))


class NwbWriter:
    """Writes NWB objects: groups and datasets with a type, a namespace and an id that follows from the path."""

    def __init__(self, file: Any, session_id: str) -> None:
        self.file = file
        self.session_id = session_id

    def typed(self, node: Any, kind: str, namespace: str, **attributes: Any) -> Any:
        """Give `node` its NWB type and attributes."""
        identity = uuid.uuid5(ROOT, f"{self.session_id}{node.name}")
        node.attrs["neurodata_type"], node.attrs["namespace"] = kind, namespace
        node.attrs["object_id"] = str(identity)
        for name, value in attributes.items():
            node.attrs[name] = value
        return node

    def dataset(self, path: str, data: Any) -> Any:
        """A dataset without type; text as UTF-8 of any length."""
        import h5py

        values = np.asarray(data)
        if values.dtype.kind in "OU":
            return self.file.create_dataset(path, data=values.astype(object), dtype=h5py.string_dtype())
        return self.file.create_dataset(path, data=values)

    def column(self, path: str, data: Any, kind: str = "VectorData", **attributes: Any) -> Any:
        """A column of a table, from data or an existing dataset."""
        node = data if hasattr(data, "attrs") else self.dataset(path, data)
        return self.typed(node, kind, "hdmf-common", description=path.rpartition("/")[2], **attributes)

    def table(
        self, path: str, kind: str, namespace: str, ids: np.ndarray, columns: dict[str, Any], ends: dict[str, Any]
    ) -> None:
        """A DynamicTable; `ends` holds, for each ragged column, where its rows end."""
        group = self.file.require_group(path)
        self.typed(group, kind, namespace, description=path, colnames=np.array(list(columns), dtype=object))
        self.typed(self.dataset(f"{path}/id", np.asarray(ids, dtype=np.int64)), "ElementIdentifiers", "hdmf-common")
        for name, data in columns.items():
            column = self.column(f"{path}/{name}", data)
            if name in ends:
                self.column(f"{path}/{name}_index", ends[name], "VectorIndex", target=column.ref)


def write_head(nwb: NwbWriter, session: str, session_id: str) -> None:
    """What every NWB file has at its root."""
    file = nwb.file
    nwb.typed(file, "NWBFile", "core", nwb_version="2.2.2")
    nwb.dataset("identifier", session_id)
    nwb.dataset("session_description", f"simulated session {session}")
    nwb.dataset("session_start_time", CREATED)
    nwb.dataset("timestamps_reference_time", CREATED)
    nwb.dataset("file_create_date", [CREATED])
    for path in ("acquisition", "analysis", "processing", "stimulus/presentation", "stimulus/templates"):
        file.create_group(path)
    nwb.dataset("general/session_id", session_id)
    nwb.dataset("general/institution", "simulated")


def write_probes(nwb: NwbWriter, regions: list[str]) -> dict[str, Any]:
    """A device and an electrode group for every region, in order of first appearance; the groups, by region."""
    import h5py

    groups = {}
    for row, region in enumerate(dict.fromkeys(regions)):
        name = f"probe{chr(ord('A') + row)}" if row < 26 else f"probe{row}"
        probe = {"probe_id": np.int64(FIRST_PROBE + row)}
        device = nwb.file.create_group(f"general/devices/{name}")
        nwb.typed(device, "EcephysProbe", EXTENSION, description=name, sampling_rate=SAMPLING_RATE, **probe)
        group = nwb.file.create_group(f"general/extracellular_ephys/{name}")
        recorded = {"has_lfp_data": np.bool_(False), "lfp_sampling_rate": LFP_RATE}
        nwb.typed(group, "EcephysElectrodeGroup", EXTENSION, description=name, location=region, **recorded, **probe)
        group["device"] = h5py.SoftLink(device.name)
        groups[region] = group
    return groups


def write_electrodes(nwb: NwbWriter, regions: list[str], groups: dict[str, Any]) -> None:
    """One channel a unit, with the id of its row."""
    import h5py

    probes = [groups[region] for region in regions]
    path = "general/extracellular_ephys/electrodes"
    rows = np.arange(len(regions))
    # A dataset of references cannot be made from an array: h5py takes them with their own type.
    references = np.array([group.ref for group in probes], dtype=h5py.ref_dtype)
    columns = {
        "x": np.zeros(len(rows)),
        "y": np.zeros(len(rows)),
        "z": np.zeros(len(rows)),
        "location": np.array(regions, dtype=object),
        "group": nwb.file.create_dataset(f"{path}/group", data=references, dtype=h5py.ref_dtype),
        "group_name": np.array([group.name.rpartition("/")[2] for group in probes], dtype=object),
        "probe_id": np.array([group.attrs["probe_id"] for group in probes]),
        "valid_data": np.ones(len(rows), dtype=bool),
        "local_index": rows,
        "probe_vertical_position": rows * CHANNEL_PITCH,
        "probe_horizontal_position": np.full(len(rows), 43),
    }
    # AllenSDK knows no type of its own for this table.
    nwb.table(path, "DynamicTable", "hdmf-common", rows, columns, {})


def write_units(nwb: NwbWriter, recording: "Recording", ids: np.ndarray) -> None:
    """Spikes, unit after unit, and the quality metrics AllenSDK filters by."""
    count = len(ids)
    order = np.argsort(recording.spike_units, kind="stable")
    spikes = np.bincount(recording.spike_units, minlength=count)
    seconds = float(np.diff(recording.observed, axis=1).sum())
    # Never written, so the file holds no bytes of it: every spike reads as the fill value.
    amplitudes = nwb.file.create_dataset("units/spike_amplitudes", (len(order),), np.float64, fillvalue=AMPLITUDE)
    columns = {
        "spike_times": recording.spike_times[order],
        "spike_amplitudes": amplitudes,
        "waveform_mean": np.zeros((count, 2)),
        "peak_channel_id": np.arange(count),
        "local_index": np.arange(count),
        "cluster_id": np.arange(count),
        "quality": np.full(count, "good", dtype=object),
        "firing_rate": spikes / seconds,
        "isi_violations": np.zeros(count),
        "presence_ratio": np.full(count, 0.99),
        "amplitude_cutoff": np.full(count, 0.01),
        "snr": np.full(count, 3.0),
    }
    ends = np.cumsum(spikes)
    nwb.table("units", "Units", "core", ids, columns, {"spike_times": ends, "spike_amplitudes": ends})


def write_presentations(nwb: NwbWriter, recording: "Recording") -> None:
    """Trials as presentations whose stimulus has the name of the condition; event columns are carried along."""
    trials = recording.trials
    if len(trials) == 0:
        return
    columns = {
        "start_time": trials["start"].to_numpy(),
        "stop_time": trials["stop"].to_numpy(),
        "stimulus_name": trials["condition"].to_numpy(dtype=object),
        "stimulus_block": np.full(len(trials), STIMULUS_BLOCK),
        "stimulus_index": np.zeros(len(trials), dtype=np.int64),
    }
    for name in trials.columns.drop(["start", "stop", "condition"]):
        columns[str(name)] = trials[name].to_numpy()
    nwb.table("intervals/trial_presentations", "TimeIntervals", "core", np.arange(len(trials)), columns, {})


def write_invalid_times(nwb: NwbWriter, recording: "Recording", session_id: str) -> None:
    """The gaps between observed intervals, invalid for all probes."""
    gaps = complement(recording.observed, recording.duration)
    if len(gaps) == 0:
        return
    tags = np.array(["EcephysSession", session_id, "all_probes"] * len(gaps), dtype=object)
    columns = {"start_time": gaps[:, 0], "stop_time": gaps[:, 1], "tags": tags}
    ends = {"tags": 3 * np.arange(1, len(gaps) + 1)}
    nwb.table("intervals/invalid_times", "TimeIntervals", "core", np.arange(len(gaps)), columns, ends)


def write_running(nwb: NwbWriter, recording: "Recording") -> None:
    """The signal `running`, each sample of no length: its start and end are its time."""
    if "running" not in recording.signals:
        return
    signal = recording.signals["running"]
    time, values = signal["time"].to_numpy(), signal.drop(columns="time").to_numpy()[:, 0]
    module = nwb.file.create_group("processing/running")
    nwb.typed(module, "ProcessingModule", "core", description="running")
    for name, data in (("running_speed", values), ("running_speed_end_times", np.full(len(time), np.nan))):
        series = nwb.typed(module.create_group(name), "TimeSeries", "core", description=name, comments="simulated")
        dataset = nwb.dataset(f"{series.name}/data", data)
        dataset.attrs.update({"unit": "cm/s", "conversion": 1.0, "resolution": -1.0})
        stamps = nwb.dataset(f"{series.name}/timestamps", time)
        stamps.attrs.update({"unit": "seconds", "interval": np.int32(1)})


def write_extension(nwb: NwbWriter) -> None:
    """The definitions of the Allen types, which a reader of any NWB file takes from the file itself."""
    number = {"probe_id": "int"}
    types = {
        "EcephysProbe": ("Device", {"sampling_rate": "float64"} | number),
        "EcephysElectrodeGroup": ("ElectrodeGroup", {"has_lfp_data": "bool", "lfp_sampling_rate": "float64"} | number),
    }
    groups = [
        {
            "neurodata_type_def": name,
            "neurodata_type_inc": base,
            "doc": name,
            "attributes": [{"name": key, "dtype": dtype, "doc": key} for key, dtype in attributes.items()],
        }
        for name, (base, attributes) in types.items()
    ]
    source = f"{EXTENSION}.extension"
    namespace = {
        "name": EXTENSION,
        "version": "0.2.0",
        "doc": "types of Allen Institute ecephys files",
        "author": ["Allen Institute for Brain Science"],
        "contact": ["waynew@alleninstitute.org"],
        "schema": [{"namespace": "core"}, {"source": source}],
    }
    path = f"specifications/{EXTENSION}/0.2.0"
    nwb.dataset(f"{path}/namespace", json.dumps({"namespaces": [namespace]}))
    nwb.dataset(f"{path}/{source}", json.dumps({"groups": groups}))
    nwb.file.attrs[".specloc"] = nwb.file["specifications"].ref
