"""A snippet of raw voltage by ranges: the same numbers as in the whole recording, for a few of its bytes."""

import io
import itertools
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.figures import make
from pipeline_lib.figures.raw_voltage import peaks
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.sources import read_source
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.fetch import fetch
from pipeline_lib.sources.voltage import Snippet, fetch_snippet, voltage_files
from tests.servers.alyx import identifier
from tests.servers.files import Fault, FileServer
from tests.servers.sessions import publish_ibl
from tests.sources.fetching import QUICK

RATE, CHANNELS, SECONDS = 3000, 9, 12
NAME = "_spikeglx_ephysData_g0_t0.imec0.ap"
GAIN = 500
META = f"imAiRangeMax=0.6\nimSampRate={RATE}\n~imroTbl=(841602,3,{CHANNELS - 1})" + "".join(
    f"({channel} 0 0 {GAIN} 250 1)" for channel in range(CHANNELS - 1)
)


def raw_files() -> tuple[np.ndarray, dict[str, bytes]]:
    """Voltage in bits, with steps that overflow 16-bit differences, compressed a second a chunk; files by ending."""
    bits = np.random.default_rng(0).integers(-32768, 32768, (RATE * SECONDS, CHANNELS)).astype(np.int16)
    bounds, offsets, body = list(range(0, len(bits) + 1, RATE)), [0], b""
    for start, stop in itertools.pairwise(bounds):
        chunk = bits[start:stop]
        steps = np.diff(chunk, axis=0, prepend=np.zeros((1, CHANNELS), np.int16))
        body += zlib.compress(steps.ravel(order="F").tobytes())
        offsets.append(len(body))
    header = {
        "algorithm": "zlib",
        "do_time_diff": True,
        "do_spatial_diff": False,
        "n_channels": CHANNELS,
        "sample_rate": RATE,
        "chunk_bounds": bounds,
        "chunk_offsets": offsets,
    }
    return bits, {"cbin": body, "ch": json.dumps(header).encode(), "meta": META.encode()}


@pytest.fixture
def recording(server: FileServer) -> tuple[np.ndarray, dict[str, str]]:
    """The voltage of `raw_files` and the addresses of the files on the server."""
    bits, contents = raw_files()
    return bits, {ending: server.put(f"/{NAME}.{ending}", content) for ending, content in contents.items()}


def _fetch(addresses: dict[str, str], tmp_path: Path, start: float, length: float) -> Snippet:
    files = {ending: RemoteFile(url, tmp_path / f"raw.{ending}") for ending, url in addresses.items()}
    return fetch_snippet(files, "probe00", "ap", start, length, Downloader(tmp_path / "ledger.tsv", QUICK))


@pytest.mark.parametrize(("start", "length"), [(0.0, 0.5), (3.7, 0.6), (5.0, 1.0), (2.25, 3.5), (11.5, 0.5)])
def test_voltage_of_a_span(recording: tuple, tmp_path: Path, start: float, length: float) -> None:
    bits, addresses = recording
    snippet = _fetch(addresses, tmp_path, start, length)
    span = bits[round(start * RATE) : round((start + length) * RATE), :-1]
    assert np.allclose(snippet.voltage, span * (0.6 / 512 / GAIN * 1e6), rtol=1e-6)


def test_few_bytes_move_and_faults_are_survived(recording: tuple, server: FileServer, tmp_path: Path) -> None:
    server.fail(f"/{NAME}.cbin", Fault(), Fault(status=503), Fault(cut_at=10))
    _fetch(recording[1], tmp_path, 4.2, 0.5)
    whole = len(server.files[f"/{NAME}.cbin"])
    moved = sum(request.sent for request in server.asked(f"/{NAME}.cbin"))
    assert moved < 0.4 * whole


def test_times_of_the_session_clock(recording: tuple, server: FileServer, tmp_path: Path) -> None:
    """The probe's clock starts 0.25 s before the session's and runs at another rate."""
    bits, addresses = recording
    samples = np.array([0.0, len(bits)])
    table = io.BytesIO()
    np.save(table, np.stack([samples, samples / (RATE * 1.01) - 0.25], axis=1))
    more = addresses | {"timestamps": server.put("/timestamps.npy", table.getvalue())}
    snippet = _fetch(more, tmp_path, 2.0, 0.5)
    first = round(2.25 * RATE * 1.01)
    assert np.allclose(snippet.voltage[:50], bits[first : first + 50, :-1] * (0.6 / 512 / GAIN * 1e6), rtol=1e-6)
    assert snippet.rate == pytest.approx(RATE * 1.01, rel=1e-3)


