"""The NDT: time of a training step beside a plain implementation, and how fast it learns the Lorenz set.

    python benchmarks/ndt.py                     step times, latency of a single trial; on a GPU where there is one
    python benchmarks/ndt.py --device cpu        on one thread of the CPU
    python benchmarks/ndt.py --profile --no-steps --size MC_Maze --way "bfloat16, compiled, graph"   its kernels
    python benchmarks/ndt.py --lorenz 150        and rate R2 against CPU-seconds, a budget of about so many

The plain network (`tests/models/ndt/plain.py`) is built of torch's own layers from the description of the public code,
with its attention weights, its dropout and torch's AdamW. The public code itself took 1.02 s a step at MC_Maze size
and 0.138 s at Lorenz size on one thread of an AMD EPYC, and reached R2 .837 at 296 CPU-s on the Lorenz set.
Median of several steps that take turns: CPU-seconds of one thread, or with a GPU seconds on the clock.
"""

import argparse
import dataclasses
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the plain network, among the tests

import numpy as np
import torch

from benchmarks._timing import Curve, Unlaunched, change_device, kernel_times, timed_in_turns
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.batches import Batch, Batches
from pipeline_lib.training.checkpoint import Progress
from pipeline_lib.training.graphs import Recordings
from pipeline_lib.training.memory import keep_freed_memory
from pipeline_lib.training.run import Run
from pipeline_lib.training.steps import Steps
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, convert
from tests.models.ndt.plain import PlainNDT

BATCH = 64
SIZES = {
    "Lorenz, 29 units x 50 bins": {"units": 29, "bins": 50, "embedding": 2, "layers": 6, "rate": 0.14},
    "chaotic, 50 units x 100 bins": {"units": 50, "bins": 100, "embedding": 2, "layers": 6, "rate": 0.14},
    "MC_Maze, 182 units x 140 bins": {"units": 182, "bins": 140, "embedding": 0, "layers": 4, "rate": 0.02},
}
LORENZ = Config(evaluate_every=200, patience=None)
ON_CPU = {"float32": {}, "bfloat16": {"precision": "bfloat16"}}
ON_GPU = {
    "float32": {},
    "float32, graph": {"cuda_graphs": True},
    "float32, compiled": {"compile": True},
    "TF32, graph": {"cuda_graphs": True},
    "TF32, compiled, graph": {"compile": True, "cuda_graphs": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, graph": {"precision": "bfloat16", "cuda_graphs": True},
    "bfloat16, compiled, graph": {"precision": "bfloat16", "compile": True, "cuda_graphs": True},
}


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def plain_step(
    device: str, units: int, bins: int, embedding: int, layers: int, rate: float
) -> tuple[Callable, Callable]:
    """A training step and the inference of one trial of the plain network."""
    network = PlainNDT(units, bins, embedding, layers=layers).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    counts = torch.poisson(torch.full((BATCH, bins, units), rate)).long().to(device)

    def step() -> None:
        masked = torch.bernoulli(torch.full((BATCH, bins), 0.25, device=device)).bool()
        masked = masked[:, :, None].expand(counts.shape)
        shown = counts.clone()
        shown[masked] = 0
        output = network(shown)
        loss = torch.nn.functional.poisson_nll_loss(output, counts, log_input=True, reduction="none")[masked].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 200.0)
        optimiser.step()

    @torch.inference_mode()
    def infer() -> None:
        network.eval()(counts[:1])

    return step, infer


