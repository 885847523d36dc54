"""Spike-train stores in an object store: ``Trains.open("s3://bucket/results/trains/session")``.

A store is read whole (6 bytes a spike in memory, fewer here), so its files are fetched at once, each compared with its
hash in the manifest, into a folder named by the hash of that manifest: what was opened once is not fetched again, from
wherever. boto3 does it, which downloads need anyway; Zarr's own way to S3 is three more packages.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, sha256_file, whole_directory
from pipeline_lib.trains.manifest import MANIFEST, STORE, read_manifest

SCHEME = "s3://"
PARALLEL = 16


def cache_folder() -> Path:
    """Where stores are kept: $TRAINYARD_CACHE, or `trainyard` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TRAINYARD_CACHE") or Path(home) / "trainyard") / "trains"


def local_copy(address: str) -> Path:
    """The folder of a local copy of the store at `address`, in `cache_folder`; fetched if it is not there yet.

    Credentials and endpoint are those of every AWS tool (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL_S3``, ~/.aws ...);
    without any, public buckets can be read.

    Parameters
    ----------
    address : ``s3://bucket/prefix`` of the folder that holds manifest.json.

    Raises
    ------
    InputError : no such bucket or store, one that may not be read, a name in the manifest that leads out of the store,
        or a file whose bytes do not agree with their hash.
    """
    url = urlparse(address)
    bucket, prefix = url.netloc, url.path.strip("/")
    if url.scheme != "s3" or not bucket or not prefix:
        raise InputError(address, "address", repr(address), "s3://bucket/prefix of a spike-train store")
    client = _client()
    content = _read(client, bucket, f"{prefix}/{MANIFEST}", address)
    try:
        names = _checked_names(json.loads(content)["files"], address)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(address, MANIFEST, repr(error)[:200], "the manifest of a spike-train store") from None
    out = cache_folder() / hashlib.sha256(content).hexdigest()
    if not (out / MANIFEST).is_file():
        with exclusive(out / LOCK), whole_directory(out, final=MANIFEST) as writing:
            _fetch(client, bucket, f"{prefix}/{STORE}", names, writing / STORE, address)
            (writing / MANIFEST).write_bytes(content)
            read_manifest(writing)
    return out


def _checked_names(files: dict[str, str], address: str) -> dict[str, str]:
    """Names of files and their hashes; InputError for a name that would be written somewhere else."""
    if not isinstance(files, dict):
        raise TypeError("files")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or str(path) != name:
            raise InputError(address, f"{MANIFEST}: files", repr(name), "names below the store")
    return files


def _fetch(client: Any, bucket: str, prefix: str, files: dict[str, str], folder: Path, address: str) -> None:
    def fetch(name: str, digest: str) -> None:
        path = folder / name
        path.write_bytes(_read(client, bucket, f"{prefix}/{name}", address))
        if sha256_file(path) != digest:
            where = f"{address}/{STORE}/{name}"
            raise InputError(where, "content", "bytes that do not agree with their hash", "the store")

    for parent in {(folder / name).parent for name in files}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL) as pool:
        done: Iterable[None] = pool.map(fetch, files.keys(), files.values())
        list(done)


def _read(client: Any, bucket: str, key: str, address: str) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    except (BotoCoreError, ClientError) as error:
        raise InputError(address, key, " ".join(str(error).split()), "an object that can be read") from None


def _client() -> Any:
    import boto3  # type: ignore[import-untyped]
    from botocore import UNSIGNED  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    session = boto3.Session()
    unsigned = {} if session.get_credentials() else {"signature_version": UNSIGNED}
    return session.client("s3", config=Config(max_pool_connections=PARALLEL, retries={"mode": "standard"}, **unsigned))