def test_a_span_that_is_not_recorded(recording: tuple, tmp_path: Path) -> None:
    for start, length in ((11.8, 0.5), (-1.0, 0.5)):
        with pytest.raises(InputError, match=r"12\.0 s of the recording"):
            _fetch(recording[1], tmp_path, start, length)


def test_write_and_read(recording: tuple, tmp_path: Path) -> None:
    snippet = _fetch(recording[1], tmp_path, 1.0, 0.1)
    snippet.write(tmp_path / "snippet.npz")
    again = Snippet.read(tmp_path / "snippet.npz")
    assert np.array_equal(again.voltage, snippet.voltage)
    assert (again.start, again.rate, again.probe, again.band) == (1.0, RATE, "probe00", "ap")


def test_which_datasets() -> None:
    folder = "raw_ephys_data/probe00/_spikeglx_ephysData_g0_t0.imec0"
    endings = ("cbin", "ch", "meta")
    paths = {f"{folder}.{band}.{ending}": ending for band in ("ap", "lf") for ending in endings}
    assert voltage_files(paths, "probe00", "ap") == {"cbin": "cbin", "ch": "ch", "meta": "meta"}
    more = voltage_files(paths | {f"{folder}.timestamps.npy": "times"}, "probe00", "lf")
    assert more["timestamps"] == "times"
    assert voltage_files(paths, "probe01", "ap") == {}
    paths.pop(f"{folder}.ap.ch")
    assert voltage_files(paths, "probe00", "ap") == {}


def test_from_the_option_in_the_sheet_to_the_figure(server: FileServer, ibl_session: Path, tmp_path: Path) -> None:
    """The snippet is fetched once, for the probes that have raw data, and drawn above the sorted spikes."""
    session = tmp_path.joinpath("public", *ibl_session.parts[-5:])
    shutil.copytree(ibl_session, session)
    raw = session / "raw_ephys_data/probe00"
    raw.mkdir(parents=True)
    _, contents = raw_files()
    for ending, content in contents.items():
        raw.joinpath(f"{NAME}.{ending}").write_bytes(content)
    eid, paths = publish_ibl(server, session)
    options = {"voltage": [1, 0.5], "observed": "trials"}
    manifest = fetch(f"ibl:{eid}", tmp_path / "data", "ibl", options, network=QUICK)
    compressed = paths[f"raw_ephys_data/probe00/{NAME}.cbin"]
    assert sum(request.sent for request in server.asked(compressed)) < 0.3 * len(contents["cbin"])
    asked = len(server.requests)
    fetch(f"ibl:{eid}", tmp_path / "data", "ibl", options, network=QUICK)
    assert len(server.requests) == asked

    read_source("ibl", "x", manifest.parent, options).write(tmp_path / "recording")
    stem = tmp_path / "figures/raw_voltage"
    make("raw_voltage", {"recording": tmp_path / "recording", "source": manifest.parent}, stem)
    table = pd.read_csv(stem.with_suffix(".csv"))
    voltage = table[table["kind"] == "voltage"]
    assert len(voltage) == RATE // 2 * (CHANNELS - 1)
    assert voltage["time"].between(1, 1.5).all()
    spikes = read_source("ibl", "x", manifest.parent, options).spike_times
    assert (table["kind"] == "spike").sum() == ((spikes >= 1) & (spikes < 1.5)).sum() > 0

    others = {"voltage": [2, 0.5], "observed": "trials"}
    read_source("ibl", "x", manifest.parent, others).write(tmp_path / "other")
    make("raw_voltage", {"recording": tmp_path / "other", "source": manifest.parent}, stem)
    assert "No raw voltage" in stem.with_suffix(".csv").read_text()


def test_only_sessions_that_are_read_with_voltage_get_the_figure(tmp_path: Path) -> None:
    eid = identifier("session")
    rows = [f"raw\tibl\tibl:{eid}\tvoltage: [600, 0.5]", f"plain\tibl\tibl:{eid}\t"]
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text("session\tsource\tlocation\toptions\n" + "\n".join(rows) + "\n")
    plan = resolve({"sessions": str(sheet), "data": "data", "models": ["mean_rate"]})
    files = FigureFiles(plan, Paths("results", "data"))
    assert [stem for stem in files.stems if "raw_voltage" in stem] == ["results/figures/raw/raw_voltage"]
    declared = files.declared(["raw_voltage"], "raw")
    assert declared["source"] == f"results/fetched/ibl/{eid}.done"
    assert files.arguments("raw_voltage", "raw")["source"] == f"data/ibl/{eid}"


def test_thinning_keeps_the_spikes() -> None:
    values = np.zeros((10, 2), np.float32)
    values[4, 0], values[9, 1] = -80, 60
    assert peaks(values, 4).tolist() == [[0, 0], [-80, 0], [0, 60]]
    assert np.array_equal(peaks(values, 1), values)