class Same(Batches):
    """One batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __getitem__(self, number: int) -> Batch:
        return self.batch


def our_step(
    device: str,
    settings: dict,
    folder: Path,
    units: int,
    bins: int,
    embedding: int,
    layers: int,
    rate: float,
    recordings: Recordings | None = None,
) -> tuple[Callable, Callable]:
    """The same of ours, as the engine makes it."""
    config = Config(
        embedding=embedding, read_in=None, layers=layers, average=0.0, **settings
    )  # the published context, as above
    session = {"s": units}
    layout = Layout(20.0, bins, 0, 0, 6, session, {"s": list(range(units))}, {"s": ["a"] * units})
    network = NDT(config, 0).build(layout).to(device)
    counts = torch.poisson(torch.full((BATCH, bins, units), rate)).to(torch.uint8).to(device)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, ones, ones, torch.full((BATCH,), bins, device=device), 0, ragged=False)
    steps = Steps(network, Same(batch), config, 0, Run(folder, device=device))
    steps.recordings = recordings or steps.recordings
    progress, one = Progress(), batch.windows(slice(1))

    def step() -> None:
        steps.make(progress)
        progress.step += 1

    @torch.inference_mode()
    def infer() -> None:
        network.eval().rates(one)

    return step, infer


def multiplying(what: str, made: Callable) -> Callable:
    """`made` with products of float32 numbers in TF32 where its name asks for that, else in full."""

    def run() -> None:
        torch.set_float32_matmul_precision("high" if what.startswith("TF32") else "highest")
        made()

    return run


def chosen(option: str, part: str, known: dict[str, dict], device: str) -> dict[str, dict]:
    """Those with `part` in their name; the program ends where there are none, as where a GPU's are asked of a CPU."""
    found = {name: each for name, each in known.items() if part in name}
    if not found:
        sys.exit(f"--{option}: found {part!r}; accepted on {device}: a part of {'; '.join(known)}")
    return found


def step_times(repeats: int, device: str, sizes: dict[str, dict], variants: dict[str, dict]) -> None:
    """Print a table of step times and latencies of every size, of these ways."""
    if device == "cpu":
        keep_freed_memory()  # as a training does; the plain network has the benefit, too
    print("| size | what | step | to plain | one trial | to plain |\n|---|---|---|---|---|---|")
    for name, size in sizes.items():
        if device == "cuda":
            torch.compiler.reset()  # it would make kernels of any size for the second one, and soon none
        with tempfile.TemporaryDirectory() as folder:
            made = {"plain": plain_step(device, **size)} | {
                variant: our_step(device, settings, Path(folder) / variant, **size)
                for variant, settings in variants.items()
            }
            steps, trials = ({what: multiplying(what, each[k]) for what, each in made.items()} for k in (0, 1))
            spent, quick = timed_in_turns(steps, repeats, device), timed_in_turns(trials, 4 * repeats, device)
        for what in made:
            step, trial = (f"{1000 * each[what]:.2f} ms | {each['plain'] / each[what]:.2f}" for each in (spent, quick))
            print(f"| {name} | {what} | {step} | {trial} |", flush=True)


def host_time(device: str, repeats: int = 1000) -> None:
    """Print the CPU-time of a recorded step at MC_Maze size beside its graph, the getting of a batch left out, too.

    On the device of the steps before: accelerate keeps to one in a process.
    """
    unlaunched, size = Unlaunched(2), SIZES["MC_Maze, 182 units x 140 bins"]
    with tempfile.TemporaryDirectory() as folder:
        step, _ = our_step(device, {}, Path(folder), **size, recordings=unlaunched)
        spent, _ = unlaunched.host_time(lambda number: step(), repeats)
    print(f"\nA recorded step on this host, its graph left out: {spent:.0f} us")


def profiles(device: str, sizes: dict[str, dict], variants: dict[str, dict]) -> None:
    """Print which kernels the steps of every size and way spend their time in."""
    for name, size in sizes.items():
        for variant, settings in variants.items():
            torch.compiler.reset()
            with tempfile.TemporaryDirectory() as folder:
                step = multiplying(variant, our_step(device, settings, Path(folder), **size)[0])
                spent, kernels = (
                    timed_in_turns({"": step}, 7 if device == "cpu" else 50, device)[""],
                    kernel_times(step),
                )
            within, count = (sum(each[k] for each in kernels.values()) for k in (0, 1))
            print(f"\n{name}, {variant}: {1e6 * spent:.0f} us a step, {1e6 * within:.0f} in {count:.0f} kernels\n")
            print("| us a step | launches | kernel |\n|---|---|---|")
            for kernel, (seconds, launches) in kernels.items():
                print(f"| {1e6 * seconds:.1f} | {launches:.1f} | {kernel[:100]} |")


