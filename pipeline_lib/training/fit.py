"""Fit one model to one cohort with one seed, and publish weights, history and predictions as one result."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.registry import check_config, load_model, model_source
from pipeline_lib.training import gpu, processes
from pipeline_lib.training.code_id import code_id
from pipeline_lib.training.predictions import write_predictions
from pipeline_lib.training.provenance import Stopwatch
from pipeline_lib.training.run import RESUME, Run, read_arrays, require_finite, write_arrays
from pipeline_lib.trains.sessions import Sessions
from pipeline_lib.trains.settings import MEMORY_BUDGET
from pipeline_lib.trains.splits import Split

FORMAT_VERSION = 1
MODULE = "pipeline_lib.training.fit"


def fit(
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    model_name: str,
    implementation: str,
    config: dict[str, Any],
    seed: int,
    out_dir: Path | str,
    code: str = "",
    checkpoint_seconds: float = 60.0,
    memory_budget: int = MEMORY_BUDGET,
) -> None:
    """Fit a model: model.safetensors, config.yaml, history.csv, run.json, predictions.zarr, tables/, manifest.json.

    One process at a time works in `out_dir`; others wait, and find the work done. A fit that was killed goes on from
    its last checkpoint in `out_dir`/.resume and gives the bytes of an undisturbed one. If `out_dir` already holds this
    fit (same settings, data, split, code and seed), nothing is done.

    Parameters
    ----------
    trains_dirs : folders of the cohort's spike-train stores, a session each.
    split_path : the cohort's split.
    model_name : name of the model in the results.
    implementation : registered model, or the path of a Python file with `MODEL`.
    config : hyper-parameters that differ from the model's defaults.
    seed : of everything random in the fit.
    out_dir : folder to write.
    code : hash of the code the fit depends on; default: `code_id` of this module and the model.
    checkpoint_seconds : the least time between two checkpoints.
    memory_budget : bytes of spikes, and as many of training windows, that may be in memory at once. A cohort that needs
        more is streamed from its stores, to the same bytes.

    Raises
    ------
    InputError : an unknown model or hyper-parameter, a session of the split without a store.
    FitError : weights or rates that are not finite; nothing is published.
    Interrupted : the process was asked to end (SIGTERM); the fit is checkpointed.
    """
    arguments = {name: _plain(value) for name, value in locals().items()}
    watch = Stopwatch()
    out_dir, split_path = Path(out_dir), Path(split_path)
    settings = check_config(implementation, config)
    identity = {
        "format_version": FORMAT_VERSION,
        "implementation": Path(implementation).stem,
        "config": json.loads(json.dumps(asdict(settings))),
        "seed": seed,
        "trains": _content_hashes(trains_dirs),
        "split": sha256_file(split_path),
        "code": code or code_id([MODULE, model_source(implementation)]),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    count = getattr(settings, "processes", 1)
    if processes.rank():
        _help(trains_dirs, split_path, implementation, settings, seed, out_dir, key, memory_budget)
        return
    if count > 1 and processes.rank() is None:
        if not _is_made(out_dir, key):
            processes.launch(count, arguments, load_model(implementation).uses_gpu)
        return
    with exclusive(out_dir / LOCK):
        if not _is_made(out_dir, key):
            data = _open(trains_dirs, split_path, memory_budget)
            labels = {"cohort": data.split.cohort, "model": model_name, "seed": seed}
            with _device(load_model(implementation)) as device:
                run = Run(out_dir, key, labels, checkpoint_seconds, device, memory_budget)
                with contextlib.closing(run), run.stopping():
                    model = _new(implementation, settings, seed, device)
                    run.progress(0, None, np.nan)
                    model.fit(FitData(data.trains, data.split, fitting=True), run)
                    _publish(out_dir, model, implementation, data, run, identity | {"key": key}, watch)
        shutil.rmtree(out_dir / RESUME, ignore_errors=True)


def _help(
    trains_dirs: Sequence[Path | str],
    split_path: Path,
    implementation: str,
    settings: Any,
    seed: int,
    out_dir: Path,
    key: str,
    memory_budget: int,
) -> None:
    """Take part in a fit that another process publishes."""
    data = _open(trains_dirs, split_path, memory_budget)
    with _device(load_model(implementation)) as device:
        run = processes.Helper(out_dir, key, device=device, memory_budget=memory_budget)
        _new(implementation, settings, seed, device).fit(FitData(data.trains, data.split, fitting=True), run)


def load_fit(fit_dir: Path | str, implementation: str | None = None, device: str = "cpu") -> Model:
    """The fitted model of a published fit, ready to predict.

    Parameters
    ----------
    fit_dir : folder that `fit` wrote.
    implementation : path of the Python file of a user's own model; default: the registered model that was fitted.
    device : where its tensors live.

    Raises
    ------
    InputError : not a published fit.
    """
    fit_dir = Path(fit_dir)
    manifest = _manifest(fit_dir)
    if manifest is None:
        raise InputError(fit_dir, "manifest.json", "no such file", "the folder of a finished fit")
    implementation = implementation or manifest["implementation"]
    model = _new(implementation, check_config(implementation, manifest["config"]), manifest["seed"], device)
    model.load_state(read_arrays(fit_dir / "model.safetensors")[0])
    return model


def _publish(
    out_dir: Path,
    model: Model,
    implementation: str,
    data: FitData,
    run: Run,
    identity: dict[str, Any],
    watch: Stopwatch,
) -> None:
    state = model.state()
    require_finite(state, f"model {run.labels['model']}")
    with whole_directory(out_dir) as writing:
        weights, predictions = writing / "model.safetensors", writing / "predictions.zarr"
        write_arrays(weights, state)
        # Predict with what was written, not with the model in memory: the weights are all that others will have.
        written = _new(implementation, model.config, model.seed, model.device)
        written.load_state(read_arrays(weights)[0])
        attributes = {
            "model": run.labels["model"],
            "seed": model.seed,
            "sees": model.sees,
            "bin_size": data.split.bin_size,
        }
        write_predictions(predictions, written, data, attributes, run)
        tables = written.tables(data)
        if tables:
            (writing / "tables").mkdir()
        for name, table in tables.items():
            table.to_parquet(writing / "tables" / f"{name}.parquet", index=False)
        (writing / "history.csv").write_text(run.history_csv())
        settings = yaml.safe_dump(identity["config"], sort_keys=False, default_flow_style=None, width=100)
        (writing / "config.yaml").write_text(settings)
        facts = watch.provenance(device=model.device, seed=model.seed, code=identity["code"])
        write_json(writing / "run.json", facts)
        hashes = {"model.safetensors": sha256_file(weights), "predictions.zarr": sha256_tree(predictions)}
        hashes |= {f"tables/{name}.parquet": sha256_file(writing / "tables" / f"{name}.parquet") for name in tables}
        manifest = identity | run.labels | {"sees": model.sees, "sha256": hashes}
        write_json(writing / "manifest.json", manifest)


def _new(implementation: str, settings: Any, seed: int, device: str) -> Model:
    model = load_model(implementation)(settings, seed)
    model.device = device
    return model


@contextlib.contextmanager
def _device(model: type[Model]) -> Iterator[str]:
    """The device of a fit: a GPU slot for a model that can use one, where torch can too."""
    if not model.uses_gpu:
        yield "cpu"
        return
    # Who started several processes has given each its GPU.
    with gpu.slot() if processes.rank() is None else contextlib.nullcontext("cuda") as device:
        if device == "cuda":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        yield device


def _open(trains_dirs: Sequence[Path | str], split_path: Path, memory_budget: int) -> FitData:
    trains = Sessions([Path(directory) for directory in trains_dirs], lambda opened: opened, memory_budget)
    split = Split.read(split_path)
    missing = sorted(set(split.samples["session"]) ^ set(trains))
    if missing:
        accepted = "the sessions of the split, each once"
        raise InputError(split_path, "sessions", f"{missing[0]} in only one of split and trains", accepted)
    return FitData(trains, split)


def _content_hashes(trains_dirs: Sequence[Path | str]) -> dict[str, str]:
    hashes = {}
    for directory in trains_dirs:
        manifest = _manifest(Path(directory))
        if manifest is None:
            raise InputError(directory, "manifest.json", "no such file", "the folder of a spike-train store")
        hashes[manifest["session"]] = manifest["content_hash"]
    return hashes


def _plain(argument: Any) -> Any:
    """An argument of `fit` as JSON can hold it."""
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return [_plain(each) for each in argument]
    return str(argument) if isinstance(argument, Path) else argument


def _is_made(out_dir: Path, key: str) -> bool:
    manifest = _manifest(out_dir)
    return manifest is not None and manifest.get("key") == key


def _manifest(directory: Path) -> dict[str, Any] | None:
    path = directory / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else None
