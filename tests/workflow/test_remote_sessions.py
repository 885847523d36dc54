"""From a location that names a public session to scores and figures, with every server on this machine."""

import json
from collections.abc import Iterator

import pytest

from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.files import Fault, FileServer
from tests.servers.sessions import ibl_folder, publish_ibl
from tests.workflow.project import Project

CODING = "/allen-brain-observatory/visual-coding-neuropixels/ecephys-cache"
ALLEN = "757216464"
CONFIG = {
    "sessions": "config/sessions.tsv",
    "models": ["mean_rate", "glm"],
    "evaluation": {"resamples": 50},
    "windows": {"bin_size": 5, "after": 0.4, "history": 0.1},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("ALYX_LOGIN", "ALYX_PASSWORD", "ALYX_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = FileServer()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    yield server
    server.close()


@pytest.fixture
def remote(project: Project, server: FileServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose sheet names an Allen session and an IBL session on loopback servers, two rows the latter."""
    settings = {"neurons_per_area": 6, "coupled": 2, "trials": 40}
    nwb = write_layout(simulate("eif", settings, 0, "pair"), tmp_path_factory.mktemp("allen"), "allen")
    server.put(f"{CODING}/session_{ALLEN}/session_{ALLEN}.nwb", nwb.read_bytes())
    server.put(f"{CODING}/sessions.csv", f"id,session_type,genotype\n{ALLEN},brain_observatory_1.1,wt\n".encode())
    eid, _ = publish_ibl(server, ibl_folder(tmp_path_factory.mktemp("ibl")))
    rows = [
        f"visual\tallen\tallen:{ALLEN}\t",
        f"decision\tibl\tibl:{eid}\tobserved: trials, signals: [licks]",
        f"all_units\tibl\tibl:{eid}\tobserved: trials, min_label: null",
    ]
    project.write_sheet("session\tsource\tlocation\toptions\n" + "\n".join(rows) + "\n")
    project.write_config(CONFIG)
    return project


@pytest.mark.slow
def test_download_to_figures(remote: Project, server: FileServer) -> None:
    server.fail(f"{CODING}/session_{ALLEN}/session_{ALLEN}.nwb", Fault(cut_at=50_000))
    assert remote.planned()["fetch"] == 2
    result = remote.snakemake()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    for session, release in (("visual", "visual-coding-neuropixels"), ("decision", "Brainwidemap")):
        description = json.loads((remote.folder / f"results/recordings/{session}/recording.json").read_text())
        assert description["release"] == release
        assert description["licence"] and description["citation"]
        assert (remote.folder / f"results/figures/{session}/raster_rates.png").exists()
        assert (remote.folder / f"results/scores/{session}/glm/seed0/metrics.parquet").exists()
    asked = len(server.requests)
    again = remote.snakemake()
    assert "Nothing to be done" in again.stdout + again.stderr
    assert len(server.requests) == asked


@pytest.mark.slow
def test_a_server_that_is_gone_is_one_line_in_the_log(remote: Project, server: FileServer) -> None:
    server.fail(f"{CODING}/session_{ALLEN}/session_{ALLEN}.nwb", *[Fault(status=404)] * 9)
    result = remote.snakemake("data")
    assert result.returncode != 0
    logs = list((remote.folder / "results/logs/fetch").rglob("*.log"))
    lines = [line for path in logs for line in path.read_text().splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "HTTP status 404" in lines[0]
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
