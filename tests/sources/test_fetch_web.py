"""DANDI assets and plain addresses; what a location may say; what fetch.json adds to a recording."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.recording import Provenance
from pipeline_lib.sources import read_source
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.origin import add_origin
from pipeline_lib.sources.remote import parse_remote
from pipeline_lib.sources.transport import DownloadError
from tests.servers.files import Fault, FileServer
from tests.sources.fetching import QUICK, changed, remove_locks

ASSET = "0f57f0b0-f021-42bb-8eaa-56cd482e2a29"


@pytest.fixture(scope="module")
def nwb(allen_file: Path) -> bytes:
    return allen_file.read_bytes()


@pytest.fixture
def server(server: FileServer, nwb: bytes) -> FileServer:
    asset = {
        "identifier": ASSET,
        "path": "sub-707296975/sub-707296975_ses-721123822.nwb",
        "contentSize": len(nwb),
        "digest": {"dandi:sha2-256": hashlib.sha256(nwb).hexdigest(), "dandi:dandi-etag": "x-1"},
        "contentUrl": [f"{server.url}/api/assets/{ASSET}/download/", server.put("/x.amazonaws.com/blobs/1", nwb)],
        "license": ["spdx:CC-BY-4.0"],
    }
    server.put(f"/api/assets/{ASSET}/", json.dumps(asset).encode())
    return server


def _fetch(server: FileServer, tmp_path: Path, location: str = f"dandi:{ASSET}") -> Path:
    return fetch(location, tmp_path, network=QUICK, endpoints=Endpoints(dandi=server.url + "/api"))


def test_dandi_asset(server: FileServer, nwb: bytes, tmp_path: Path) -> None:
    server.fail("/x.amazonaws.com/blobs/1", Fault(wrong=True), Fault(cut_at=10_000))
    manifest = _fetch(server, tmp_path)
    content = json.loads(manifest.read_text())
    assert content["licence"] == "CC-BY-4.0"
    assert content["files"]["sub-707296975_ses-721123822.nwb"]["checked"] == "sha256 as published"
    assert manifest.with_name("sub-707296975_ses-721123822.nwb").read_bytes() == nwb


def test_dandi_api_out_of_order(server: FileServer, tmp_path: Path) -> None:
    path = f"/api/assets/{ASSET}/"
    server.fail(path, Fault(status=503), Fault(page=True), Fault(cut_at=5))
    _fetch(server, tmp_path / "passes")
    server.fail(path, *[Fault(page=True)] * 10)
    with pytest.raises(DownloadError, match=r"does not open as \.json"):
        _fetch(server, tmp_path / "stays")


def test_plain_address(server: FileServer, nwb: bytes, tmp_path: Path) -> None:
    location = server.put("/folder/a%20session.nwb", nwb)
    manifest = _fetch(server, tmp_path, location)
    remote = parse_remote(location, "test")
    assert remote.folder(tmp_path) == manifest.parent
    assert remote.location(tmp_path).name == "a session.nwb"
    assert remote.location(tmp_path).read_bytes() == nwb


@pytest.mark.parametrize("kind", ["address", "asset"])
def test_fetching_again_changes_nothing(server: FileServer, nwb: bytes, tmp_path: Path, kind: str) -> None:
    """Nor does it ask any server: a machine without a way out can go on with what was brought there. Nor does it need
    the right to write: others may have filled the folder.
    """
    location = server.put("/session.nwb", nwb) if kind == "address" else f"dandi:{ASSET}"
    manifest = _fetch(server, tmp_path, location)
    remove_locks(tmp_path)
    before = changed(tmp_path), manifest.read_bytes(), len(server.requests)
    _fetch(server, tmp_path, location)
    assert (changed(tmp_path), manifest.read_bytes(), len(server.requests)) == before


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("allen:757216464", "allen"),
        ("allen-behavior:1044385384", "allen-behavior"),
        ("ibl:4ecb5d24-f5cc-402c-be28-9d0f7cb14b3a", "ibl"),
        (f"dandi:{ASSET}", "dandi"),
        ("s3://bucket/key.nwb?versionId=7", "s3"),
        ("https://example.org/a.nwb", "https"),
    ],
)
def test_locations(text: str, scheme: str) -> None:
    remote = parse_remote(text, "sheet")
    assert remote.scheme == scheme
    assert parse_remote(remote.text, "sheet") == remote


@pytest.mark.parametrize("text", ["some/folder/file.nwb", "simulated:eif", "C:/data", "file.mat"])
def test_paths_are_not_remote(text: str) -> None:
    assert parse_remote(text, "sheet") is None


@pytest.mark.parametrize("text", ["allen:first", "ibl:757216464", "dandi:000021", "https://example.org/", "s3://b"])
def test_bad_identifiers(text: str) -> None:
    with pytest.raises(InputError, match="location"):
        parse_remote(text, "sheet")


def test_a_recording_takes_its_origin_along(server: FileServer, nwb: bytes, tmp_path: Path) -> None:
    manifest = _fetch(server, tmp_path)
    name = "sub-707296975_ses-721123822.nwb"
    provenance = Provenance("nwb", "x", files={name: hashlib.sha256(nwb).hexdigest()})
    add_origin(provenance, manifest.parent)
    assert (provenance.licence, provenance.source_id) == ("CC-BY-4.0", ASSET)
    provenance.files[name] = "0" * 64
    with pytest.raises(InputError, match="as it was fetched"):
        add_origin(provenance, manifest.with_name(name))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}', '{"version": 1, "files": {"a": {}}}'])
def test_a_damaged_fetch_json_is_named_and_written_anew(server: FileServer, tmp_path: Path, text: str) -> None:
    manifest = _fetch(server, tmp_path)
    whole = manifest.read_bytes()
    manifest.write_text(text)
    with pytest.raises(InputError, match=r"fetch\.json"):
        add_origin(Provenance("nwb", "x"), manifest.parent)
    _fetch(server, tmp_path)
    assert manifest.read_bytes() == whole


def test_only_the_selected_units_of_an_asset(server: FileServer, nwb: bytes, tmp_path: Path) -> None:
    """From the option in the sheet to the recording: the units of one region, read like those of the whole file."""
    options = {"regions": ["VISp"], "only_selected": True}
    endpoints = Endpoints(dandi=server.url + "/api")

    def bring() -> Path:
        return fetch(f"dandi:{ASSET}", tmp_path / "data", "allen", options, network=QUICK, endpoints=endpoints)

    manifest = bring()
    whole = tmp_path / "whole/session.nwb"
    whole.parent.mkdir()
    whole.write_bytes(nwb)
    part, expected = (read_source("allen", "x", path, options) for path in (manifest.parent, whole))
    assert np.array_equal(part.spike_times, expected.spike_times)
    assert part.provenance.licence == "CC-BY-4.0"
    details = json.loads(manifest.read_text())["details"]
    assert details["units"]["here"] < details["units"]["in the whole file"]
    blobs = len(server.asked("/x.amazonaws.com/blobs/1"))
    bring()
    assert len(server.asked("/x.amazonaws.com/blobs/1")) == blobs


def test_each_part_of_a_file_and_the_whole_have_a_folder_of_their_own(
    server: FileServer, nwb: bytes, tmp_path: Path
) -> None:
    """Rows of the sheet may choose different units of one file: none may take another's place."""
    location, readings = server.put("/session.nwb", nwb), [{}, {"only_selected": True, "regions": ["VISp"]}]
    readings += [
        {"only_selected": True, "regions": ["VISl"]},
        {"only_selected": True, "regions": ["VISl"], "min_rate": 1},
    ]
    manifests = [fetch(location, tmp_path, "allen", options, network=QUICK) for options in readings]
    assert len(set(manifests)) == 3
    assert manifests[2] == manifests[3], "the rate chooses when the file is read"
    for manifest, options in zip(manifests, readings, strict=True):
        remote = parse_remote(location, "sheet", options)
        assert remote.folder(tmp_path) == manifest.parent
        found = read_source("allen", "x", remote.location(tmp_path), options)
        assert set(found.units["region"]) == set(options.get("regions", ["VISp", "VISl"]))


