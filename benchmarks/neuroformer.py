"""The Neuroformer: tokens, a training step and generation at the size of the published recording, and what it learns.

    python benchmarks/neuroformer.py                     tokens, step, generation
    python benchmarks/neuroformer.py --trained 300       generation by a network that has learned for so many steps
    python benchmarks/neuroformer.py --gpu               training step and generation on a GPU, by the clock

Size: 2,023 units, 40 spikes a window of 50 ms, 3 frames of 30 x 100, width 256, 6 layers each (25 M weights). The
public code itself took 1.16 CPU-s a step of 4 windows, tokenised 4,700 spikes/s and generated 8.3 to 9.9 tokens/s
(specs/neuroformer.md, section 6, another machine). Here its network (`models/neuroformer/public.py`, without its
dropout, which favours it) runs with its padding, 100 and 700 tokens. One thread, CPU-seconds, medians. What it learns:
`neuroformer_quality.py`.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks._timing import median_seconds
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer import drafts
from pipeline_lib.models.neuroformer.generation import AHEAD, write
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.public import PublicNeuroformer, PublicSizes, public_rows
from pipeline_lib.models.neuroformer.report import token_tables
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.neuroformer.tokens import Tokens, tokens_of_trains
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains
from tests.models.neuroformer.small import write_anew

UNITS, SPIKES, WINDOWS = 2023, 40, 4
FRAME = (30, 100)
LARGE = {"width": 256, "heads": 8, "layers_state": 6, "layers_past": 6, "layers_frames": 6, "past": 0.05}
LATERAL = Config(**LARGE, frames=1, frame_kernel=(5, 5), dropout=0.2, jitter=False)


def tokenising(units: int, rate: float, seconds: float) -> float:
    """Spikes a CPU-second of a whole session in windows of 50 ms."""
    rng = np.random.default_rng(0)
    count = int(units * rate * seconds)
    tick = np.sort(rng.integers(0, int(seconds * 100_000), count)).astype(np.int32)
    unit = rng.integers(0, units, count).astype(np.uint16)
    observed = np.array([[0, int(seconds * 100_000)]])
    trains = Trains("made", tick, unit, units, int(seconds * 100_000), observed, None, {})
    starts = np.arange(0, int(seconds * 100_000), 5000)
    return count / median_seconds(lambda: tokens_of_trains(trains, starts, 5, 1000))


def lateral_batch(windows: int = WINDOWS, device: str = "cpu") -> Batch:
    """Windows of 40 spikes on average, with their past and their frames."""
    counts = torch.poisson(torch.full((windows, 10, UNITS), SPIKES / 5 / UNITS)).to(device, torch.uint8)
    seen = torch.ones_like(counts, dtype=torch.bool)
    frames = torch.randint(256, (windows, 10, *FRAME), dtype=torch.uint8).to(device)
    return Batch("a", counts, seen, seen, torch.full((windows,), 10, device=device), 5, {"frames": frames}, False)


def our_network() -> Neuroformer:
    layout = Layout(10.0, 10, 5, 0, 2, {"a": UNITS}, {"a": list(range(UNITS))}, {"a": [""] * UNITS})
    network = Neuroformer(LATERAL, layout, Shapes(FRAME, {"a": {}}))
    network.head("a").start_at(torch.full((UNITS,), SPIKES / 5 / UNITS), {})
    return network


def public_step(trim: bool) -> Callable[[], None]:
    """A training step of the public network, padded to 100 and 700 tokens or to the longest window."""
    torch.manual_seed(0)
    batch = lateral_batch()
    sizes = PublicSizes(UNITS, 5, 256, 8, 100, 700, 6, 6, 6, 6, (3, 5, 5))
    network = PublicNeuroformer(sizes)
    windows = our_network().windows(batch)
    longest = [int(each.count.max()) + 1 for each in (windows.now, windows.past)]
    now = public_rows(windows.now, UNITS, 5, longest[0] if trim else 100)
    past = public_rows(windows.past, UNITS, 5, longest[1] if trim else 700)
    frames = batch.inputs["frames"][:, :3].float() / 255

    def step() -> None:
        ids, times, _ = network(now[0][:, :-1], now[1][:, :-1], past[0][:, :-1], past[1][:, :-1], frames)
        entropy = torch.nn.functional.cross_entropy
        loss = entropy(ids.flatten(0, 1), now[0][:, 1:].flatten(), ignore_index=UNITS + 2)
        loss = loss + entropy(times.flatten(0, 1), now[1][:, 1:].flatten(), ignore_index=8)
        loss.backward()

    return step


@torch.inference_mode()
def public_tokens() -> float:
    """Tokens a CPU-second of the public network: a forward pass of everything, one window, for each token."""
    batch = lateral_batch()
    network = PublicNeuroformer(PublicSizes(UNITS, 5, 256, 8, 100, 700, 6, 6, 6, 6, (3, 5, 5))).eval()
    windows = our_network().windows(batch)
    now, past = public_rows(windows.now, UNITS, 5, 100), public_rows(windows.past, UNITS, 5, 700)
    frames = batch.inputs["frames"][:1, :3].float() / 255
    inputs = (now[0][:1, :-1], now[1][:1, :-1], past[0][:1, :-1], past[1][:1, :-1])
    return 1 / median_seconds(lambda: network(*inputs, frames), 3)


def our_step() -> Callable[[], None]:
    """A training step of ours: same sizes, dropout, real tokens only."""
    torch.manual_seed(0)
    network, batch = our_network().train(), lateral_batch()
    return lambda: torch.stack(list(network(batch, 0).values())).sum().backward()


def generation(
    windows: int,
    ahead: int = 0,
    change: float = 0.0,
    device: str = "cpu",
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Tokens a second of `clock`: windows side by side, or one in drafts of `ahead` tokens.

    `change` is the standard deviation of what the heads add to the log-odds of the law, anew for every state: 0 as
    before training, when no draft is ever wrong.
    """
    torch.manual_seed(0)
    network, batch = our_network().eval().to(device), lateral_batch(windows, device)
    for head in (network.head("a").logits, network.when) if change else ():
        torch.nn.init.normal_(head.weight, std=change / head.in_features**0.5)
    cut = network.windows(batch)
    with torch.inference_mode():
        others, _ = network.modalities(batch, cut.cut)
        context = network.context(network.head("a"), cut.past, others)
    generator, sampling = torch.Generator(device).manual_seed(0), Sampling(most=200)
    total, start = 0, clock()
    for _ in range(4 if windows == 1 else 1):
        tokens: Tokens = write(network, network.head("a"), context, cut.cut.width, sampling, generator, ahead=ahead)
        total += int(tokens.count.sum())
    return total / (clock() - start)


