"""Memory of a fit to many sessions at once, more than the memory budget holds: peak of its process.

    python -m benchmarks cohort
    python benchmarks/cohort.py --sessions 20 --minutes 5

Sessions of Poisson units, cut into back-to-back windows of a second; `--budget` MB of spikes, and as many of training
windows, may be resident. The same fit of a tenth of the sessions, and that of all sessions without a budget, tell what
the budget bounds. The weights of the latter must be those of the bounded one, byte for byte.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch

import numpy as np
import pandas as pd

from pipeline_lib.files import sha256_file
from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.training.fit import fit
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, convert

MODELS = {
    "ndt": {"steps": 100, "evaluate_every": 50, "layers": 1, "heads": 1, "hidden": 16, "read_in": 16},
    "lfads": {"steps": 100, "evaluate_every": 50, "initial_encoder": 16, "generator": 16, "factors": 8, "read_in": 16},
}
RATE = 10.0
"""Spikes a second of a unit."""
NO_BUDGET = 2**40


def write_session(folder: Path, number: int, units: int, minutes: float) -> Path:
    """A session of independent Poisson units as a store."""
    rng, name, seconds = np.random.default_rng(number), f"session{number:03d}", 60 * minutes
    count = rng.poisson(units * RATE * seconds)
    times, unit = np.sort(rng.uniform(0, seconds, count)).round(5), rng.integers(units, size=count, dtype=np.int32)
    order = np.lexsort((unit, times))
    Recording(
        session=name,
        spike_times=times[order],
        spike_units=unit[order],
        units=pd.DataFrame({"unit_id": [f"u{i}" for i in range(units)], "region": "A", "population": "A"}),
        trials=pd.DataFrame({"start": [], "stop": [], "condition": []}).astype({"condition": str}),
        duration=seconds,
        observed=np.array([[0.0, seconds]]),
        provenance=Provenance("simulated", name),
    ).write(folder / "recording" / name)
    convert(folder / "recording" / name, folder / "trains" / name)
    return folder / "trains" / name


def one_fit(folder: Path, sessions: int, model: str, budget: int) -> None:
    """Fit in this process; say CPU-seconds and the peak of memory, and where the weights are."""
    stores = sorted((folder / "trains").iterdir())[:sessions]
    out = folder / f"{model}_{sessions}_{budget}"
    begun = time.process_time()
    fit(stores, folder / f"split{sessions}.parquet", model, model, MODELS[model], 0, out, memory_budget=budget)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = time.process_time() - begun
    print(json.dumps({"cpu": spent, "peak": peak / 1024, "weights": sha256_file(out / "model.safetensors")}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--budget", type=int, default=32, help="MB; default: 32")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.fit:
        folder, sessions, model, budget = asked.fit
        one_fit(Path(folder), int(sessions), model, int(budget))
        return
    with tempfile.TemporaryDirectory() as place:
        folder, few = Path(place), max(asked.sessions // 10, 1)
        stores = [write_session(folder, number, asked.units, asked.minutes) for number in range(asked.sessions)]
        trains = [Trains.open(store) for store in stores]
        spikes = sum(len(each.ticks) for each in trains)
        windows = WindowSettings(bin_size=20.0, mode="continuous", length=1.0)
        for count in (few, asked.sessions):
            make_split(trains[:count], windows, SplitSettings(), "cohort").write(folder / f"split{count}.parquet")
        print(f"{asked.sessions} sessions of {asked.units} units, {asked.minutes:g} min: {spikes / 1e6:.1f} M spikes\n")
        print("| model | sessions | budget | peak MB | CPU s |\n|---|---|---|---|---|")
        weights = {}
        for model in asked.models:
            for count, budget in ((few, asked.budget), (asked.sessions, asked.budget), (asked.sessions, None)):
                amount = NO_BUDGET if budget is None else budget * 2**20
                command = [sys.executable, __file__, "--fit", str(folder), str(count), model, str(amount)]
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                weights[model, count, budget] = said["weights"]
                limit = "none" if budget is None else f"{budget} MB"
                print(f"| {model} | {count} | {limit} | {said['peak']:.0f} | {said['cpu']:.0f} |", flush=True)
    same = all(
        len({weights[model, asked.sessions, budget] for budget in (asked.budget, None)}) == 1 for model in asked.models
    )
    print(f"\nWeights with and without a budget: {'the same bytes' if same else 'DIFFERENT'}.")


if __name__ == "__main__":
    main()
