"""A snippet of raw voltage by ranges: the same numbers as in the whole recording, for a few of its bytes."""

import io
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.voltage import Snippet, fetch_snippet, voltage_files
from tests.servers.files import Fault, FileServer
from tests.sources.fetching import QUICK

RATE, CHANNELS, SECONDS = 3000, 9, 12
NAME = "_spikeglx_ephysData_g0_t0.imec0.ap"
GAIN = 500
META = f"imAiRangeMax=0.6\nimSampRate={RATE}\n~imroTbl=(841602,3,{CHANNELS - 1})" + "".join(
    f"({channel} 0 0 {GAIN} 250 1)" for channel in range(CHANNELS - 1)
)


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def recording(server: FileServer) -> tuple[np.ndarray, dict[str, str]]:
    """Voltage in bits, with steps that overflow 16-bit differences, compressed a second a chunk; and the addresses."""
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
    contents = {"cbin": body, "ch": json.dumps(header).encode(), "meta": META.encode()}
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
    np.save(table, np.stack([samples, samples / (RATE * 1.001) - 0.25], axis=1))
    more = addresses | {"timestamps": server.put("/timestamps.npy", table.getvalue())}
    snippet = _fetch(more, tmp_path, 2.0, 0.5)
    first = round(2.25 * RATE * 1.001)
    assert np.allclose(snippet.voltage[:50], bits[first : first + 50, :-1] * (0.6 / 512 / GAIN * 1e6), rtol=1e-6)
    assert snippet.rate == pytest.approx(RATE * 1.001, rel=1e-3)


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
