"""Verbs about data: simulate, fetch, sessions, voltage, record, convert, split."""

import argparse
from pathlib import Path

from pipeline_lib.arguments import Verb, folder, mapping, path, read_mapping
from pipeline_lib.errors import InputError


def add_data_verbs(verb: Verb) -> None:
    """Add them; `verb(name, function, summary)` adds one."""
    added = verb("simulate", _simulate, "make a session with known truth, in the layout of a real source")
    added.add_argument("--simulator", required=True, help="eif, lorenz, glm, glm_factors, chaotic_rnn or video")
    added.add_argument("--layout", default="tables", help="allen, ibl or tables; default: tables")
    added.add_argument("--name", help="name of the session in the files; default: the folder's")
    added.add_argument("--seed", type=int, default=0, help="of everything random; default: 0")
    mapping(added, "--settings", "settings of the simulator")
    folder(added, "--out", "folder to write")

    added = verb("fetch", _fetch, "fetch a session; what is there and verified is not fetched again")
    added.add_argument("--location", required=True, help="allen:ID, allen-behavior:ID, ibl:UUID, dandi:UUID or address")
    added.add_argument("--source", default="", help="the source that will read it")
    added.add_argument(
        "--options",
        type=read_mapping,
        nargs="*",
        metavar="MAPPING",
        help="reading options, which decide what is needed; one for every row of the session sheet about it",
    )
    _of_cache(added)
    added.add_argument(
        "--accept", nargs="*", default=[], metavar="SHA256", help="files to take although they are not as published"
    )
    added.add_argument("--sdk", action="store_true", help="Allen Visual Coding through AllenSDK, not from the bucket")
    added.add_argument("--parallel", type=int, default=4, help="files at a time; default: 4")
    added.add_argument("--cache", type=Path, help="folder of others' downloads, looked into first and never written")

    added = verb("sessions", _sessions, "find sessions; prints rows for the session sheet")
    added.add_argument("--source", required=True, choices=("allen", "allen-behavior", "ibl"), help="whose")
    added.add_argument("--region", help="acronym of a structure, such as VISp")
    added.add_argument("--genotype", help="Allen: such as Sst-IRES-Cre")
    added.add_argument("--stimulus-set", help="Allen: such as brain_observatory_1.1 or functional_connectivity")
    added.add_argument("--release", help="IBL: a tag, such as 2024_Q2_IBL_et_al_BWM_iblsort")
    added.add_argument("--insertions", action="store_true", help="IBL: a row an insertion instead of a session")
    added.add_argument("--limit", type=int, default=10, help="rows at most; 0: all; default: 10")
    _of_cache(added)

    added = verb("voltage", _voltage, "fetch a snippet of raw voltage and draw it above the spikes of the same time")
    added.add_argument("--location", required=True, help="ibl:UUID")
    added.add_argument("--probe", default="probe00", help="default: probe00")
    added.add_argument("--band", choices=("ap", "lf"), default="ap", help="default: ap")
    added.add_argument("--start", type=float, required=True, help="s of the session")
    added.add_argument("--length", type=float, default=0.5, help="s; default: 0.5")
    path(added, "--recording", "folder of the session's recording")
    _of_cache(added)
    path(added, "--stem", "path of the figure without its ending")

    added = verb("record", _record, "read a session from its source and write it as a recording")
    added.add_argument("--session", required=True, help="the session's name in all results")
    added.add_argument(
        "--source", required=True, help="such as allen, ibl, nwb, phy or tables, or a Python file of your own"
    )
    path(added, "--location", "file or folder of the session")
    mapping(added, "--options", "reading options of the source")
    folder(added, "--out", "folder to write")

    added = verb("convert", _convert, "convert a recording to a spike-train store")
    folder(added, "--recording", "folder of the recording")
    added.add_argument("--counts", type=float, nargs="*", default=[], metavar="MS", help="bin sizes of dense counts")
    folder(added, "--out", "folder to write")

    added = verb("split", _split, "cut sessions into samples and split them for training, selection and test")
    folder(added, "--trains", "folders of the cohort's trains", nargs="+")
    added.add_argument("--cohort", required=True, help="the cohort's name in all results")
    mapping(added, "--windows", "keys of the config's `windows`")
    mapping(added, "--splits", "keys of the config's `splits`")
    mapping(added, "--decoding", "as the config's `evaluation.decoding`: that times of trials are times")
    path(added, "--out", "Parquet file to write")


