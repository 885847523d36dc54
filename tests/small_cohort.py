"""A small session whose units share two latents, as a store and a split: what model and training tests fit to."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.files import sha256_tree, write_json
from pipeline_lib.models.contract import FitData
from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains, convert

UNITS = 12
TRIALS = 60
SECONDS = 1.0
PERIOD = 1.5
WINDOWS = WindowSettings(bin_size=20.0, after=SECONDS, history=0.1)
SPLITS = SplitSettings(fractions=(0.6, 0.2, 0.2), heldout_units=3, forward=0.1, seed=1)
Cohort = tuple[list[Path], Path]
"""Folders of the stores, and the path of the split."""


def recording(session: str = "small0", seed: int = 0, units: int = UNITS, trials: int = TRIALS) -> Recording:
    """Latents = a wave of the trial's condition + slow noise of the trial; log-linear Poisson units, 1-ms bins."""
    rng = np.random.default_rng(seed)
    conditions = rng.integers(3, size=trials)
    steps = int(PERIOD * 1000)
    time = np.arange(steps) / 1000
    noise = rng.standard_normal((trials, 2, 6))
    slow = np.stack([np.cos(2 * np.pi * k * time / 3 + k) for k in range(6)]) / 4
    wave = np.sin(2 * np.pi * time[None, :] + 2.1 * conditions[:, None])
    latents = np.einsum("rdk,kt->rdt", noise, slow)
    latents[:, 0] += wave
    loadings = rng.standard_normal((units, 2)) * 0.6
    rates = 15 * np.exp(np.einsum("ud,rdt->rut", loadings, latents))
    trial, unit, bins = np.nonzero(rng.random(rates.shape) < rates / 1000)
    times = np.round(trial * PERIOD + (bins + rng.random(len(bins))) / 1000, 5)
    order = np.lexsort((unit, times))
    start = np.arange(trials) * PERIOD
    return Recording(
        session=session,
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units=pd.DataFrame({"unit_id": [f"u{i}" for i in range(units)], "region": "A", "population": "A"}),
        trials=pd.DataFrame(
            {"start": start, "stop": start + SECONDS, "condition": [f"c{condition}" for condition in conditions]}
        ),
        duration=trials * PERIOD,
        observed=np.array([[0.0, trials * PERIOD]]),
        provenance=Provenance("simulated", session),
    )


def store(directory: Path, made: Recording) -> Path:
    """Write a recording and convert it; the folder of the store."""
    made.write(directory / "recordings" / made.session)
    trains = directory / "trains" / made.session
    convert(directory / "recordings" / made.session, trains)
    return trains


def write_cohort(
    directory: Path,
    windows: WindowSettings = WINDOWS,
    splits: SplitSettings = SPLITS,
    made: list[Recording] | None = None,
) -> tuple[list[Path], Path]:
    """Folders of the stores, and the path of the split; by default of one session, "small0"."""
    stores = [store(directory, each) for each in made or [recording()]]
    path = directory / "splits" / "cohort.parquet"
    make_split([Trains.open(each) for each in stores], windows, splits, "cohort").write(path)
    return stores, path


def write_fits(results: Path, models: Iterable[str], seeds: Iterable[int]) -> None:
    """Fill a results folder with the fits of one cohort, "small", a session of that name."""
    from pipeline_lib.training.fit import fit

    (trains,), split = write_cohort(results, made=[recording("small", trials=30)])
    shutil.move(split, results / "splits/small.parquet")
    for model in models:
        for seed in seeds:
            out = results / f"fits/small/{model}/seed{seed}"
            fit([trains], results / "splits/small.parquet", model, model, {}, seed, out)


def declare(folder: Path) -> None:
    """Let the manifest of a fit, or of further predictions, know the predictions that a test has put there."""
    told, made = json.loads((folder / "manifest.json").read_text()), sha256_tree(folder / "predictions.zarr")
    told["sha256"] = told["sha256"] | {"predictions.zarr": made} if isinstance(told["sha256"], dict) else made
    write_json(folder / "manifest.json", told)


def open_cohort(stores: list[Path], split: Path, fitting: bool = False) -> FitData:
    """What a model is given."""
    trains = [Trains.open(each) for each in stores]
    return FitData({each.session: each for each in trains}, Split.read(split), fitting)
