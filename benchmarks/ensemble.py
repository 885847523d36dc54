"""Fits an hour of one device: a model from many seeds, one fit after the other or as one vectorised process.

    python benchmarks/ensemble.py                      the NDT, 8 and 32 seeds, on a GPU where there is one
    python benchmarks/ensemble.py --model lfads
    python benchmarks/ensemble.py --members 4 --steps 50 --device cpu
    python benchmarks/ensemble.py --device cpu --settings '{layers: 1, hidden: 16, read_in: 8, batch: 8}'

Whole fits of the Lorenz-like set (`benchmarks/ndt.py`) by the default settings or others, with evaluations, checkpoints
and predictions, without the start of the process. A fit has `--steps` steps and no early end, so that all do the same.
Before them what the host does for a recorded step, which a CPU can tell, too.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks._timing import Unlaunched
from pipeline_lib.arguments import read_mapping
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.registry import check_config, load_model
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training import gpu
from pipeline_lib.training.fit import fit
from pipeline_lib.training.fit_ensemble import ensemble_of, fit_ensemble
from pipeline_lib.training.publication import open_data
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import MEMORY_BUDGET, SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, convert

RECORDED = {"cuda_graphs": True}
"""Steps as CUDA graphs."""


def lorenz(folder: Path, seconds: float = 1.0) -> tuple[list[Path], Path]:
    """Store and split of the Lorenz-like set, windows of so many seconds: 20 of 24 repeats train, 4 validate."""
    simulate("lorenz", {}, seed=0, session="lorenz").write(folder / "recording")
    convert(folder / "recording", folder / "trains")
    split = SplitSettings(fractions=(20 / 24, 4 / 24, 0.0))
    windows = WindowSettings(bin_size=20.0, after=seconds)
    make_split([Trains.open(folder / "trains")], windows, split, "lorenz").write(folder / "split.parquet")
    return [folder / "trains"], folder / "split.parquet"


def host_times(model: str, members: list[int], settings: dict[str, Any], device: str, folder: Path) -> None:
    """Print the CPU-time of a recorded step beside its graph: of all of it, and of what a GPU waits for.

    Batches are of 2 windows of 4 bins, so that values of tensors take no time. `device` is that of the fits behind:
    accelerate keeps to one in a process.
    """
    data = open_data(*lorenz(folder, 0.08), MEMORY_BUDGET)
    data, config = FitData(data.trains, data.split, fitting=True), check_config(model, settings | {"batch": 2})
    print("| a recorded step on this host, its graph left out | us | of it a GPU waits for |\n|---|---|---|")
    for count in members:
        models = [load_model(model)(config, seed) for seed in range(count)]
        for each in models:
            each.device = device
        made = ensemble_of(models, data, Run(folder / str(count), device=device))
        made.recorded, made.recordings = True, Unlaunched(2, count)
        spent, meanwhile = made.recordings.host_time(made._step)
        print(f"| {count} as one | {spent:.0f} | {spent - meanwhile:.0f} |", flush=True)
    print()


def measure(
    data: tuple[list[Path], Path], model: str, members: list[int], settings: dict[str, Any], on_gpu: bool, folder: Path
) -> None:
    """Print seconds and fits an hour; CPU-seconds on a CPU, which other processes may share."""
    clock = time.perf_counter if on_gpu else time.process_time
    fit(*data, model, model, settings | {"steps": 10}, 0, folder / "warm")
    first = 0.0
    print("| how | seconds | fits an hour | to one by one |\n|---|---|---|---|")
    for name, changes in {"": {}, ", recorded": RECORDED}.items() if on_gpu else {"": {}}.items():
        for count in (1, *members):
            folders = [folder / f"{count}{name}" / f"seed{seed}" for seed in range(count)]
            start = clock()
            if count == 1:
                fit(*data, model, model, settings | changes, 0, folders[0])
            else:
                fit_ensemble(*data, model, model, settings | changes, range(count), folders)
            spent = clock() - start
            rate = 3600 * count / spent
            first = first or rate
            how = "one by one" if count == 1 else f"{count} as one"
            print(f"| {how}{name} | {spent:.1f} | {rate:.0f} | {rate / first:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("ndt", "lfads"), default="ndt")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--members", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--settings", type=read_mapping, default={}, metavar="MAPPING", help="of the model")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available() and asked.device != "cpu"
    if not on_gpu:
        os.environ[gpu.VISIBLE] = ""
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if on_gpu else 'CPU, a thread'}\n", flush=True)
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(KeyboardInterrupt):
        settings = {"steps": asked.steps, "patience": None} | asked.settings
        host_times(asked.model, asked.members, settings, "cuda" if on_gpu else "cpu", Path(place) / "host")
        measure(lorenz(Path(place)), asked.model, asked.members, settings, on_gpu, Path(place))
