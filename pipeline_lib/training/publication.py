"""What a published fit consists of: weights, history, predictions, and a manifest that says what they were made of."""

import contextlib
import hashlib
import json
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsIndex

import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.files import listed, sha256_file, sha256_tree, whole_directory, write_json
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.registry import load_model
from pipeline_lib.published import MANIFEST, PREDICTIONS, WEIGHTS, read_manifest, require_manifest
from pipeline_lib.training import gpu, processes
from pipeline_lib.training.predictions import write_predictions
from pipeline_lib.training.provenance import Stopwatch
from pipeline_lib.training.run import Run, read_arrays, require_finite, write_arrays
from pipeline_lib.trains.sessions import Sessions
from pipeline_lib.trains.splits import Split

FORMAT_VERSION = 1
IDENTITY = ("format_version", "implementation", "config", "seed", "trains", "split", "code")
"""Keys of a manifest that say what the fit depends on."""
TABLES = "tables"
"""Folder of what only some models write."""
KEPT = ".made.json"
"""The manifest once more: Snakemake takes it away before it asks for a fit, be it for the very fit that is there."""


def whole_seed(seed: SupportsIndex) -> int:
    """A seed as an int, numpy's whole numbers too. InputError for anything else, and below 0: no generator takes it."""
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if whole < 0:
        raise InputError("fit", "seed", seed, "a whole number from 0 on")
    return whole


def identity(
    trains_dirs: Sequence[Path | str], split_path: Path | str, implementation: str, settings: Any, seed: int, code: str
) -> dict[str, Any]:
    """Everything that a fit depends on, and its hash as "key"; of weights it starts from (`initial`) the content.

    Raises
    ------
    InputError : a folder that is no store.
    """
    made = {
        "format_version": FORMAT_VERSION,
        "implementation": Path(implementation).stem,
        "config": json.loads(json.dumps(asdict(settings))),
        "seed": seed,
        "trains": content_hashes(trains_dirs),
        "split": sha256_file(split_path),
        "code": code,
    }
    initial = getattr(settings, "initial", None)
    if initial is not None and Path(initial).is_file():
        made["initial"] = sha256_file(initial)
    return made | {"key": key_of(made)}


def key_of(made: dict[str, Any]) -> str:
    """Hash of what a fit depends on: everything in `made`, but for the place of weights whose content is known."""
    if "initial" in made:
        made = made | {"config": made["config"] | {"initial": None}}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def is_made(out_dir: Path, made: dict[str, Any]) -> bool:
    """Whether the folder holds the fit of this identity; its manifest is put back if it was taken away."""
    manifest = read_manifest(out_dir)
    if manifest is None:
        return _put_back(out_dir, made["key"])
    return bool(manifest.get("key") == made["key"])


def _put_back(out_dir: Path, key: str) -> bool:
    """Restore the manifest of the fit `key`, if every file is still what it says; whether that is so."""
    try:
        kept = read_manifest(out_dir, KEPT)
    except InputError:  # damaged
        return False
    if kept is None or kept.get("key") != key or not isinstance(kept.get("sha256"), dict):
        return False
    for name, digest in kept["sha256"].items():
        path = out_dir / name
        if not path.exists() or (sha256_tree if path.is_dir() else sha256_file)(path) != digest:
            return False
    write_json(out_dir / MANIFEST, kept)
    print(f"{out_dir} holds this very fit: nothing to do (remove the folder to have it made anew)", file=sys.stderr)
    return True


