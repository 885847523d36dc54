"""Simulated sessions in the layouts of real sources, and how a public bucket serves them."""

import hashlib
import io
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import ibl_release
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.files import FileServer

BUCKET = "/ibl-brain-wide-map-public"
CODING = "/allen-brain-observatory/visual-coding-neuropixels/ecephys-cache"
REVISION = "2024-05-06"


def ibl_folder(folder: Path) -> Path:
    """A session folder of IBL with a wheel, licks, motion energy, two revisions, and spikes of good units apart."""
    recording = simulate("lorenz", {"conditions": 3, "repeats": 4}, 0, "KS014")
    session = write_layout(recording, folder, "ibl")
    alf = session / "alf"
    sorting = alf / "probe00/pykilosort"
    seconds = recording.duration
    rng = np.random.default_rng(0)
    wheel = np.sort(rng.uniform(0, seconds, 200))
    np.save(alf / "_ibl_wheel.timestamps.npy", wheel)
    np.save(alf / "_ibl_wheel.position.npy", np.cumsum(rng.normal(size=200)))
    np.save(alf / "licks.times.npy", np.sort(rng.uniform(0, seconds, 30)))
    frames = np.arange(0, seconds, 1 / 60)
    np.save(alf / "_ibl_leftCamera.times.npy", frames)
    np.save(alf / "leftCamera.ROIMotionEnergy.npy", rng.uniform(0, 10, len(frames)))
    pd.DataFrame({f"paw_l_{name}": rng.uniform(0, 1, len(frames)) for name in ("x", "y", "likelihood")}).to_parquet(
        alf / "_ibl_leftCamera.lightningPose.pqt"
    )
    times = np.load(sorting / "spikes.times.npy")
    clusters = np.load(sorting / "spikes.clusters.npy")
    pd.DataFrame({"times": times, "clusters": clusters.astype(np.uint16)}).to_parquet(
        sorting / "passingSpikes.table.pqt"
    )
    revised = sorting / f"#{REVISION}#"
    revised.mkdir()
    for path in sorted(path for path in sorting.iterdir() if path.is_file()):
        content = path.read_bytes()
        (revised / path.name).write_bytes(content)
        if path.name.startswith("spikes.times"):  # an older sorting, a little off
            np.save(path, times + 0.001)
    (alf / "_ibl_extra.notNeeded.npy").write_bytes(b"not asked for")
    return session


def publish_allen(server: FileServer, nwb: Path, number: str) -> str:
    """Serve a file as session `number` of Visual Coding, as its bucket does; the path of it on the server."""
    server.put(f"{CODING}/sessions.csv", f"id,session_type,genotype\n{number},brain_observatory_1.1,wt\n".encode())
    path = f"{CODING}/session_{number}/session_{number}.nwb"
    server.put(path, nwb.read_bytes())
    return path


def publish_units(server: FileServer, units: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the table of all units of the Brain-Wide Map."""
    table = io.BytesIO()
    units.to_parquet(table)
    server.put(f"{BUCKET}/{ibl_release.UNITS}", table.getvalue())
    monkeypatch.setattr(ibl_release, "UNITS_MD5", hashlib.md5(table.getvalue()).hexdigest())


def publish_ibl(server: FileServer, session: Path, tag: str = ibl_release.RELEASE) -> tuple[str, dict[str, str]]:
    """Serve a session folder as the public bucket does, tables included; its eid, and paths on the server by name."""
    from iblutil.io import parquet

    from tests.servers.alyx import identifier

    lab, _, subject, date, number = session.parts[-5:]
    eid = identifier("session")
    rows, paths = [], {}
    found = [path for part in ("alf", "raw_ephys_data") for path in (session / part).rglob("*") if path.is_file()]
    for path in sorted(found):
        relative, content = path.relative_to(session), path.read_bytes()
        dataset = identifier(relative.as_posix())
        on_server = relative.with_name(f"{relative.stem}.{dataset}{relative.suffix}").as_posix()
        paths[relative.as_posix()] = f"{BUCKET}/data/{lab}/Subjects/{subject}/{date}/{number}/{quote(on_server)}"
        server.put(paths[relative.as_posix()], content)
        md5 = hashlib.md5(content).hexdigest()
        rows.append((eid, dataset, relative.as_posix(), len(content), md5, True, "PASS", REVISION in str(relative)))
    columns = ["eid", "id", "rel_path", "file_size", "hash", "exists", "qc", "default_revision"]
    datasets = pd.DataFrame(rows, columns=columns).astype({"file_size": "UInt64"}).set_index(["eid", "id"])
    described = [(eid, lab, subject, date, int(number), "ephysChoiceWorld", "brainwide")]
    names = ["id", "lab", "subject", "date", "number", "task_protocol", "projects"]
    sessions = pd.DataFrame(described, columns=names).set_index("id")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name, table in (("sessions", sessions), ("datasets", datasets)):
            path = session.parents[4] / f"public_{name}.pqt"
            parquet.save(path, table, {"date_created": "2025-01-01 00:00", "origin": "alyx", "min_api_version": "2.7"})
            members.writestr(f"{name}.pqt", path.read_bytes())
            path.unlink()
    server.put(f"{BUCKET}/caches/openalyx/{tag}/cache.zip", archive.getvalue())
    return eid, paths
