"""Verbs about models: fit, predict, search, evaluate, collect, export."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pipeline_lib.arguments import mapping, path

Verb = Callable[[str, Callable[[argparse.Namespace], int | None], str], argparse.ArgumentParser]


def add_model_verbs(verb: Verb) -> None:
    """Add them; `verb(name, function, summary)` adds one."""
    added = verb("fit", _fit, "fit a model; a killed fit resumes when the same command is given again")
    _of_fit(added)
    added.add_argument("--implementation", help="registered model or a Python file with MODEL; default: the name")
    mapping(added, "--settings", "hyper-parameters")
    added.add_argument("--code", default="", help="hash of the code; a fit of other code is not reused")
    path(added, "--out", "folder to write")

    added = verb("predict", _predict, "predict further parts of a split with a finished fit")
    path(added, "--fit", "folder of the fit")
    _of_data(added)
    added.add_argument("--parts", nargs="+", default=["train"], help="train, validation, test; default: train")
    added.add_argument("--implementation", help="the Python file of a user's own model")
    added.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    path(added, "--out", "folder to write")

    added = verb("search", _search, "search for hyper-parameters; a killed search goes on where it was")
    _of_data(added)
    path(added, "--search", "what to search (YAML, as in config/searches)")
    added.add_argument("--trial", type=int, nargs=2, metavar=("GENERATION", "MEMBER"), help="only this trial")
    added.add_argument("--jobs", type=int, default=1, help="fits at once; default: 1")
    path(added, "--out", "folder to write")

    added = verb("evaluate", _evaluate, "score a fit's predictions")
    _of_fit(added)
    path(added, "--fit", "folder of the fit")
    path(added, "--recordings", "folders of the cohort's recordings", nargs="+")
    added.add_argument("--cohort", required=True)
    added.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples behind the intervals")
    mapping(added, "--decoding", "what to decode, by name, as the config's `evaluation.decoding`")
    added.add_argument("--train", type=Path, help="predictions of the training part (verb predict), for decoding")
    added.add_argument("--few-shot", type=int, nargs="*", default=[], help="windows of few-shot readouts")
    path(added, "--out", "Parquet file to write")

    added = verb("collect", _collect, "put the tables of scores together")
    added.add_argument("tables", type=Path, nargs="+")
    path(added, "--out", "Parquet file to write")

    added = verb("export", _export, "write a fit's predictions as a submission to a benchmark")
    added.add_argument("format", choices=("nlb", "brain_wide_bench"))
    path(added, "--fit", "folder of the fit")
    _of_data(added)
    added.add_argument("--train", type=Path, help="nlb: predictions of the training part (verb predict)")
    added.add_argument("--name", help="nlb: name of the dataset; default: the session's")
    added.add_argument("--seed", type=int, default=0, help="brain_wide_bench: seed of the fit")
    path(added, "--out", "nlb: HDF5 file to write, or to add a dataset to; brain_wide_bench: folder")


def _of_data(added: argparse.ArgumentParser) -> None:
    path(added, "--trains", "folders of the cohort's trains", nargs="+")
    path(added, "--split", "the cohort's split (Parquet)")


def _of_fit(added: argparse.ArgumentParser) -> None:
    _of_data(added)
    added.add_argument("--model", required=True, help="name of the model in the results")
    added.add_argument("--seed", type=int, default=0)


def _fit(options: argparse.Namespace) -> None:
    from pipeline_lib.training.fit import fit

    fit(
        trains_dirs=options.trains,
        split_path=options.split,
        model_name=options.model,
        implementation=options.implementation or options.model,
        config=options.settings,
        seed=options.seed,
        out_dir=options.out,
        code=options.code,
    )


def _predict(options: argparse.Namespace) -> None:
    from pipeline_lib.training.predict import predict

    where = options.fit, options.trains, options.split, options.out
    predict(*where, options.parts, options.implementation, options.device)


def _search(options: argparse.Namespace) -> None:
    from pipeline_lib.training.search import SearchSettings, run_trial, search

    settings = SearchSettings.read(options.search)
    if options.trial is None:
        search(options.trains, options.split, settings, options.out, options.jobs)
    else:
        run_trial(options.trains, options.split, settings, options.out, *options.trial)


def _evaluate(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.evaluate import evaluate
    from pipeline_lib.evaluation.settings import Target
    from pipeline_lib.parsing import parse

    evaluate(
        fit_dir=options.fit,
        trains_dirs=options.trains,
        split_path=options.split,
        recording_dirs=options.recordings,
        out=options.out,
        cohort=options.cohort,
        model=options.model,
        seed=options.seed,
        resamples=options.resamples,
        decoding=parse(dict[str, Target], options.decoding, "--decoding"),
        few_shot=options.few_shot,
        train_dir=options.train,
    )


def _collect(options: argparse.Namespace) -> None:
    from pipeline_lib.evaluation.evaluate import collect

    collect(options.tables, options.out)


def _export(options: argparse.Namespace) -> None:
    from pipeline_lib.submission import brain_wide_bench, nlb

    if options.format == "nlb":
        nlb.write(options.fit, options.trains, options.split, options.out, options.train, options.name)
    else:
        brain_wide_bench.write(options.fit, options.trains, options.split, options.out, options.seed)
