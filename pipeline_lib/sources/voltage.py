"""Raw voltage of an IBL insertion: a second or so of it, by ranges, out of a recording of 100 GB.

SpikeGLX recordings are stored compressed (``.cbin``) in chunks of about a second; the header (``.ch``) says where each
chunk begins. A chunk is the differences of its samples along time, channel after channel, compressed by zlib. The
``.meta`` file holds the gains.
"""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import atomic_file
from pipeline_lib.sources.download import Downloader, RemoteFile
from pipeline_lib.sources.fetch_ibl import find_session, newest_revisions, remote_file
from pipeline_lib.sources.location import reading
from pipeline_lib.sources.options import as_tuple
from pipeline_lib.sources.ranges import RangeFile
from pipeline_lib.sources.remote import Remote

Band = Literal["ap", "lf"]
FILES = ("ch", "meta", "cbin")
PATTERN = r"raw_ephys_data/{probe}/_spikeglx_ephysData_g\d+_t\d+\.imec\d*\.{ending}"


@dataclass(frozen=True)
class Snippet:
    """Voltage (samples, channels) float32, microvolts, without the synchronisation channel.

    `start` is the time of the first sample, s, and `rate` in samples per second, both of the session's clock.
    """

    voltage: np.ndarray
    start: float
    rate: float
    probe: str
    band: str

    def write(self, path: Path) -> None:
        """Write as one .npz file, whole or not at all."""
        with atomic_file(path) as part:
            np.savez(part, voltage=self.voltage, start=self.start, rate=self.rate, probe=self.probe, band=self.band)

    @classmethod
    def read(cls, path: Path) -> "Snippet":
        """Read what `write` wrote."""
        with reading(path, "snippet"), np.load(path, allow_pickle=False) as arrays:
            return cls(
                arrays["voltage"],
                float(arrays["start"]),
                float(arrays["rate"]),
                str(arrays["probe"]),
                str(arrays["band"]),
            )


def fetch_snippet(
    files: dict[str, RemoteFile], probe: str, band: Band, start: float, length: float, downloader: Downloader
) -> Snippet:
    """`length` seconds of voltage from `start` (s, session clock) on; of the compressed file only the chunks of them.

    Parameters
    ----------
    files : the remote `.cbin`, `.ch` and `.meta` by their ending, see `voltage_files`; with `timestamps`, a table of
        sample and time, the probe's clock is put right, else it is taken for the session's.

    Raises
    ------
    DownloadError : a file cannot be had.
    InputError : the span is not in the recording, or a file is broken.
    """
    small = {name: downloader.fetch(files[name]).file.path for name in ("ch", "meta")}
    with reading(small["ch"], "header"):
        header = json.loads(small["ch"].read_text())
    meta = small["meta"].read_text()
    rate = float(header["sample_rate"])
    first, last = round(start * rate), round((start + length) * rate)
    if "timestamps" in files:
        path = downloader.fetch(files["timestamps"]).file.path
        with reading(path, "timestamps"):
            sample, time = np.load(path, allow_pickle=False).T
        first, last = np.rint(np.interp([start, start + length], time, sample)).astype(int).tolist()
        rate = (last - first) / length
    with RangeFile(files["cbin"].url, downloader.network, files["cbin"].headers) as handle:
        handle.prefetch(chunk_spans(header, first, last, small["ch"]))
        samples = read_samples(handle, header, first, last, small["ch"])
    gains = microvolts_per_bit(meta, band, small["meta"])
    return Snippet((samples[:, : len(gains)] * gains).astype(np.float32), start, rate, probe, band)


def voltage_files(datasets: dict[str, Any], probe: str, band: Band) -> dict[str, Any]:
    """The datasets of a probe's raw voltage by their ending, out of all of a session's by path; {} where absent."""
    found: dict[str, Any] = {}
    for name, ending in {**{ending: f"{band}.{ending}" for ending in FILES}, "timestamps": "timestamps.npy"}.items():
        pattern = re.compile(PATTERN.format(probe=re.escape(probe), ending=re.escape(ending)))
        matching = [path for path in sorted(datasets) if pattern.fullmatch(path)]
        if matching:
            found[name] = datasets[matching[0]]
    return found if all(ending in found for ending in FILES) else {}


def chunk_spans(header: dict[str, Any], first: int, last: int, where: Path) -> list[tuple[int, int]]:
    """Where the chunks with the samples `first` to `last` (excluded) lie in the file, as (start, stop) bytes."""
    chunks = _chunks(header, first, last, where)
    offsets = header["chunk_offsets"]
    return [(offsets[chunk], offsets[chunk + 1]) for chunk in chunks]


