"""A small results tree for figures and the report: a simulated session, and predictions made up from its true rates."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from pipeline_lib.recording import Provenance, Recording, Truth
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains, convert

BIN_MS = 5.0
MODELS = ("mean_rate", "psth", "smoothing", "glm")
SEES = {
    "mean_rate": "nothing",
    "psth": "the trial's condition",
    "smoothing": "held-in units, past and future",
    "glm": "past of held-in units",
}
LAGS = 20


@dataclass(frozen=True)
class Results:
    """Paths of the tree."""

    directory: Path
    session: str
    recording: Path
    trains: Path
    split: Path
    fits: tuple[Path, ...]
    metrics: Path

    def paths(self) -> dict:
        names = ("recording", "trains", "split", "metrics")
        absent = {"source": self.directory / "data" / self.session, "searches": []}
        return {**{name: getattr(self, name) for name in names}, "fits": list(self.fits), **absent}

    def of(self, scope: str) -> dict:
        """The same as a figure of that scope wants them: lists of sessions for one of all results."""
        if scope != "all":
            return self.paths()
        every = {"recording": "recordings/*", "trains": "trains/*", "split": "splits/*"}
        lists = {need: sorted(self.directory.glob(pattern)) for need, pattern in every.items()}
        fits = sorted(path.parent for path in self.directory.glob("fits/*/*/*/manifest.json"))
        jobs = [recording.name for recording in lists["recording"]]
        return self.paths() | lists | {"fits": fits, "benchmarks": self.directory / "benchmarks", "jobs": jobs}


def simulate(session: str, units: int = 40, trials: int = 60, seed: int = 0, truth: bool = True) -> Recording:
    """Poisson units in two regions, driven by a condition's slow oscillation; 1-s trials, 0.3 s apart."""
    rng = np.random.default_rng(seed)
    bins, seconds = 200, BIN_MS / 1000
    time = np.arange(bins) * seconds
    conditions = np.array(["left", "right", "catch"])[rng.integers(0, 3, trials)]
    phase = {"left": 0.0, "right": 2.0, "catch": 4.0}
    gain, offset = rng.normal(0, 0.9, units), rng.uniform(0, 2 * np.pi, units)
    base = rng.gamma(2.0, 6.0, units)
    jitter = rng.normal(0, 0.6, trials)
    wave = np.stack([time * 9 + phase[c] + j for c, j in zip(conditions, jitter, strict=True)])
    rates = base * np.exp(gain * np.sin(wave[..., None] + offset))
    rates[:, :80] *= 0.7
    counts = rng.poisson(rates * seconds)
    trial, bin_, unit = np.nonzero(counts)
    repeats = counts[trial, bin_, unit]
    starts = 0.5 + 1.3 * np.arange(trials)
    times = np.repeat(starts[trial] + time[bin_], repeats) + rng.uniform(0, seconds, repeats.sum())
    spike_units = np.repeat(unit, repeats)
    order = np.argsort(times, kind="stable")
    regions = np.where(np.arange(units) < units * 0.6, "VISp", "VISl")
    coupling = np.where(rng.random((units, units)) < 0.08, rng.choice([-1.0, 1.0], (units, units)), 0.0)
    np.fill_diagonal(coupling, 0)
    shape = np.exp(-np.arange(LAGS) / 5) / 5
    attributes = {"bin_size": BIN_MS, "trial_start": starts.tolist(), "unit_id": [f"u{k}" for k in range(units)]}
    arrays = {"rates": rates.astype(np.float32), "coupling": coupling.astype(np.float32)}
    arrays["coupling_filters"] = (coupling[..., None] * shape).astype(np.float32)
    duration = float(starts[-1] + 1.5)
    return Recording(
        session=session,
        spike_times=times[order],
        spike_units=spike_units[order].astype(np.int32),
        units=pd.DataFrame({"unit_id": attributes["unit_id"], "region": regions, "population": regions}),
        trials=pd.DataFrame({"start": starts, "stop": starts + 1.0, "condition": conditions}),
        duration=duration,
        observed=np.array([[0.0, duration]]),
        provenance=Provenance(
            source="simulated",
            source_id=session,
            release="v1",
            licence="CC-BY-4.0",
            citation="Nobody et al. (2020), A recording that was made up.",
            files={"spikes.npz": "0" * 64},
            counts={
                "units_before": units + 15,
                "units_after": units,
                "spikes_before": int(1.4 * len(times)),
                "trials_before": trials,
            },
        ),
        truth=Truth(arrays, attributes) if truth else None,
        candidates=left_out(regions, np.bincount(spike_units, minlength=units) / duration),
    )


