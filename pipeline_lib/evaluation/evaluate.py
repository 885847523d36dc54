"""Score fits: from their predictions, the trains and the split to a tidy table, one row a score.

Columns: cohort, session, model, seed, split, units, metric, value, ci_low, ci_high, n, null, aggregation, sees.
`units` says who was scored: "heldin" units, "heldout" units (never an input), "all" (forward bins, latents),
"coupling" (pairs of units; `split` is then the part they were fitted to), or what behaviour was decoded from ("all":
the rates of all units; "latents"). A metric that begins with leave_one_out, intra_region or inter_region is of rates of
held-in units that the model gives when the rest is hidden from it (see `Model.extras`). `n` counts windows where all is
pooled, and units (latents, pairs) where a mean is taken over them. Intervals are 95 % bootstrap intervals over windows,
drawn alike for every model, so that models can be compared pairwise; scores without one have NaN there. A score that is
not defined (bits per spike of silent units) is NaN. Nothing here imports torch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.clock import TICKS_PER_SECOND
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.bootstrap import resampling_weights
from pipeline_lib.evaluation.coupling import CouplingMatrices, recovery
from pipeline_lib.evaluation.metrics import latent_r2, r2
from pipeline_lib.evaluation.parts import Fitted, Part, read_fitted, read_part, train_means, window_bins
from pipeline_lib.evaluation.predictions import open_undamaged
from pipeline_lib.evaluation.readouts import decoding_rows, few_shot_rows
from pipeline_lib.evaluation.responses import response_rows, responses_of
from pipeline_lib.evaluation.rows import OVER_UNITS, Row, poisson_rows, score_row
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.evaluation.sums import poisson_sums, square_sums
from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.files import atomic_file, listed
from pipeline_lib.published import MANIFEST, read_manifest, read_parquet
from pipeline_lib.recording import Truth, read_description
from pipeline_lib.trains.splits import PREDICTED, Split
from pipeline_lib.trains.store import Trains

__all__ = ["COLUMNS", "Scoring", "collect", "evaluate"]

TYPES = {
    **dict.fromkeys(("cohort", "session", "model"), "str"),
    "seed": "int64",
    **dict.fromkeys(("split", "units", "metric"), "str"),
    **dict.fromkeys(("value", "ci_low", "ci_high"), "float64"),
    "n": "int64",
    **dict.fromkeys(("null", "aggregation", "sees"), "str"),
}
COLUMNS = list(TYPES)
TRUTHS = ("rates", "latents", "coupling", "coupling_filters", "synapse", "psth", "psth_condition", "psth_jitter")


@dataclass(frozen=True)
class Scoring:
    """What every fit of a cohort is scored with.

    Attributes
    ----------
    trains_dirs, recording_dirs : folders of the cohort's sessions, or of its only one; recordings give the truth of
        simulated sessions.
    split_path : the cohort's split.
    resamples : bootstrap resamples behind the intervals; 0 = no intervals.
    decoding : what to decode, by name.
    few_shot : numbers of windows from which a new readout of the held-out units is learned; InputError for one below 1.

    >>> scoring = Scoring(["results/trains/day1"], "results/splits/day1.parquet", ["results/recordings/day1"])
    >>> scoring.resamples, scoring.few_shot
    (1000, ())
    """

    trains_dirs: Sequence[Path | str]
    split_path: Path | str
    recording_dirs: Sequence[Path | str]
    resamples: int = 1000
    decoding: Mapping[str, Target] = field(default_factory=dict)
    few_shot: Sequence[int] = ()

    def __post_init__(self) -> None:
        if any(windows < 1 for windows in self.few_shot):
            raise InputError("evaluation", "few_shot", list(self.few_shot), "numbers of windows, each at least 1")


def evaluate(
    fit_dirs: Iterable[Path | str] | Path | str,
    scoring: Scoring,
    out: Path | str,
    train_dirs: Iterable[Path | str] | Path | str = (),
) -> None:
    """Write the scores of the fits of a cohort, or of one, to `out` (Parquet), sorted, whole or not at all.

    Rates averaged over seeds (`pipeline_lib.evaluation.average`) have no seed in the table, and no few-shot scores:
    those of the seeds may be of latents, of which there is no average.

    Parameters
    ----------
    fit_dirs : folders with the `predictions.zarr` of a fit, and its manifest, which says what it is called.
    scoring : the data, and what is asked of it.
    out : Parquet file to write.
    train_dirs : for each fit, the folder with its `predictions.zarr` of the training part (see
        `pipeline_lib.training.predict`), which readouts of `scoring.decoding` are fitted to; none where nothing is
        decoded.

    Raises
    ------
    InputError : no finished fit, predictions of another split or of other sessions, damaged ones, rates that are no
        expected counts, or not a `train_dirs` for each fit.

    Examples
    --------
    >>> from pipeline_lib.sources.simulate import simulate
    >>> from pipeline_lib.trains.settings import SplitSettings, WindowSettings
    >>> from pipeline_lib.trains.splits import make_split
    >>> from pipeline_lib.trains.store import Trains, convert
    >>> simulate("lorenz", {"conditions": 2, "repeats": 10}, seed=0, session="demo").write("recordings/demo")
    >>> convert("recordings/demo", "trains/demo")
    >>> split = make_split([Trains.open("trains/demo")], WindowSettings(bin_size=20), SplitSettings(), "demo")
    >>> split.write("demo.parquet")
    >>> from pipeline_lib.training.fit import fit
    >>> fit(["trains/demo"], "demo.parquet", "psth", "psth", {}, seed=0, out_dir="fits/demo/psth/seed0")
    >>> scoring = Scoring(["trains/demo"], "demo.parquet", ["recordings/demo"])
    >>> evaluate("fits/demo/psth/seed0", scoring, "psth.parquet")
    >>> {"bits_per_spike", "psth_r2"} <= set(pd.read_parquet("psth.parquet")["metric"])
    True
    """
    fits, training = listed(fit_dirs), listed(train_dirs)
    if (scoring.decoding or training) and len(training) != len(fits):
        accepted = f"predictions of the training part, one for each of {len(fits)} fits"
        raise InputError("evaluate", "--train", f"{len(training)} given", accepted)
    _write([_scores_of(fit, scoring, train) for fit, train in zip_longest(fits, training)], out)


def _scores_of(fit_dir: Path, scoring: Scoring, train_dir: Path | None) -> pd.DataFrame:
    split = Split.read(scoring.split_path)
    named, predictions = _named(fit_dir), open_undamaged(fit_dir)
    training = open_undamaged(train_dir) if train_dir is not None else None
    decoding, resamples = scoring.decoding, scoring.resamples
    few_shot = scoring.few_shot if named["seed"] is not None else ()
    recordings = {read_description(directory)["session"]: directory for directory in listed(scoring.recording_dirs)}
    rows = []
    for directory in listed(scoring.trains_dirs):
        trains = Trains.open(directory)
        fitted = read_fitted(predictions, trains, split)
        truth = _truth(recordings.get(trains.session))
        found = list(_session(trains, split, fitted, truth, resamples, few_shot))
        if training is not None and decoding:
            found += decoding_rows(decoding, trains, split, read_fitted(training, trains, split), fitted, resamples)
        rows += [{"session": trains.session, **row} for row in found]
    table = pd.DataFrame(rows, columns=COLUMNS)
    own = fit_dir / "tables" / "scores.parquet"  # what only the model could compute
    if own.is_file():
        table = pd.concat([table, read_parquet(own)], ignore_index=True)[COLUMNS]
    if named["seed"] is None:
        named["seed"] = pd.Series(pd.NA, table.index, dtype="Int64")
    return table.assign(**named, sees=str(predictions.attrs.get("sees", "")))


def collect(paths: Sequence[Path | str], out_parquet: Path | str) -> None:
    """Put tables of scores together in one, sorted; `out_parquet` appears whole or not at all. Of none, an empty one.

    Raises
    ------
    InputError : a table that is missing or damaged.

    >>> key = {"cohort": "a", "session": "a", "seed": 0, "split": "test", "units": "heldin", "metric": "bits_per_spike"}
    >>> for model in ("psth", "glm"):
    ...     row = key | {"model": model, "aggregation": "pooled", "null": "evaluated mean", "value": 0.1}
    ...     pd.DataFrame([row]).to_parquet(f"{model}.parquet")
    >>> collect(["psth.parquet", "glm.parquet"], "metrics.parquet")
    >>> pd.read_parquet("metrics.parquet")["model"].tolist()
    ['glm', 'psth']
    """
    _write([read_parquet(path) for path in paths] or [pd.DataFrame(columns=COLUMNS).astype(TYPES)], out_parquet)


def _write(tables: list[pd.DataFrame], out: Path | str) -> None:
    order = ["cohort", "session", "model", "seed", "split", "units", "metric", "aggregation", "null"]
    table = pd.concat(tables, ignore_index=True).sort_values(order, ignore_index=True, kind="stable")
    with atomic_file(out) as part:
        table.to_parquet(part, index=False)


def _named(fit_dir: Path) -> dict[str, Any]:
    """Cohort, model and seed of a fit, as its manifest says."""
    told = read_manifest(fit_dir)
    if told is None:
        accepted = "the folder of a finished fit (to have it made anew, remove it)"
        raise InputError(fit_dir, MANIFEST, "no such file", accepted)
    return {name: told[name] for name in ("cohort", "model", "seed")}


def _truth(recording: Path | None) -> Truth | None:
    """What scores need of the truth that came with a recording (of a simulation, the inputs of every neuron can be far
    larger); None where there is none."""
    if recording is None or not (recording / "truth.zarr").is_dir():
        return None
    return Truth.read(recording / "truth.zarr", TRUTHS)


def _session(
    trains: Trains, split: Split, fitted: Fitted, truth: Truth | None, resamples: int, few_shot: Sequence[int]
) -> Iterator[Row]:
    """All rows of one session."""
    nulls = {"evaluated mean": None, "train mean": train_means(trains, split)}
    heldout = np.sort(split.heldout[trains.session])
    heldin = np.setdiff1d(np.arange(trains.n_units), heldout)
    groups = {name: rows for name, rows in (("heldin", heldin), ("heldout", heldout)) if len(rows)}
    responses = responses_of(trains, split, truth)
    for name in PREDICTED:
        part = read_part(trains, split, fitted, name)
        if part is None:
            continue
        weights = resampling_weights(len(part.samples), resamples, seed=0)
        bins, forward = window_bins(part, split.forward_bins)
        window, ahead = part.observed & bins[:, :, None], part.observed & forward[:, :, None]
        sums = poisson_sums(part.counts, part.rates, window)
        rows: list[Row] = []
        for units, members in groups.items():
            rows += [row | {"units": units} for row in poisson_rows(sums.units(members), weights, nulls, members)]
        rows += response_rows(part, split, responses, groups)
        if split.forward_bins:
            every = np.arange(trains.n_units)
            scores = poisson_rows(poisson_sums(part.counts, part.rates, ahead), weights, nulls, every)
            rows += [row | {"units": "all", "metric": f"forward_{row['metric']}"} for row in scores]
        for way, rates in part.masked.items():
            known = window & ~np.isnan(rates)
            members = np.flatnonzero(known.any(axis=(0, 1)))
            scores = poisson_rows(poisson_sums(part.counts, rates, known).units(members), weights, nulls, members)
            rows += [row | {"units": "heldin", "metric": f"{way}_{row['metric']}"} for row in scores]
        if truth is not None:
            rows += _truth_rows(part, bins, truth, split.bin_ticks, groups, weights)
        yield from (row | {"split": name} for row in rows)
    if len(heldout):
        yield from few_shot_rows(few_shot, trains, split, fitted, nulls, resamples)
    if fitted.couplings is not None and truth is not None and "coupling" in truth.arrays:
        yield from _coupling_rows(fitted.couplings, truth, trains.units["population"].to_numpy(dtype=str))


def _truth_rows(
    part: Part, bins: np.ndarray, truth: Truth, ticks: int, groups: dict[str, np.ndarray], weights: np.ndarray
) -> Iterator[Row]:
    """R2 of rates and of latents where the simulator knows them."""
    where = part.samples["start_tick"].to_numpy(dtype=np.int64), part.rates.shape[1], ticks
    if "rates" in truth.arrays:
        expected = window_means(truth, "rates", *where) * (ticks / TICKS_PER_SECOND)
        for units, members in groups.items():
            sums = square_sums(expected[:, :, members], part.rates[:, :, members], bins[:, :, None])
            values, windows = r2(sums.weighted(weights)), weights.shape[1]
            row = score_row("rate_r2", values, len(members), aggregation=OVER_UNITS, windows=windows)
            yield row | {"units": units}
    if "latents" in truth.arrays and part.latents is not None:
        latents = window_means(truth, "latents", *where)
        value = np.array([latent_r2(part.latents, latents, bins)])
        yield score_row("latent_r2", value, latents.shape[2], aggregation="mean over latents") | {"units": "all"}


def _coupling_rows(fitted: CouplingMatrices, truth: Truth, population: np.ndarray) -> Iterator[Row]:
    """Recovery of the true couplings, of all pairs and of those between populations.

    Within a population, background that its units share looks like coupling; between populations less so.
    """
    true = CouplingMatrices(
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
            row = score_row(metric, np.array([value]), n, aggregation=over + where)
            yield row | {"split": "train", "units": "coupling"}
