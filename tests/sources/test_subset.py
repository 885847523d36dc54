"""Ranges of a remote NWB file: the chosen units as in the whole file, and hardly more bytes than they have."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import read_source
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.ranges import BLOCK, RangeFile
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.layouts import write_layout
from pipeline_lib.sources.subset import fetch_selected
from pipeline_lib.sources.transport import DownloadError
from tests.servers.files import Fault, FileServer
from tests.sources.fetching import QUICK


@pytest.fixture(scope="module", params=["in one piece", "in chunks"])
def nwb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Allen session with a long train of every unit, and large columns that nobody needs."""
    recording = simulate("eif", {"neurons_per_area": 10, "coupled": 4, "trials": 60}, 0, "two areas")
    path = write_layout(recording, tmp_path_factory.mktemp("allen"), "allen")
    with h5py.File(path, "r+") as file:
        units = file["units"]
        times, ends = units["spike_times"][:], units["spike_times_index"][:]
        pieces = [np.sort(np.random.default_rng(k).uniform(0, times.max(), 60_000)) for k in range(len(ends))]
        attributes = dict(units["spike_times"].attrs)
        del units["spike_times"]
        chunks = None if request.param == "in one piece" else (5_000,)
        units.create_dataset("spike_times", data=np.concatenate(pieces), chunks=chunks, compression=chunks and "gzip")
        units["spike_times"].attrs.update(attributes)
        units["spike_times_index"][:] = np.cumsum([len(piece) for piece in pieces])
        if "spike_amplitudes" in units:
            del units["spike_amplitudes"]
        units.create_dataset("spike_amplitudes", data=np.concatenate(pieces))
        if "spike_amplitudes_index" not in units:
            units.create_dataset("spike_amplitudes_index", data=units["spike_times_index"][:])
        units["spike_amplitudes_index"][:] = units["spike_times_index"][:]
    return path


def _fetch(server: FileServer, tmp_path: Path, nwb: Path, **options: object) -> tuple:
    url = server.put("/whole.nwb", nwb.read_bytes())
    remote = RemoteFile(url, tmp_path / "here/part.nwb")
    return fetch_selected(remote, "allen", options, Downloader(tmp_path / "ledger.tsv", QUICK))


def test_units_of_a_region_as_in_the_whole_file(server: FileServer, tmp_path: Path, nwb: Path) -> None:
    whole = read_source("allen", "x", nwb)
    region = whole.units["region"].iloc[-1]  # of rows that are not the first of the file
    fetched, details = _fetch(server, tmp_path, nwb, regions=[region])
    part = read_source("allen", "x", fetched.file.path, {"regions": [region]})
    expected = read_source("allen", "x", nwb, {"regions": [region]})
    assert np.array_equal(part.spike_times, expected.spike_times)
    assert np.array_equal(part.spike_units, expected.spike_units)
    assert part.units.equals(expected.units[part.units.columns])
    assert part.trials.equals(expected.trials)
    assert 0 < details["units"]["here"] < details["units"]["in the whole file"]
    with h5py.File(nwb) as file:
        stored = file["units/spike_times"].id.get_storage_size() * len(part.units) / len(whole.units)
    assert server.sent < stored + 60 * BLOCK
    assert server.sent < 0.5 * nwb.stat().st_size


def test_the_same_selection_moves_nothing_again(server: FileServer, tmp_path: Path, nwb: Path) -> None:
    from pipeline_lib.sources.fetched import Description, write_manifest

    region = read_source("allen", "x", nwb).units["region"].iloc[0]
    fetched, details = _fetch(server, tmp_path, nwb, regions=[region])
    write_manifest(fetched.file.path.parent, Description("x", "x", "", "", "", details), [fetched])
    asked = len(server.requests)
    again, _ = _fetch(server, tmp_path, nwb, regions=[region])
    assert (len(server.requests), again.moved) == (asked, 0)
    _fetch(server, tmp_path, nwb)
    assert len(server.requests) > asked, "another selection needs other bytes"


def test_faults_in_ranges(server: FileServer, tmp_path: Path, nwb: Path) -> None:
    server.fail("/whole.nwb", *[Fault(), Fault(status=503), Fault(cut_at=100), Fault(stall_at=100)])
    fetched, _ = _fetch(server, tmp_path, nwb)
    assert np.array_equal(
        read_source("allen", "x", fetched.file.path).spike_times, read_source("allen", "x", nwb).spike_times
    )


def test_a_server_without_ranges(server: FileServer, tmp_path: Path, nwb: Path) -> None:
    server.ranges = False
    with pytest.raises(DownloadError, match="whole file instead"):
        _fetch(server, tmp_path, nwb)


def test_no_unit_and_no_nwb(server: FileServer, tmp_path: Path, nwb: Path) -> None:
    with pytest.raises(InputError, match="regions here"):
        _fetch(server, tmp_path, nwb, regions=["nowhere"])
    assert not (tmp_path / "here/part.nwb").exists()
    url = server.put("/page.nwb", b"<html>" * 100)
    with pytest.raises(InputError):
        fetch_selected(RemoteFile(url, tmp_path / "x.nwb"), "nwb", {}, Downloader(tmp_path / "l.tsv", QUICK))


def test_a_file_that_changes_while_it_is_read(server: FileServer) -> None:
    url = server.put("/file.bin", bytes(range(256)) * 4096)
    with RangeFile(url, QUICK) as handle:
        assert handle.read(3) == b"\x00\x01\x02"
        server.put("/file.bin", b"other" * 100_000)
        handle.seek(500_000)
        with pytest.raises(DownloadError, match="another version"):
            handle.read(10)


def test_reading_anywhere_is_reading_the_file(server: FileServer) -> None:
    content = np.random.default_rng(0).bytes(1_000_003)
    url = server.put("/file.bin", content)
    with RangeFile(url, QUICK) as handle:
        rng = np.random.default_rng(1)
        handle.prefetch([(10, 20), (400_000, 700_000), (999_999, 1_000_003)])
        for start, length in zip(rng.integers(0, 1_000_003, 50), rng.integers(0, 100_000, 50), strict=True):
            handle.seek(int(start))
            assert handle.read(int(length)) == content[start : start + length]
        assert handle.seek(-5, 2) == 999_998
        assert handle.read() == content[-5:]


def test_what_cannot_be_read_is_fetched_afresh(
    server: FileServer, tmp_path: Path, nwb: Path, capsys: pytest.CaptureFixture
) -> None:
    """No checksum covers ranges: other bytes are noticed where the file no longer reads."""
    server.fail("/whole.nwb", Fault(wrong=True))
    _fetch(server, tmp_path, nwb, regions=["VISp"])
    assert "fetching it afresh" in capsys.readouterr().err
    server.fail("/whole.nwb", *[Fault(wrong=True)] * 99)
    with pytest.raises(InputError, match="a whole, readable file"):
        _fetch(server, tmp_path, nwb, regions=["VISl"])
    assert len([path for path in (tmp_path / "here").iterdir() if path.suffix == ".nwb"]) == 1
