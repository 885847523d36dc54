"""The GLM-Transformer: time and memory of a training step beside a plain implementation.

    python benchmarks/glm_transformer.py              step times of each stage, at the authors' two sizes
    python benchmarks/glm_transformer.py --memory     memory of a step of the last stage above the data, a process each

The plain step follows the description of the public code: counts of every unit are filtered (by FFT) for each pair of
populations before they are summed, frozen weights keep their gradients. The public code itself took 0.34-0.37 CPU-s a
step of its third stage at tutorial size and 2.35 at Allen size, and 1.9 GB there, on one thread of an AMD EPYC.
One thread, CPU-seconds, median of several steps.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the plain network, among the tests

import torch
from torch import Tensor

from pipeline_lib.models.glm_transformer.network import GLMTransformer
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.models.glm_transformer.stages import Stage, stages
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.optimiser import AdamW
from tests.models.glm_transformer.plain import PlainGLMTransformer

BATCH, HISTORY = 64, 50
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


def median_cpu(function: Callable[[], object], repeats: int) -> float:
    """CPU-seconds of a call, the median of `repeats` after one to warm up."""
    spent = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return statistics.median(spent[1:])


def counts_of(size: dict) -> Tensor:
    """Counts [window, bin, unit] of a batch."""
    torch.manual_seed(0)
    shape = (BATCH, size["bins"] + HISTORY, sum(size["units"]))
    return torch.poisson(torch.full(shape, size["rate"])).to(torch.uint8)


def plain_step(size: dict) -> Callable[[], None]:
    """A step of the third stage of the plain network, the optimiser's included."""
    counts = counts_of(size).permute(1, 2, 0).float().contiguous()
    network = FastPlain({"s": size["units"]}, size["bins"], HISTORY, width=128, hidden=512, **size["plain"])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        loss = sum(network.losses(counts, "s", 100.0, 1e-5, 1.0).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return step


def our_step(size: dict, stage: Stage, precision: str) -> Callable[[], None]:
    """A step of ours in a stage of the fit."""
    counts, units = counts_of(size), sum(size["units"])
    population = [f"area{area}" for area, number in enumerate(size["units"]) for _ in range(number)]
    length = size["bins"] + HISTORY
    layout = Layout(2.0, length, HISTORY, 0, 9, {"s": units}, {"s": list(range(units))}, {"s": population})
    config = Config(**{**vars(size["config"]), "precision": precision})
    network = GLMTransformer(config, layout)
    stage.prepare(network, frozenset())
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    optimiser = AdamW(weights)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, ones, ones, torch.full((BATCH,), length), HISTORY)

    def step() -> None:
        torch.stack(list(network(batch, 0).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step(1e-3)

    return step


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def step_times(repeats: int) -> None:
    """Print a table of step times."""
    precisions = ["float32"] + ["bfloat16"] * has_bfloat16()
    print("| size | stage | plain | " + " | ".join(f"ours, {each}" for each in precisions) + " |")
    print("|---|---|---|" + "---|" * len(precisions))
    for name, size in SIZES.items():
        plain = median_cpu(plain_step(size), repeats)
        for stage in stages(Config(prune=None)):
            cells = []
            for precision in precisions:
                spent = median_cpu(our_step(size, stage, precision), repeats)
                ratio = f" ({plain / spent:.1f} x)" if stage.name == "coupling" else ""
                cells.append(f"{1000 * spent:.0f} ms{ratio}")
            shown = f"{1000 * plain:.0f} ms" if stage.name == "coupling" else ""
            print(f"| {name} | {stage.name} | {shown} | {' | '.join(cells)} |", flush=True)


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
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory in ("plain", "ours"):
        step_memory(asked.memory)
    elif asked.memory:
        print("| Allen size | above the data |\n|---|---|", flush=True)
        for which in ("plain", "ours"):
            subprocess.run([sys.executable, __file__, "--memory", which], check=True)
    else:
        print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n")
        step_times(asked.repeats)
