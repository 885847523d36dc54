"""From a location that names a public session to scores and figures, with every server on this machine."""

import html
import json
from pathlib import Path

import pytest

from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.alyx import LOGIN, PASSWORD, TOKEN, Alyx
from tests.servers.files import Fault, FileServer
from tests.servers.rma import DOWNLOAD, QUERY, Warehouse
from tests.servers.sessions import CODING, publish_allen, publish_ibl
from tests.workflow.project import Project

ALLEN = "757216464"
CONFIG = {
    "sessions": "config/sessions.tsv",
    "models": ["mean_rate", "glm"],
    "evaluation": {"resamples": 50},
    "figures": ["raster_rates", "score_table"],
    "windows": {"bin_size": 5, "after": 0.4, "history": 0.1},
}


@pytest.fixture
def remote(
    project: Project, server: FileServer, ibl_session: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A project whose sheet names an Allen session and an IBL session on loopback servers, two rows the latter."""
    settings = {"neurons_per_area": 6, "coupled": 2, "trials": 40}
    nwb = write_layout(simulate("eif", settings, 0, "pair"), tmp_path_factory.mktemp("allen"), "allen")
    publish_allen(server, nwb, ALLEN)
    eid, _ = publish_ibl(server, ibl_session)
    rows = [
        f"visual\tallen\tallen:{ALLEN}\t",
        f"one_area\tallen\tallen:{ALLEN}\tregions: [VISp], only_selected: true",
        f"decision\tibl\tibl:{eid}\tobserved: trials, signals: [licks]",
        f"all_units\tibl\tibl:{eid}\tobserved: trials, min_label: null",
    ]
    project.write_sheet("session\tsource\tlocation\toptions\n" + "\n".join(rows) + "\n")
    project.write_config(CONFIG)
    return project


@pytest.mark.slow
def test_download_to_figures(remote: Project, server: FileServer) -> None:
    faults = Fault(status=503), Fault(cut_at=50_000), Fault(wrong=True)
    server.fail(f"{CODING}/session_{ALLEN}/session_{ALLEN}.nwb", *faults)
    assert remote.planned()["fetch"] == 3  # a file, a part of it, and a session that two rows read
    result = remote.snakemake()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    report = html.unescape((remote.folder / "results/report.html").read_text())
    for session, release in (("visual", "visual-coding-neuropixels"), ("decision", "Brainwidemap")):
        description = json.loads((remote.folder / f"results/recordings/{session}/recording.json").read_text())
        assert description["release"] == release
        assert description["licence"] and description["citation"]
        for known in ("release", "licence", "citation", "source_id"):
            assert f">{description[known]}<" in report or f", {description[known]}<" in report, known
        assert (remote.folder / f"results/figures/{session}/raster_rates.png").exists()
        assert (remote.folder / f"results/scores/{session}/metrics.parquet").exists()
    asked = len(server.requests)
    again = remote.snakemake()
    assert "Nothing to be done" in again.stdout + again.stderr
    assert len(server.requests) == asked


@pytest.mark.slow
def test_a_login_is_in_no_file(
    project: Project, server: FileServer, ibl_session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An insertion through the database, with credentials from the environment; right ones first, then wrong ones."""
    database = Alyx(server, ibl_session)
    secrets = {"ALYX_LOGIN": LOGIN, "ALYX_PASSWORD": PASSWORD, "TRAINYARD_ALYX": server.url}
    for name, value in (secrets | {"TRAINYARD_IBL_FILES": f"{server.url}/public"}).items():
        monkeypatch.setenv(name, value)
    location = f"ibl:{database.pids['probe00']}"
    project.write_sheet(f"session\tsource\tlocation\toptions\ndecision\tibl\t{location}\tobserved: trials\n")
    project.write_config(CONFIG)
    result = project.snakemake("data", "--printshellcmds")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    wrong = "not-the-password-but-a-secret"
    monkeypatch.setenv("ALYX_PASSWORD", wrong)
    again = project.snakemake("data", "--printshellcmds", "--forcerun", "fetch")
    assert again.returncode != 0
    said = "".join([result.stdout, result.stderr, again.stdout, again.stderr]).encode()
    contents = [path.read_bytes() for path in project.folder.rglob("*") if path.is_file()]
    logs = b"".join(path.read_bytes() for path in project.folder.glob("results/logs/fetch/**/*.log"))
    assert b"ALYX_PASSWORD" in logs, "the log says what to set"
    for secret in (PASSWORD, TOKEN, wrong):
        assert secret.encode() not in said
        assert not any(secret.encode() in content for content in contents)


@pytest.mark.slow
def test_the_route_through_allensdk(
    project: Project, server: FileServer, allen_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`downloads: {sdk: true}`: the real client in its own environment, its API and file out of order at first."""
    warehouse = Warehouse(server, allen_file, None)
    monkeypatch.setenv("TRAINYARD_ALLEN_WAREHOUSE", server.url)
    server.fail(QUERY, Fault(status=503))
    server.fail(DOWNLOAD, Fault(cut_at=10_000))
    project.write_sheet(f"session\tsource\tlocation\toptions\nvisual\tallen\tallen:{warehouse.session}\t\n")
    project.write_config(CONFIG | {"downloads": {"sdk": True}})
    result = project.snakemake("data")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    manifest = json.loads(next(project.folder.glob("data/allen/*/session_*/fetch.json")).read_text())
    assert [entry["checked"] for entry in manifest["files"].values()] == ["AllenSDK and ledger"]
    assert (project.folder / "results/trains/visual/manifest.json").exists()
    assert not server.asked(f"{CODING}/sessions.csv"), "the bucket was asked, too"


@pytest.mark.slow
def test_a_server_that_is_gone_is_one_line_in_the_log(remote: Project, server: FileServer) -> None:
    server.fail(f"{CODING}/session_{ALLEN}/session_{ALLEN}.nwb", *[Fault(status=404)] * 9)
    result = remote.snakemake("data")
    assert result.returncode != 0
    logs = list((remote.folder / "results/logs/fetch").rglob("*.log"))
    lines = [line for path in logs for line in path.read_text().splitlines() if line.startswith("error:")]
    assert len(lines) == 2, "one for the file, one for a part of it"
    assert all("HTTP status 404" in line for line in lines)
    assert (remote.folder / "results/trains/decision/manifest.json").exists(), "other sessions go on"


def test_the_verb_sessions_prints_rows(remote: Project) -> None:
    result = remote.verb("sessions", "--source", "allen", "--stimulus-set", "brain_observatory_1.1")
    assert result.returncode == 0, result.stderr
    assert f"s{ALLEN}\tallen\tallen:{ALLEN}\t" in result.stdout.splitlines()


@pytest.mark.parametrize("location", ["allen:first", "ibl:757216464", "dandi:000021", "nowhere.nwb"])
def test_a_location_that_cannot_be_is_refused_before_anything_runs(project: Project, location: str) -> None:
    project.write_sheet(f"session\tsource\tlocation\toptions\nx\tallen\t{location}\t\n")
    project.write_config(CONFIG)
    result = project.verb("check")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "dandi:UUID" in result.stderr, result.stderr
