"""Fit one model to one cohort with one seed, and publish weights, history and predictions as one result."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.files import LOCK, exclusive
from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.registry import check_config, load_model, model_source
from pipeline_lib.published import WEIGHTS, require_manifest, require_undamaged
from pipeline_lib.training import processes
from pipeline_lib.training.code_id import code_id
from pipeline_lib.training.provenance import Stopwatch
from pipeline_lib.training.publication import (
    device_of,
    identity,
    is_made,
    new_model,
    open_data,
    publish,
    whole_seed,
)
from pipeline_lib.training.run import RESUME, Run, read_arrays
from pipeline_lib.trains.settings import MEMORY_BUDGET

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
    fit (same settings, data, split, code and seed), nothing is done, also where Snakemake took its manifest away.

    Parameters
    ----------
    trains_dirs : folders of the cohort's spike-train stores, a session each; of one session, its folder.
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
    InputError : an unknown model or hyper-parameter, a seed that is no whole number from 0 on, a session of the split
        without a store.
    FitError : weights or rates that are not finite; nothing is published.
    Interrupted : the process was asked to end (SIGTERM); the fit is checkpointed.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains, convert
    >>> simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo").write("recordings/demo")
    >>> convert("recordings/demo", "trains/demo")
    >>> split = make_split([Trains.open("trains/demo")], WindowSettings(bin_size=20), SplitSettings(), "demo")
    >>> split.write("demo.parquet")
    >>> fit(["trains/demo"], "demo.parquet", "psth", "psth", {}, seed=0, out_dir="fits/demo/psth/seed0")
    >>> load_fit("fits/demo/psth/seed0").sees
    "the trial's condition"
    """
    seed = whole_seed(seed)
    arguments = {name: _plain(value) for name, value in locals().items()}
    watch = Stopwatch()
    out_dir = Path(out_dir)
    settings = check_config(implementation, config)
    code = code or code_id([MODULE, model_source(implementation)])
    made = identity(trains_dirs, split_path, implementation, settings, seed, code)
    data = open_data(trains_dirs, split_path, memory_budget)
    count = getattr(settings, "processes", 1)
    if processes.rank():
        if not is_made(out_dir, made):
            _help(data, implementation, settings, seed, out_dir, made["key"], memory_budget)
        return
    if count > 1 and processes.rank() is None:
        # Wait here for another fit of this folder: processes would hold GPUs meanwhile, and give each other up.
        with exclusive(out_dir / LOCK):
            done = is_made(out_dir, made)
        if not done:
            processes.launch(count, arguments, load_model(implementation).uses_gpu)
        return
    with exclusive(out_dir / LOCK):
        if not is_made(out_dir, made):
            labels = {"cohort": data.split.cohort, "model": model_name, "seed": seed}
            load_model(implementation).check_data(settings, FitData(data.trains, data.split, fitting=True))
            with device_of(load_model(implementation)) as device:
                run = Run(out_dir, made["key"], labels, checkpoint_seconds, device, memory_budget)
                with contextlib.closing(run), run.stopping():
                    model = new_model(implementation, settings, seed, device)
                    run.progress(0, None, np.nan)
                    model.fit(FitData(data.trains, data.split, fitting=True), run)
                    publish(out_dir, model, implementation, data, run, made, watch)
        shutil.rmtree(out_dir / RESUME, ignore_errors=True)


def _help(
    data: FitData, implementation: str, settings: Any, seed: int, out_dir: Path, key: str, memory_budget: int
) -> None:
    """Take part in a fit that another process publishes."""
    with device_of(load_model(implementation)) as device:
        run = processes.Helper(out_dir, key, device=device, memory_budget=memory_budget)
        new_model(implementation, settings, seed, device).fit(FitData(data.trains, data.split, fitting=True), run)


def _plain(argument: Any) -> Any:
    """An argument of `fit` as JSON can hold it."""
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return [_plain(each) for each in argument]
    return str(argument) if isinstance(argument, Path) else argument


def load_fit(fit_dir: Path | str, implementation: str | None = None, device: str = "cpu") -> Model:
    """The fitted model of a published fit, ready to predict.

    Parameters
    ----------
    fit_dir : folder that `fit` wrote.
    implementation : path of the Python file of a user's own model; default: the registered model that was fitted.
    device : where its tensors live.

    Raises
    ------
    InputError : not a published fit, or one that is damaged.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains, convert
    >>> simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="other").write("recordings/other")
    >>> convert("recordings/other", "trains/other")
    >>> split = make_split([Trains.open("trains/other")], WindowSettings(bin_size=20), SplitSettings(), "other")
    >>> split.write("other.parquet")
    >>> fit(["trains/other"], "other.parquet", "mean_rate", "mean_rate", {}, seed=0, out_dir="fits/other")
    >>> sorted(load_fit("fits/other").state())
    ['other/rates']
    """
    fit_dir = Path(fit_dir)
    manifest = require_manifest(fit_dir, "a finished fit")
    require_undamaged(fit_dir, WEIGHTS)
    implementation = implementation or manifest["implementation"]
    model = new_model(implementation, check_config(implementation, manifest["config"]), manifest["seed"], device)
    model.load_state(read_arrays(fit_dir / WEIGHTS)[0])
    return model