@contextmanager
def drafts_counted() -> Iterator[list[int]]:
    """How many drafted tokens have stayed and how many were judged, one after the other, while this is open."""
    found, original = [0, 0], drafts.judged

    def counted(draft: drafts.Draft, *laws: Any) -> tuple[int, bool]:
        stay, bin_stays = original(draft, *laws)
        found[0] += stay
        found[1] += min(stay + 1, len(draft.bin))
        return stay, bin_stays

    drafts.judged = counted  # type: ignore[assignment]
    try:
        yield found
    finally:
        drafts.judged = original


def lateral_film(seconds: float) -> FitData:
    """A simulated recording of the published size: 2,023 units that see, run and drive one another, 800 spikes/s."""
    size = {"height": FRAME[0], "width": FRAME[1], "duration": seconds, "hubs": 100, "targets": 40}
    recording = simulate("video", {"units": UNITS, "base_rate": 20 * SPIKES / UNITS * 0.67} | size, 0, "a")
    trains = Trains.from_recording(recording)
    windows = WindowSettings(bin_size=10, mode="continuous", length=0.2, history=0.05)
    split = SplitSettings(block=3.0, gap=0.1, fractions=(0.9, 0.03, 0.07))
    return FitData({"a": trains}, make_split([trains], windows, split, "film"))


