"""Fit one model to one cohort from several seeds in one process, and publish each as the fit that it is."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.files import LOCK, exclusive
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.registry import check_config, load_model, model_names, model_source
from pipeline_lib.models.torch_model import PREDICTED, TorchModel
from pipeline_lib.training.code_id import code_id
from pipeline_lib.training.provenance import Stopwatch
from pipeline_lib.training.publication import device_of, identity, is_made, new_model, open_data, publish, whole_seed
from pipeline_lib.training.run import RESUME, FitError, Run
from pipeline_lib.trains.settings import MEMORY_BUDGET

if TYPE_CHECKING:
    from pipeline_lib.training.ensemble import Ensemble

MODULE = "pipeline_lib.training.fit_ensemble"
SEED = "seed"
"""Column of the common history that says whose a row is."""


def fit_ensemble(
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    model_name: str,
    implementation: str,
    config: dict[str, Any],
    seeds: Sequence[int],
    out_dirs: Sequence[Path | str],
    code: str = "",
    checkpoint_seconds: float = 60.0,
    memory_budget: int = MEMORY_BUDGET,
) -> None:
    """Fit a model from several seeds at once (see `ensemble`), and write for each what `fit` would.

    A fit that is there already is left as it is. A process that was killed goes on from its last checkpoint, in .resume
    of the first folder, and gives the bytes of an undisturbed one of the same seeds. A member equals the fit of its
    seed alone to float32 rounding, which training carries on, and not to the byte.

    Parameters
    ----------
    seeds : of the members.
    out_dirs : their folders.
    trains_dirs, split_path, model_name, implementation, config, code, checkpoint_seconds, memory_budget : as for `fit`.

    Raises
    ------
    InputError : as for `fit`; the model cannot be trained so, or a seed is given twice.
    FitError : some members failed; the others are published.
    Interrupted : the process was asked to end (SIGTERM); the training is checkpointed.
    """
    watch, settings = Stopwatch(), check_config(implementation, config)
    seeds = [whole_seed(seed) for seed in seeds]
    check_ensemble(implementation, "ensemble")
    folders = {seed: Path(folder) for seed, folder in zip(seeds, out_dirs, strict=False)}
    if not len(folders) == len(seeds) == len(out_dirs) > 0:
        raise InputError("ensemble", "seeds", list(seeds), f"each once, a folder for each ({len(out_dirs)} given)")
    code = code or code_id([MODULE, model_source(implementation)])
    made = {seed: identity(trains_dirs, split_path, implementation, settings, seed, code) for seed in seeds}
    data = open_data(trains_dirs, split_path, memory_budget)
    with contextlib.ExitStack() as held:
        for folder in sorted(folders.values()):
            held.enter_context(exclusive(folder / LOCK))
        missing = [seed for seed in seeds if not is_made(folders[seed], made[seed])]
        if missing:
            load_model(implementation).check_data(settings, FitData(data.trains, data.split, fitting=True))
            device = held.enter_context(device_of(load_model(implementation)))
            key = hashlib.sha256(json.dumps([made[seed]["key"] for seed in seeds]).encode()).hexdigest()
            labels = {"cohort": data.split.cohort, "model": model_name, "seed": ", ".join(map(str, missing))}
            run = Run(folders[seeds[0]], key, labels, checkpoint_seconds, device, memory_budget)
            with contextlib.closing(run), run.stopping():
                run.progress(0, None, np.nan)
                models, problems = _train(implementation, settings, missing, data, run)
                for seed in missing:
                    if seed not in problems:
                        own = _of_member(run, seed)
                        fitted = folders[seed], models[seed], implementation, data, own, made[seed], watch
                        publish(*fitted, seeds_together=len(models))
                    run.stop_if_asked()
            if problems:
                raise FitError("; ".join(problems.values()))
        for folder in folders.values():
            shutil.rmtree(folder / RESUME, ignore_errors=True)


def _of_member(run: Run, seed: int) -> Run:
    """The run as that of one member: with its seed, and its part of the history."""
    own = copy.copy(run)
    own.labels = run.labels | {SEED: seed}
    own.rows = [{name: row[name] for name in row if name != SEED} for row in run.rows if row[SEED] == seed]
    return own


def check_ensemble(implementation: str, where: str) -> None:
    """Refuse a model that cannot be trained from several seeds at once; InputError names `where` and those that can."""
    if not getattr(load_model(implementation), "ensembles", False):
        able = [name for name in model_names() if getattr(load_model(name), "ensembles", False)]
        raise InputError(where, "model", implementation, f"one whose seeds train together: {', '.join(able)}")


def _train(
    implementation: str, settings: Any, seeds: list[int], data: FitData, run: Run
) -> tuple[dict[int, TorchModel], dict[int, str]]:
    """Fitted models by seed, and what was wrong with those that failed.

    A training that was killed while its members were published goes on with all of them, so that bytes stay the same.
    """
    from pipeline_lib.training.ensemble import seeds_of

    state = run.resume()
    models: dict[int, TorchModel] = {}
    for seed in seeds if state is None else seeds_of(state):
        models[seed] = cast(TorchModel, new_model(implementation, settings, seed, run.device))
    ensemble = ensemble_of(list(models.values()), FitData(data.trains, data.split, fitting=True), run)
    ensemble.train()
    return models, {member.seed: member.problem for member in ensemble.members if member.problem}


def ensemble_of(models: Sequence[TorchModel], data: FitData, run: Run) -> Ensemble:
    """The training of models that differ by their seeds, about to start; they share the windows."""
    from pipeline_lib.training.batches import InOrder
    from pipeline_lib.training.ensemble import Ensemble
    from pipeline_lib.training.streaming import shuffled

    first = models[0]
    config, data = first.config, first.learned(data)
    windows, validation = (first.windows(data, part, run) for part in ("train", "validation"))
    for model in models:
        model.start(data, windows)
    batches = [shuffled(windows, config.batch, model.seed) for model in models]
    networks, seeds = [model.network for model in models], [model.seed for model in models]
    return Ensemble(networks, batches, InOrder(validation, PREDICTED), config, seeds, run)