def _of_cache(added: argparse.ArgumentParser) -> None:
    added.add_argument("--data", type=Path, default=Path("data"), help="folder of downloads; default: data")
    added.add_argument("--ledger", type=Path, help="ledger of first fetches; default: ledger.tsv in that folder")


def _simulate(options: argparse.Namespace) -> None:
    from pipeline_lib.sources.simulate.store import write_simulation

    name = options.name or options.out.name
    write_simulation(options.simulator, options.settings, options.seed, name, options.layout, options.out)


def _fetch(options: argparse.Namespace) -> None:
    from pipeline_lib.sources.fetch import fetch
    from pipeline_lib.sources.transport import Network

    for reading in options.options or [{}]:
        fetch(
            options.location,
            options.data,
            source=options.source,
            options=reading,
            ledger=options.ledger,
            accept=options.accept,
            sdk=options.sdk,
            network=Network(parallel=options.parallel),
            cache=options.cache,
        )


def _sessions(options: argparse.Namespace) -> None:
    from pipeline_lib.sources.catalogue import Query, as_sheet, find_sessions
    from pipeline_lib.sources.download import Downloader
    from pipeline_lib.sources.ledger import NAME

    names = ("region", "genotype", "stimulus_set", "release", "insertions", "limit")
    query = Query(**{name: getattr(options, name) for name in names})
    downloader = Downloader(options.ledger or options.data / NAME)
    found = find_sessions(options.source, query, options.data, downloader)
    print(as_sheet(found), end="")


def _voltage(options: argparse.Namespace) -> None:
    from pipeline_lib.figures.raw_voltage import data, draw
    from pipeline_lib.figures.style import save
    from pipeline_lib.sources.download import Downloader
    from pipeline_lib.sources.ledger import NAME
    from pipeline_lib.sources.remote import parse_remote
    from pipeline_lib.sources.voltage import fetch_voltage

    remote = parse_remote(options.location, "--location")
    if remote is None or remote.scheme != "ibl":
        raise InputError("--location", "location", repr(options.location), "ibl:UUID, a session or insertion of IBL")
    downloader = Downloader(options.ledger or options.data / NAME)
    reading = {"probes": options.probe, "band": options.band, "voltage": [options.start, options.length]}
    snippets = fetch_voltage(remote, remote.folder(options.data), reading, downloader)
    if not snippets:
        raise InputError(options.location, options.probe, f"no raw {options.band} voltage", "a probe that has it")
    table = data(options.recording, snippets[options.probe])
    save(draw(table), table, options.stem)


def _record(options: argparse.Namespace) -> None:
    from pipeline_lib.sources import read_source, session_files
    from pipeline_lib.sources.simulate.store import SIMULATION, read_simulation

    simulated = (options.location / SIMULATION).is_file()
    files = [] if simulated else session_files(options.source, options.location, options.options)
    before = [_stamp(file) for file in files]
    read = read_simulation if simulated else read_source
    recording = read(options.source, options.session, options.location, options.options)
    # Such a file is older than the recording: no later run would see that it holds other data.
    for file, stamp in zip(files, before, strict=True):
        if _stamp(file) != stamp:
            raise InputError(file, "content", "another one after it was read", "a file that nobody writes (run again)")
    recording.write(options.out)


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of a file."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _convert(options: argparse.Namespace) -> None:
    from pipeline_lib.trains.store import convert

    convert(options.recording, options.out, bin_sizes=options.counts)


def _split(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.settings import Target
    from pipeline_lib.parsing import parse
    from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    from pipeline_lib.trains.splits import make_split
    from pipeline_lib.trains.store import Trains

    windows = parse(WindowSettings, options.windows, "--windows")
    settings = parse(SplitSettings, options.splits, "--splits")
    targets = parse(dict[str, Target], options.decoding, "--decoding")
    trains = [Trains.open(directory) for directory in options.trains]
    split = make_split(trains, windows, settings, options.cohort)
    for each in trains if targets else ():
        from pipeline_lib.evaluation.readouts import check_timing

        check_timing(targets, each, split)
    split.write(options.out)
