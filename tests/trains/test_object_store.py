"""A store opened from S3: the same trains, fetched once, and nothing written where it should not be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains.store import Trains, write_store
from tests.servers.s3 import loopback_s3

ADDRESS = "s3://lab/results/trains/pair"


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    with loopback_s3() as (address, client):
        client.create_bucket(Bucket="lab")
        yield address, client


@pytest.fixture
def bucket(s3: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the bucket, with the store that is also in tmp_path/store."""
    address, client = s3
    for name, value in {
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TRAINYARD_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    random = np.random.default_rng(3)
    times = [np.sort(random.uniform(0, 60, 500)) for _ in range(5)]
    write_store(tmp_path / "store", "pair", times, 60.0)
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "lab", f"results/trains/pair/{file.relative_to(tmp_path / 'store')}")
    return client


def test_the_same_trains_as_from_the_disk(bucket: Any, tmp_path: Path) -> None:
    here, there = Trains.open(tmp_path / "store"), Trains.open(ADDRESS, verify=True)
    np.testing.assert_array_equal(there.ticks, here.ticks)
    np.testing.assert_array_equal(there.unit, here.unit)
    assert there.content_hash == here.content_hash
    assert there.units.equals(here.units)


def test_what_was_opened_is_not_fetched_again(bucket: Any) -> None:
    before = Trains.open(ADDRESS)
    for listed in bucket.list_objects_v2(Bucket="lab", Prefix="results/trains/pair/trains.zarr")["Contents"]:
        bucket.delete_object(Bucket="lab", Key=listed["Key"])
    np.testing.assert_array_equal(Trains.open(ADDRESS).ticks, before.ticks)


def test_damage_on_the_way_is_refused_and_nothing_is_kept(bucket: Any, tmp_path: Path) -> None:
    key = "results/trains/pair/trains.zarr/observed/zarr.json"
    bucket.put_object(Bucket="lab", Key=key, Body=b"{}")
    with pytest.raises(InputError, match=r"observed/zarr.json.*hash"):
        Trains.open(ADDRESS)
    assert not list((tmp_path / "cache").rglob("manifest.json"))
    assert not list((tmp_path / "cache").rglob("*.zarr"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a//b", "..\\outside", ""])
def test_a_key_that_leads_out_of_the_store_is_refused(bucket: Any, tmp_path: Path, name: str) -> None:
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    bucket.put_object(Bucket="lab", Key="results/trains/pair/manifest.json", Body=json.dumps(manifest).encode())
    with pytest.raises(InputError, match="below the store"):
        Trains.open(ADDRESS)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 3}', b'{"files": []}'])
def test_a_manifest_that_is_none_is_one_line(bucket: Any, content: bytes) -> None:
    bucket.put_object(Bucket="lab", Key="results/trains/pair/manifest.json", Body=content)
    with pytest.raises(InputError, match="manifest"):
        Trains.open(ADDRESS)


@pytest.mark.parametrize("address", ["s3://", "s3://lab", "s3://nobody-has-this/x", "s3://lab/results/trains/absent"])
def test_an_address_of_nothing_is_one_line_without_the_credentials(bucket: Any, address: str) -> None:
    with pytest.raises(InputError) as caught:
        Trains.open(address)
    assert "a-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
