"""A loopback S3 (moto): versioned buckets, ETags, ranges and listings as AWS answers them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def loopback_s3() -> Iterator[tuple[str, Any]]:
    """The address of the server and a client that may write to it. Skips where moto is not installed."""
    pytest.importorskip("moto.server", reason="moto[server,s3] is not installed")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="writer",
        aws_secret_access_key="writer",
    )
    try:
        yield address, client
    finally:
        server.stop()


def make_bucket(client: Any, name: str) -> None:
    """A public bucket that keeps every version."""
    client.create_bucket(Bucket=name, ACL="public-read")
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def put(client: Any, bucket: str, key: str, content: bytes) -> str:
    """Store an object that everybody may read; its version."""
    return client.put_object(Bucket=bucket, Key=key, Body=content, ACL="public-read")["VersionId"]
