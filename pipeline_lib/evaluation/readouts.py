"""Rows of the table for readouts: of behaviour, fitted to the training part; of held-out units, from few windows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.bootstrap import resampling_weights
from pipeline_lib.evaluation.decoding import (
    FOLDS,
    balanced_accuracy,
    decode_classes,
    fit_ridge,
    signal_in_bins,
    speed_correlation,
    window_features,
)
from pipeline_lib.evaluation.metrics import r2
from pipeline_lib.evaluation.parts import Fitted, Part, joined, read_part, window_bins
from pipeline_lib.evaluation.rows import Nulls, Row, poisson_rows, score_row
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.evaluation.sums import poisson_sums, square_sums
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge, log_rates
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

NOT_DEFINED = np.array([np.nan])
OVER_DIMENSIONS, OVER_CLASSES, OVER_GROUPS = "mean over dimensions", "mean over classes", "mean over groups"
OVER_BOTH = "mean over dimensions and groups"
DRAWS = 5
"""Random choices of the windows that a few-shot readout learns from; its score is their mean."""
FEW_SHOT_RIDGE = 10.0
"""Penalty of that readout (nats), for inputs of variance 1."""


def decoding_rows(
    targets: Mapping[str, Target], trains: Trains, split: Split, training: Fitted, fitted: Fitted, resamples: int
) -> Iterator[Row]:
    """A row a target, of the test part: what is decoded of it from the rates of all units, and from the latents.

    Not a number, with n = 0, where the session does not have the target or the training part is too small for it.
    """
    train, test = read_part(trains, split, training, "train"), read_part(trains, split, fitted, "test")
    if train is None or test is None:
        return
    weights = resampling_weights(len(test.samples), resamples, seed=0)
    validation = None
    if any(target.learn_validation for target in targets.values()):
        validation = read_part(trains, split, fitted, "validation")
    whole = train if validation is None else joined(train, validation)
    for name, target in targets.items():
        learned = whole if target.learn_validation else train
        inputs = {"all": (learned.rates, test.rates)}
        if learned.latents is not None and test.latents is not None:
            inputs["latents"] = (learned.latents, test.latents)
        for units, pair in inputs.items():
            if target.signal is not None:
                row = _signal_row(name, target, trains, split, (learned, test), pair, weights)
            elif target.choice is not None:
                row = _choice_row(name, target.choice, trains, split, (learned, test), pair, weights)
            else:
                row = _timing_row(name, target, trains, split, test, pair[1])
            yield row | {"split": "test", "units": units}


Pair = tuple[np.ndarray, np.ndarray]


def _signal_row(
    name: str,
    target: Target,
    trains: Trains,
    split: Split,
    parts: tuple[Part, Part],
    inputs: Pair,
    weights: np.ndarray,
) -> Row:
    """A readout for each group of trials that `within` makes; not defined if too few bins train one of them."""
    metric, over = f"decoding_{name}_r2", OVER_BOTH if target.within else OVER_DIMENSIONS
    if target.signal not in trains.signals:
        return score_row(metric, NOT_DEFINED, 0, aggregation=over)
    signal = trains.signals[target.signal]
    time, columns = signal["time"].to_numpy(), signal.drop(columns="time").to_numpy(dtype=np.float64)
    true = [
        signal_in_bins(
            time, columns, part.samples["start_tick"].to_numpy(), part.rates.shape[1], split.bin_ticks, target.lag
        )
        for part in parts
    ]
    known = [
        _recorded(part, split.forward_bins) & np.isfinite(values).all(axis=2)
        for part, values in zip(parts, true, strict=True)
    ]
    groups = [_groups(trains, part.samples, target.within) for part in parts]
    scores, windows = [], 0
    for group in np.unique(groups[1]):
        train, test = (seen & (own == group)[:, None] for seen, own in zip(known, groups, strict=True))
        if group == "" or not test.any():
            continue
        if train.sum() < FOLDS:
            return score_row(metric, NOT_DEFINED, 0, aggregation=over)
        readout = fit_ridge(inputs[0][train], true[0][train])
        estimate = np.full(true[1].shape, np.nan)
        estimate[test] = readout.predict(inputs[1][test].astype(np.float64))
        sums = square_sums(true[1], estimate, np.broadcast_to(test[:, :, None], true[1].shape))
        scores.append(r2(sums.weighted(weights)))
        windows += int(test.any(axis=1).sum())
    if not scores:
        return score_row(metric, NOT_DEFINED, 0, aggregation=over)
    return score_row(metric, np.mean(scores, axis=0), true[1].shape[2], aggregation=over, windows=windows)


def _choice_row(
    name: str, column: str, trains: Trains, split: Split, parts: tuple[Part, Part], inputs: Pair, weights: np.ndarray
) -> Row:
    """Trials without a value are left out; chance is one over the number of classes."""
    metric = f"decoding_{name}_balanced_accuracy"
    columns = [_of_trials(trains, part.samples, column) for part in parts]
    known = [values != "" for values in columns]
    classes = np.unique(columns[0][known[0]])
    if len(classes) < 2 or not known[1].any():
        return score_row(metric, NOT_DEFINED, 0, "chance", OVER_CLASSES)
    bins = [window_bins(part, split.forward_bins)[0].sum(axis=1)[rows] for part, rows in zip(parts, known, strict=True)]
    features = [window_features(values[rows], length) for values, rows, length in zip(inputs, known, bins, strict=True)]
    decoded = decode_classes(features[0], columns[0][known[0]], features[1])
    scores = balanced_accuracy(columns[1][known[1]], decoded, weights[:, known[1]])
    windows = int(known[1].sum())
    return score_row(metric, scores, windows, f"chance 1/{len(classes)}", OVER_CLASSES, windows)


def _timing_row(name: str, target: Target, trains: Trains, split: Split, test: Part, inputs: np.ndarray) -> Row:
    metric = f"decoding_{name}_speed_correlation"
    timing, group = _timing(name, target, trains, test.samples)
    if not np.isfinite(timing).any():
        return score_row(metric, NOT_DEFINED, 0, aggregation=OVER_GROUPS)
    # Held-out units are known where the benchmark's trials are under way, held-in ones also before.
    heldout = test.observed[:, :, split.heldout[trains.session]].any(axis=2)
    known = _recorded(test, split.forward_bins) & (heldout if heldout.any() else True)
    value = np.array([speed_correlation(inputs, known, timing, group)])
    return score_row(metric, value, int(np.isfinite(timing).sum()), aggregation=OVER_GROUPS)


def check_timing(targets: Mapping[str, Target], trains: Trains, split: Split) -> None:
    """InputError where a column of `timing` holds something else than times in trials that it would be scored in."""
    for name, target in targets.items():
        if target.timing is not None:
            _timing(name, target, trains, split.part(trains.session, "test"))


def _timing(name: str, target: Target, trains: Trains, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The time of each of `samples` (NaN: none) and its group ("": none, and so no time)."""
    times = _of_trials(trains, samples, str(target.timing))
    group = _groups(trains, samples, target.within)
    times[group == ""] = ""
    timing = pd.to_numeric(pd.Series(times), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.isnan(timing) & (times != "")
    if wrong.any():
        accepted = f"a time in every trial that has one, in the column {target.timing} of {trains.session}"
        raise InputError("evaluation", f"decoding.{name}.timing", repr(str(times[wrong][0])), accepted)
    return timing, group


def _recorded(part: Part, forward: int) -> np.ndarray:
    """Bins of each window (samples, bins) in which any unit was observed; elsewhere rates are of nothing."""
    return window_bins(part, forward)[0] & part.observed.any(axis=2)


def _groups(trains: Trains, samples: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The values of some columns of the trials table at samples of a split, as one text; "" where one is missing."""
    values = [_of_trials(trains, samples, column).tolist() for column in columns]
    rows = zip(*values, strict=True) if values else [("all",)] * len(samples)
    return np.array([repr(row) if all(row) else "" for row in rows], dtype=str)


def _of_trials(trains: Trains, samples: pd.DataFrame, column: str) -> np.ndarray:
    """A column of the trials table at samples of a split, as text; "" where there is none."""
    trial = samples["trial"].to_numpy()
    if column not in trains.trials or (trial < 0).any():
        return np.full(len(trial), "")
    values = trains.trials[column].iloc[trial]
    return np.where(values.isna(), "", values.astype(str)).astype(str)


def few_shot_rows(
    windows: Sequence[int], trains: Trains, split: Split, fitted: Fitted, nulls: Nulls, resamples: int
) -> Iterator[Row]:
    """Bits per spike of held-out units read out anew from the latents (else the log-rates of held-in units).

    A Poisson readout is fitted to a few windows of the validation part, where the model saw no held-out unit, and
    scored on the test part: good latents need few. After Dabholkar & Barak 2025 (PLOS Comput Biol, "Predictive power
    of latents is not enough"). No row where the validation part has fewer windows in which such a unit was observed.
    """
    validation, test = (read_part(trains, split, fitted, name) for name in ("validation", "test"))
    if not windows or validation is None or test is None:
        return
    heldout = np.sort(split.heldout[trains.session])
    heldin = np.setdiff1d(np.arange(trains.n_units), heldout)
    shown, scored = (
        part.observed[:, :, heldout] & window_bins(part, split.forward_bins)[0][:, :, None]
        for part in (validation, test)
    )
    usable = np.flatnonzero(shown.any(axis=(1, 2)))
    if not len(usable):
        return
    features, unseen = (_features(part, heldin) for part in (validation, test))
    inside = _recorded(validation, split.forward_bins)
    centre, scale = features[inside].mean(axis=0), np.maximum(features[inside].std(axis=0), 1e-6)
    weights = resampling_weights(len(test.samples), resamples, seed=0)
    random = np.random.default_rng(0)
    for count in sorted({number for number in windows if number <= len(usable)}):
        draws: list[list[Row]] = []
        for _ in range(DRAWS):
            rows = random.permutation(usable)[:count]
            seen = shown[rows].any(axis=2)
            inputs = ((features[rows] - centre) / scale)[seen].astype(np.float32)
            counts = np.where(shown[rows], validation.counts[rows][:, :, heldout], 0)[seen]
            problem = Problem(inputs, counts, shown[rows][seen], np.full(len(heldout), -1))
            readout = fit_poisson_ridge(problem, FEW_SHOT_RIDGE, tolerance=1e-5)
            logs = log_rates(((unseen - centre) / scale).astype(np.float32), *readout)
            # A readout from a window or two may say anything of a unit; no bin holds more than was ever seen.
            rates = np.exp(np.minimum(logs, np.log(max(float(counts.max(initial=1)), 1.0))))
            sums = poisson_sums(test.counts[:, :, heldout], rates, scored)
            draws.append(list(poisson_rows(sums, weights, nulls, heldout)))
        for same in zip(*draws, strict=True):
            numbers = {name: float(np.mean([row[name] for row in same])) for name in ("value", "ci_low", "ci_high")}
            about = {"split": "test", "units": "heldout", "metric": f"few_shot_{count}_{same[0]['metric']}"}
            yield same[0] | numbers | about


def _features(part: Part, heldin: np.ndarray) -> np.ndarray:
    """Inputs of a readout [S, T, F]; 0 past the end of a window, where they are not used."""
    values = np.log(np.maximum(part.rates[:, :, heldin], 1e-6)) if part.latents is None else part.latents
    return np.nan_to_num(values.astype(np.float64), nan=0.0)
