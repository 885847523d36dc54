"""The GLM-Transformer: time and memory of a training step beside a plain implementation.

    python benchmarks/glm_transformer.py              step times of each stage, at the authors' two sizes
    python benchmarks/glm_transformer.py --memory     memory of a step of the last stage above the data, a process each
    python benchmarks/glm_transformer.py --loader     from spikes to the counts of a batch, at Allen size
    python benchmarks/glm_transformer.py --device cuda    step times on a GPU (wall clock, synchronised)

The plain step follows the description of the public code: counts of every unit are filtered (by FFT) for each pair of
populations before they are summed, frozen weights keep their gradients. The public code itself took 0.34-0.37 CPU-s a
step of its third stage at tutorial size and 2.35 at Allen size, and 1.9 GB there, on one thread of an AMD EPYC; its
loader 0.8 CPU-s a batch of 64 trials (500 units, 20 million spikes). One thread, CPU-seconds, median of several steps.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the plain network, among the tests

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks._timing import median_seconds
from pipeline_lib.clock import TICKS_PER_MS, TICKS_PER_SECOND
from pipeline_lib.models.glm_transformer.network import GLMTransformer
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.models.glm_transformer.stages import Stage, stages
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.graphs import Recording
from pipeline_lib.training.optimiser import AdamW
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.store import Trains
from tests.models.glm_transformer.plain import PlainGLMTransformer

BATCH, HISTORY = 64, 50
RECORDED = "recorded"
SIZES = {
    "tutorial, 100 units x 250 bins, 2 areas": {
        "units": [50, 50],
        "bins": 250,
        "rate": 0.06,
        "config": Config(history_basis=2, latents=8),
        "plain": {"splines": 20, "factors": 1, "latents": 16},
    },
    "Allen, 352 units x 200 bins, 6 areas": {
        "units": [64, 60, 85, 53, 53, 37],
        "bins": 200,
        "rate": 0.015,
        "config": Config(splines=30, factors=2, latents=4, smoothness=1e3),
        "plain": {"splines": 30, "factors": 2, "latents": 24, "past": (1.5, 3, 1.0)},
    },
}


class FastPlain(PlainGLMTransformer):
    """The plain network with its filters as one would write them for speed: by FFT, all units at once."""

    def filtered(self, y: Tensor, kernel: Tensor) -> Tensor:
        length = len(y) + len(kernel)
        spectrum = torch.fft.rfft(y, length, dim=0) * torch.fft.rfft(kernel, length, dim=0)[:, :, None]
        out = torch.fft.irfft(spectrum, length, dim=0)[self.padding - 1 : self.padding - 1 + self.bins]
        return torch.where(out.abs() < 1e-5, 0.0, out)


def counts_of(size: dict, device: str) -> Tensor:
    """Counts [window, bin, unit] of a batch."""
    torch.manual_seed(0)
    shape = (BATCH, size["bins"] + HISTORY, sum(size["units"]))
    return torch.poisson(torch.full(shape, size["rate"])).to(torch.uint8).to(device)


def plain_step(size: dict, device: str = "cpu") -> Callable[[], None]:
    """A step of the third stage of the plain network, the optimiser's included."""
    counts = counts_of(size, device).permute(1, 2, 0).float().contiguous()
    network = FastPlain({"s": size["units"]}, size["bins"], HISTORY, width=128, hidden=512, **size["plain"]).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        loss = sum(network.losses(counts, "s", 100.0, 1e-5, 1.0).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return step


def our_step(size: dict, stage: Stage, variant: str, device: str = "cpu") -> Callable[[], None]:
    """A step of ours in a stage of the fit; `variant`: a precision, or "recorded", float32 as a CUDA graph."""
    counts, units = counts_of(size, device), sum(size["units"])
    population = [f"area{area}" for area, number in enumerate(size["units"]) for _ in range(number)]
    length = size["bins"] + HISTORY
    layout = Layout(2.0, length, HISTORY, 0, 9, {"s": units}, {"s": list(range(units))}, {"s": population})
    precision = "float32" if variant == RECORDED else variant
    config = Config(**{**vars(size["config"]), "precision": precision})
    network = GLMTransformer(config, layout).to(device)
    stage.prepare(network, frozenset())
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    optimiser = AdamW(weights)
    ones = torch.ones_like(counts, dtype=torch.bool)
    bins = torch.full((BATCH,), length, device=device)
    batch = Batch("s", counts, ones, ones, bins, HISTORY, ragged=False)

    def total(tensors: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(network.loss(batch.holding(tensors)).values())).sum()

    recording = Recording(total, list(weights.values()), batch.tensors()) if variant == RECORDED else None

    def step() -> None:
        if recording is None:
            total(batch.tensors()).backward()
        else:
            recording.run(batch.tensors())
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step(1e-3)
        optimiser.clear()

    return step


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies in bfloat16."""
    return (
        device != "cpu" or "avx512_bf16" in Path("/proc/cpuinfo").read_text()
        if Path("/proc/cpuinfo").exists()
        else False
    )


def step_times(repeats: int, device: str) -> None:
    """Print a table of step times."""
    variants = ["float32"] + ["bfloat16"] * has_bfloat16(device) + [RECORDED] * (device == "cuda")
    print("| size | stage | plain | " + " | ".join(f"ours, {each}" for each in variants) + " |")
    print("|---|---|---|" + "---|" * len(variants))
    digits, warm_up = (0, 1) if device == "cpu" else (1, 10)
    for name, size in SIZES.items():
        plain = median_seconds(plain_step(size, device), repeats, device, warm_up)
        for stage in stages(Config()):
            cells = []
            for variant in variants:
                spent = median_seconds(our_step(size, stage, variant, device), repeats, device, warm_up)
                ratio = f" ({plain / spent:.1f} x)" if stage.name == "coupling" else ""
                cells.append(f"{1000 * spent:.{digits}f} ms{ratio}")
            shown = f"{1000 * plain:.{digits}f} ms" if stage.name == "coupling" else ""
            print(f"| {name} | {stage.name} | {shown} | {' | '.join(cells)} |", flush=True)


def loader_times(repeats: int) -> None:
    """Print what a batch of 64 windows costs of a session of 500 units and 20 million spikes."""
    units, seconds, spikes, bins = 500, 9000, 20_000_000, 250
    draw = np.random.default_rng(0)
    ticks = np.sort(draw.integers(0, seconds * TICKS_PER_SECOND, spikes)).astype(np.int32)
    unit = draw.integers(0, units, spikes).astype(np.uint16)
    observed = np.array([[0, seconds * TICKS_PER_SECOND]])
    table = {"units": pd.DataFrame({"unit_id": [str(row) for row in range(units)]})}
    trains = Trains("s", ticks, unit, units, seconds * TICKS_PER_SECOND, observed, None, table, "")
    starts = draw.integers(0, (seconds - 1) * TICKS_PER_SECOND, (repeats + 1, BATCH))
    print("| from spikes to counts, 64 windows x 250 bins x 500 units | CPU-ms | public code, 800 ms |\n|---|---|---|")
    for bin_size in (2.0, 1.0):
        batches = map(partial(bin_windows, trains, bins=bins, bin_ticks=int(bin_size * TICKS_PER_MS)), starts)
        spent = median_seconds(partial(next, batches), repeats)
        print(f"| binned from the spikes, {bin_size:g}-ms bins | {1000 * spent:.1f} | {0.8 / spent:.0f} x |")
    counts = torch.from_numpy(bin_windows(trains, starts.ravel(), bins, 2 * TICKS_PER_MS))
    rows = torch.randint(len(counts), (BATCH,))
    spent = median_seconds(lambda: counts[rows], repeats)
    print(f"| gathered in training, where all windows are resident | {1000 * spent:.1f} | {0.8 / spent:.0f} x |")


def peak() -> float:
    """The most memory this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step_memory(which: str) -> None:
    """Print how much a step of the coupling stage at Allen size adds to this process's memory."""
    size = list(SIZES.values())[1]
    stage = next(each for each in stages(Config()) if each.name == "coupling")
    step = plain_step(size) if which == "plain" else our_step(size, stage, "float32")
    before = peak()
    step()
    step()
    print(f"| {which} | {peak() - before:.0f} MB |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="steps timed (default 5)")
    parser.add_argument("--memory", nargs="?", const="both", choices=("both", "plain", "ours"), help="memory instead")
    parser.add_argument("--loader", action="store_true", help="batches instead of steps")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the steps (default cpu)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory in ("plain", "ours"):
        step_memory(asked.memory)
    elif asked.memory:
        print("| Allen size | above the data |\n|---|---|", flush=True)
        for which in ("plain", "ours"):
            subprocess.run([sys.executable, __file__, "--memory", which], check=True)
    elif asked.loader:
        loader_times(asked.repeats)
    else:
        named = torch.cuda.get_device_name() if asked.device == "cuda" else platform.processor() or platform.machine()
        print(f"torch {torch.__version__}, {named}, one thread\n")
        step_times(asked.repeats, asked.device)
