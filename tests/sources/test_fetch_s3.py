"""Allen sessions from public buckets, as moto serves them: versions, multipart ETags, listings and ranges."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.fetch_allen import listed
from pipeline_lib.sources.transport import DownloadError
from tests.servers.s3 import loopback_s3, make_bucket, put
from tests.sources.fetching import QUICK

CODING, BEHAVIOR = "allen-brain-observatory", "visual-behavior-neuropixels-data"
CACHE = "visual-coding-neuropixels/ecephys-cache"
SESSION = "757216464"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with loopback_s3() as (address, client):
        make_bucket(client, CODING)
        make_bucket(client, BEHAVIOR)
        yield address, client


@pytest.fixture(autouse=True)
def _endpoint(server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server[0])


def test_visual_coding(server: tuple[str, Any], allen_file: Path, tmp_path: Path) -> None:
    _, client = server
    put(client, CODING, f"{CACHE}/session_{SESSION}/session_{SESSION}.nwb", allen_file.read_bytes())
    put(client, CODING, f"{CACHE}/sessions.csv", b"id,session_type\n757216464,brain_observatory_1.1\n")
    manifest = fetch(f"allen:{SESSION}", tmp_path, network=QUICK)
    content = json.loads(manifest.read_text())
    assert manifest == tmp_path / f"allen/visual-coding-neuropixels/session_{SESSION}/fetch.json"
    assert content["files"][f"session_{SESSION}.nwb"]["checked"] == "S3 ETag"
    assert content["release"] == "visual-coding-neuropixels"
    assert "Siegle" in content["citation"]
    location = manifest.with_name(f"session_{SESSION}.nwb")
    ours, direct = (read_source("allen", "x", path) for path in (location, allen_file))
    assert np.array_equal(ours.spike_times, direct.spike_times)
    lines = (tmp_path / "ledger.tsv").read_text().splitlines()
    assert {line.rpartition("/")[2] for line in lines} == {f"session_{SESSION}.nwb", "sessions.csv"}


def test_visual_coding_with_the_films(server: tuple[str, Any], allen_file: Path, tmp_path: Path) -> None:
    _, client = server
    put(client, CODING, f"{CACHE}/session_{SESSION}/session_{SESSION}.nwb", allen_file.read_bytes())
    put(client, CODING, f"{CACHE}/sessions.csv", b"id\n")
    frames = io.BytesIO()
    np.save(frames, np.zeros((2, 3, 4), np.uint8))
    put(client, CODING, f"{CACHE}/natural_movie_templates/natural_movie_1.npy", frames.getvalue())
    for number in range(5):
        put(client, CODING, f"{CACHE}/natural_scene_templates/natural_scene_{number}.tiff", b"tiff %d" % number)
    fetch(f"allen:{SESSION}", tmp_path, "allen", {"frames": [60, 120]}, network=QUICK)
    release = tmp_path / "allen/visual-coding-neuropixels"
    assert (release / "natural_movie_templates/natural_movie_1.npy").read_bytes() == frames.getvalue()
    assert len(list((release / "natural_scene_templates").glob("*.tiff"))) == 5


def test_a_listing_of_several_pages(server: tuple[str, Any], tmp_path: Path) -> None:
    for number in range(5):
        put(server[1], CODING, f"pages/{number} of 5", b"x")
    keys = listed(f"s3://{CODING}/pages/", Downloader(tmp_path / "ledger.tsv", QUICK), page=2)
    assert keys == [f"s3://{CODING}/pages/{number}%20of%205" for number in range(5)]
    with pytest.raises(DownloadError, match="nothing there"):
        listed(f"s3://{CODING}/none/", Downloader(tmp_path / "ledger.tsv", QUICK))


def _publish_behavior(client: Any, allen_file: Path) -> dict[str, Any]:
    key = "visual-behavior-neuropixels/behavior_ecephys_sessions/1044385384/ecephys_session_1044385384.nwb"
    content = allen_file.read_bytes()
    version = put(client, BEHAVIOR, key, content)
    put(client, BEHAVIOR, key, b"a newer version that the manifest does not name")
    entry = {
        "url": f"https://{BEHAVIOR}.s3.amazonaws.com/{key}",
        "version_id": version,
        "file_hash": hashlib.blake2b(content).hexdigest(),
    }
    manifest = {
        "project_name": "visual-behavior-neuropixels",
        "manifest_version": "0.5.0",
        "metadata_file_id_column_name": "file_id",
        "metadata_files": {},
        "data_files": {"870": entry},
    }
    name = "visual-behavior-neuropixels_project_manifest_v0.5.0.json"
    put(client, BEHAVIOR, f"visual-behavior-neuropixels/manifests/{name}", json.dumps(manifest).encode())
    return entry


def test_visual_behavior_takes_the_version_of_the_manifest(
    server: tuple[str, Any], allen_file: Path, tmp_path: Path
) -> None:
    entry = _publish_behavior(server[1], allen_file)
    manifest = fetch("allen-behavior:1044385384", tmp_path, network=QUICK)
    file = json.loads(manifest.read_text())["files"]["ecephys_session_1044385384.nwb"]
    assert file["checked"] == "blake2b as published"
    assert file["url"].endswith(f"?versionId={entry['version_id']}")
    assert manifest.with_name("ecephys_session_1044385384.nwb").read_bytes() == allen_file.read_bytes()
    with pytest.raises(DownloadError, match=r"no ecephys_session_1044385385\.nwb"):
        fetch("allen-behavior:1044385385", tmp_path, network=QUICK)


def test_a_partial_file_that_an_sdk_left_at_the_final_path_is_not_trusted(
    server: tuple[str, Any], allen_file: Path, tmp_path: Path
) -> None:
    """AllenSDK's S3 cache only looks whether the file exists."""
    _publish_behavior(server[1], allen_file)
    path = tmp_path / "allen/visual-behavior-neuropixels/ecephys_session_1044385384/ecephys_session_1044385384.nwb"
    path.parent.mkdir(parents=True)
    path.write_bytes(allen_file.read_bytes()[:20_000])
    fetch("allen-behavior:1044385384", tmp_path, network=QUICK)
    assert path.read_bytes() == allen_file.read_bytes()


def test_multipart_etag_and_resume(server: tuple[str, Any], tmp_path: Path) -> None:
    _, client = server
    content = np.random.default_rng(0).bytes(12 << 20)
    upload = client.create_multipart_upload(Bucket=CODING, Key="big.bin", ACL="public-read")["UploadId"]
    parts = []
    for number, at in enumerate(range(0, len(content), 5 << 20), start=1):
        piece = content[at : at + (5 << 20)]
        answer = client.upload_part(Bucket=CODING, Key="big.bin", PartNumber=number, UploadId=upload, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=CODING, Key="big.bin", UploadId=upload, MultipartUpload={"Parts": parts})
    etag = client.head_object(Bucket=CODING, Key="big.bin")["ETag"]
    assert etag.endswith('-3"')
    url, target = f"s3://{CODING}/big.bin", tmp_path / "big.bin"
    (tmp_path / ".big.bin.part").write_bytes(content[: 7 << 20])
    (tmp_path / ".big.bin.part.json").write_text(json.dumps({"url": url, "tag": etag, "size": len(content)}))
    fetched = Downloader(tmp_path / "ledger.tsv", QUICK).fetch(RemoteFile(url, target))
    assert (fetched.checked, fetched.moved) == ("S3 ETag", 5 << 20)
    assert target.read_bytes() == content


def test_an_object_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="HTTP status 404"):
        fetch("allen:999999999", tmp_path, network=QUICK)
