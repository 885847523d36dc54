"""Snakemake's cache between workflows, for downloads: a second project asks no server."""

from pathlib import Path

import pytest

from tests.servers.files import FileServer
from tests.servers.sessions import publish_allen
from tests.workflow.project import Project

SHEET = "session\tsource\tlocation\toptions\nvisual\tallen\tallen:757216464\t\n"
CONFIG = {"sessions": "config/sessions.tsv", "models": ["mean_rate"], "windows": {"bin_size": 5, "after": 0.4}}
RECORDING = "results/recordings/visual/recording.json"


@pytest.mark.slow
def test_a_second_project_fetches_nothing(
    server: FileServer, allen_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_allen(server, allen_file, "757216464")
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path / "kept"))
    first, second = (Project(tmp_path / name) for name in ("first", "second"))
    for project in (first, second):
        project.write_sheet(SHEET)
        project.write_config(CONFIG)
    asked = {}
    for name, project in (("first", first), ("second", second)):
        before = len(server.requests)
        result = project.snakemake(RECORDING, "--cache")
        assert result.returncode == 0, result.stderr[-3000:]
        asked[name] = len(server.requests) - before
    assert asked["first"] > 0 and asked["second"] == 0
    assert first.made() == second.made()
    for project in (first, second):  # neither is newer than what was made of it
        assert project.planned(RECORDING, "--cache") == {}
    # Without the option nothing is said of it, and what is here is taken.
    plain = second.snakemake("--dry-run", RECORDING)
    assert "cach" not in plain.stdout + plain.stderr
    assert "fetch" not in second.planned(RECORDING)
