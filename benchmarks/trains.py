"""Spike trains: conversion, opening, dense counts and random windows, beside three peers and the floor of the machine.

    python benchmarks/trains.py                      this package, and the peers that are installed beside it
    python benchmarks/trains.py --peers PYTHON       peers in an environment of their own (its interpreter)
    python benchmarks/trains.py --spikes 2000000     a smaller session

Peers, all on PyPI: pynapple, torch-brain, iblutil. Every measure runs in a process of its own, on one thread, and is
given in CPU seconds (the least of several repeats), so that a busy machine distorts it little.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _trains_peers import PEERS
from _trains_session import (
    BATCH,
    BIN,
    PART,
    SECONDS,
    UNITS,
    WINDOW,
    cpu,
    each,
    make_session,
    peak,
    per_unit,
    window_starts,
)

REPOSITORY = Path(__file__).resolve().parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


# Floors ---------------------------------------------------------------------------------------------------------------


def floor_dense(folder: Path) -> dict[str, float]:
    """Writing zeros: the whole session and the part, into fresh memory and into memory that is there."""
    whole, part = (round(seconds / BIN) * UNITS for seconds in (SECONDS, PART))
    memory = np.ones(whole, np.uint8)
    return {
        "whole, fresh": cpu(lambda: np.full(whole, 0, np.uint8)),
        "whole, warm": cpu(lambda: memory.fill(0)),
        "part, fresh": cpu(lambda: np.full(part, 0, np.uint8)),
    }


def floor_copy(folder: Path) -> dict[str, float]:
    spikes = len(np.load(folder / "times.npy", mmap_mode="r"))
    events = np.ones(6 * spikes, np.uint8)
    window = np.zeros((BATCH, round(WINDOW / BIN) * UNITS), np.uint8)
    return {"events": cpu(events.copy), "window": cpu(lambda: each(window.fill, [0] * 100)) / 100 / BATCH}


# This package ---------------------------------------------------------------------------------------------------------


def ours_convert(folder: Path) -> dict[str, float]:
    from pipeline_lib.trains.store import write_store

    store = folder / "store"
    write_store(folder / "tiny", "tiny", [np.arange(1000) / 100], 10.0)  # imports, and what any conversion takes
    times = per_unit(folder)
    spikes = sum(map(len, times))
    before = peak()
    write_store(store, "benchmark", times, SECONDS)
    above = peak() - before
    seconds = cpu(lambda: write_store(store, "benchmark", times, SECONDS))
    files = [file for file in store.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return {"seconds": seconds, "bytes above": above / spikes, "bytes": size / spikes, "files": len(files)}


def ours_open(folder: Path) -> dict[str, float]:
    from pipeline_lib.trains.store import Trains

    return {
        "seconds": cpu(lambda: Trains.open(folder / "store")),
        "verified": cpu(lambda: Trains.open(folder / "store", verify=True)),
    }


def ours_dense(folder: Path) -> dict[str, float]:
    from pipeline_lib.trains.binning import bin_windows
    from pipeline_lib.trains.store import Trains

    trains, start = Trains.open(folder / "store"), np.array([0])
    bins, part, width = round(SECONDS / BIN), round(PART / BIN), 500

    def first() -> None:
        trains._count_types.clear()  # what the first call with a bin size has to find out
        bin_windows(trains, start, bins, width)

    before = peak()
    bin_windows(trains, start, part, width)
    above = peak() - before
    result = {"part": cpu(lambda: bin_windows(trains, start, part, width)), "part peak": above}
    result["whole, fresh"] = cpu(first)
    out = np.ones((1, bins, UNITS), np.uint8)
    return result | {"whole, warm": cpu(lambda: bin_windows(trains, start, bins, width, out=out))}


def ours_windows(folder: Path) -> dict[str, float]:
    import pandas as pd

    from pipeline_lib.trains.binning import bin_windows
    from pipeline_lib.trains.loader import Loader
    from pipeline_lib.trains.splits import Split
    from pipeline_lib.trains.store import Trains

    trains = Trains.open(folder / "store")
    starts = np.rint(window_starts(100) * 1e5).astype(np.int64)
    bins = round(WINDOW / BIN)
    frame = {"session": "benchmark", "start_tick": starts.ravel(), "bins": bins, "trial": -1, "condition": ""}
    split = Split(pd.DataFrame(frame | {"split": "train"}), {"benchmark": np.array([], int)}, 0, 5.0, 0, "benchmark")
    result = {"binned": starts.size / cpu(lambda: each(lambda batch: bin_windows(trains, batch, bins, 500), starts))}
    for name, device in (("loader", None), ("loader, torch", "cpu")):
        loader = Loader([trains], split, batch_size=BATCH, device=device)
        result[name] = starts.size / cpu(lambda loader=loader: each(lambda batch: None, loader))
    return result


def ours_gpu(folder: Path) -> dict[str, float]:
    """Wall time, as the work is the device's; GB/s of counts written and events read."""
    import torch

    if not torch.cuda.is_available():
        raise ImportError("no CUDA device")
    from pipeline_lib.trains.device import DeviceEvents
    from pipeline_lib.trains.store import Trains

    trains = Trains.open(folder / "store")
    events = DeviceEvents(trains, "cuda")
    starts = np.rint(window_starts(200).reshape(-1, 256) * 1e5).astype(np.int64)
    best = np.inf
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for batch in starts:
            counts = events.bin_windows(batch, round(WINDOW / BIN), 500)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    moved = len(starts) * counts.numel() + starts.size * 8 * len(trains.ticks) / SECONDS
    return {"windows": starts.size / best, "GB/s": moved / best / 1e9}


