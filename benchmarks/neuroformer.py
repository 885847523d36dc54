"""The Neuroformer: tokens, a training step and generation at the size of the published recording, and what it learns.

    python benchmarks/neuroformer.py                     tokens, step, generation
    python benchmarks/neuroformer.py --quality 250       and bits per spike on 20 neurons with 3 hubs, in so many CPU-s

Size: 2,023 units, 40 spikes a window of 50 ms, 3 frames of 30 x 100, width 256, 6 layers each (25 M weights). The
public code itself took 1.16 CPU-s a step of 4 windows, tokenised 4,700 spikes/s and generated 8.3 to 9.9 tokens/s
(specs/neuroformer.md, section 6, another machine). Here its network (`models/neuroformer/public.py`, without its
dropout, which favours it) runs with its padding, 100 and 700 tokens. One thread, CPU-seconds, medians.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer.generation import Sampling, write
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.public import PublicNeuroformer, PublicSizes, public_rows
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.neuroformer.tokens import Tokens, tokens_of_trains
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.run import Run
from pipeline_lib.trains.splits import SplitSettings, make_split
from pipeline_lib.trains.store import Trains, write_store
from pipeline_lib.trains.windows import WindowSettings

UNITS, SPIKES, WINDOWS = 2023, 40, 4
FRAME = (30, 100)
LARGE = {"width": 256, "heads": 8, "layers_state": 6, "layers_past": 6, "layers_frames": 6, "past": 0.05}
LATERAL = Config(**LARGE, frames=1, frame_kernel=(5, 5), dropout=0.2, jitter=False)


def median_cpu(function: Callable[[], object], repeats: int = 5) -> float:
    """CPU-seconds of a call, the median of `repeats` after one to warm up."""
    spent = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return statistics.median(spent[1:])


def tokenising(units: int, rate: float, seconds: float) -> float:
    """Spikes a CPU-second of a whole session in windows of 50 ms."""
    rng = np.random.default_rng(0)
    count = int(units * rate * seconds)
    tick = np.sort(rng.integers(0, int(seconds * 100_000), count)).astype(np.int32)
    unit = rng.integers(0, units, count).astype(np.uint16)
    observed = np.array([[0, int(seconds * 100_000)]])
    trains = Trains("made", tick, unit, units, int(seconds * 100_000), observed, None, {})
    starts = np.arange(0, int(seconds * 100_000), 5000)
    return count / median_cpu(lambda: tokens_of_trains(trains, starts, 5, 1000))


def lateral_batch() -> Batch:
    """Four windows of 40 spikes on average, with their past and their frames."""
    counts = torch.poisson(torch.full((WINDOWS, 10, UNITS), SPIKES / 5 / UNITS)).to(torch.uint8)
    seen = torch.ones_like(counts, dtype=torch.bool)
    frames = torch.randint(256, (WINDOWS, 10, *FRAME), dtype=torch.uint8)
    return Batch("a", counts, seen, seen, torch.full((WINDOWS,), 10), 5, {"frames": frames})


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
    return 1 / median_cpu(lambda: network(*inputs, frames), 3)


def our_step() -> Callable[[], None]:
    """A training step of ours: same sizes, dropout, real tokens only."""
    torch.manual_seed(0)
    network, batch = our_network().train(), lateral_batch()
    return lambda: torch.stack(list(network(batch, 0).values())).sum().backward()


def generation(copies: int, most: int) -> float:
    """Tokens a CPU-second, windows written side by side."""
    torch.manual_seed(0)
    network, batch = our_network().eval(), lateral_batch()
    windows = network.windows(batch)
    with torch.inference_mode():
        others, _ = network.modalities(batch, windows.cut)
        context = network.context(network.head("a"), windows.past, others)
    rows = torch.arange(copies) % WINDOWS
    width, generator = windows.cut.width[rows], torch.Generator().manual_seed(0)
    start = time.process_time()
    tokens: Tokens = write(network, network.head("a"), context.rows(rows), width, Sampling(most=most), generator)
    return int(tokens.count.sum()) / (time.process_time() - start)


def hubs(minutes: float = 15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts and expected counts [bins of 10 ms, 20]: 5.5 spikes/s a neuron, 3 hubs that drive 7 targets each."""
    rng = np.random.default_rng(seed)
    bins, lags = int(minutes * 6000), 10
    base = 0.055 * np.exp(0.3 * rng.standard_normal(20))
    filters = np.exp(-np.arange(lags) / 3.0)
    filters /= filters.sum()
    weights = np.zeros((20, 20))
    for hub in range(3):
        weights[hub, rng.choice(np.setdiff1d(np.arange(20), [hub]), 7, replace=False)] = 2.85
    base /= np.exp(base @ weights)
    counts, expected = np.zeros((bins + lags, 20)), np.zeros((bins, 20))
    for at in range(bins):
        drive = (filters[::-1] @ counts[at : at + lags]) @ weights
        expected[at] = base * np.exp(drive)
        counts[at + lags] = rng.poisson(expected[at])
    return counts[lags:], expected


