"""IBL sessions end as verified folders: without an account from the public bucket, with one through the real ONE."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import alyx, read_source
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.fetch_ibl import choose
from pipeline_lib.sources.transport import DownloadError
from tests.servers.alyx import LOGIN, PASSWORD, TOKEN, Alyx, identifier
from tests.servers.files import Fault, FileServer
from tests.servers.sessions import publish_ibl, publish_units
from tests.sources.conftest import refuses
from tests.sources.fetching import QUICK, changed, remove_locks

EID = identifier("session")


@pytest.fixture
def endpoints(server: FileServer) -> Endpoints:
    return Endpoints(alyx=server.url, ibl_files=server.url + "/public")


def _fetch(tmp_path: Path, endpoints: Endpoints, location: str = f"ibl:{EID}", **options: object) -> Path:
    return fetch(location, tmp_path / "data", "ibl", options, network=QUICK, endpoints=endpoints)


def _fetched(manifest: Path) -> set[str]:
    return {name.partition("/alf/")[2] for name in json.loads(manifest.read_text())["files"]}


def _same_spikes(manifest: Path, ibl_session: Path, **options: object) -> None:
    ours = read_source("ibl", "ours", manifest.parent, options | {"observed": "trials"})
    direct = read_source("ibl", "direct", ibl_session, options | {"observed": "trials"})
    assert np.array_equal(ours.spike_times, direct.spike_times)
    assert np.array_equal(ours.spike_units, direct.spike_units)
    assert ours.units.equals(direct.units)
    assert ours.trials.equals(direct.trials)


def test_public_bucket_without_account(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path
) -> None:
    publish_ibl(server, ibl_session)
    manifest = _fetch(tmp_path, endpoints)
    _same_spikes(manifest, ibl_session)
    names = _fetched(manifest)
    assert "probe00/pykilosort/#2024-05-06#/passingSpikes.table.pqt" in names
    assert not any("spikes.times" in name or "notNeeded" in name or "licks" in name for name in names)
    content = json.loads(manifest.read_text())
    assert (content["release"], content["source_id"], content["licence"]) == ("Brainwidemap", EID, "CC BY 4.0")
    assert all(entry["checked"] == "md5 as published" for entry in content["files"].values())
    recording = read_source("ibl", "ours", manifest.parent)
    assert (recording.provenance.release, recording.provenance.source_id) == ("Brainwidemap", EID)
    asked = len(server.requests)
    remove_locks(tmp_path)
    before = changed(tmp_path)
    _fetch(tmp_path, endpoints)
    assert len(server.requests) == asked, "something verified was asked for again"
    assert changed(tmp_path) == before, "who may only read there could not have fetched"


def test_all_units_and_older_revision(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path
) -> None:
    publish_ibl(server, ibl_session)
    options = {"min_label": None, "revision": "2023-01-01"}
    manifest = _fetch(tmp_path, endpoints, **options)
    assert "probe00/pykilosort/spikes.times.npy" in _fetched(manifest)
    _same_spikes(manifest, ibl_session, **options)


def test_signals_when_asked_for(server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path) -> None:
    publish_ibl(server, ibl_session)
    names = _fetched(_fetch(tmp_path, endpoints, signals=["licks", "motion_energy", "pose"]))
    assert {"licks.times.npy", "leftCamera.ROIMotionEnergy.npy", "_ibl_leftCamera.times.npy"} <= names
    assert "_ibl_leftCamera.lightningPose.pqt" in names
    with pytest.raises(InputError, match="motion_energy"):
        _fetch(tmp_path, endpoints, signals=["nose"])


def test_an_unknown_id_without_login(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_ibl(server, ibl_session)
    unknown = f"ibl:{identifier('probe00')}"
    with pytest.raises(DownloadError, match=r"no table of insertions .* ALYX_LOGIN and ALYX_PASSWORD, or ALYX_TOKEN"):
        _fetch(tmp_path, endpoints, unknown)
    units = pd.DataFrame({"pid": [identifier("other")], "eid": [EID], "uuids": ["1"]})
    publish_units(server, units, monkeypatch)
    with pytest.raises(DownloadError, match=r"no session or insertion .* ALYX_LOGIN"):
        _fetch(tmp_path, endpoints, unknown)


def test_an_insertion_without_account(
    server: FileServer, two_probes: Path, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of all units says which session an insertion is of, and which units: those are one probe's."""
    publish_ibl(server, two_probes)
    pids = {probe: identifier(probe) for probe in ("probe00", "probe01")}
    units = pd.DataFrame(
        [(pids["probe00"], EID, "0"), (pids["probe01"], EID, "second_0"), (identifier("x"), identifier("y"), "z")],
        columns=["pid", "eid", "uuids"],
    )
    publish_units(server, units, monkeypatch)
    firsts = {}
    for probe, pid in pids.items():
        manifest = _fetch(tmp_path, endpoints, f"ibl:{pid}")
        content = json.loads(manifest.read_text())
        assert (content["source_id"], content["details"]["probes"]) == (EID, {probe: pid})
        assert {name.partition("/")[0] for name in _fetched(manifest) if name.startswith("probe")} == {probe}
        recording = read_source("ibl", probe, manifest.parent, {"observed": "trials"})
        firsts[probe] = recording.spike_times[0]
    assert firsts["probe01"] == pytest.approx(firsts["probe00"] + 0.01)