def publish(
    out_dir: Path,
    model: Model,
    implementation: str,
    data: FitData,
    run: Run,
    made: dict[str, Any],
    watch: Stopwatch,
    **facts: Any,
) -> None:
    """Write the files of a fit, whole or not at all; further `facts` go to run.json.

    Raises
    ------
    FitError : weights or rates that are not finite.
    """
    state = model.state()
    require_finite(state, f"model {run.labels['model']}")
    with whole_directory(out_dir, optional=[TABLES, KEPT]) as writing:
        weights, predictions = writing / WEIGHTS, writing / PREDICTIONS
        write_arrays(weights, state)
        # Predict with what was written, not with the model in memory: the weights are all that others will have.
        written = new_model(implementation, model.config, model.seed, model.device)
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
            (writing / TABLES).mkdir()
        for name, table in tables.items():
            table.to_parquet(writing / TABLES / f"{name}.parquet", index=False)
        (writing / "history.csv").write_text(run.history_csv())
        settings = yaml.safe_dump(made["config"], sort_keys=False, default_flow_style=None, width=100)
        (writing / "config.yaml").write_text(settings)
        facts |= gpu_facts(model.device) | run.gpu_use.facts()
        told = watch.provenance(device=model.device, seed=model.seed, code=made["code"], **facts)
        write_json(writing / "run.json", told)
        hashes = {WEIGHTS: sha256_file(weights), PREDICTIONS: sha256_tree(predictions)}
        hashes |= {f"{TABLES}/{name}.parquet": sha256_file(writing / TABLES / f"{name}.parquet") for name in tables}
        manifest = made | run.labels | {"sees": model.sees, "sha256": hashes}
        write_json(writing / MANIFEST, manifest)
    try:
        write_json(out_dir / KEPT, manifest)
    except OSError as error:  # the fit is whole without it
        problem = f"{out_dir / KEPT} was not written: {error.strerror}"
        print(f"{problem}; the fit is whole, but asked for once more it is made again", file=sys.stderr)


def new_model(implementation: str, settings: Any, seed: int, device: str) -> Model:
    """A model to be fitted or loaded."""
    model = load_model(implementation)(settings, seed)
    model.device = device
    return model


@contextlib.contextmanager
def device_of(model: type[Model]) -> Iterator[str]:
    """The device of a fit: a GPU slot for a model that can use one, where torch can too."""
    if not model.uses_gpu:
        yield "cpu"
        return
    # Who started several processes shows each its GPU, or says which of those that all see is its own.
    with gpu.slot() if processes.rank() is None else contextlib.nullcontext("cuda") as device:
        if device == "cuda":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
            if device == "cpu" and processes.rank() is None:
                told = "there is a GPU, but torch cannot use it: a build for CPUs, or a driver that does not fit"
                print(f"{told}; fitting on the CPU", file=sys.stderr, flush=True)
            if device == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) if processes.rank() is not None else 0)
                torch.cuda.reset_peak_memory_stats()
        yield device


def gpu_facts(device: str) -> dict[str, Any]:
    """Name of the GPU that a fit was made on and the memory that its tensors took at most; nothing for a CPU."""
    if device != "cuda":
        return {}
    import torch

    peak = torch.cuda.max_memory_allocated() / 1e6
    return {"gpu_name": torch.cuda.get_device_name(), "gpu_peak_memory_mb": round(peak, 1)}


def open_data(trains_dirs: Sequence[Path | str], split_path: Path | str, memory_budget: int) -> FitData:
    """What a fit may read.

    Raises
    ------
    InputError : a session is in only one of the split and the stores.
    """
    trains = Sessions(listed(trains_dirs), lambda opened: opened, memory_budget)
    split = Split.read(split_path)
    missing = sorted(set(split.samples["session"]) ^ set(trains))
    if missing:
        accepted = "the sessions of the split, each once"
        raise InputError(split_path, "sessions", f"{missing[0]} in only one of split and trains", accepted)
    return FitData(trains, split)


def content_hashes(trains_dirs: Sequence[Path | str]) -> dict[str, str]:
    """Hash of the content of each session's store, by session; InputError for a folder that is no store."""
    hashes = {}
    for directory in listed(trains_dirs):
        manifest = require_manifest(directory, "a spike-train store")
        hashes[manifest["session"]] = manifest["content_hash"]
    return hashes