def hub_data(directory: Path) -> tuple[FitData, np.ndarray, np.ndarray]:
    """The hubs as a cohort in contiguous blocks of 30 s."""
    counts, expected = hubs()
    rng = np.random.default_rng(1)
    bins = [np.repeat(np.arange(len(counts)), counts[:, unit].astype(int)) for unit in range(20)]
    times = [np.sort((each + rng.uniform(0.01, 0.99, len(each))) * 0.01) for each in bins]
    write_store(directory / "trains", "hubs", times, len(counts) * 0.01)
    trains = Trains.open(directory / "trains")
    windows = WindowSettings(bin_size=10, mode="continuous", length=1.0, history=0.15)
    return FitData({"hubs": trains}, make_split([trains], windows, SplitSettings(block=30.0), "hubs")), counts, expected


def quality(budget: float) -> list[tuple[str, float, float]]:
    """Test bits per spike against the training means: oracle, and ours after about `budget` CPU-seconds."""
    with tempfile.TemporaryDirectory() as name:
        data, counts, expected = hub_data(Path(name))
        settings = Config(steps=round(budget / 0.22), evaluate_every=100, patience=None)
        model = NeuroformerModel(settings, 0)
        start = time.process_time()
        model.fit(FitData(data.trains, data.split, fitting=True), Run(Path(name) / "run"))
        spent = time.process_time() - start
        scores = model.tables(data)["scores"]
        token = float(scores.query("split == 'test' and null == 'train mean'")["value"].iloc[0])
        rows = {part: _bins(data, part) for part in ("train", "test")}
        null = counts[rows["train"]].mean(0)
        test = data.samples("hubs", "test")
        rates = model.predict(data, "hubs", test).reshape(-1, 20)
    observed = counts[rows["test"]]

    def bits(given: np.ndarray) -> float:
        gain = (observed * np.log(given / null) - given + null).sum()
        return float(gain / observed.sum() / np.log(2))

    return [
        ("oracle: the rates that made the spikes", 0.0, bits(expected[rows["test"]])),
        ("ours, exact likelihood of tokens", spent, token),
        ("ours, rates one bin ahead", spent, bits(rates)),
    ]


def _bins(data: FitData, part: str) -> np.ndarray:
    start = data.samples("hubs", part)["start_tick"].to_numpy() // 1000
    return (start[:, None] + np.arange(100)).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=float, metavar="CPU_SECONDS", help="fit the hubs, too")
    parser.add_argument("--only-quality", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n")
    if not options.only_quality:
        print("| tokens of a whole session | million spikes/s | public code |\n|---|---|---|")
        print(f"| 200 units x 5 Hz x 1,200 s | {tokenising(200, 5, 1200) / 1e6:.1f} | 0.046 |")
        print(f"| 2,023 units x 0.4 Hz x 1,500 s | {tokenising(2023, 0.4, 1500) / 1e6:.1f} | 0.005 |\n")
        padded = median_cpu(public_step(trim=False), 3)
        print("| training step, 4 windows | CPU-s | x |\n|---|---|---|")
        print(f"| public network, padded to 100 and 700 | {padded:.2f} | 1 |")
        for name, step in (("public network, padding trimmed", public_step(True)), ("ours, with dropout", our_step())):
            spent = median_cpu(step, 3)
            print(f"| {name} | {spent:.2f} | {padded / spent:.1f} |")
        public = public_tokens()
        print("\n| generation | tokens/s | x |\n|---|---|---|")
        print(f"| public network, everything anew for each token | {public:.1f} | 1 |")
        for copies in (1, 16, 128):
            speed = max(generation(copies, 200) for _ in range(3 if copies == 1 else 1))
            print(f"| {copies} window{'s' * (copies > 1)}, keys and values kept | {speed:.0f} | {speed / public:.0f} |")
    if options.quality:
        print("\n| 20 neurons, 3 hubs, 15 min | CPU-s | test bits/spike |\n|---|---|---|")
        for what, spent, value in quality(options.quality):
            print(f"| {what} | {spent:.0f} | {value:+.3f} |")


if __name__ == "__main__":
    main()
