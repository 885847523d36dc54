"""LFADS: time of a training step beside a plain loop, and how fast it learns a Lorenz set.

    python benchmarks/lfads.py                     step times, also of a GPU where there is one
    python benchmarks/lfads.py --lorenz 1500       and scores against CPU-seconds of a training of so many steps

The plain loop has the same equations written bin by bin in torch (`tests/models/lfads/plain.py`), differentiated by
autograd, with torch's Adam: how the public implementations work. lfads-torch (commit 6f58d24) itself, measured on
another day on a quiet thread of an AMD EPYC, took 1.24 CPU-s a step without a controller and 2.15 with one at 140 bins,
180 units and 256 windows; on its Lorenz set (`specs/lfads.md`, section 6: not this one, of similar size and rate) it
first reached rate R2 .90 at 261 and .93 at 341 CPU-s. One thread, CPU-seconds, median of several steps that take turns;
"products" are of 512 x 512 matrices in the same rounds, 88 GFLOP/s at best on the EPYC.
"""

import argparse
import dataclasses
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the plain loop, among the tests

import numpy as np
import torch

from benchmarks._timing import Curve, change_device, timed_in_turns
from pipeline_lib.evaluation.metrics import bits_per_spike
from pipeline_lib.evaluation.sums import poisson_sums
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.network import LFADS as Network
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.memory import keep_freed_memory
from pipeline_lib.training.run import Run
from pipeline_lib.training.steps import Steps
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, convert
from tests.models.lfads.plain import PlainLFADS

WIDE = Config(
    batch=256, initial_encoder=100, initial_conditions=100, generator=100, factors=40, input_encoder=80, controller=80
)
CASES = {
    "140 bins x 180 units, batch 256": (140, 180, WIDE, 1.24),
    "the same with a controller": (140, 180, dataclasses.replace(WIDE, inferred_inputs=4), 2.15),
    "80 bins x 40 units, batch 100": (80, 40, Config(), None),
}
"""Bins, units, settings, and the published CPU-seconds of lfads-torch."""
SET = {"conditions": 1000, "repeats": 1, "units": 40, "bins": 80, "bin_size": 10.0, "base_rate": 10.2, "loading": 0.446}
"""800 + 200 trials, each from a point of its own; 13.5 Hz."""


def products() -> None:
    """Four products of 2.1 GFLOP each: what they take tells how busy the machine is."""
    left, right = torch.ones(4096, 512), torch.ones(512, 512)
    for _ in range(4):
        torch.mm(left, right)


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


