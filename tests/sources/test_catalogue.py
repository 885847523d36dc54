"""The verb `sessions`: what it finds is what the tables hold, and what it prints the plan reads."""

import csv
import hashlib
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import catalogue
from pipeline_lib.sources.catalogue import Query, as_sheet, find_sessions
from pipeline_lib.sources.download import Downloader
from pipeline_lib.sources.endpoints import Endpoints
from pipeline_lib.sources.remote import parse_remote
from pipeline_lib.sources.transport import DownloadError
from tests.servers.alyx import TOKEN, Alyx, identifier
from tests.servers.files import FileServer
from tests.servers.sessions import CODING, publish_ibl, publish_units
from tests.sources.fetching import QUICK


def _find(server: FileServer, tmp_path: Path, source: str, **terms: object) -> list[catalogue.Entry]:
    downloader = Downloader(tmp_path / "ledger.tsv", QUICK, endpoints=Endpoints(alyx=server.url))
    return find_sessions(source, Query(**terms), tmp_path, downloader)


def test_allen_by_genotype_and_stimulus_set(server: FileServer, tmp_path: Path, shared_data: Path) -> None:
    """On the release's real table of sessions."""
    table = (shared_data / "allen_vcn_tables/sessions.csv").read_bytes()
    server.put(f"{CODING}/sessions.csv", table)
    terms = {"genotype": "Sst-IRES-Cre", "stimulus_set": "functional_connectivity", "limit": 100}
    found = _find(server, tmp_path, "allen", **terms)
    rows = csv.DictReader(io.StringIO(table.decode()))
    expected = [
        f"allen:{row['id']}"
        for row in rows
        if "Sst-IRES-Cre" in row["genotype"] and row["session_type"] == "functional_connectivity"
    ]
    assert [entry.location for entry in found] == expected
    assert len(expected) > 1
    assert "Sst-IRES-Cre" in found[0].comment
    assert len(_find(server, tmp_path, "allen", limit=3)) == 3
    assert len(server.requests) == 1, "the table was fetched once"


def test_fewer_rows_than_none_are_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit: found -1; accepted: 0 or more rows"):
        _find(server, tmp_path, "allen", limit=-1)
    assert not server.requests


def test_allen_by_structure_most_channels_first(server: FileServer, tmp_path: Path) -> None:
    server.put(f"{CODING}/sessions.csv", b"id,session_type,genotype,sex\n1,a,wt,M\n2,a,wt,F\n3,b,wt,M\n")
    server.put(f"{CODING}/probes.csv", b"id,ecephys_session_id\n10,1\n20,2\n21,2\n30,3\n")
    channels = "id,ecephys_probe_id,ecephys_structure_acronym\n" + "".join(
        f"{number},{probe},{name}\n"
        for number, (probe, name) in enumerate([(10, "VISp"), (20, "VISp"), (21, "VISp"), (30, "VISpm"), (30, "")])
    )
    server.put(f"{CODING}/channels.csv", channels.encode())
    found = _find(server, tmp_path, "allen", region="VISp")
    assert [entry.location for entry in found] == ["allen:2", "allen:1"]
    assert found[0].options == "regions: [VISp]"
    assert found[0].comment.endswith("2 channels in VISp")
    with pytest.raises(InputError, match="no session that fits"):
        _find(server, tmp_path, "allen", region="CA9")


def test_allen_behavior(server: FileServer, tmp_path: Path) -> None:
    root = "/visual-behavior-neuropixels-data/visual-behavior-neuropixels"
    table = b"ecephys_session_id,genotype,session_type,structure_acronyms\n7,wt/wt,EPHYS_1,\"['VISp', 'CA1']\"\n"
    server.put(f"{root}/project_metadata/ecephys_sessions.csv", table)
    entry = {
        "url": f"https://visual-behavior-neuropixels-data.s3.amazonaws.com{root.partition('data')[2]}"
        "/project_metadata/ecephys_sessions.csv",
        "version_id": "v1",
        "file_hash": hashlib.blake2b(table).hexdigest(),
    }
    name = "visual-behavior-neuropixels_project_manifest_v0.5.0.json"
    manifest = json.dumps({"metadata_files": {"ecephys_sessions": entry}, "data_files": {}})
    server.put(f"{root}/manifests/{name}", manifest.encode())
    (found,) = _find(server, tmp_path, "allen-behavior", region="CA1")
    assert (found.source, found.location) == ("allen", "allen-behavior:7")


def test_ibl_by_region_without_account(
    server: FileServer, ibl_session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers belong to their area: VISp is found where only VISp2/3 is written."""
    eid, _ = publish_ibl(server, ibl_session)
    rows = [
        (eid, "VISp2/3", 1.0),
        (eid, "VISp5", 1.0),
        (eid, "VISp5", 0.6),
        (identifier("x"), "VISp1", 1.0),
        (eid, "CA1", 1.0),
    ]
    publish_units(server, pd.DataFrame(rows, columns=["eid", "acronym", "label"]), monkeypatch)
    (found,) = _find(server, tmp_path, "ibl", region="VISp")
    assert found.location == f"ibl:{eid}"
    assert found.comment.endswith("2 good units in VISp")
    assert found.options == "probes: [probe00], regions: [VISp]"
    assert len(_find(server, tmp_path, "ibl")) == 1


def test_ibl_regions_by_atlas_id_where_the_table_has_no_acronyms(
    server: FileServer, ibl_session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eid, _ = publish_ibl(server, ibl_session)
    units = pd.DataFrame({"eid": [eid] * 3, "atlas_id": [385, 382, 385], "label": [1.0, 1.0, 0.3]})
    publish_units(server, units, monkeypatch)
    (found,) = _find(server, tmp_path, "ibl", region="VISp")
    assert found.comment.endswith(", 1 good units in VISp")


def test_the_insertions_of_a_release_by_its_tag(server: FileServer, two_probes: Path, tmp_path: Path) -> None:
    """Without an account, from what the datasets of the release's tables are called; --limit 0 lists them all."""
    eid, _ = publish_ibl(server, two_probes, tag="2024_Q2_IBL_et_al_BWM")
    terms = {"release": "2024_Q2_IBL_et_al_BWM", "limit": 0}
    (session,) = _find(server, tmp_path, "ibl", **terms)
    assert session.options == "probes: [probe00, probe01]"
    found = _find(server, tmp_path, "ibl", insertions=True, **terms)
    assert [entry.options for entry in found] == ["probes: [probe00]", "probes: [probe01]"]
    assert [entry.location for entry in found] == [f"ibl:{eid}"] * 2
    assert len({entry.session for entry in found}) == 2
    with pytest.raises(DownloadError, match="Brainwidemap"):
        _find(server, tmp_path, "ibl")


def test_ibl_with_account(
    server: FileServer, ibl_session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALYX_TOKEN", TOKEN)
    database = Alyx(server, ibl_session)
    (found,) = _find(server, tmp_path, "ibl", region="MOs")
    assert found.location == f"ibl:{database.eid}"
    assert found.options == "probes: [probe00], regions: [MOs]"


def test_rows_can_be_pasted(server: FileServer, tmp_path: Path) -> None:
    server.put(f"{CODING}/sessions.csv", b"id,session_type,genotype\n757216464,a,wt\n")
    text = as_sheet(_find(server, tmp_path, "allen"))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    (row,) = csv.DictReader(lines, delimiter="\t")
    assert row["session"] == "s757216464"
    assert parse_remote(row["location"], "sheet").identifier == "757216464"


def test_unknown_source(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allen-behavior, ibl"):
        _find(server, tmp_path, "crcns")