def left_out(regions: np.ndarray, rates: np.ndarray, others: int = 15) -> pd.DataFrame:
    """The units of the session, and slow `others` that a selection did not keep: ten in VISp, the rest in CA1."""
    kept = np.arange(len(rates) + others) < len(rates)
    region = np.concatenate([regions, np.where(np.arange(others) < 10, "VISp", "CA1")])
    rate = np.concatenate([rates, np.linspace(0, 0.5, others)])
    unit_id = [f"u{k}" for k in range(len(kept))]
    quality = {"rate": rate, "presence": np.where(kept, 0.97, 0.4), "violations": np.where(kept, 0.002, np.nan)}
    # A spike every two seconds of those in VISp; those in CA1, of which none was kept, have some too.
    excerpt = [np.empty(0) if each else np.arange(0.25, 80, 2.0) for each in kept]
    return pd.DataFrame({"unit_id": unit_id, "region": region, "kept": kept, **quality, "excerpt": excerpt})


def write_results(
    directory: Path, session: str = "demo", mode: str = "trials", seed: int = 0, before: float = 0.0, **options
) -> Results:
    """Recording, trains, split, fits, metrics of one session, in the places that DESIGN.md gives them."""
    recording = simulate(session, seed=seed, **options)
    recording_dir, trains_dir = directory / "recordings" / session, directory / "trains" / session
    recording.write(recording_dir)
    convert(recording_dir, trains_dir)
    windows = WindowSettings(bin_size=BIN_MS, mode=mode, before=before, after=1.0, length=2.6)
    write_benchmarks(directory, session)
    (directory / "data" / session).mkdir(parents=True)  # where raw voltage would be
    store = Trains.open(trains_dir)
    settings = SplitSettings(heldout_units=0.2, fractions=(0.6, 0.1, 0.3), block=5.2)
    split = make_split([store], windows, settings, cohort=session)
    split_path = directory / "splits" / f"{session}.parquet"
    split.write(split_path)
    fits = tuple(
        write_fit(directory, recording, split, model, fit_seed)
        for model in MODELS
        for fit_seed in ((0, 1) if model == "glm" else (0,))
    )
    metrics = directory / "metrics.parquet"
    table = made_up_metrics(session, seed)
    if metrics.exists():
        table = pd.concat([pd.read_parquet(metrics), table], ignore_index=True)
    table.to_parquet(metrics, index=False)
    return Results(directory, session, recording_dir, trains_dir, split_path, fits, metrics)


def write_benchmarks(directory: Path, session: str) -> None:
    """What Snakemake writes of a job."""
    for stage, seconds in (("convert", 1.5), ("record", 2.5)):
        path = directory / "benchmarks" / stage / f"{session}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:01\t140.5\t{seconds / 2}\n")


def expected_counts(recording: Recording, split: Split, samples: pd.DataFrame, model: str) -> np.ndarray:
    """Counts a bin, [S, T, N], that a model of that name could plausibly predict."""
    rates, starts = recording.truth.arrays["rates"], np.array(recording.truth.attributes["trial_start"])
    bins = int(samples["bins"].max())
    seconds = split.bin_ticks / 1e5
    times = samples["start_tick"].to_numpy()[:, None] / 1e5 + np.arange(bins) * seconds
    trial = np.clip(np.searchsorted(starts, times + 1e-9) - 1, 0, len(starts) - 1)
    inside = np.clip(((times - starts[trial]) / (BIN_MS / 1000)).astype(int), 0, rates.shape[1] - 1)
    true = rates[trial, inside] * seconds
    flat = np.broadcast_to(true.mean(axis=(0, 1)), true.shape)
    if model == "mean_rate":
        return flat
    if model == "psth":
        condition = samples["condition"].to_numpy()
        return np.stack([true[condition == name].mean(axis=0) for name in condition])
    return 0.6 * true + 0.4 * flat if model == "smoothing" else 0.9 * true + 0.1 * flat