class Same(Batches):
    """One batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __getitem__(self, number: int) -> Batch:
        return self.batch


def steps(bins: int, units: int, config: Config, device: str) -> dict[str, Callable[[], object]]:
    """A training step of the plain loop, and by precision (on a GPU also recorded as a CUDA graph) as the engine makes
    ours."""
    config = dataclasses.replace(config, learning_rate=1e-4, average=0.0)
    layout = Layout(5.0, bins, 0, 0, 6, {"s": units}, {"s": list(range(units))}, {"s": ["a"] * units})
    counts = torch.poisson(torch.full((config.batch, bins, units), 0.05)).to(torch.uint8).to(device)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, ones, ones, torch.full((config.batch,), bins, device=device), 0, ragged=False)

    def build() -> Network:
        network = LFADS(config, 0).build(layout).to(device)
        with torch.no_grad():
            network.head("s").read_out.bias.fill_(-3.0)
        return network

    def ours(settings: dict[str, Any]) -> Callable[[], object]:
        run = Run(Path(tempfile.mkdtemp()), device=device)
        made = Steps(build(), Same(batch), dataclasses.replace(config, **settings), 0, run)
        return partial(made.make, Progress(step=1000))

    network = build()
    plain, adam = PlainLFADS(network), torch.optim.AdamW(network.parameters(), lr=1e-4)

    def loop() -> None:
        plain.loss(counts).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 200.0)
        adam.step()
        adam.zero_grad()

    kinds: dict[str, dict[str, Any]] = {"float32": {}} | (
        {"bfloat16": {"precision": "bfloat16"}} if device != "cpu" or has_bfloat16() else {}
    )
    if device != "cpu":
        kinds |= {f"{name}, graph": each | {"cuda_graphs": True} for name, each in kinds.items()}
    return {"plain loop": loop} | {name: ours(settings) for name, settings in kinds.items()}


def step_times(repeats: int, device: str, asked: str) -> None:
    """Print a table of step times."""
    print(
        "| size | plain loop | ours | precision | to plain | lfads-torch, one CPU thread, another day | to it |", end=""
    )
    print(" products |\n|---|---|---|---|---|---|---|---|")
    for name, (bins, units, config, published) in CASES.items():
        if asked not in name:
            continue
        turns = steps(bins, units, config, device) | ({"products": products} if device == "cpu" else {})
        times = timed_in_turns(turns, repeats, device)
        plain, load = times.pop("plain loop"), times.pop("products", None)
        speed = f"{4 * 2 * 4096 * 512 * 512 / load / 1e9:.0f} GFLOP/s" if load else "-"
        for precision, spent in times.items():
            other = f"{published:.2f} s | {published / spent:.2f} x" if published else "- | -"
            both = f"{1e3 * plain:.1f} ms | {1e3 * spent:.1f} ms"
            print(f"| {name} | {both} | {precision} | {plain / spent:.2f} x | {other} | {speed} |", flush=True)


def lorenz_set(folder: Path) -> tuple[FitData, np.ndarray]:
    """The Lorenz set (800 trials train, 200 validate) and true rates, spikes a bin, of every trial."""
    recording = simulate("lorenz", SET, seed=0, session="lorenz")
    recording.write(folder / "recording")
    convert(folder / "recording", folder / "trains")
    trains = Trains.open(folder / "trains")
    splits = SplitSettings(scheme="trials", fractions=(0.8, 0.2, 0.0))
    split = make_split([trains], WindowSettings(bin_size=10.0, after=0.8), splits, "lorenz")
    return FitData({"lorenz": trains}, split), recording.truth.arrays["rates"] * 0.01


def scores(rates: np.ndarray, data: FitData, truth: np.ndarray) -> tuple[float, float]:
    """Rate R2 (mean over units) and bits a spike of rates of the validation trials."""
    samples = data.samples("lorenz", "validation")
    true = truth[samples["trial"].to_numpy()].reshape(-1, truth.shape[2])
    error, spread = ((true - rates.reshape(true.shape)) ** 2).sum(0), ((true - true.mean(0)) ** 2).sum(0)
    bits = bits_per_spike(poisson_sums(data.counts("lorenz", samples), rates).total())
    return float(np.mean(1 - error / spread)), float(bits[0])


def learn_lorenz(count: int, seed: int, every: float) -> None:
    """Print scores against CPU-seconds of one training of `count` steps."""
    with tempfile.TemporaryDirectory() as folder:
        data, truth = lorenz_set(Path(folder))
        samples = data.samples("lorenz", "validation")
        _, oracle = scores(truth[samples["trial"].to_numpy()], data, truth)
        model = LFADS(Config(steps=count, evaluate_every=150), seed)

        def now() -> str:
            r2, bits = scores(model.predict(data, "lorenz", samples), data, truth)
            return f"{r2:.3f} | {bits:.4f}"

        print(f"\nseed {seed}, {count} steps; the true rates score {oracle:.4f} bits a spike")
        print("| CPU-s | rate R2 | bits a spike |\n|---|---|---|")
        run = Curve(Path(folder) / "run", now, every)
        model.fit(dataclasses.replace(data, fitting=True), run)
        print(f"| {run.spent:.0f}, best weights | {now()} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="steps timed (default 7)")
    parser.add_argument("--size", default="", help="only sizes whose name has this in it")
    parser.add_argument(
        "--lorenz", type=int, default=0, metavar="STEPS", help="also learn the Lorenz set (1500: 150 s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=20.0, help="CPU-s between points of the curve")
    parser.add_argument("--gpu", action="store_true", help="step times of the GPU alone")
    parser.add_argument("--no-steps", action="store_true", help="leave the step times out")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n")
    if not asked.no_steps and not asked.gpu:
        step_times(asked.repeats, "cpu", asked.size)
    if not asked.no_steps and torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}, wall time\n")
        change_device()
        step_times(asked.repeats, "cuda", asked.size)
    if asked.lorenz:
        change_device()
        learn_lorenz(asked.lorenz, asked.seed, asked.every)