def test_a_shared_folder_is_looked_into_first_and_never_written(server: FileServer, nwb: bytes, tmp_path: Path) -> None:
    """Another project's downloads serve this one; a file that is damaged there is fetched here."""
    address = server.put("/lab/session.nwb", nwb)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shared = fetch(address, theirs, network=QUICK)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    for path in before:
        path.chmod(0o444)
    asked = len(server.asked("/lab/session.nwb"))
    manifest = fetch(address, ours, network=QUICK, cache=theirs)
    assert len(server.asked("/lab/session.nwb")) == asked, "the network was asked"
    assert json.loads(manifest.read_text())["files"] == json.loads(shared.read_text())["files"] | {
        name: entry | {"checked": "ledger"} for name, entry in json.loads(shared.read_text())["files"].items()
    }
    assert manifest.with_name("session.nwb").is_symlink()

    damaged = shared.with_name("session.nwb")
    damaged.chmod(0o644)
    damaged.write_bytes(nwb[:-3] + b"xyz")
    before[damaged] = damaged.read_bytes()
    again = fetch(address, tmp_path / "others", network=QUICK, cache=theirs)
    assert again.with_name("session.nwb").read_bytes() == nwb
    assert not again.with_name("session.nwb").is_symlink()
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before


def test_a_shared_folder_that_is_not_there_is_one_line(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache"):
        fetch(f"{server.url}/x.nwb", tmp_path / "data", network=QUICK, cache=tmp_path / "nowhere")
