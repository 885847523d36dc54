"""Input made to do harm: to leave its folder, to read other files, to be executed, to bring a secret to light."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.plan import load_config
from pipeline_lib.sources import read_source
from pipeline_lib.sources.download import Downloader
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.fetch_ibl import remote_file
from pipeline_lib.sources.ibl_release import public_tables
from pipeline_lib.sources.remote import parse_remote
from pipeline_lib.sources.transport import DownloadError
from tests.fuzz.outcome import record
from tests.servers.files import FileServer
from tests.servers.sessions import BUCKET, publish_ibl
from tests.sources.fetching import QUICK

OUTSIDE = ("../../evil", "/evil", "a/../../evil", "..", ".", "a/b", "evil\x00", "évil", "")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_in_a_configuration_stay_within_the_results(name: str, tmp_path: Path) -> None:
    (tmp_path / "spikes.tsv").write_text("time\tunit\n0.1\t1\n")
    config, sheet = tmp_path / "config.yaml", tmp_path / "sessions.tsv"

    def plan(session: str, **content: object) -> None:
        sheet.write_text(f"session\tsource\tlocation\toptions\n{session}\ttables\t{tmp_path}/spikes.tsv\t\n")
        config.write_text(json.dumps({"sessions": str(sheet), "models": ["mean_rate"]} | content))
        load_config(config)

    plan("one")
    for arguments in (
        {"session": name},
        {"session": "one", "cohorts": {name: {"sessions": ["one"]}}},
        {"session": "one", "models": [name]},
        {"session": "one", "simulations": {name: {"simulator": "eif"}}},
    ):
        with pytest.raises(InputError):
            plan(**arguments)


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", ".hidden", "a/b", ""])
def test_signals_cannot_be_written_elsewhere(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "spikes.tsv").write_text("time\tunit\n0.1\t1\n")
    (tmp_path / "speed.tsv").write_text("time\tspeed\n0.1\t1\n0.2\t1\n")
    options = json.dumps({"signals": {name: "speed.tsv"}})
    assert not record("tables", tmp_path / "spikes.tsv", tmp_path / "out", capsys, options)


@pytest.mark.parametrize("location", ["https://host/..", "https://host/a/%2e%2e", "s3://bucket/.", "dandi:../../x"])
def test_locations_that_lead_out_of_the_cache(location: str) -> None:
    with pytest.raises(InputError, match="location"):
        parse_remote(location, "sheet")


def test_a_slash_in_an_address_is_no_folder(server: FileServer, tmp_path: Path) -> None:
    location = server.put("/data/..%2F..%2Fevil.nwb", b"not HDF5")
    assert parse_remote(location, "sheet").location(tmp_path).parent.parent == tmp_path / "web"


@pytest.mark.parametrize("path", ["../../../../evil.npy", "/evil.npy", "alf/../../../evil.npy"])
def test_tables_of_a_release_cannot_name_files_outside(path: str, tmp_path: Path) -> None:
    dataset = {"id": "1", "path": path, "size": 1, "md5": ""}
    with pytest.raises(DownloadError, match="within the session's folder"):
        remote_file(dataset, {"path": "lab/Subjects/x/2020-01-01/001"}, "s3://bucket/data", tmp_path)
    inside = {"id": "1", "path": "alf/a.npy", "size": 1, "md5": ""}
    with pytest.raises(DownloadError, match="within the session's folder"):
        remote_file(inside, {"path": "../../x"}, "s3://bucket/data", tmp_path)


def test_an_archive_cannot_unpack_outside(server: FileServer, ibl_session: Path, tmp_path: Path) -> None:
    publish_ibl(server, ibl_session)
    address = f"{BUCKET}/caches/openalyx/Brainwidemap/cache.zip"
    with zipfile.ZipFile(io.BytesIO(server.files[address])) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"../../../{name}", content)
        archive.writestr("../../../evil.txt", "evil")
    server.put(address, hostile.getvalue())
    cache = tmp_path / "a/b/c"
    public_tables(cache, "Brainwidemap", Downloader(tmp_path / "ledger.tsv", QUICK, endpoints=Endpoints()))
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).parts[:4] for path in written} == {("a", "b", "c", "tables")}


@pytest.mark.parametrize("source", ["allen", "nwb"])
@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual dataset"])
def test_nwb_files_cannot_read_other_files(source: str, kind: str, allen_file: Path, tmp_path: Path) -> None:
    path, secret = tmp_path / "session.nwb", tmp_path / "secret.h5"
    path.write_bytes(allen_file.read_bytes())
    with h5py.File(path, "r+") as file, h5py.File(secret, "w") as other:
        times = file["units/spike_times"][:]
        other["data"] = times
        del file["units/spike_times"]
        if kind == "external link":
            file["units/spike_times"] = h5py.ExternalLink(str(secret), "/data")
        elif kind == "external storage":
            times.tofile(tmp_path / "raw.bin")
            stored = [(str(tmp_path / "raw.bin"), 0, times.nbytes)]
            file.create_dataset("units/spike_times", times.shape, times.dtype, external=stored)
        else:
            layout = h5py.VirtualLayout(times.shape, times.dtype)
            layout[:] = h5py.VirtualSource(str(secret), "data", times.shape)
            file.create_virtual_dataset("units/spike_times", layout)
    with pytest.raises(InputError, match="another file"):
        read_source(source, "x", path)


def test_a_truth_store_cannot_name_arrays_outside(tmp_path: Path) -> None:
    """Zarr's consolidated metadata is a list of keys, which a hostile store can write as it likes."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "spikes.tsv").write_text("time\tunit\n0.1\t1\n")
    zarr.save_array(str(tmp_path / "outside"), np.arange(3.0))
    group = zarr.create_group(str(folder / "truth.zarr"), attributes={"unit_id": ["1"]})
    group.create_array("rates", data=np.zeros(3))
    zarr.consolidate_metadata(str(folder / "truth.zarr"))
    metadata = folder / "truth.zarr/zarr.json"
    content = json.loads(metadata.read_text())
    keys = content["consolidated_metadata"]["metadata"]
    keys["../../outside"] = keys.pop("rates")
    metadata.write_text(json.dumps(content))
    with pytest.raises(InputError, match="truth"):
        read_source("tables", "x", folder)


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(ibl_session: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    session = tmp_path.joinpath(*ibl_session.parts[-5:])
    shutil.copytree(ibl_session, session)
    evil = np.array([Evil(tmp_path / "executed")], dtype=object)
    np.save(session / "alf/licks.times.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "spikes.npz", time=evil, unit=evil)
    assert not record("ibl", session, tmp_path / "out", capsys, json.dumps({"signals": ["licks"]}))
    assert not record("tables", tmp_path / "spikes.npz", tmp_path / "out", capsys)
    assert not (tmp_path / "executed").exists()


def test_a_configuration_is_not_executed(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"sessions: !!python/object/apply:os.mkdir [{tmp_path}/executed]\n")
    with pytest.raises(InputError, match="YAML"):
        load_config(config)
    assert not (tmp_path / "executed").exists()


def test_a_table_of_units_with_formulas_is_text(tmp_path: Path) -> None:
    (tmp_path / "spikes.tsv").write_text("time\tunit\n0.1\t1\n")
    formula = "=__import__('os').getcwd()"
    pd.DataFrame({"unit_id": ["1"], "region": [formula]}).to_csv(tmp_path / "units.csv", index=False)
    assert read_source("tables", "x", tmp_path).units["region"][0] == formula


def test_secrets_in_an_address_stay_out_of_messages_and_files(server: FileServer, tmp_path: Path) -> None:
    location = server.url.replace("//", "//me:topsecret@") + "/none.nwb?signature=hidden"
    with pytest.raises(DownloadError) as error:
        fetch(location, tmp_path, network=QUICK)
    assert "topsecret" not in str(error.value) and "hidden" not in str(error.value)
    server.put("/some.bin", b"some bytes")
    fetch(server.url.replace("//", "//me:topsecret@") + "/some.bin?signature=hidden", tmp_path, network=QUICK)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "fetch.json" for path in found)
    leaks = [path.name for path in found if b"topsecret" in path.read_bytes() or b"hidden" in path.read_bytes()]
    assert not leaks, leaks
