"""Results in an object store, through Snakemake's storage plugin: the same as on a disk."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.trains.store import Trains
from tests.servers.s3 import loopback_s3
from tests.workflow.project import Project

TELLING_TIMES = {".lock", ".snakemake_timestamp", "logs", "benchmarks", "run.json", "report.html"}


def stored(client: Any, bucket: str) -> dict[str, str]:
    """Hashes of the results in a bucket, by their path below `results`; without those that tell times."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="run/results/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    hashes = {}
    for key in keys:
        path = Path(key).relative_to("run/results")
        if path.stem == "speed" or TELLING_TIMES & {*path.parts}:
            continue
        hashes[path.as_posix()] = hashlib.sha256(client.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()
    return hashes


@pytest.mark.slow
def test_results_in_a_bucket_are_those_of_the_disk(
    project: Project, finished: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("snakemake_storage_plugin_s3", reason="pip install -e '.[s3]'")
    with loopback_s3() as (address, client):
        client.create_bucket(Bucket="lab")
        secret = "a-secret-that-no-file-may-hold"
        for name, value in {
            "AWS_ENDPOINT_URL_S3": address,
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "writer",
            "AWS_SECRET_ACCESS_KEY": secret,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "writer",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "TRAINYARD_CACHE": str(tmp_path_factory.mktemp("cache")),
        }.items():
            monkeypatch.setenv(name, value)
        storage = "--default-storage-provider", "s3", "--default-storage-prefix", "s3://lab/run"
        result = project.snakemake(*storage)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        assert stored(client, "lab") == finished.made()
        report = client.get_object(Bucket="lab", Key="run/results/report.html")["Body"].read()
        local = (finished.folder / "results/report.html").read_bytes()
        assert secret.encode() not in report
        assert report.count(b"<figure") == local.count(b"<figure") > 10
        trains = Trains.open("s3://lab/run/results/trains/pair", verify=True)
        assert trains.content_hash == Trains.open(finished.folder / "results/trains/pair").content_hash

        # Another machine: nothing is there but the code.
        for folder in (".snakemake", "results", "data"):
            shutil.rmtree(project.folder / folder, ignore_errors=True)
        again = project.snakemake(*storage)
        assert again.returncode == 0, again.stderr[-3000:]
        assert "Nothing to be done" in again.stdout + again.stderr

        said = result.stdout + result.stderr + again.stdout + again.stderr
        assert secret not in said
        for file in project.folder.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file
