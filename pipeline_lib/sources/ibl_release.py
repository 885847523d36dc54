"""The public release of IBL, the Brain-Wide Map, without an account: its tables of sessions, datasets and units.

The tables of a release name sessions (eid) and datasets; the table of all units names, for each, its insertion (pid).
"""

import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, atomic_file, exclusive
from pipeline_lib.sources.download import Downloader, RemoteFile

if TYPE_CHECKING:
    import pandas as pd

RELEASE = "Brainwidemap"
"""The release whose tables are asked where there is no login."""
UNITS = "aggregates/2026_Q2_IBL_et_al_BWM/clusters.pqt"
UNITS_MD5 = "ac22196fbd77687d6ee3a0c6b1b1fc15"
SORTED = r"alf/(probe\w+)/(?:[^/]+/)*(?:spikes\.times\.npy|passingSpikes\.table\.pqt)"
"""Datasets that show that a probe was sorted."""


def public_tables(cache: Path, release: str, downloader: Downloader) -> Any:
    """The tables of a public release (sessions, datasets) by name, as ONE reads them; fetched once into `cache`.

    `release` is a tag of the database, "" for everything public.

    InputError for tables without a row.
    """
    from one.alf.cache import load_tables

    place = cache / "tables" / (release or "all")
    address = "/".join(filter(None, (downloader.endpoints.ibl_public, "caches/openalyx", release, "cache.zip")))
    fetched = downloader.fetch(RemoteFile(address, place / "cache.zip", changes=True))
    _unpack(fetched.file.path, place, fetched.sha256)
    tables = load_tables(place)
    for name in ("sessions", "datasets"):
        if len(tables[name]) == 0:
            accepted = "the tables of a release; remove the folder and fetch again"
            raise InputError(place, f"{name}.pqt", "no row", accepted)
    return tables


def _unpack(archive: Path, place: Path, sha256: str) -> None:
    """The tables in the archive, beside it; once, whichever process comes first."""
    done = place / "unpacked"
    if _says(done, sha256):
        return
    with exclusive(place / LOCK):
        if _says(done, sha256):
            return
        try:
            with zipfile.ZipFile(archive) as members:
                tables = {name: members.read(name) for name in members.namelist() if name.endswith(".pqt")}
        except zipfile.BadZipFile as error:
            raise InputError(archive, "ZIP archive", str(error), "a whole archive; remove it and fetch again") from None
        for name, content in tables.items():
            # Only the name within the archive's folders counts: a member cannot lead elsewhere.
            with atomic_file(place / PurePosixPath(name).name) as part:
                part.write_bytes(content)
        done.write_text(sha256)


def _says(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def insertions(tables: Any) -> "pd.DataFrame":
    """The sorted insertions of a release: columns eid and probe, by what the datasets of each session are."""
    datasets = tables["datasets"]
    paths = datasets["rel_path"].str.replace(r"#[^#/]*#/", "", regex=True)
    probes = paths.str.extract(f"^{SORTED}$")[0]
    found = probes.dropna().reset_index()[["eid", 0]].set_axis(["eid", "probe"], axis=1)
    return found.astype(str).drop_duplicates().sort_values(["eid", "probe"], ignore_index=True)


def release_units(cache: Path, columns: tuple[str, ...], downloader: Downloader) -> "pd.DataFrame":
    """The table of all units of the Brain-Wide Map, with those of `columns` that it has.

    Raises
    ------
    DownloadError : it cannot be had.
    """
    import pandas as pd
    import pyarrow.parquet as parquet

    path = cache / "tables" / Path(UNITS).parent.name / "clusters.pqt"
    downloader.fetch(RemoteFile(f"{downloader.endpoints.ibl_public}/{UNITS}", path, digests={"md5": UNITS_MD5}))
    names = parquet.read_schema(path).names
    return pd.read_parquet(path, columns=[name for name in columns if name in names])
