"""Projects that name one folder as their `data`, some of them at the same moment."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.sources.fetch import fetch
from tests.servers.files import Fault, FileServer
from tests.servers.sessions import publish_allen, publish_ibl
from tests.workflow.project import SMALL, Project

SHEET = "session\tsource\tlocation\toptions\n{}\t{}\t{}\t{}\n"
CONFIG = {"sessions": "config/sessions.tsv", "models": ["mean_rate"]}
RECORDING = "results/recordings/decision/recording.json"


def project_with(folder: Path, data: Path, row: tuple[str, str, str, str]) -> Project:
    project = Project(folder)
    project.write_sheet(SHEET.format(*row))
    project.write_config(CONFIG | {"data": str(data)})
    return project


def test_what_another_project_fetched_is_asked_for_what_this_one_reads(
    server: FileServer, ibl_session: Path, tmp_path: Path
) -> None:
    eid, _ = publish_ibl(server, ibl_session)
    location, data = f"ibl:{eid}", tmp_path / "data"
    fetch(location, data, "ibl", {})  # without licks
    project = project_with(tmp_path / "ours", data, ("decision", "ibl", location, "signals: [licks]"))
    assert project.planned(RECORDING) == {"fetch": 1, "record": 1}


def test_a_download_that_somebody_removed_is_fetched_again(
    server: FileServer, ibl_session: Path, tmp_path: Path
) -> None:
    eid, _ = publish_ibl(server, ibl_session)
    project = project_with(tmp_path, tmp_path / "data", ("decision", "ibl", f"ibl:{eid}", ""))
    fetched = f"results/fetched/ibl/{eid}.done"
    assert project.snakemake(fetched).returncode == 0
    assert project.planned(RECORDING) == {"record": 1}
    shutil.rmtree(tmp_path / "data/ibl" / eid)
    assert project.planned(RECORDING) == {"fetch": 1, "record": 1}


def test_a_recording_asks_for_memory_by_what_was_fetched(tmp_path: Path) -> None:
    """Its input says only that the session is there: of 3 GB it asked for no more than of nothing."""
    data = tmp_path / "data"
    project = project_with(tmp_path, data, ("decision", "allen", "allen:757216464", ""))
    file = data / "allen/visual-coding-neuropixels/session_757216464/session_757216464.nwb"
    fetched = tmp_path / "results/fetched" / f"{file.parent.relative_to(data)}.done"
    for each in (file, fetched, file.with_name("fetch.json")):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.touch()
    os.truncate(file, 3_000_000_000)
    planned = project.snakemake("--dry-run", RECORDING).stdout
    assert "mem_mb=14000" in planned, planned


@pytest.mark.slow
def test_a_simulation_of_one_name_is_each_projects_own(copy_of_finished: Project, tmp_path: Path) -> None:
    """Of other settings, or of the same at the same moment: what Snakemake removes before a job is the project's."""
    theirs, ours = copy_of_finished, Project(tmp_path / "ours")
    simulations = {"pair": SMALL["simulations"]["pair"] | {"seed": 4}}
    ours.write_config(SMALL | {"data": str(theirs.folder / "data"), "simulations": simulations})
    assert ours.snakemake("results/recordings/pair/recording.json").returncode == 0
    assert theirs.planned() == {}


@pytest.mark.slow
def test_a_project_that_fails_takes_nothing_from_another(server: FileServer, ibl_session: Path, tmp_path: Path) -> None:
    eid, paths = publish_ibl(server, ibl_session)
    location, data = f"ibl:{eid}", tmp_path / "data"
    theirs = project_with(tmp_path / "theirs", data, ("decision", "ibl", location, "observed: trials"))
    ours = project_with(tmp_path / "ours", data, ("decision", "ibl", location, "observed: trials, signals: [licks]"))
    assert theirs.snakemake(RECORDING).returncode == 0
    whole = (theirs.folder / RECORDING).read_bytes()
    manifest = data / "ibl" / eid / "fetch.json"
    before = manifest.read_bytes()
    server.fail(paths["alf/licks.times.npy"], Fault(status=404))
    assert ours.snakemake(RECORDING).returncode == 1
    assert manifest.read_bytes() == before
    assert theirs.snakemake(RECORDING, "--forcerun", "record").returncode == 0
    assert (theirs.folder / RECORDING).read_bytes() == whole, "licence, citation and sums"

    assert ours.snakemake(RECORDING).returncode == 0
    assert len(pd.read_parquet(ours.folder / Path(RECORDING).parent / "signals/licks.parquet"))
    assert set(json.loads(before)["files"]) < set(json.loads(manifest.read_text())["files"])
    assert theirs.planned(RECORDING) == {}, "made anew because of files that others need"
    (theirs.folder / "results").rename(theirs.folder / "moved")
    theirs.write_config(CONFIG | {"data": str(data), "results": "moved"})
    assert theirs.planned(RECORDING.replace("results", "moved")) == {}


@pytest.mark.slow
def test_two_at_one_moment_of_which_one_is_killed(server: FileServer, allen_file: Path, tmp_path: Path) -> None:
    path = publish_allen(server, allen_file, "757216464")
    server.slow = 0.7  # each 64 KiB
    data, row = tmp_path / "data", ("decision", "allen", "allen:757216464", "")
    ours, theirs = (project_with(tmp_path / name, data, row) for name in ("ours", "theirs"))
    part = data / f"allen/visual-coding-neuropixels/session_757216464/.{Path(path).name}.part"
    first = ours.start(RECORDING)
    second = theirs.start(RECORDING)
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    server.slow = 0.0
    assert second.wait(timeout=120) == 0
    assert ours.snakemake("--unlock").returncode == 0
    assert ours.snakemake(RECORDING).returncode == 0
    assert ours.made() == theirs.made()
    assert json.loads((ours.folder / RECORDING).read_text())["release"] == "visual-coding-neuropixels"
    sent = sum(request.sent for request in server.asked(path))
    assert sent <= len(server.files[path]) + (1 << 16), "what had arrived was fetched again"
    assert not list(data.rglob("*.part"))
