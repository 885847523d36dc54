"""What the Neuroformer learns: fits of simulations whose truth is known, a row of a table each.

    python benchmarks/neuroformer_quality.py hubs --seed 0            bits per spike on 20 neurons with 3 hubs
    python benchmarks/neuroformer_quality.py hubs --seed 0 --compat   the same with independent heads
    python benchmarks/neuroformer_quality.py decoding --seed 0        speed from spikes, beside ridge regression
    python benchmarks/neuroformer_quality.py finetuning --seed 0      from scratch and pretrained, by share of the data
    python benchmarks/neuroformer_quality.py graph --seed 0           couplings that common input hides
    python benchmarks/neuroformer_quality.py factors                  what independent heads cost, untrained

`--out FILE.csv` appends the rows; `--steps` and `--minutes` change the budget and the data, `--part validation` scores
what choices may be made by. The seed is that of the simulation and of the fit.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch

from benchmarks.neuroformer import drafts_counted
from pipeline_lib.evaluation.coupling import auc
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm import MODEL as GLM
from pipeline_lib.models.neuroformer.connectivity import attention
from pipeline_lib.models.neuroformer.generation import write
from pipeline_lib.models.neuroformer.independent import IndependentNeuroformer
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.report import decoding_table, token_tables
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.session import ReadOut
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.neuroformer.tokens import tokens_of_counts
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.run import Run, write_arrays
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, write_store

SPEED = "decode:running/speed"
DECODING = Config(
    window=0.1,
    past=0.4,
    decode={"running/speed": "regression"},
    loss_terms=(SPEED,),
    select=SPEED,
    probes=0,
    batch=8,
    steps=100,
    warmup=20,
    patience=None,
    evaluate_every=25,
)
BLOCK = 30.0
"""Seconds of the blocks that recordings are split by."""
FRACTIONS = (0.02, 0.1, 0.3, 1.0)
PENALTIES = 10.0 ** np.arange(0, 6, 0.5)
Rows = Iterable[dict[str, Any]]


# Simulations


def poisson_network(
    base: np.ndarray, filters: np.ndarray, bins: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and expected counts [bins, N] of units of rates `base` [N] a bin; `filters` [lag, sender, receiver]."""
    lags, units = filters.shape[:2]
    counts, expected = np.zeros((bins + lags, units)), np.zeros((bins, units))
    flat, log_base = filters[::-1].reshape(-1, units), np.log(base) - base @ filters.sum(0)
    for at in range(bins):
        expected[at] = np.exp(log_base + counts[at : at + lags].ravel() @ flat)
        counts[at + lags] = rng.poisson(np.minimum(expected[at], 2))
    return counts[lags:], expected


def hubs(seed: int, minutes: float) -> tuple[np.ndarray, np.ndarray]:
    """20 units of 5.5 spikes/s, 3 hubs that drive 7 targets each (specs/neuroformer.md, section 6)."""
    rng = np.random.default_rng(seed)
    base = 0.055 * np.exp(0.3 * rng.standard_normal(20))
    shape = np.exp(-np.arange(10) / 3.0)
    filters = np.zeros((10, 20, 20))
    for hub in range(3):
        targets = rng.choice(np.setdiff1d(np.arange(20), [hub]), 7, replace=False)
        filters[:, hub, targets] = 2.85 * (shape / shape.sum())[:, None]
    return poisson_network(base, filters, int(minutes * 6000), rng)


