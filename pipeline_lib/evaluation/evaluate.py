"""Score a fit: from its predictions, the trains and the split to a tidy table, one row a score.

Columns: cohort, session, model, seed, split, units, metric, value, ci_low, ci_high, n, null, aggregation, sees.
`units` says who was scored: "heldin" units, "heldout" units (never an input), "all" (forward bins, latents), or
"coupling" (pairs of units; `split` is then the part they were fitted to). `n` counts windows where all is pooled, and
units (latents, pairs) where a mean is taken over them. Intervals are 95 % bootstrap intervals over windows, drawn alike
for every model, so that models can be compared pairwise; scores without one have NaN there. A score that is not defined
(bits per spike of silent units) is NaN. Nothing here imports torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.coupling import Couplings, recovery
from pipeline_lib.evaluation.metrics import (
    bits_per_spike,
    latent_r2,
    null_rates,
    poisson_d2,
    psth_r2,
    r2,
    unit_bits_per_spike,
)
from pipeline_lib.evaluation.sums import PoissonSums, blocks, poisson_sums, square_sums
from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.files import atomic_file
from pipeline_lib.recording import Truth, read_description
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

COLUMNS = [
    *("cohort", "session", "model", "seed", "split", "units", "metric"),
    *("value", "ci_low", "ci_high", "n", "null", "aggregation", "sees"),
]
PARTS = ("validation", "test")
PSTH_SMOOTHING = 20.0  # ms
TRUTHS = ("rates", "latents", "coupling", "coupling_filters", "synapse")
POOLED, OVER_UNITS = "pooled", "mean over units"

Row = dict[str, Any]


def evaluate(
    fit_dir: Path | str,
    trains_dirs: Sequence[Path | str],
    split_path: Path | str,
    recording_dirs: Sequence[Path | str],
    out: Path | str,
    cohort: str,
    model: str,
    seed: int,
    resamples: int = 1000,
) -> None:
    """Write the table of scores of one fit to `out` (Parquet), whole or not at all.

    Parameters
    ----------
    fit_dir : folder with `predictions.zarr`.
    trains_dirs, recording_dirs : folders of the cohort's sessions; recordings give the truth of simulated sessions.
    resamples : bootstrap resamples behind the intervals; 0 = no intervals.

    Raises
    ------
    InputError : predictions of another split or of other sessions, or rates that are no expected counts.
    """
    import zarr

    split = Split.read(split_path)
    store = Path(fit_dir) / "predictions.zarr"
    if not store.is_dir():
        raise InputError(fit_dir, "predictions.zarr", "no such store", "a finished fit")
    predictions = zarr.open_group(str(store), mode="r")
    recordings = {read_description(directory)["session"]: Path(directory) for directory in recording_dirs}
    rows = []
    for directory in trains_dirs:
        trains = Trains.open(directory)
        if trains.session not in predictions:
            raise InputError(store, trains.session, "no such group", "predictions of every session of the cohort")
        fitted = _read(store, predictions[trains.session], trains, split)
        truth = _truth(recordings.get(trains.session))
        rows += [{"session": trains.session, **row} for row in _session(trains, split, fitted, truth, resamples)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    own = Path(fit_dir) / "tables" / "scores.parquet"  # what only the model could compute
    if own.is_file():
        table = pd.concat([table, pd.read_parquet(own)], ignore_index=True)[COLUMNS]
    table = table.assign(cohort=cohort, model=model, seed=seed, sees=str(predictions.attrs.get("sees", "")))
    with atomic_file(out) as part:
        table.to_parquet(part, index=False)


def collect(paths: Sequence[Path | str], out_parquet: Path | str) -> None:
    """Put tables of scores together in one, sorted; `out_parquet` appears whole or not at all."""
    table = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    order = ["cohort", "session", "model", "seed", "split", "units", "metric", "aggregation", "null"]
    with atomic_file(out_parquet) as part:
        table.sort_values(order, ignore_index=True, kind="stable").to_parquet(part, index=False)


@dataclass(frozen=True)
class _Fitted:
    """What a fit says of one session: `rates` (samples, bins, units), `sample` (samples,) rows of the split."""

    rates: np.ndarray
    sample: np.ndarray
    latents: np.ndarray | None
    couplings: Couplings | None


@dataclass(frozen=True)
class _Part:
    """Prediction and measurement of one part of a session; arrays (samples, bins, units) but for `samples`."""

    samples: pd.DataFrame
    rates: np.ndarray
    counts: np.ndarray
    observed: np.ndarray
    latents: np.ndarray | None


def _read(store: Path, group: Any, trains: Trains, split: Split) -> _Fitted:
    rates, sample = np.asarray(group["rates"][:]), np.asarray(group["sample"][:])
    unknown = np.setdiff1d(sample, split.samples.index[split.samples["session"] == trains.session])
    if len(unknown):
        accepted = "samples of this split (was the fit made with another?)"
        raise InputError(store, f"{trains.session}/sample", int(unknown[0]), accepted)
    if rates.ndim != 3 or rates.shape[::2] != (len(sample), trains.n_units):
        accepted = f"({len(sample)}, bins, {trains.n_units})"
        raise InputError(store, f"{trains.session}/rates", f"shape {rates.shape}", accepted)
    couplings = None
    if "couplings" in group:
        stored = group["couplings"]
        bin_size = float(stored.attrs.get("bin_size", split.bin_size))
        couplings = Couplings(np.asarray(stored["strength"][:]), np.asarray(stored["filters"][:]), bin_size)
    return _Fitted(rates, sample, np.asarray(group["latents"][:]) if "latents" in group else None, couplings)


def _truth(recording: Path | None) -> Truth | None:
    """What scores need of a simulation's truth (its inputs of every neuron can be far larger); None for real data."""
    import zarr

    if recording is None or not (recording / "truth.zarr").is_dir():
        return None
    group = zarr.open_group(str(recording / "truth.zarr"), mode="r")
    return Truth({name: np.asarray(group[name][:]) for name in TRUTHS if name in group}, dict(group.attrs))


