"""The loopback server of files, and sessions to serve; a plugin of pytest, so that every folder of tests has them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.servers.files import FileServer
from tests.servers.sessions import ibl_folder

CREDENTIALS = ("ALYX_LOGIN", "ALYX_PASSWORD", "ALYX_TOKEN")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of files, which is also where S3 buckets are; and nobody is logged in anywhere."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    server = FileServer()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    yield server
    server.close()


@pytest.fixture(scope="session")
def allen_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small session in the layout of Allen Visual Coding; do not change it."""
    recording = simulate("eif", {"neurons_per_area": 4, "coupled": 2, "trials": 10}, 0, "two areas")
    return write_layout(recording, tmp_path_factory.mktemp("allen"), "allen")


@pytest.fixture(scope="session")
def ibl_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small session in the layout of IBL, see `ibl_folder`; do not change it."""
    return ibl_folder(tmp_path_factory.mktemp("ibl"))


@pytest.fixture(scope="session")
def two_probes(ibl_session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a second probe, whose units have other ids and spike 0.01 s later."""
    folder = tmp_path_factory.mktemp("ibl").joinpath(*ibl_session.parts[-5:])
    shutil.copytree(ibl_session, folder)
    second = folder / "alf/probe01"
    shutil.copytree(folder / "alf/probe00", second)
    for path in second.rglob("spikes.times.npy"):
        np.save(path, np.load(path) + 0.01)
    for path in second.rglob("passingSpikes.table.pqt"):
        table = pd.read_parquet(path)
        table.assign(times=table["times"] + 0.01).to_parquet(path)
    for path in second.rglob("clusters.uuids.csv"):
        ids = pd.read_csv(path, dtype=str)
        ids.assign(uuids="second_" + ids["uuids"]).to_csv(path, index=False)
    return folder
