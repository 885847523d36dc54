"""The real AllenSDK, in its own environment, on a loopback warehouse; and the guards around it without the SDK."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import read_source, sdk
from pipeline_lib.sources.download import Downloader
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.isolated import environment, run_watched
from pipeline_lib.sources.sdk import SCRIPT, fetch_with_sdk
from pipeline_lib.sources.transport import DownloadError, Network
from tests.servers.files import Fault, FileServer
from tests.servers.rma import DOWNLOAD, QUERY, Warehouse
from tests.sources.fetching import changed, remove_locks

PATIENT = Network(connect=5.0, stall=25.0, attempts=3, backoff=0.01)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environments")
    try:
        environment(SCRIPT.with_suffix(".requirements.txt"), folder)
    except InputError as error:
        pytest.skip(f"AllenSDK's environment cannot be installed here: {error}")
    return folder


@pytest.mark.slow
def test_tables_and_session_through_the_real_sdk(
    server: FileServer, allen_file: Path, environments: Path, tmp_path: Path, shared_data: Path
) -> None:
    warehouse = Warehouse(server, allen_file, shared_data / "allen_vcn_tables")
    endpoints = Endpoints(allen_warehouse=server.url)
    cache, downloader = tmp_path / "cache", Downloader(tmp_path / "ledger.tsv", PATIENT, endpoints=endpoints)

    def fetch() -> list:
        return fetch_with_sdk(cache, environments, downloader, warehouse.session)

    fetched = fetch()
    path = fetched[-1].file.path
    assert path.read_bytes() == allen_file.read_bytes()
    assert downloader.ledger.lookup(fetched[-1].file.url) == fetched[-1].sha256
    assert sum(1 for _ in (cache / "sessions.csv").open()) == 58 + 2
    ours, direct = (read_source("allen", "x", location) for location in (path, allen_file))
    assert np.array_equal(ours.spike_times, direct.spike_times)
    asked = len(server.requests)
    fetch()
    assert len(server.requests) == asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "faults"),
    [
        (DOWNLOAD, [Fault(status=503)]),
        (DOWNLOAD, [Fault(cut_at=20_000)]),
        (DOWNLOAD, [Fault(stall_at=20_000)]),
        # AllenSDK tries three times; the fourth failure ends its process, and ours starts it again.
        (QUERY, [Fault(status=503)] * 4),
    ],
    ids=["503 on the file", "cut", "stall", "503 on the API"],
)
def test_faults_of_the_warehouse(
    server: FileServer, allen_file: Path, environments: Path, tmp_path: Path, path: str, faults: list[Fault]
) -> None:
    warehouse = Warehouse(server, allen_file, None)
    server.fail(path, *faults)
    endpoints = Endpoints(allen_warehouse=server.url)
    cache, downloader = tmp_path / "cache", Downloader(tmp_path / "ledger.tsv", PATIENT, endpoints=endpoints)
    began = time.monotonic()
    fetched = fetch_with_sdk(cache, environments, downloader, warehouse.session)
    assert fetched[-1].file.path.read_bytes() == allen_file.read_bytes()
    assert time.monotonic() - began < 4 * PATIENT.stall
    assert not (cache / ".writing").exists()


@pytest.mark.slow
def test_an_api_that_stays_away_is_one_line(
    server: FileServer, allen_file: Path, environments: Path, tmp_path: Path
) -> None:
    warehouse = Warehouse(server, allen_file, None)
    server.fail(QUERY, *[Fault(status=503)] * 99)
    network, endpoints = Network(stall=25.0, attempts=2, backoff=0.01), Endpoints(allen_warehouse=server.url)
    downloader = Downloader(tmp_path / "ledger.tsv", network, endpoints=endpoints)
    with pytest.raises(DownloadError, match="AllenSDK failed") as error:
        fetch_with_sdk(tmp_path / "cache", environments, downloader, warehouse.session)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.csv"))


@pytest.mark.slow
def test_wrong_bytes_against_the_ledger(
    server: FileServer, allen_file: Path, environments: Path, tmp_path: Path
) -> None:
    """Bit rot inside the spike times opens well; AllenSDK would keep it for ever."""
    import h5py

    warehouse = Warehouse(server, allen_file, None)
    endpoints = Endpoints(allen_warehouse=server.url)
    downloader = Downloader(tmp_path / "ledger.tsv", PATIENT, endpoints=endpoints)
    fetch_with_sdk(tmp_path / "first", environments, downloader, warehouse.session)
    rotten = tmp_path / "rotten.nwb"
    rotten.write_bytes(allen_file.read_bytes())
    with h5py.File(rotten, "r+") as file:
        file["units/spike_times"][3] += 0.5
    server.put(DOWNLOAD, rotten.read_bytes())
    with pytest.raises(DownloadError, match="the first fetch gave"):
        fetch_with_sdk(tmp_path / "second", environments, downloader, warehouse.session)
    assert not list((tmp_path / "second").rglob("*.nwb"))


def test_a_program_that_stalls_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run_watched([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, stall=0.5)
    assert time.monotonic() - began < 10


def test_a_program_that_writes_is_not_ended(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "with open(sys.argv[1], 'w', buffering=1) as file:\n"
        "    for _ in range(8): file.write('x\\n'); time.sleep(0.25)\n"
        "print('done')"
    )
    result = run_watched([sys.executable, "-c", code, tmp_path / "grows"], tmp_path, stall=1.5)
    assert (result.returncode, result.stdout) == (0, "done\n")


def test_the_list_of_requirements_names_no_server_and_hashes_every_package() -> None:
    text = SCRIPT.with_suffix(".requirements.txt").read_text()
    assert "//" not in text
    entries = text.replace("\\\n", " ").splitlines()
    assert len(entries) > 80
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    assert any(entry.startswith("allensdk==2.16.2") for entry in entries)


def test_a_requirement_whose_hash_is_wrong_is_not_installed(tmp_path: Path) -> None:
    listed = tmp_path / "wrong.txt"
    listed.write_text("idna==3.10 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(InputError, match="environment"):
        environment(listed, tmp_path)
    assert not list(tmp_path.glob("wrong-*/complete"))


def test_a_program_that_outlived_its_killed_run_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may go on writing: into the folder that it was given, which the next run must not take its files from."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\nfrom pathlib import Path\n"
        "place = Path(sys.argv[2])\n"
        "for name in ('sessions', 'probes', 'channels', 'units'):\n"
        "    (place / f'{name}.csv').write_text('id\\n1\\n')\n"
        "if not (place / 'session_1').exists():\n"
        "    import h5py\n"
        "    (place / 'session_1').mkdir()\n"
        "    h5py.File(place / 'session_1/session_1.nwb', 'w').close()\n"
        "(place / 'manifest.json').write_text('{}')\n"
        "(place.parent / 'given').open('a').write(f'{place}\\n')\n"
        "print(json.dumps({'sessions': 1}))\n"
    )
    monkeypatch.setattr(sdk, "SCRIPT", script)
    monkeypatch.setattr(sdk, "environment", lambda *_: Path(sys.executable))
    endpoints = Endpoints(allen_warehouse="http://nowhere")
    cache, downloader = tmp_path / "cache", Downloader(tmp_path / "ledger.tsv", PATIENT, endpoints=endpoints)
    for _ in range(2):
        *tables, session = fetch_with_sdk(cache, tmp_path, downloader, 1)
        assert [each.file.path.read_text() for each in tables] == ["id\n1\n"] * 4
        assert session.checked == "AllenSDK and ledger"
        folders = (cache / "given").read_text().split()
        remove_locks(cache)
        before = changed(cache)
        assert fetch_with_sdk(cache, tmp_path, downloader, 1) == [*tables, session]
        assert changed(cache) == before, "all is there"
        Path(folders[-1]).mkdir()  # as if that program still were there
        (cache / "sessions.csv").unlink()
    assert len(set(folders)) == 2
    assert not Path(folders[0]).exists(), "what an earlier run left is removed"
