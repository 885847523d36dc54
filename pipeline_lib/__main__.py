"""The command line: one verb a public function. The workflow's rules call these verbs; people may, too."""

import argparse
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline_lib import __version__
from pipeline_lib.arguments import Verb, mapping, path
from pipeline_lib.data_verbs import add_data_verbs
from pipeline_lib.errors import Failure, InputError
from pipeline_lib.files import FULL
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
    except (OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
            return 0
        # What HDF5 raises where it cannot close a file on a full disk hides what the system said.
        said = error if isinstance(error, OSError) else error.__context__
        if not isinstance(said, OSError) or (said is not error and said.errno not in FULL):
            raise
        print(f"error: {_in_words(said, options)}", file=sys.stderr)
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


def _in_words(error: OSError, options: argparse.Namespace) -> str:
    """A full disk, a missing file, a folder that may not be written: the system's own words are the clear ones."""
    # Of what is written the system names no file; a library that cannot read one has no number for that. With several
    # disks, people want to know which one is full.
    out = getattr(options, "out", "output")
    outs = out if isinstance(out, list) else [out]
    place = error.filename or (", ".join(map(str, outs)) if error.errno else "a file")
    if error.errno not in FULL:
        return f"{place}: {error.strerror or error}; nothing was published"
    from pipeline_lib.room import REMEDY, free

    said = os.strerror(error.errno)  # libraries tell of the buffer, too, that they were writing
    return f"{place}: {said} ({free(error.filename or outs[0])}); nothing was published: {REMEDY}"


def _nobody_reads() -> bool:
    """Whether the pipe that this process writes to was closed, as `| head` does when it has read enough."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"trainyard {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function: Callable[[argparse.Namespace], int | None], summary: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        added.set_defaults(verb=function)
        return added

    add_data_verbs(verb)
    add_model_verbs(verb)
    _add_verbs_of_a_run(verb)
    return parser


def _add_verbs_of_a_run(verb: Verb) -> None:
    added = verb("figure", _figure, "draw figures: PDF, PNG and the CSV behind each")
    added.add_argument("names", nargs="+", help="of the figures, as docs/figures.md has them")
    mapping(added, "--paths", "the paths that they are drawn from; {} says which")
    mapping(added, "--config", "instead of --paths: the configuration whose results they show")
    added.add_argument("--of", default="", help="with --config: the session or cohort they show; default: all results")
    path(added, "--out", "folder to write; with --config: `figures` in the folder of the results")

    added = verb("report", _report, "write the HTML report of everything in a results folder")
    added.add_argument("--results", type=Path, default=Path("results"), help="folder of the results; default: results")
    mapping(added, "--config", "the configuration that made the results")
    added.add_argument("--metrics", type=Path, help="the table of scores; default: metrics.parquet of the results")
    path(added, "--out", "HTML file to write")

    added = verb("status", _status, "show the running fits: step, loss, time left")
    added.add_argument("--results", type=Path, default=Path("results"), help="folder of the results; default: results")
    added.add_argument("--watch", action="store_true", help="in a terminal: again every two seconds, until interrupted")

    for name, function, summary in (
        ("list", _list, "list sessions and models: what is done, what is missing"),
        ("check", _check, "check a configuration and its local files, as every run does first"),
        ("doctor", _doctor, "look at machine, GPUs, scheduler, logins, disk and versions; say what to fix"),
    ):
        added = verb(name, function, summary)
        _of_config(added)

    added = verb("where", _where, "print the path of a result, for use as a target of Snakemake")
    added.add_argument("what", choices=("report", "scores"), help="what to print: the report, or the scores of a fit")
    _of_config(added)
    added.add_argument("--cohort", default="", help="scores: of which fit")
    added.add_argument("--model", default="", help="scores: of which fit")
    added.add_argument("--seed", default="0", help="of the fit, or `mean` for rates averaged over seeds; default: 0")

    added = verb("verify", _verify, "re-read spike-train stores and compare with the hashes written with them")
    added.add_argument("trains", type=Path, nargs="+", help="folders of stores")

    added = verb("schemas", _schemas, "write the JSON schemas of the configuration")
    added.add_argument(
        "--out", type=Path, default=Path("workflow/schemas"), help="folder to write; default: workflow/schemas"
    )


def _of_config(added: argparse.ArgumentParser) -> None:
    default = Path("config/config.yaml")
    added.add_argument("--config", type=Path, default=default, help=f"configuration file; default: {default}")


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
    from pipeline_lib.outdated import outdated_fits
    from pipeline_lib.paths import Paths
    from pipeline_lib.plan import resolve
    from pipeline_lib.report import build_report

    outdated = set()
    if options.config:
        with suppress(InputError):  # the page says what is wrong with the configuration
            outdated = outdated_fits(resolve(options.config), Paths(str(options.results)))
    build_report(options.results, options.out, options.config, options.metrics, outdated)


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
    seeds = [seed for _, model, seed in plan.predicted(options.cohort) if model == options.model]
    if options.seed not in map(str, seeds):
        raise InputError(options.config, "seed", options.seed, f"one of {seeds}")
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


if __name__ == "__main__":
    sys.exit(main())