def lorenz_set(folder: Path) -> tuple[FitData, np.ndarray]:
    """The Lorenz-like set (20 of 24 repeats train, 4 validate) and true rates, spikes a bin, of every sample."""
    recording = simulate("lorenz", {}, seed=0, session="lorenz")
    recording.write(folder / "recording")
    convert(folder / "recording", folder / "trains")
    trains = Trains.open(folder / "trains")
    windows = WindowSettings(bin_size=20.0, after=1.0)
    split = make_split([trains], windows, SplitSettings(fractions=(20 / 24, 4 / 24, 0.0)), "lorenz")
    rates = recording.truth.arrays["rates"] * 0.02
    return FitData({"lorenz": trains}, split), rates[split.samples["trial"]]


def rate_r2(model: NDT, data: FitData, truth: np.ndarray) -> float:
    """R2 of predicted against true rates of the validation trials: rows trials x time, mean over units."""
    samples = data.samples("lorenz", "validation")
    predicted = model.predict(data, "lorenz", samples).reshape(-1, truth.shape[2]).astype(float)
    true = truth[samples.index].reshape(predicted.shape)
    return float(np.mean(1 - ((true - predicted) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)))


def learn_lorenz(budget: float, seed: int, every: float, precision: str) -> None:
    """Print rate R2 against CPU-seconds of one training whose schedule fits the budget on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        data, truth = lorenz_set(Path(folder))
        config = dataclasses.replace(LORENZ, precision=precision)
        short = NDT(dataclasses.replace(config, steps=60), seed)
        start = time.process_time()
        short.fit(data, Run(Path(folder) / "short"))
        steps = int(60 * budget / (time.process_time() - start))
        model = NDT(dataclasses.replace(config, steps=steps), seed)
        print(f"\n{config.precision}, seed {seed}, {steps} steps\n| CPU-s | rate R2 |\n|---|---|")
        run = Curve(Path(folder) / "run", lambda: f"{rate_r2(model, data, truth):.3f}", every)
        model.fit(data, run)
        print(f"| {run.spent:.0f}, best weights | {rate_r2(model, data, truth):.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--repeats", type=int, help="steps timed (default 7, on a GPU 50)")
    parser.add_argument("--size", default="", help="only sizes whose name has this in it")
    parser.add_argument("--way", default="", help='only steps of ours whose name has this in it ("compiled, graph")')
    parser.add_argument("--lorenz", type=float, default=0.0, metavar="SECONDS", help="also learn the Lorenz set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="default: bfloat16 where the CPU has it")
    parser.add_argument("--every", type=float, default=20.0, help="CPU-s between points of the curve")
    parser.add_argument("--profile", action="store_true", help="also which kernels steps spend their time in")
    parser.add_argument("--no-steps", action="store_true", help="leave the step times out")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    here = ON_GPU if device == "cuda" else {name: ON_CPU[name] for name in ["float32"] + ["bfloat16"] * has_bfloat16()}
    sizes, ways = chosen("size", asked.size, SIZES, device), chosen("way", asked.way, here, device)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.processor() or platform.machine()}, a thread"
    )
    print(f"torch {torch.__version__}, {name}\n")
    if not asked.no_steps:
        step_times(asked.repeats or (50 if device == "cuda" else 7), device, sizes, ways)
        host_time(device)
    if asked.profile:
        profiles(device, sizes, ways)
    if asked.lorenz:
        change_device()
        precision = asked.precision or ("bfloat16" if has_bfloat16() else "float32")
        learn_lorenz(asked.lorenz, asked.seed, asked.every, precision)