def _session(trains: Trains, split: Split, fitted: _Fitted, truth: Truth | None, resamples: int) -> Iterator[Row]:
    """All rows of one session."""
    nulls = {"evaluated mean": None, "train mean": train_means(trains, split)}
    heldout = np.sort(np.asarray(split.heldout.get(trains.session, ()), dtype=np.int64))
    heldin = np.setdiff1d(np.arange(trains.n_units), heldout)
    groups = {name: rows for name, rows in (("heldin", heldin), ("heldout", heldout)) if len(rows)}
    for name in PARTS:
        part = _part(trains, split, fitted, name)
        if part is None:
            continue
        weights = resampling_weights(len(part.samples), resamples, seed=0)
        bins, forward = _window_bins(part, split.forward_bins)
        window, ahead = part.observed & bins[:, :, None], part.observed & forward[:, :, None]
        sums = poisson_sums(part.counts, part.rates, window)
        rows: list[Row] = []
        for units, members in groups.items():
            rows += [row | {"units": units} for row in _poisson_rows(sums.units(members), weights, nulls, members)]
            rows += [row | {"units": units} for row in _psth_rows(part, window, members, split.bin_size)]
        if split.forward_bins:
            every = np.arange(trains.n_units)
            scores = _poisson_rows(poisson_sums(part.counts, part.rates, ahead), weights, nulls, every)
            rows += [row | {"units": "all", "metric": f"forward_{row['metric']}"} for row in scores]
        if truth is not None:
            rows += _truth_rows(part, bins, truth, split.bin_ticks, groups, weights)
        yield from (row | {"split": name} for row in rows)
    if fitted.couplings is not None and truth is not None and "coupling" in truth.arrays:
        yield from _coupling_rows(fitted.couplings, truth, trains.units["population"].to_numpy(dtype=str))


def _part(trains: Trains, split: Split, fitted: _Fitted, name: str) -> _Part | None:
    """The samples of a part that were predicted; None where there is none."""
    chosen = np.flatnonzero((split.samples["split"].loc[fitted.sample] == name).to_numpy())
    if not len(chosen):
        return None
    samples = split.samples.loc[fitted.sample[chosen]]
    rates = fitted.rates[chosen]
    where = samples["start_tick"].to_numpy(dtype=np.int64), rates.shape[1], split.bin_ticks
    latents = None if fitted.latents is None else fitted.latents[chosen]
    return _Part(samples, rates, bin_windows(trains, *where), observed_windows(trains, *where), latents)


def _window_bins(part: _Part, forward: int) -> tuple[np.ndarray, np.ndarray]:
    """Which bins of each sample (samples, bins) are its window, and which its forward bins, at its end."""
    position, bins = np.arange(part.rates.shape[1]), part.samples["bins"].to_numpy()[:, None]
    return position < bins - forward, (position >= bins - forward) & (position < bins)


def train_means(trains: Trains, split: Split) -> np.ndarray:
    """Mean count per bin of every unit (units,) over the observed bins of its training windows."""
    samples = split.part(trains.session, "train")
    start, bins = samples["start_tick"].to_numpy(dtype=np.int64), samples["bins"].to_numpy()
    longest = int(bins.max()) if len(bins) else 0
    spikes, observed = np.zeros(trains.n_units), np.zeros(trains.n_units)
    for rows in blocks((len(samples), longest, trains.n_units)):
        where = start[rows], longest, split.bin_ticks
        valid = observed_windows(trains, *where) & (np.arange(longest) < bins[rows, None])[:, :, None]
        spikes += np.where(valid, bin_windows(trains, *where), 0).sum(axis=(0, 1), dtype=np.float64)
        observed += valid.sum(axis=(0, 1))
    return spikes / np.maximum(observed, 1)