def test_wrong_bytes_in_the_public_bucket(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path
) -> None:
    _, paths = publish_ibl(server, ibl_session)
    path = paths["alf/probe00/pykilosort/#2024-05-06#/passingSpikes.table.pqt"]
    server.fail(path, Fault(wrong=True), Fault(cut_at=1000), Fault(status=503))
    _same_spikes(_fetch(tmp_path, endpoints), ibl_session)
    assert len(server.asked(path)) == 4


@pytest.fixture(params=["password", "token"])
def database(
    request: pytest.FixtureRequest, server: FileServer, ibl_session: Path, monkeypatch: pytest.MonkeyPatch
) -> Alyx:
    if request.param == "token":
        monkeypatch.setenv("ALYX_TOKEN", TOKEN)
    else:
        monkeypatch.setenv("ALYX_LOGIN", LOGIN)
        monkeypatch.setenv("ALYX_PASSWORD", PASSWORD)
    return Alyx(server, ibl_session)


def test_real_one_with_account(
    database: Alyx, ibl_session: Path, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    manifest = _fetch(tmp_path, endpoints, f"ibl:{database.pids['probe00']}")
    _same_spikes(manifest, ibl_session)
    content = json.loads(manifest.read_text())
    assert content["source_id"] == EID
    assert content["details"]["probes"] == {"probe00": database.pids["probe00"]}
    assert content["details"]["lab"] == "simulatedlab"
    assert list(home.iterdir()) == [], "ONE wrote into the home folder"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in written for secret in (TOKEN, PASSWORD))


