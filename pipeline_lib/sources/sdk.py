"""Sessions of Allen Visual Coding, and the tables of its release, through AllenSDK, made safe.

AllenSDK saves error pages as data, trusts what an earlier, killed run left behind, and waits for ever. So it writes
into a folder that nobody reads, is ended when it stalls and started again, and what it wrote is verified (the tables
have rows, the session opens, the ledger's checksum) before it is moved into the cache.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from pipeline_lib.files import WRITING, exclusive, sha256_file
from pipeline_lib.sources.digests import check_opens
from pipeline_lib.sources.download import Downloader, Fetched, RemoteFile
from pipeline_lib.sources.isolated import environment, run_watched
from pipeline_lib.sources.ledger import Ledger
from pipeline_lib.sources.transport import DownloadError, Transient, patiently

SCRIPT = Path(__file__).resolve().parents[2] / "workflow/scripts/fetch_allen.py"
TABLES = ("sessions", "probes", "channels", "units")


def fetch_with_sdk(cache: Path, environments: Path, downloader: Downloader, session: int) -> list[Fetched]:
    """Fetch the release's four tables, and the NWB file of `session`, into `cache` as AllenSDK lays them out.

    What is there is not asked for again: the folder is AllenSDK's own, and a second run makes no request.

    Raises
    ------
    DownloadError : the warehouse does not answer, or not with what it should, in `attempts` runs.
    InputError : the environment cannot be made.
    """
    warehouse = downloader.endpoints.allen_warehouse
    names = [*(f"{name}.csv" for name in TABLES), f"session_{session}/session_{session}.nwb"]
    if not _all_there(cache, names):
        python = environment(SCRIPT.with_suffix(".requirements.txt"), environments)
        with exclusive(cache / ".sdk.lock"):
            if not _all_there(cache, names):
                patiently(warehouse, downloader.network, lambda: _run(python, cache, names, downloader, session))
    return [_fetched(cache / name, f"{warehouse}#{name}") for name in names]


def _all_there(cache: Path, names: list[str]) -> bool:
    return all((cache / name).is_file() for name in ["manifest.json", *names])


def _run(python: Path, cache: Path, names: list[str], downloader: Downloader, session: int) -> None:
    """One run of the script in a folder of its own, started with the verified files that are here already."""
    for left in cache.glob(f"{WRITING}*"):
        shutil.rmtree(left, ignore_errors=True)
    # Of a new name each time: AllenSDK may outlive a run that was killed, and go on writing where it was told to.
    writing = Path(tempfile.mkdtemp(prefix=WRITING, dir=cache))
    try:
        for name in names:
            if (cache / name).is_file():
                (writing / name).parent.mkdir(exist_ok=True)
                os.link(cache / name, writing / name)
        command = [python, SCRIPT, "--cache", writing, "--warehouse", downloader.endpoints.allen_warehouse]
        command += ["--session", session]
        try:
            result = run_watched(command, writing, downloader.network.stall)
        except TimeoutError:
            raise Transient(f"AllenSDK got no byte for {downloader.network.stall:g} s") from None
        if result.returncode:
            lines = [" ".join(line.split()) for line in result.stderr.splitlines() if line.strip()]
            raise Transient(f"AllenSDK failed: {(lines or ['no message'])[-1][:200]}")
        empty = [name for name, rows in json.loads(result.stdout.splitlines()[-1]).items() if rows == 0]
        if empty:
            raise Transient(f"no row of {empty[0]}")
        for name in names:
            _check(writing / name, f"{downloader.endpoints.allen_warehouse}#{name}", downloader.ledger)
        for name in [*names, "manifest.json"]:
            (cache / name).parent.mkdir(exist_ok=True)
            os.replace(writing / name, cache / name)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _check(path: Path, url: str, ledger: Ledger) -> None:
    try:
        check_opens(path, path.suffix)
    except ValueError as error:
        raise Transient(str(error)) from None
    if path.suffix != ".nwb":
        return
    sha256, first = sha256_file(path), ledger.lookup(url)
    if first and first != sha256:
        found = f"SHA-256 {sha256} where the first fetch gave {first} ({ledger.path})"
        raise DownloadError(url, found, "the file of the first fetch; remove its line if it is known to have changed")
    ledger.record(url, path.stat().st_size, sha256)


def _fetched(path: Path, url: str) -> Fetched:
    checked = "AllenSDK and ledger" if path.suffix == ".nwb" else "AllenSDK"
    return Fetched(RemoteFile(url, path), path.stat().st_size, sha256_file(path), checked, moved=0)
