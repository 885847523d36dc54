"""A loopback RMA warehouse of the Allen Institute: the queries that AllenSDK makes, and one session file.

The tables hold the real rows of the release where they are at hand, and those of the session file.
"""

import csv
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.servers.files import FileServer, Handler

PAGE = re.compile(r"\[start_row\$eq(\d+)\]\[num_rows\$eq(\d+)\]")
QUERY = "/api/v2/data/query.json"
DOWNLOAD = "/api/v2/well_known_file_download/1"


class Warehouse:
    """Answers as the warehouse does, for the session in `nwb` beside the rows of `tables` (a folder, or None)."""

    def __init__(self, files: FileServer, nwb: Path, tables: Path | None) -> None:
        self.files = files
        self.session, rows = session_rows(nwb)
        self.rows = rows
        if tables is not None:
            self.rows["EcephysSession"] += [_session(row) for row in _read(tables / "sessions.csv")]
            self.rows["EcephysProbe"] += [_probe(row) for row in _read(tables / "probes.csv")]
        files.put(DOWNLOAD, nwb.read_bytes())
        files.pages[QUERY] = self._query

    def _query(self, handler: Handler) -> None:
        query = unquote(urlsplit(handler.path).query)
        model = re.match(r"criteria=model::(\w+)", query)[1]
        rows = sorted(self.rows[model], key=lambda row: row["id"])
        if model == "WellKnownFile":
            rows = rows if f"[attachable_id$eq{self.session}]" in query else []
        first, count = map(int, PAGE.search(query).groups())
        page = rows[first : first + count]
        answer = {"success": True, "id": 0, "start_row": first, "num_rows": len(page), "total_rows": len(rows)}
        body = json.dumps(answer | {"msg": page}).encode()
        handler.answer(200, body, {"Content-Type": "application/json"})


def session_rows(nwb: Path) -> tuple[int, dict[str, list[dict]]]:
    """The id of the session in a file, and the rows of the warehouse about it by model."""
    import h5py

    with h5py.File(nwb, "r") as file:
        session = int(file["identifier"][()])
        electrodes, units = file["general/extracellular_ephys/electrodes"], file["units"]
        channels = [
            {
                "id": int(channel),
                "ecephys_probe_id": int(probe),
                "local_index": row,
                "probe_horizontal_position": 43,
                "probe_vertical_position": 20 * row,
                "anterior_posterior_ccf_coordinate": 8000,
                "dorsal_ventral_ccf_coordinate": 1000,
                "left_right_ccf_coordinate": 9000,
                "ecephys_structure_id": 385,
                "ecephys_structure_acronym": location.decode(),
            }
            for row, (channel, probe, location) in enumerate(
                zip(electrodes["id"][:], electrodes["probe_id"][:], electrodes["location"][:], strict=True)
            )
        ]
        rows = [
            {
                "id": int(unit),
                "ecephys_channel_id": int(channel),
                "quality": "good",
                "amplitude_cutoff": 0.01,
                "presence_ratio": 0.99,
                "isi_violations": 0.05,
                "snr": 3.0,
                "firing_rate": 5.0,
            }
            for unit, channel in zip(units["id"][:], units["peak_channel_id"][:], strict=True)
        ]
    probes = sorted({channel["ecephys_probe_id"] for channel in channels})
    return session, {
        "EcephysSession": [_session({"id": session, "specimen_id": 1, "session_type": "brain_observatory_1.1"})],
        "EcephysProbe": [_probe({"id": probe, "ecephys_session_id": session}) for probe in probes],
        "EcephysChannel": channels,
        "EcephysUnit": rows,
        "WellKnownFile": [{"id": 1, "download_link": DOWNLOAD.lstrip("/"), "attachable_id": session}],
    }


def _session(row: dict) -> dict:
    donor = {
        "age": {"days": float(row.get("age_in_days", 100))},
        "sex": row.get("sex", "M"),
        "full_genotype": row.get("genotype", "wt/wt"),
    }
    return {
        "id": int(row["id"]),
        "date_of_acquisition": row.get("date_of_acquisition", "2019-01-19T08:54:18Z"),
        "isi_experiment_id": 1,
        "published_at": row.get("published_at", "2019-10-03T00:00:00Z"),
        "specimen_id": int(row["specimen_id"]),
        "stimulus_name": row["session_type"],
        "fail_eye_tracking": False,
        "specimen": {"donor": donor},
        "well_known_files": [{"well_known_file_type": {"name": "EcephysNwb"}}],
    }


def _probe(row: dict) -> dict:
    return {
        "id": int(row["id"]),
        "ecephys_session_id": int(row["ecephys_session_id"]),
        "name": row.get("name", "probeA"),
        "phase": "3a",
        "air_channel_index": 384,
        "surface_channel_index": 336,
        "sampling_rate": 30000.0,
        "lfp_sampling_rate": 2500.0,
        "lfp_temporal_subsampling_factor": 2.0,
        "use_lfp_data": True,
    }


def _read(path: Path) -> list[dict]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))