def write_fit(directory: Path, recording: Recording, split: Split, model: str, seed: int) -> Path:
    """The files of a fit that figures and the report read."""
    fit = directory / "fits" / split.cohort / model / f"seed{seed}"
    fit.mkdir(parents=True)
    samples = pd.concat([split.part(recording.session, part) for part in ("validation", "test")])
    attributes = {"model": model, "seed": seed, "sees": SEES[model], "bin_size": split.bin_size}
    root = zarr.create_group(str(fit / "predictions.zarr"), attributes=attributes)
    group = root.create_group(recording.session)
    rates = expected_counts(recording, split, samples, model).astype(np.float32)
    for row, bins in enumerate(samples["bins"]):
        rates[row, bins:] = np.nan
    group.create_array("rates", data=rates)
    group.create_array("sample", data=samples.index.to_numpy(dtype=np.int64))
    rng = np.random.default_rng(seed + 100)
    if model == "glm":
        mix = rng.normal(size=(rates.shape[2], 4)).astype(np.float32)
        group.create_array("latents", data=np.log(rates + 1e-3) @ mix)
    if model == "glm":
        filters = recording.truth.arrays["coupling_filters"] + rng.normal(0, 0.02, (1, 1, LAGS))
        filters = filters * 0.8 + rng.normal(0, 0.015, filters.shape)
        filters[split.heldout[recording.session]] = np.nan
        couplings = group.create_group("couplings", attributes={"bin_size": split.bin_size})
        couplings.create_array("filters", data=filters.astype(np.float32))
        couplings.create_array("strength", data=filters.sum(axis=2).astype(np.float32))
        steps = np.arange(0, 300, 2)
        loss = 0.31 + 0.1 * np.exp(-steps / 60) + rng.normal(0, 0.001, len(steps))
        history = pd.DataFrame({"step": steps, "loss": loss, "validation_loss": loss + 0.01 + steps * 2e-5})
    else:
        history = pd.DataFrame({"step": [1], "loss": [0.4]})
    history.to_csv(fit / "history.csv", index=False)
    run = {"wall_seconds": 12.5, "cpu_seconds": 9.75, "peak_memory_mb": 310.2, "device": "cpu", "python": "3.11.9"}
    run |= {"packages": {"trainyard": "0.1.0", "torch": "2.13"}, "git": {"commit": "c0ffee" * 6, "dirty": False}}
    (fit / "run.json").write_text(json.dumps(run))
    (fit / "manifest.json").write_text(json.dumps({"key": "abc", "files": {"model.safetensors": "1" * 64}}))
    return fit


def made_up_metrics(session: str, seed: int) -> pd.DataFrame:
    """Bits/spike for held-in and held-out units, and rows of other metrics that figures must leave out."""
    rng = np.random.default_rng(seed)
    level = {"mean_rate": 0.0, "psth": 0.11, "smoothing": 0.16, "glm": 0.24}
    rows = []
    for model in MODELS:
        for fit_seed in (0, 1) if model == "glm" else (0,):
            for units, share in (("heldin", 1.0), ("heldout", 0.7)):
                value = level[model] * share + rng.normal(0, 0.006)
                row = {"cohort": session, "session": session, "model": model, "seed": fit_seed, "split": "test"}
                row |= {"units": units, "metric": "bits_per_spike", "value": value, "ci_low": value - 0.02}
                row |= {"ci_high": value + 0.025, "n": 18, "null": "evaluated mean"}
                rows.append(row | {"aggregation": "pooled", "sees": SEES[model]})
                rows.append(row | {"aggregation": "mean over units", "sees": SEES[model], "value": 9.0})
                rows.append(row | {"aggregation": "pooled", "null": "train mean", "sees": SEES[model], "value": 8.0})
                rows.append(row | {"metric": "poisson_d2", "aggregation": "pooled", "sees": SEES[model], "value": 0.1})
    return pd.DataFrame(rows)