def read_samples(
    handle: BinaryIO | RangeFile, header: dict[str, Any], first: int, last: int, where: Path
) -> np.ndarray:
    """Samples `first` to `last` (excluded) of a compressed recording, (samples, channels) int16."""
    channels, bounds, offsets = int(header["n_channels"]), header["chunk_bounds"], header["chunk_offsets"]
    pieces, chunks = [], _chunks(header, first, last, where)
    for chunk in chunks:
        handle.seek(offsets[chunk])
        with reading(where, f"chunk {chunk}"):
            values = np.frombuffer(zlib.decompress(handle.read(offsets[chunk + 1] - offsets[chunk])), dtype=np.int16)
            values = values.reshape((bounds[chunk + 1] - bounds[chunk], channels), order="F")
        # Differences were taken in 16 bits, so the sums wrap around as they did.
        pieces.append(np.cumsum(values, axis=0, dtype=np.int16) if header.get("do_time_diff") else values)
    begin = bounds[chunks[0]]
    return np.concatenate(pieces)[first - begin : last - begin]


def _chunks(header: dict[str, Any], first: int, last: int, where: Path) -> range:
    """The chunks with these samples; InputError for samples beyond the recording, or chunks that are made otherwise."""
    bounds = header["chunk_bounds"]
    if header.get("algorithm", "zlib") != "zlib" or header.get("do_spatial_diff"):
        raise InputError(where, "algorithm", header.get("algorithm"), "zlib, differences along time only")
    if not 0 <= first < last <= bounds[-1]:
        seconds = bounds[-1] / float(header["sample_rate"])
        raise InputError(where, "samples", f"{first} to {last}", f"a span of the {seconds:.1f} s of the recording")
    begin = int(np.searchsorted(bounds, first, side="right")) - 1
    return range(begin, int(np.searchsorted(bounds, last, side="left")))


def microvolts_per_bit(meta: str, band: Band, where: Path) -> np.ndarray:
    """Microvolts of one bit, by channel (channels,), from the text of a .meta file (Neuropixels 1.0, SpikeGLX).

    InputError for any other text.
    """
    entries = dict(line.split("=", 1) for line in meta.splitlines() if "=" in line)
    for name in ("imAiRangeMax", "~imroTbl"):
        if name not in entries:
            raise InputError(where, name, "no such entry", "the .meta file of a Neuropixels 1.0 recording")
    # (channel bank reference gain_ap gain_lf filter): the gains stand at places 3 and 4.
    rows = [row.split() for row in re.findall(r"\(([^()]+)\)", entries["~imroTbl"])]
    gains = [float(row[3 if band == "ap" else 4]) for row in rows if len(row) >= 5]
    if not gains or min(gains) <= 0:
        raise InputError(where, "~imroTbl", f"{len(gains)} channels with gains", "a gain of every channel")
    bits = float(entries.get("imMaxInt", 512))
    return 1e6 * float(entries["imAiRangeMax"]) / bits / np.array(gains)


def fetch_voltage(remote: Remote, folder: Path, options: dict[str, Any], downloader: Downloader) -> dict[str, Path]:
    """The snippets that the option `voltage` of an IBL session asks for, fetched into its folder: files by probe.

    Those that are there are not fetched again; a probe whose raw recording is not published has none.

    Raises
    ------
    DownloadError : there is no such session, or a file cannot be had.
    InputError : a span that is not in the recording.
    """
    start, length = map(float, options["voltage"])
    band: Band = options.get("band", "ap")
    session, base = find_session(remote, folder, downloader)
    datasets = newest_revisions(session["datasets"], None)
    known = sorted({match[1] for path in datasets if (match := re.match(r"raw_ephys_data/(probe\w+)/", path))})
    snippets = {}
    for probe in as_tuple(options.get("probes")) or ((session["probe"],) if session["probe"] else tuple(known)):
        found = voltage_files(datasets, probe, band)
        if not found:
            continue
        snippets[probe] = path = folder / snippet_name(probe, band, start, length)
        if not path.is_file():
            files = {ending: remote_file(dataset, session, base, folder) for ending, dataset in found.items()}
            fetch_snippet(files, probe, band, start, length, downloader).write(path)
    return snippets


def snippet_name(probe: str, band: str, start: float, length: float) -> str:
    """Where a snippet lies within the folder of its session."""
    return f"voltage/{probe}.{band}.{start:g}s.{length:g}s.npz"


def snippets_in(source: Path, selection: dict[str, Any]) -> list[Path]:
    """The snippets in the folder of a session that the reading options `selection` ask for, by probe."""
    if not selection.get("voltage"):
        return []
    start, length = map(float, selection["voltage"])
    name = snippet_name("*", selection.get("band", "ap"), start, length)
    probes = as_tuple(selection.get("probes"))
    return [path for path in sorted(source.glob(name)) if not probes or path.name.partition(".")[0] in probes]