def _row(metric: str, values: np.ndarray, n: int, null: str = "", aggregation: str = POOLED) -> Row:
    """A row from the score of the data (first of `values`) and of its bootstrap (the others)."""
    low, high = interval(values[1:])
    score = {"metric": metric, "value": float(values[0]), "ci_low": low, "ci_high": high}
    return {**score, "n": n, "null": null, "aggregation": aggregation}


def _poisson_rows(
    sums: PoissonSums, weights: np.ndarray, nulls: dict[str, np.ndarray | None], members: np.ndarray
) -> Iterator[Row]:
    """Bits per spike, pooled and averaged over units, and deviance explained, against each null.

    A null is the same in all resamples: fitted to each it would gain from the resampling and shift the interval.
    """
    drawn = sums.weighted(weights)
    for name, rates in nulls.items():
        null = null_rates(sums.total())[0] if rates is None else rates[members]
        yield _row("bits_per_spike", bits_per_spike(drawn, null), len(sums.spikes), name)
        each = unit_bits_per_spike(drawn, null)
        defined = np.isfinite(each).sum(axis=1)
        mean = np.where(defined > 0, np.nansum(each, axis=1) / np.maximum(defined, 1), np.nan)
        yield _row("bits_per_spike", mean, int(defined[0]), name, OVER_UNITS)
        yield _row("poisson_d2", poisson_d2(drawn, null), len(sums.spikes), name)


def _psth_rows(part: _Part, window: np.ndarray, members: np.ndarray, bin_size: float) -> Iterator[Row]:
    """PSTH R2 where windows are trials.

    Without an interval: resampled trials double the noise of the measured PSTH, so that a bootstrap is biased down.
    """
    if (part.samples["trial"] < 0).any():
        return
    arrays = (part.counts[:, :, members], part.rates[:, :, members])
    condition = part.samples["condition"].to_numpy(dtype=str)
    value, units = psth_r2(*arrays, condition, PSTH_SMOOTHING / bin_size, window[:, :, members])
    yield _row("psth_r2", np.array([value]), units, aggregation=OVER_UNITS)


def _truth_rows(
    part: _Part, bins: np.ndarray, truth: Truth, ticks: int, groups: dict[str, np.ndarray], weights: np.ndarray
) -> Iterator[Row]:
    """R2 of rates and of latents where the simulator knows them."""
    where = part.samples["start_tick"].to_numpy(dtype=np.int64), part.rates.shape[1], ticks
    if "rates" in truth.arrays:
        expected = window_means(truth, "rates", *where) * (ticks / TICKS_PER_SECOND)
        for units, members in groups.items():
            sums = square_sums(expected[:, :, members], part.rates[:, :, members], bins[:, :, None])
            row = _row("rate_r2", r2(sums.weighted(weights)), len(members), aggregation=OVER_UNITS)
            yield row | {"units": units}
    if "latents" in truth.arrays and part.latents is not None:
        latents = window_means(truth, "latents", *where)
        value = np.array([latent_r2(part.latents, latents, bins)])
        yield _row("latent_r2", value, latents.shape[2], aggregation="mean over latents") | {"units": "all"}


def _coupling_rows(fitted: Couplings, truth: Truth, population: np.ndarray) -> Iterator[Row]:
    """Recovery of the true couplings, of all pairs and of those between populations.

    Within a population, background that its units share looks like coupling; between populations less so.
    """
    true = Couplings(
        truth.arrays["coupling"], truth.arrays.get("coupling_filters"), float(truth.attributes["bin_size"])
    )
    between = population[:, None] != population
    for where, among in (("", None), (" between populations", between))[: 2 if between.any() else 1]:
        found = recovery(fitted, true, truth.arrays.get("synapse"), among)
        scores = {
            "coupling_auc": (found.auc, found.pairs, "pairs"),
            "coupling_filter_auc": (found.filter_auc, found.pairs, "pairs"),
            "coupling_sign_accuracy": (found.sign_accuracy, found.synapses, "synapses"),
            "coupling_correlation": (found.strength_correlation, found.pairs, "pairs"),
            "coupling_filter_correlation": (found.filter_correlation, found.synapses, "synapses"),
            "coupling_false_share": (found.false_share, found.pairs, "pairs"),
            "coupling_not_fitted": (float(found.not_fitted), found.pairs + found.not_fitted, "pairs"),
        }
        for metric, (value, n, over) in scores.items():
            row = _row(metric, np.array([value]), n, aggregation=over + where)
            yield row | {"split": "train", "units": "coupling"}
