"""Verbs about models: fit, predict, search, evaluate, collect, export."""

import argparse
import tempfile
from pathlib import Path

from pipeline_lib.arguments import Verb, folder, mapping, path
from pipeline_lib.errors import InputError


def add_model_verbs(verb: Verb) -> None:
    """Add them; `verb(name, function, summary)` adds one."""
    added = verb("fit", _fit, "fit a model; a killed fit resumes when the same command is given again")
    _of_data(added)
    added.add_argument("--model", required=True, help="name of the model in the results")
    seeds = "default: 0; of several seeds the fits are trained as one, where the model can be"
    added.add_argument("--seed", type=int, default=[0], nargs="+", help=seeds)
    added.add_argument("--implementation", help="registered model or a Python file with MODEL; default: the name")
    mapping(added, "--settings", "hyper-parameters")
    added.add_argument("--code", default="", help="hash of the code; a fit of other code is not reused")
    folder(added, "--out", "folder to write; one for each seed", nargs="+")

    added = verb("copy", _copy, "publish a fit for further seeds, of a model in which nothing is random")
    folder(added, "--fit", "folder of the fit")
    added.add_argument("--seed", type=int, required=True, nargs="+", help="of each copy")
    folder(added, "--out", "folder to write; one for each seed", nargs="+")

    added = verb("predict", _predict, "predict further parts of a split with a finished fit")
    folder(added, "--fit", "folder of the fit")
    _of_data(added)
    added.add_argument("--parts", nargs="+", default=["train"], help="train, validation, test; default: train")
    added.add_argument("--implementation", help="the Python file of a user's own model")
    added.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    folder(added, "--out", "folder to write")

    added = verb("average", _average, "average the rates of a model's seeds: predictions that are scored like a fit's")
    folder(added, "--fit", "folders of the fits, or of their further predictions", nargs="+")
    folder(added, "--out", "folder to write")

    added = verb("search", _search, "search for hyper-parameters; a killed search goes on where it was")
    _of_data(added)
    path(added, "--search", "what to search (YAML, as in config/searches)")
    added.add_argument("--trial", type=int, nargs=2, metavar=("GENERATION", "MEMBER"), help="only this trial")
    added.add_argument("--jobs", type=int, default=1, help="fits at once; default: 1")
    path(added, "--out", "folder to write")

    added = verb("evaluate", _evaluate, "score the predictions of a cohort's fits")
    _of_data(added)
    folder(added, "--fit", "folders of the fits", nargs="+")
    folder(added, "--recordings", "folders of the cohort's recordings", nargs="+")
    added.add_argument(
        "--resamples", type=int, default=1000, help="bootstrap resamples behind the intervals; 0: none; default: 1000"
    )
    mapping(added, "--decoding", "what to decode, by name, as the config's `evaluation.decoding`")
    folder(
        added,
        "--train",
        "each fit's predictions of the training part (verb predict), for decoding",
        nargs="*",
        required=False,
        default=[],
    )
    added.add_argument("--few-shot", type=int, nargs="*", default=[], help="windows of few-shot readouts")
    path(added, "--out", "Parquet file to write")

    added = verb("collect", _collect, "put the tables of scores together")
    added.add_argument("tables", type=Path, nargs="*", help="default: those of the configuration's fits")
    mapping(added, "--config", "the configuration whose fits are meant")
    added.add_argument(
        "--results", type=Path, default=Path("results"), help="folder with the configuration's scores; default: results"
    )
    added.add_argument("--available", action="store_true", help="score what is left; where nothing is, an empty table")
    path(added, "--out", "Parquet file to write")

    added = verb("export", _export, "write a fit's predictions as a submission to a benchmark")
    added.add_argument("format", choices=("nlb", "brain_wide_bench"), help="whose files")
    path(added, "--fit", "folder of the fit")
    _of_data(added)
    added.add_argument("--train", type=Path, help="nlb: predictions of the training part (verb predict)")
    added.add_argument("--name", help="nlb: name of the dataset; default: the session's")
    added.add_argument("--seed", type=int, default=0, help="brain_wide_bench: seed of the fit; default: 0")
    path(added, "--out", "nlb: HDF5 file to write, or to add a dataset to; brain_wide_bench: folder")


def _of_data(added: argparse.ArgumentParser) -> None:
    folder(added, "--trains", "folders of the cohort's trains", nargs="+")
    path(added, "--split", "the cohort's split (Parquet)")


def _fit(options: argparse.Namespace) -> None:
    what = {
        "trains_dirs": options.trains,
        "split_path": options.split,
        "model_name": options.model,
        "implementation": options.implementation or options.model,
        "config": options.settings,
        "code": options.code,
    }
    if len(options.seed) == len(options.out) == 1:
        from pipeline_lib.training.fit import fit

        fit(seed=options.seed[0], out_dir=options.out[0], **what)
    else:
        from pipeline_lib.training.fit_ensemble import fit_ensemble

        fit_ensemble(seeds=options.seed, out_dirs=options.out, **what)


def _copy(options: argparse.Namespace) -> None:
    from pipeline_lib.training.copy import copy_fit

    copy_fit(options.fit, options.seed, options.out)


def _predict(options: argparse.Namespace) -> None:
    from pipeline_lib.training.predict import predict

    where = options.fit, options.trains, options.split, options.out
    predict(*where, options.parts, options.implementation, options.device)


def _average(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.average import average

    average(options.fit, options.out)


def _search(options: argparse.Namespace) -> None:
    from pipeline_lib.training.search import run_trial, search
    from pipeline_lib.training.search_settings import SearchSettings

    settings = SearchSettings.read(options.search)
    if options.trial is None:
        search(options.trains, options.split, settings, options.out, options.jobs)
    else:
        run_trial(options.trains, options.split, settings, options.out, *options.trial)


def _evaluate(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.evaluate import Scoring, evaluate
    from pipeline_lib.evaluation.settings import Target
    from pipeline_lib.parsing import parse

    decoding = parse(dict[str, Target], options.decoding, "--decoding")
    data = options.trains, options.split, options.recordings
    scoring = Scoring(*data, options.resamples, decoding, options.few_shot)
    evaluate(options.fit, scoring, options.out, options.train)


def _collect(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.evaluate import collect
    from pipeline_lib.leftover import available_scores
    from pipeline_lib.paths import Paths
    from pipeline_lib.plan import resolve

    with tempfile.TemporaryDirectory() as folder:
        tables = options.tables
        if options.config:
            # A thousand sessions have more tables than a command line can name.
            plan, paths = resolve(options.config, "--config"), Paths(str(options.results))
            tables = [Path(paths.scores(cohort)) for cohort in plan.scored]
            if options.available:
                tables = available_scores(plan, paths, Path(folder))
        if options.available:
            tables = [table for table in tables if table.exists()]
        elif not tables and not options.config:
            raise InputError("collect", "tables", "none", "tables of scores, or --config")
        collect(tables, options.out)


def _export(options: argparse.Namespace) -> None:
    from pipeline_lib.submission import brain_wide_bench, nlb

    if options.format == "nlb":
        nlb.write(options.fit, options.trains, options.split, options.out, options.train, options.name)
    else:
        brain_wide_bench.write(options.fit, options.trains, options.split, options.out, options.seed)