def hidden_graph(seed: int, minutes: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts [bins, 20] and strengths [sender, receiver]: 3 units drive 7 each, strongly and after 10 to 90 ms, so that
    those follow one another without a coupling; among them are 40 weak couplings, which that hides."""
    rng = np.random.default_rng(seed)
    base = 0.06 * np.exp(0.4 * rng.standard_normal(20))
    base[:3] = 0.1
    filters, driven = np.zeros((10, 20, 20)), np.arange(3, 20)
    for driver in range(3):
        for target in rng.choice(driven, 7, replace=False):
            delay = rng.integers(0, 7)
            filters[delay : delay + 3, driver, target] = 5.0 * np.array([0.5, 0.3, 0.2])
    shape = np.exp(-np.arange(10) / 3.0)
    pairs = [(one, other) for one in driven for other in driven if one != other]
    for pair in rng.choice(len(pairs), 40, replace=False):
        filters[:, pairs[pair][0], pairs[pair][1]] = 0.8 * shape / shape.sum()
    return poisson_network(base, filters, int(minutes * 6000), rng)[0], filters.sum(0)


def cohort(counts: np.ndarray, directory: Path) -> FitData:
    """Counts of 10-ms bins as a cohort of 1-s windows in contiguous blocks of 30 s."""
    rng = np.random.default_rng(1)
    spikes = [np.repeat(np.arange(len(counts)), column.astype(int)) for column in counts.T]
    times = [np.sort((each + rng.uniform(0.01, 0.99, len(each))) * 0.01) for each in spikes]
    write_store(directory / "trains", "made", times, len(counts) * 0.01)
    trains = Trains.open(directory / "trains")
    windows = WindowSettings(bin_size=10, mode="continuous", length=1.0, history=0.15)
    return FitData({"made": trains}, make_split([trains], windows, SplitSettings(block=BLOCK), "made"))


def film(seed: int, minutes: float) -> FitData:
    """The stand-in `video` of 40 units as a cohort of 1-s windows in contiguous blocks of 30 s."""
    trains = Trains.from_recording(simulate("video", {"duration": 60.0 * minutes}, seed, "film"))
    windows = WindowSettings(bin_size=10, mode="continuous", length=1.0, history=DECODING.past)
    return FitData({"film": trains}, make_split([trains], windows, SplitSettings(block=BLOCK, gap=1.0), "film"))


def fitted(config: Config, data: FitData, seed: int, device: str) -> tuple[NeuroformerModel, float]:
    """A fitted model, moved to the CPU, and the CPU-seconds it took."""
    model, start = NeuroformerModel(config, seed), time.process_time()
    model.device = device
    with tempfile.TemporaryDirectory() as name:
        model.fit(replace(data, fitting=True), Run(Path(name), device=device))
    spent = time.process_time() - start
    state, model.device = model.state(), "cpu"
    model.load_state(state)
    return model, spent


# Experiments


def fit_hubs(options: argparse.Namespace) -> Rows:
    """Bits per spike against the training means: of the rates that made the spikes, of tokens and of rates."""
    counts, expected = hubs(options.seed, options.minutes or 15)
    with tempfile.TemporaryDirectory() as name:
        data = cohort(counts, Path(name))
        config = Config(steps=options.steps or 800, evaluate_every=100, patience=None, compat=options.compat)
        model, spent = fitted(config, data, options.seed, options.device)
        scores = token_tables(model, data, ["test"])[0].query("null == 'train mean'")
        rates = model.predict(data, "made", data.samples("made", "test")).reshape(-1, 20)
        rows = {
            part: ((data.samples("made", part)["start_tick"].to_numpy() // 1000)[:, None] + np.arange(100)).ravel()
            for part in ("train", "test")
        }
    observed, null = counts[rows["test"]], counts[rows["train"]].mean(0)

    def bits(given: np.ndarray) -> float:
        gain = (observed * np.log(given / null) - given + null).sum()
        return float(gain / observed.sum() / np.log(2))

    found = {"oracle": bits(expected[rows["test"]]), "tokens": float(scores["value"].iloc[0]), "rates": bits(rates)}
    found |= {"drafts_kept": 0.0 if options.compat else drafts_kept(model.network)}
    return [{"seed": options.seed, "compat": options.compat, "cpu_seconds": round(spent)} | found]


def drafts_kept(network: Neuroformer, spikes_ahead: int = 3) -> float:
    """Share of drafted tokens that a trained network keeps, judged one after the other, over windows of one past."""
    head = network.head("made")
    past = tokens_of_counts(torch.poisson(head.expected.expand(network.past, -1)[None]).long())
    with torch.inference_mode():
        context = network.context(head, past)
    width, generator = torch.tensor([network.bins]), torch.Generator().manual_seed(0)
    with drafts_counted() as counts:
        for _ in range(200):
            write(network, head, context, width, Sampling(), generator, ahead=spikes_ahead)
    return counts[0] / max(counts[1], 1)


def heads_cost(options: argparse.Namespace) -> Rows:
    """Bits per spike that independent heads lose on independent Poisson units, before any training."""
    for units, rate, windows in ((20, 4.0, 4000), (100, 5.0, 1000), (200, 7.0, 500), (600, 5.5, 200)):
        layout = Layout(10.0, 10, 5, 0, 3, {"a": units}, {"a": list(range(units))}, {"a": [""] * units})
        drawn = np.random.default_rng(options.seed).poisson(rate / 100, (windows, 10, units))
        counts = torch.as_tensor(drawn.astype(np.uint8))
        seen = torch.ones_like(counts, dtype=torch.bool)
        batch = Batch("a", counts, seen, seen, torch.full((windows,), 10), 5)
        bits = []
        for kind in (Neuroformer, IndependentNeuroformer):
            network = kind(Config(width=16, heads=2, past=0.05), layout, Shapes(classes={"a": {}})).eval()
            network.head("a").start_at(torch.full((units,), rate / 100), {})
            with torch.inference_mode():
                cut = network.windows(batch)
                terms = network.token_log_likelihood(network.head("a"), cut, network.read(batch, cut))
            bits.append(float(sum(term.double().sum() for term in terms)) / int(cut.now.count.sum()) / np.log(2))
        yield {"units": units, "rate": rate, "cost": bits[0] - bits[1]}


def ridge(data: FitData, config: Config) -> tuple[pd.DataFrame, str]:
    """Speed of every validation and test window (sample, split, true, ridge), from the spikes that ours sees.

    Roots of counts, and counts, in bins of 25 to 500 ms; these and the penalty are chosen on the validation part.
    """
    trains = data.trains["film"]
    speed = trains.signals["running"]
    each, seen = round(1 / config.window), round(1000 * (config.window + config.past))
    best: tuple[float, str, pd.DataFrame] | None = None
    starts, speeds, known, samples = {}, {}, {}, {}
    for part in ("train", "validation", "test"):
        rows = data.samples("film", part)
        step = round(config.window * 1e5)
        starts[part] = (rows["start_tick"].to_numpy()[:, None] + np.arange(each) * step).ravel()
        moments = (starts[part][:, None] + np.arange(0, step, 1000) + 500) / 1e5
        speeds[part] = np.interp(moments, speed["time"], speed["speed"]).mean(1)
        known[part] = moments[:, -1] <= speed["time"].iloc[-1]
        samples[part] = np.repeat(rows.index.to_numpy(), each)
    for width in (25, 50, 100, 250, 500):
        counts = {
            part: bin_windows(trains, start - round(config.past * 1e5), seen // width, width * 100)
            .reshape(len(start), -1)
            .astype(float)
            for part, start in starts.items()
        }
        for name in ("roots of counts", "counts"):
            x = {part: np.sqrt(values) if name != "counts" else values for part, values in counts.items()}
            centre, spread = x["train"].mean(0), x["train"].std(0) + 1e-9
            x = {part: (values - centre) / spread for part, values in x.items()}
            fit, mean = known["train"], speeds["train"][known["train"]].mean()
            values, vectors = np.linalg.eigh(x["train"][fit].T @ x["train"][fit])
            target = vectors.T @ (x["train"][fit].T @ (speeds["train"][fit] - mean))
            for penalty in PENALTIES:
                weights = vectors @ (target / (values + penalty))
                tables = [
                    pd.DataFrame({"sample": samples[part], "true": speeds[part], "ridge": mean + x[part] @ weights})
                    .assign(split=part, known=known[part])
                    for part in ("validation", "test")
                ]  # fmt: skip
                score = r2_of(tables[0][tables[0]["known"]], "ridge")
                if best is None or score > best[0]:
                    best = score, f"{name} of {width} ms, penalty {penalty:g}", pd.concat(tables, ignore_index=True)
    assert best is not None
    return best[2], best[1]


def r2_of(table: pd.DataFrame, column: str) -> float:
    """Of `column` for `true`."""
    true = table["true"]
    return float(1 - ((true - table[column]) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def fit_decoding(options: argparse.Namespace) -> Rows:
    """Test R2 of speed on the same windows: ours, the regression that it starts from alone, and ridge; of validation
    windows with `--part validation`."""
    data = film(options.seed, options.minutes or 60)
    given = {
        "decode_hidden": options.hidden,
        "dropout": options.dropout,
        "width": options.width,
        "batch": options.batch,
    }
    config = replace(DECODING, **given)
    if options.steps:
        config = replace(config, steps=options.steps, evaluate_every=min(50, options.steps))
    linear, how = ridge(data, config)
    model, spent = fitted(config, data, options.seed, options.device)
    ours, _ = decoding_table(model, data, [options.part])
    read_out = cast(ReadOut, model.network.head("film").decode["running/speed"])
    with torch.no_grad():
        for weight in cast(torch.nn.Linear, read_out.map[-1]).parameters():
            weight.zero_()
    start, _ = decoding_table(model, data, [options.part])
    linear = linear[linear["split"] == options.part].reset_index(drop=True)
    table = linear.assign(ours=ours["predicted"], start=start["predicted"], ours_true=ours["true"])
    table = table[table["known"] & table["ours_true"].notna()]
    assert len(ours) == len(linear) and np.corrcoef(table["true"], table["ours_true"])[0, 1] > 0.99
    table = table.assign(true=table["ours_true"])
    found = {name: r2_of(table, name) for name in ("ours", "start", "ridge")}
    # Speed lasts for seconds, so that what is drawn anew are blocks of the split, not windows.
    block = data.split.samples["start_tick"].loc[table["sample"]].to_numpy() // round(BLOCK * 1e5)
    squares = [((table["true"] - table[name]) ** 2).groupby(block).sum() for name in ("ridge", "ours")]
    whole = ((table["true"] - table["true"].mean()) ** 2).groupby(block).sum()
    drawn = np.random.default_rng(0).multinomial(len(whole), np.full(len(whole), 1 / len(whole)), 2000)
    gains = drawn @ (squares[0] - squares[1]).to_numpy() / (drawn @ whole.to_numpy())
    low, high = np.percentile(gains, [2.5, 97.5])
    found |= {"gain": found["ours"] - found["ridge"], "gain_low": low, "gain_high": high}
    settings = given | {"steps": config.steps, "minutes": options.minutes or 60}
    about = {"seed": options.seed, "split": options.part, "windows": len(table), "cpu_seconds": round(spent)}
    return [about | settings | found | {"ridge_settings": how}]


def fit_finetuning(options: argparse.Namespace) -> Rows:
    """R2 of speed learned from a share of the windows, from scratch and after learning the spikes of all windows.

    Without the regression that read-outs start from, unless `--regression`: it needs no network. Pretraining has no
    read-out, so that it cannot have seen the speed of a window that is left out.
    """
    data = film(options.seed, options.minutes or 30)
    given = {"steps": options.steps or 100, "width": options.width, "batch": options.batch}
    config = replace(DECODING, evaluate_every=20, decode_linear=options.regression, **given)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "pretrained.safetensors"
        spikes = replace(config, decode={}, loss_terms=("time", "id"), select=None, steps=3 * config.steps)
        write_arrays(path, fitted(spikes, data, options.seed, options.device)[0].state())
        for fraction in FRACTIONS:
            for start, initial in (("scratch", None), ("pretrained", str(path))):
                share = replace(config, fraction=fraction, initial=initial)
                model, _ = fitted(share, data, options.seed, options.device)
                score = decoding_table(model, data, ["test"])[1].set_index("metric")["value"]
                row = {"seed": options.seed, "regression": options.regression, "fraction": fraction, "start": start}
                row |= given
                yield row | {"r2": score["decoding_r2 running/speed"], "r": score["decoding_r running/speed"]}


def fit_graph(options: argparse.Namespace) -> Rows:
    """AUC of couplings, of all pairs and of those between driven units, by several readings."""
    counts, strength = hidden_graph(options.seed, options.minutes or 30)
    standard = (counts - counts.mean(0)) / counts.std(0)
    lagged = [standard[: -lag - 1].T @ standard[lag + 1 :] / (len(counts) - lag - 1) for lag in range(10)]
    with tempfile.TemporaryDirectory() as name:
        data = cohort(counts, Path(name))
        glm = GLM(GLM.Config(), options.seed)
        glm.fit(replace(data, fitting=True), Run(Path(name) / "glm"))
        config = Config(steps=options.steps or 1500, evaluate_every=100, patience=None, past=0.1)
        model, spent = fitted(config, data, options.seed, options.device)
        looked = attention(model.network, model.batches(data, "made", "train"))
        spikes = data.counts("made", "train").sum((0, 1))
        bits = token_tables(model, data, ["test"])[0].query("null == 'train mean'")["value"].iloc[0]
        readings = {
            "cross-correlation": np.abs(lagged).max(0),
            "attention, summed": looked * spikes[:, None] * spikes,
            "attention, by rate": looked,
            "couplings probed": np.abs(model.couplings("made").strength),
            "GLM couplings": np.abs(glm.couplings("made").strength),
        }
    for reading, score in readings.items():
        row = {"seed": options.seed, "reading": reading, "bits": bits, "cpu_seconds": round(spent)}
        for pairs, first in (("all", 0), ("driven", 3)):
            other = ~np.eye(20 - first, dtype=bool)
            true = strength[first:, first:] != 0
            row[pairs] = auc(np.nan_to_num(score)[first:, first:][other], true[other])
        yield row


EXPERIMENTS = {
    "hubs": fit_hubs,
    "factors": heads_cost,
    "decoding": fit_decoding,
    "finetuning": fit_finetuning,
    "graph": fit_graph,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", choices=[*EXPERIMENTS], default="factors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compat", action="store_true")
    parser.add_argument("--regression", action="store_true", help="finetuning: read-outs start from a regression")
    parser.add_argument("--hidden", type=int, default=DECODING.decode_hidden)
    parser.add_argument("--dropout", type=float, default=DECODING.dropout)
    parser.add_argument("--width", type=int, default=DECODING.width)
    parser.add_argument("--batch", type=int, default=DECODING.batch)
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for row in EXPERIMENTS[options.experiment](options):
        print(f"{options.experiment}:", ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if options.out:
            pd.DataFrame([row]).to_csv(options.out, mode="a", header=not options.out.exists(), index=False)


if __name__ == "__main__":
    main()