OWN = (floor_dense, floor_copy, ours_convert, ours_open, ours_dense, ours_windows, ours_gpu)


# The table ------------------------------------------------------------------------------------------------------------


def measure(function: Callable[[Path], dict[str, float]], python: str, folder: Path) -> dict[str, float]:
    """Run one measure in a process of its own; an empty result, and a line that says why, where it cannot run."""
    command = [python, __file__, "--measure", function.__name__, "--folder", str(folder)]
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode:
        print(f"{function.__name__}: not run ({run.stderr.strip().splitlines()[-1]})", file=sys.stderr)
        return {}
    print(f"{function.__name__}: {run.stdout.strip()}", file=sys.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def table(result: dict[str, dict[str, float]], spikes: int) -> str:
    """The results as Markdown: what, this package, its target, floor and peers with ratios."""
    rows = ["| measure | this package | target | floor | peers (ratio) |", "| --- | --- | --- | --- | --- |"]

    def add(name: str, value: float | None, unit: str, target: str, floor: float | None, **peers: float | None) -> None:
        if value is None:
            rows.append(f"| {name} | not run | {target} | | |")
            return
        rate = unit.endswith("/s")
        compared = [
            f"{peer} {figure:.3g} ({value / figure if rate else figure / value:.3g}x)"
            for peer, figure in peers.items()
            if figure
        ]
        below = "" if floor is None else f"{floor:.3g} ({floor / value if rate else value / floor:.2f}x)"
        rows.append(f"| {name} | {value:.4g} {unit} | {target} | {below} | {', '.join(compared)} |")

    def get(measured: str, key: str) -> float | None:
        return result[measured].get(key)

    convert = get("ours_convert", "seconds")
    brain = get("torch_brain_store", "seconds")
    add("convert, per-unit seconds to closed store", convert and spikes / convert / 1e6, "M spikes/s", ">= 20", None,
        torch_brain_hdf5_from_sorted=brain and spikes / brain / 1e6)  # fmt: skip
    add("memory above the input while converting", get("ours_convert", "bytes above"), "B/spike", "<= 20", None)
    add("size on disk", get("ours_convert", "bytes"), "B/spike", "<= 2.1", None,
        torch_brain=get("torch_brain_store", "bytes"))  # fmt: skip
    add("files", get("ours_convert", "files"), "", "<= 50", None)
    add("open, decoded and resident", get("ours_open", "seconds"), "s", "<= 0.4", get("floor_copy", "events"))
    add("open and verify every file", get("ours_open", "verified"), "s", "", None)
    add("dense counts, whole session, fresh memory", get("ours_dense", "whole, fresh"), "s", "<= 0.1",
        get("floor_dense", "whole, fresh"))  # fmt: skip
    add("dense counts, whole session, `out=`", get("ours_dense", "whole, warm"), "s", "<= 0.1",
        get("floor_dense", "whole, warm"))  # fmt: skip
    peers = ("pynapple", "iblutil", "torch_brain")
    add(f"dense counts, {PART:.0f} s", get("ours_dense", "part"), "s", "", get("floor_dense", "part, fresh"),
        **{peer: get(f"{peer}_dense", "part") for peer in peers})  # fmt: skip
    mega = {name: (value or 0) / 1e6 for name, value in
            ((name, get(f"{name}_dense", "part peak")) for name in ("ours", *peers))}  # fmt: skip
    add(f"peak memory of that, {PART:.0f} s, above the spikes", mega.pop("ours"), "MB", "", None, **mega)
    window = get("floor_copy", "window")
    windows = {
        "torch_brain lazy": get("torch_brain_windows", "lazy"),
        "torch_brain eager": get("torch_brain_windows", "eager"),
        "pynapple": get("pynapple_windows", "windows"),
        "iblutil": get("iblutil_windows", "windows"),
    }
    add("random windows of 1 s, binned, batches of 64", get("ours_windows", "binned"), "windows/s", ">= 20000",
        window and 1 / window, **windows)  # fmt: skip
    for name in ("loader", "loader, torch"):
        add(f"the same from the {name}", get("ours_windows", name), "windows/s", ">= 20000", window and 1 / window)
    add("windows made on the GPU, batches of 256", get("ours_gpu", "windows"), "windows/s", "", None)
    add("memory traffic of that", get("ours_gpu", "GB/s"), "GB/s", "", None)
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spikes", type=int, default=20_000_000)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="interpreter that has the peers")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        functions = {function.__name__: function for function in (*OWN, *PEERS)}
        print(json.dumps(functions[options.measure](options.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="trains_benchmark_"))
    try:
        make_session(folder, options.spikes)
        result = {function.__name__: measure(function, sys.executable, folder) for function in OWN}
        result |= {function.__name__: measure(function, options.peers, folder) for function in PEERS}
    finally:
        shutil.rmtree(folder)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    text = (
        f"{UNITS} units, {options.spikes / 1e6:g} M spikes, {SECONDS:.0f} s, bins of 5 ms; one thread, CPU seconds; "
        f"Python {platform.python_version()}, numpy {np.__version__}, {processor}, {os.cpu_count()} cores. "
        f"Ratios: how many times better this package is than a peer, and how far from the floor.\n\n"
        f"{table(result, options.spikes)}\n"
    )
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f"# Spike trains\n\n{text}")


if __name__ == "__main__":
    main()