def trained(steps: int, seconds: float = 240, windows: int = 12) -> None:
    """Generation by a trained network, one test window after the other, beside the public one."""
    data, start = lateral_film(seconds), time.process_time()
    settings = {"steps": steps, "batch": 1, "warmup": steps // 10, "learning_rate": 5e-4, "evaluate_every": steps // 3}
    model = NeuroformerModel(replace(LATERAL, **settings, average=0.9, patience=None, probes=0), 0)
    with tempfile.TemporaryDirectory() as folder:
        model.fit(replace(data, fitting=True), Run(Path(folder)))
    print(f"trained in {time.process_time() - start:.0f} CPU-s", flush=True)
    scores, tokens = token_tables(model, data, ["test"])
    bits = scores.query("null == 'train mean'")["value"].iloc[0]
    print(f"{tokens['spikes'].iloc[0]} test spikes, {bits:+.3f} bits/spike against the training means", flush=True)
    measure_trained(model, data, windows)


@torch.inference_mode()
def measure_trained(model: NeuroformerModel, data: FitData, windows: int) -> None:
    """A row of the table for each length of drafts."""
    network, batch = model.network, next(model.batches(data, "a", "test"))
    head, cut = network.head("a"), network.windows(batch)
    others, _ = network.modalities(batch, cut.cut)
    context = network.context(head, cut.past, others)
    rows = torch.arange(windows).split(1)
    public = public_tokens()
    print("\n| generation, trained | tokens/s | x | drafts that stay |\n|---|---|---|---|")
    print(f"| public network | {public:.1f} | 1 | |", flush=True)
    for ahead in (0, 2, 3, 4, AHEAD, 8):
        generator = torch.Generator().manual_seed(0)
        total, start = 0, time.process_time()
        with drafts_counted() as counts:
            for row in rows:
                own, width = context.rows(row), cut.cut.width[row]
                total += int(write(network, head, own, width, Sampling(), generator, ahead=ahead).count.sum())
        speed = total / (time.process_time() - start)
        stay = f"{100 * counts[0] / counts[1]:.0f} %" if counts[1] else ""
        print(f"| drafts of {ahead} | {speed:.0f} | {speed / public:.1f} | {stay} |", flush=True)
    greedy = Sampling(temperature=0.0, most=60)
    for row in rows[:2]:
        own, width = context.rows(row), cut.cut.width[row]
        kept, plain = (made(network, head, own, width, greedy) for made in (write, write_anew))
        print(f"greedy: {int(kept.count)} tokens, same as uncached: {torch.equal(kept.unit, plain.unit)}", flush=True)


def on_gpu() -> None:
    """Training steps and generation on a GPU, seconds by the clock."""
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}\n")
    print("| training step, windows | ms | windows/s |\n|---|---|---|")
    for windows in (4, 160, 1280):
        network, batch = our_network().train().cuda(), lateral_batch(windows, "cuda")

        def step(network: Neuroformer = network, batch: Batch = batch) -> None:
            torch.stack(list(network(batch, 0).values())).sum().backward()
            torch.cuda.synchronize()

        step()
        start = time.perf_counter()
        for _ in range(10):
            step()
        spent = (time.perf_counter() - start) / 10
        print(f"| {windows} | {spent * 1000:.0f} | {windows / spent:,.0f} |", flush=True)
    print("\n| generation, windows | tokens/s |\n|---|---|")
    for windows, ahead in ((1, 0), (1, AHEAD), (64, 0), (1024, 0)):
        for _ in range(2):  # the first one warms up
            speed = generation(windows, ahead, 0.5, "cuda", time.perf_counter)
        print(f"| {windows}{f', drafts of {ahead}' * bool(ahead)} | {speed:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="on a GPU instead")
    parser.add_argument("--trained", type=int, metavar="STEPS", help="generation after so many steps of training")
    options = parser.parse_args()
    if options.gpu:
        on_gpu()
        return
    torch.set_num_threads(1)
    if options.trained:
        trained(options.trained)
        return
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n")
    print("| tokens of a whole session | million spikes/s | public code |\n|---|---|---|")
    print(f"| 200 units x 5 Hz x 1,200 s | {tokenising(200, 5, 1200) / 1e6:.1f} | 0.046 |")
    print(f"| 2,023 units x 0.4 Hz x 1,500 s | {tokenising(2023, 0.4, 1500) / 1e6:.1f} | 0.005 |\n")
    padded = median_seconds(public_step(trim=False), 3)
    print("| training step, 4 windows | CPU-s | x |\n|---|---|---|")
    print(f"| public network, padded to 100 and 700 | {padded:.2f} | 1 |")
    for name, step in (("public network, padding trimmed", public_step(True)), ("ours, with dropout", our_step())):
        spent = median_seconds(step, 3)
        print(f"| {name} | {spent:.2f} | {padded / spent:.1f} |")
    public = public_tokens()
    print("\n| generation | tokens/s | x |\n|---|---|---|")
    print(f"| public network, everything anew for each token | {public:.1f} | 1 |")
    for windows, ahead, change, name in (
        (1, 0, 0.0, "1 window, a token at a time"),
        (1, AHEAD, 0.0, f"1 window, drafts of {AHEAD}, all good"),
        (1, AHEAD, 0.5, f"1 window, drafts of {AHEAD}, heads that change log-odds by 0.5"),
        (1, AHEAD, 1.0, f"1 window, drafts of {AHEAD}, heads that change log-odds by 1"),
        (16, 0, 0.5, "16 windows side by side"),
        (128, 0, 0.5, "128 windows side by side"),
    ):
        speed = statistics.median(generation(windows, ahead, change) for _ in range(3 if windows == 1 else 1))
        print(f"| {name} | {speed:.0f} | {speed / public:.0f} |", flush=True)


if __name__ == "__main__":
    main()
