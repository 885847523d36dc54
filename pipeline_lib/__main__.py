"""The command line: one verb a public function. The workflow's rules call these verbs; people may, too."""

import argparse
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline_lib import __version__
from pipeline_lib.arguments import folder, mapping, path, read_mapping
from pipeline_lib.errors import Failure, InputError
from pipeline_lib.model_verbs import add_model_verbs

DESCRIPTION = """Trainyard: from public neural recordings to trained, compared and drawn models of spike trains.
The workflow (`snakemake --cores all`) calls these verbs in order; each also serves alone."""
STDOUT = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; return the exit code (0 done, 1 failed, 2 wrong input, 130 and 143 stopped by a signal)."""
    # Spinning OpenMP threads turn a 0.3-s fit into 16 s on a busy machine; this must be set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int | None] = options.verb
    try:
        code = verb(options) or 0
        sys.stdout.flush()  # what is still to be written, while there is somebody to say that it could not be
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
            return 0
        # A full disk, a missing file, a folder that may not be written: the system's own words are the clear ones.
        print(f"error: {error.filename or 'output'}: {error.strerror or error}; nothing was published", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        # Most often the Python of the system, where that of the environment was meant.
        if (error.name or "").startswith("pipeline_lib"):
            raise
        accepted = "the environment's own: source .venv/bin/activate (docs/install.md)"
        print(f"error: {InputError('Python', 'import', f'no module {error.name}', accepted)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _nobody_reads() -> bool:
    """Whether the pipe that this process writes to was closed, as `| head` does when it has read enough."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


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
    from pipeline_lib.sources import read_source
    from pipeline_lib.sources.simulate.store import SIMULATION, read_simulation

    read = read_simulation if (options.location / SIMULATION).is_file() else read_source
    read(options.source, options.session, options.location, options.options).write(options.out)


def _convert(options: argparse.Namespace) -> None:
    from pipeline_lib.trains.store import convert

    convert(options.recording, options.out, bin_sizes=options.counts)


def _split(options: argparse.Namespace) -> None:
    from pipeline_lib.parsing import parse
    from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    from pipeline_lib.trains.splits import make_split
    from pipeline_lib.trains.store import Trains

    windows = parse(WindowSettings, options.windows, "--windows")
    settings = parse(SplitSettings, options.splits, "--splits")
    trains = [Trains.open(directory) for directory in options.trains]
    make_split(trains, windows, settings, options.cohort).write(options.out)


def _figure(options: argparse.Namespace) -> None:
    from pipeline_lib.figures import make
    from pipeline_lib.figures.subjects import FigureFiles
    from pipeline_lib.paths import Paths
    from pipeline_lib.plan import resolve

    if options.config:
        plan = resolve(options.config, "--config")
        FigureFiles(plan, Paths(str(options.out.parent), plan.config.data)).draw(options.names, options.of)
        return
    for name in options.names:
        make(name, options.paths, options.out / name)


def _report(options: argparse.Namespace) -> None:
    from pipeline_lib.report import build_report

    build_report(options.results, options.out, options.config, options.metrics)


def _status(options: argparse.Namespace) -> None:
    from pipeline_lib.training.status import watch

    # In a file or a pipe nobody sees to interrupt it.
    watch(options.results, repeat=options.watch and sys.stdout.isatty())


def _list(options: argparse.Namespace) -> None:
    from pipeline_lib.overview import overview
    from pipeline_lib.plan import load_config

    print(overview(load_config(options.config)))


def _where(options: argparse.Namespace) -> None:
    from pipeline_lib.errors import suggest
    from pipeline_lib.paths import Paths
    from pipeline_lib.plan import load_config

    plan = load_config(options.config)
    paths = Paths(plan.config.results, plan.config.data)
    if options.what == "report":
        print(paths.report)
        return
    if options.cohort not in plan.cohorts:
        raise InputError(options.config, "cohort", repr(options.cohort), suggest(options.cohort, plan.cohorts))
    models = plan.cohorts[options.cohort].models
    if options.model not in models:
        raise InputError(options.config, "model", repr(options.model), suggest(options.model, models))
    if options.seed not in plan.config.seeds:
        raise InputError(options.config, "seed", options.seed, f"one of {plan.config.seeds}")
    print(paths.scores_of_fit(options.cohort, options.model, options.seed))


def _check(options: argparse.Namespace) -> None:
    from pipeline_lib.plan import load_config
    from pipeline_lib.preflight import preflight

    plan = load_config(options.config)
    preflight(plan, options.config)
    print(f"{options.config}: {len(plan.sessions)} sessions, {len(plan.fits)} fits: nothing to complain of")


def _doctor(options: argparse.Namespace) -> int:
    from pipeline_lib.doctor import as_text, examine
    from pipeline_lib.plan import load_config

    plan = load_config(options.config)
    findings = examine(plan.config.results, plan.config.data)
    print(as_text(findings))
    return int(any(finding.level == "bad" for finding in findings))


def _verify(options: argparse.Namespace) -> None:
    from pipeline_lib.trains.store import Trains

    for directory in options.trains:
        trains = Trains.open(directory, verify=True)
        print(f"{directory}: {len(trains.ticks)} spikes as they were written ({trains.content_hash[:12]})")


