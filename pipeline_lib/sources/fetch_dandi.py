"""One NWB file of the DANDI archive, by the id of its asset: size and SHA-256 are published there."""

import json
from pathlib import Path
from typing import Any

from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.fetched import Description, Listed
from pipeline_lib.sources.remote import Remote
from pipeline_lib.sources.transport import DownloadError

SHA256 = "dandi:sha2-256"


def dandi_files(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> Listed:
    """The file of an asset, and what the archive says about it. Raises DownloadError."""
    address = f"{downloader.endpoints.dandi}/assets/{remote.identifier}"
    # Kept: an asset never changes, and a machine without a way out can go on with what is here.
    about = RemoteFile(f"{address}/", folder.parent / "assets" / f"{remote.identifier}.json", changes=True)
    asset = json.loads(downloader.fetch(about).file.path.read_text())
    addresses = asset.get("contentUrl") or [f"{address}/download/"]
    # The bucket serves ranges without a redirect to an address that expires.
    url = next((each for each in addresses if ".amazonaws.com" in each), addresses[0])
    name = str(asset.get("path", "")).rpartition("/")[2]
    if not name.endswith(".nwb"):
        raise DownloadError(address, f"an asset {asset.get('path')!r}", "an asset that is one NWB file (HDF5)")
    sha256 = (asset.get("digest") or {}).get(SHA256)
    file = RemoteFile(url, folder / name, asset.get("contentSize"), {"sha256": sha256} if sha256 else {})
    dandisets = [str(each) for each in asset.get("wasPartOf", [])]
    return [file], Description(
        location=remote.text,
        source_id=str(asset.get("identifier", remote.identifier)),
        release=f"DANDI asset {remote.identifier}",
        licence=", ".join(str(each).removeprefix("spdx:") for each in asset.get("license", [])),
        citation=str(asset.get("citation", "")),
        details={"path": asset.get("path", ""), "dandisets": dandisets},
    )