def test_busy_database_is_retried(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALYX_TOKEN", TOKEN)
    Alyx(server, ibl_session)
    server.fail(f"/sessions/{EID}", Fault(status=503, headers={"Retry-After": "0"}))
    _same_spikes(_fetch(tmp_path, endpoints), ibl_session)


def test_revoked_token_and_wrong_password(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Alyx(server, ibl_session)
    monkeypatch.setenv("ALYX_TOKEN", TOKEN)
    database.token = "another"
    with pytest.raises(DownloadError) as error:
        _fetch(tmp_path, endpoints)
    assert "rejected the API token" in str(error.value)
    assert "ALYX_TOKEN" in str(error.value)
    assert TOKEN not in str(error.value)
    monkeypatch.delenv("ALYX_TOKEN")
    monkeypatch.setenv("ALYX_LOGIN", LOGIN)
    monkeypatch.setenv("ALYX_PASSWORD", "not-the-password")
    with pytest.raises(DownloadError) as error:
        _fetch(tmp_path, endpoints)
    assert "authentication failed" in str(error.value)
    assert "not-the-password" not in str(error.value)
    assert "\n" not in str(error.value)


def test_database_that_never_answers(
    server: FileServer, ibl_session: Path, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALYX_TOKEN", TOKEN)
    server.pages["/me"] = lambda handler: server.gate.wait(30) and None
    with pytest.raises(DownloadError, match="no answer within 4 s"):
        alyx.ask("session", {"identifier": EID}, endpoints, limit=4.0)


def test_stale_md5_in_the_tables(server: FileServer, ibl_session: Path, endpoints: Endpoints, tmp_path: Path) -> None:
    _, paths = publish_ibl(server, ibl_session)
    path = paths["alf/probe00/pykilosort/#2024-05-06#/clusters.uuids.csv"]
    server.put(path, server.files[path][:-1] + b" ")
    with pytest.raises(DownloadError, match=r"same bytes each time.*--accept") as error:
        _fetch(tmp_path, endpoints)
    assert len(server.asked(path)) == QUICK.downloads
    sha256 = str(error.value).rpartition("--accept ")[2]
    manifest = fetch(f"ibl:{EID}", tmp_path / "data", network=QUICK, endpoints=endpoints, accept=[sha256])
    entries = json.loads(manifest.read_text())["files"]
    accepted = [name for name, entry in entries.items() if entry["checked"].startswith("accepted although md5")]
    assert [name.rpartition("/")[2] for name in accepted] == ["clusters.uuids.csv"]


def _dataset(path: str) -> dict:
    return {"path": path, "id": path, "size": 1, "md5": ""}


def test_choice_of_sorting_and_probe() -> None:
    paths = [
        f"alf/{probe}/{name}"
        for probe in ("probe00", "probe01")
        for name in (
            "spikes.times.npy",
            "spikes.clusters.npy",
            "pykilosort/spikes.times.npy",
            "pykilosort/spikes.clusters.npy",
            "pykilosort/clusters.metrics.pqt",
        )
    ]
    paths += ["alf/probe01/iblsorter/spikes.times.npy", "alf/probe01/iblsorter/spikes.clusters.npy"]
    chosen = {each["path"] for each in choose(map(_dataset, paths), {}, None, "here")}
    assert {path for path in chosen if "times" in path} == {
        "alf/probe00/pykilosort/spikes.times.npy",
        "alf/probe01/iblsorter/spikes.times.npy",
    }
    only = {each["path"] for each in choose(map(_dataset, paths), {"sorter": "pykilosort"}, "probe01", "here")}
    assert all(path.startswith("alf/probe01/pykilosort") for path in only)
    with refuses("here: option probes", "'probe02'", "probe00, probe01"):
        choose(map(_dataset, paths), {"probes": ["probe02"]}, None, "here")


def test_trials_and_wheel_of_tasks_and_of_older_sessions() -> None:
    sorted_ = ["alf/probe00/spikes.times.npy"]
    task = ["alf/task_00/_ibl_trials.table.pqt", "alf/task_00/_ibl_wheel.position.npy"]
    older = ["alf/_ibl_trials.choice.npy", "alf/_ibl_trials.intervals.npy"]
    others = ["alf/probe00/_ibl_wheel.position.npy", "alf/_ibl_trials.table.csv"]
    assert {each["path"] for each in choose(map(_dataset, sorted_ + task + others), {}, None, "")} == {*sorted_, *task}
    assert {each["path"] for each in choose(map(_dataset, sorted_ + older), {}, None, "here")} == {*sorted_, *older}
    both = choose(map(_dataset, [*sorted_, *task[:1], "alf/task_00/_ibl_trials.choice.npy"]), {}, None, "here")
    assert {each["path"] for each in both} == {*sorted_, *task[:1]}, "the table holds what the arrays do"