def _schemas(options: argparse.Namespace) -> None:
    from pipeline_lib.config import json_schemas
    from pipeline_lib.files import write_json

    for name, schema in json_schemas().items():
        write_json(options.out / name, schema)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"trainyard {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function: Callable[[argparse.Namespace], int | None], summary: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        added.set_defaults(verb=function)
        return added

    added = verb("simulate", _simulate, "make a session with known truth, in the layout of a real source")
    added.add_argument("--simulator", required=True, help="such as eif, lorenz, glm or video")
    added.add_argument("--layout", default="tables", help="allen, ibl or tables")
    added.add_argument("--name", help="name of the session in the files; default: the folder's")
    added.add_argument("--seed", type=int, default=0)
    mapping(added, "--settings", "settings of the simulator")
    folder(added, "--out", "folder to write")

    def of_cache(added: argparse.ArgumentParser) -> None:
        added.add_argument("--data", type=Path, default=Path("data"), help="folder of downloads; default: data")
        added.add_argument("--ledger", type=Path, help="ledger of first fetches; default: ledger.tsv in that folder")

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
    of_cache(added)
    added.add_argument(
        "--accept", nargs="*", default=[], metavar="SHA256", help="files to take although they are not as published"
    )
    added.add_argument("--sdk", action="store_true", help="Allen Visual Coding through AllenSDK, not from the bucket")
    added.add_argument("--parallel", type=int, default=4, help="files at a time; default: 4")
    added.add_argument("--cache", type=Path, help="folder of others' downloads, looked into first and never written")

    added = verb("sessions", _sessions, "find sessions; prints rows for the session sheet")
    added.add_argument("--source", required=True, choices=("allen", "allen-behavior", "ibl"))
    added.add_argument("--region", help="acronym of a structure, such as VISp")
    added.add_argument("--genotype", help="Allen: such as Sst-IRES-Cre")
    added.add_argument("--stimulus-set", help="Allen: such as brain_observatory_1.1 or functional_connectivity")
    added.add_argument("--release", help="IBL: a tag, such as 2024_Q2_IBL_et_al_BWM_iblsort")
    added.add_argument("--insertions", action="store_true", help="IBL: a row an insertion instead of a session")
    added.add_argument("--limit", type=int, default=10, help="rows at most; 0: all; default: 10")
    of_cache(added)

    added = verb("voltage", _voltage, "fetch a snippet of raw voltage and draw it above the spikes of the same time")
    added.add_argument("--location", required=True, help="ibl:UUID")
    added.add_argument("--probe", default="probe00")
    added.add_argument("--band", choices=("ap", "lf"), default="ap")
    added.add_argument("--start", type=float, required=True, help="s of the session")
    added.add_argument("--length", type=float, default=0.5, help="s; default: 0.5")
    path(added, "--recording", "folder of the session's recording")
    of_cache(added)
    path(added, "--stem", "path of the figure without its ending")

    added = verb("record", _record, "read a session from its source and write it as a recording")
    added.add_argument("--session", required=True)
    added.add_argument("--source", required=True, help="such as allen, ibl, nwb, phy or tables")
    path(added, "--location", "file or folder of the session")
    mapping(added, "--options", "reading options of the source")
    folder(added, "--out", "folder to write")

    added = verb("convert", _convert, "convert a recording to a spike-train store")
    folder(added, "--recording", "folder of the recording")
    added.add_argument("--counts", type=float, nargs="*", default=[], metavar="MS", help="bin sizes of dense counts")
    folder(added, "--out", "folder to write")

    added = verb("split", _split, "cut sessions into samples and split them for training, selection and test")
    folder(added, "--trains", "folders of the cohort's trains", nargs="+")
    added.add_argument("--cohort", required=True)
    mapping(added, "--windows", "keys of the config's `windows`")
    mapping(added, "--splits", "keys of the config's `splits`")
    path(added, "--out", "Parquet file to write")

    add_model_verbs(verb)

    added = verb("figure", _figure, "draw figures: PDF, PNG and the CSV behind each")
    added.add_argument("names", nargs="+")
    mapping(added, "--paths", "the paths that they are drawn from; {} says which")
    mapping(added, "--config", "instead of --paths: the configuration whose results they show")
    added.add_argument("--of", default="", help="with --config: the session or cohort they show; default: all results")
    path(added, "--out", "folder to write; with --config: `figures` in the folder of the results")

    added = verb("report", _report, "write the HTML report of everything in a results folder")
    added.add_argument("--results", type=Path, default=Path("results"))
    mapping(added, "--config", "the configuration that made the results")
    added.add_argument("--metrics", type=Path, help="the table of scores; default: metrics.parquet of the results")
    path(added, "--out", "HTML file to write")

    added = verb("status", _status, "show the running fits: step, loss, time left")
    added.add_argument("--results", type=Path, default=Path("results"))
    added.add_argument("--watch", action="store_true", help="in a terminal: again every two seconds, until interrupted")

    for name, function, summary in (
        ("list", _list, "list sessions and models: what is done, what is missing"),
        ("check", _check, "check a configuration and its local files, as every run does first"),
        ("doctor", _doctor, "look at machine, GPUs, scheduler, logins, disk and versions; say what to fix"),
    ):
        added = verb(name, function, summary)
        added.add_argument("--config", type=Path, default=Path("config/config.yaml"))

    added = verb("where", _where, "print the path of a result, for use as a target of Snakemake")
    added.add_argument("what", choices=("report", "scores"))
    added.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    added.add_argument("--cohort", default="")
    added.add_argument("--model", default="")
    added.add_argument("--seed", type=int, default=0)

    added = verb("verify", _verify, "re-read spike-train stores and compare with the hashes written with them")
    added.add_argument("trains", type=Path, nargs="+")

    added = verb("schemas", _schemas, "write the JSON schemas of the configuration")
    added.add_argument("--out", type=Path, default=Path("workflow/schemas"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
