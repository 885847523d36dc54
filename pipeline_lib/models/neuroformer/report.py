"""Tables of a fitted Neuroformer that only it can make: token likelihood, what it read out, what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from pipeline_lib.clock import to_seconds
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.evaluate import train_means
from pipeline_lib.models.neuroformer.connectivity import attention
from pipeline_lib.models.neuroformer.generation import Sampling, generate
from pipeline_lib.models.neuroformer.likelihood import RESAMPLES, score_rows, window_sums
from pipeline_lib.models.neuroformer.windows import window_targets

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.neuroformer.model import NeuroformerModel

SCORES = ("session", "split", "units", "metric", "value", "ci_low", "ci_high", "n", "null", "aggregation")


def token_tables(model: NeuroformerModel, data: FitData, parts: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of the tokens (see `likelihood`), and how many tokens there were: session, split, windows, spikes,
    longest, longest_past, cut. Where a limit has cut tokens off there is no exact likelihood, and no score."""
    scores: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    for session in data.sessions:
        mean = train_means(data.trains[session], data.split)[data.heldin(session)]
        for part in parts:
            batches = list(model.batches(data, session, part)) if len(data.samples(session, part)) else []
            if not batches:
                continue
            with torch.inference_mode():
                sums = window_sums(model.network, batches)
            where = {"session": session, "split": part}
            size = {name: int(sums[name]) for name in ("longest", "longest_past", "cut")}
            counts.append(where | {"samples": len(sums["loglik"]), "spikes": int(sums["spikes"].sum())} | size)
            scores += [where | row for row in score_rows(sums, mean) if size["cut"] == 0]
    return pd.DataFrame(scores, columns=list(SCORES)), pd.DataFrame(counts)


def decoding_table(model: NeuroformerModel, data: FitData, parts: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was read out of every window, and its scores.

    The first: session, split, sample, time (s, middle of the window), variable, true, predicted; for a label both are
    values of the signal. The second: R2 and Pearson r (regression), balanced accuracy (classification).
    """
    network, config = model.network, model.config
    tables = []
    ticks = data.split.bin_ticks
    for session in data.sessions:
        head = network.head(session)
        labels = model.classes[session]
        for part in parts:
            samples = data.samples(session, part)
            first = 0
            for batch in model.batches(data, session, part) if len(samples) else ():
                windows = network.windows(batch)
                reading = network.read(batch, windows)
                decoded = head.decoded(network.window_features(head, windows, reading))
                last = [classes > 0 for classes in head.classes.values()]
                true = window_targets(batch.inputs["targets"], windows.cut, network.bins, last).numpy()
                rows = samples.iloc[first : first + len(batch.counts)]
                first += len(batch.counts)
                each = len(windows.cut.start)
                width = windows.cut.width.cpu().numpy()
                begin = np.repeat(rows["start_tick"].to_numpy(), each)
                place = np.tile(windows.cut.start.cpu().numpy() - batch.history, len(rows))
                time = to_seconds(begin + place * ticks + width * ticks // 2)
                for number, name in enumerate(config.decode):
                    output = decoded[name].float().cpu().numpy()
                    values, target = output, true[:, number]
                    if name in labels:
                        known = np.array(labels[name])
                        values = known[output.argmax(1)]
                        target = np.where(np.isfinite(target), known[np.nan_to_num(target).astype(int)], np.nan)
                    frame = pd.DataFrame(
                        {"sample": np.repeat(rows.index, each), "time": time, "true": target, "predicted": values}
                    )
                    tables.append(frame.assign(session=session, split=part, variable=name)[width > 0])
    order = ["session", "split", "sample", "time", "variable", "true", "predicted"]
    table = pd.concat(tables, ignore_index=True)[order].astype({"true": "float64", "predicted": "float64"})
    return table, _decoding_scores(table, config.decode)


def _decoding_scores(table: pd.DataFrame, kinds: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for (session, part, name), group in table.dropna().groupby(["session", "split", "variable"]):
        true, predicted = group["true"].to_numpy(), group["predicted"].to_numpy()
        sample, index = np.unique(group["sample"], return_inverse=True)
        weights = resampling_weights(len(sample), RESAMPLES, seed=0)[:, index]
        found = (
            {"balanced_accuracy": balanced_accuracy(true, predicted, weights)}
            if kinds[str(name)] == "classification"
            else {"r2": weighted_r2(true, predicted, weights), "r": weighted_r(true, predicted, weights)}
        )
        for metric, values in found.items():
            low, high = interval(values[1:])
            row = {"session": session, "split": part, "units": "heldin", "metric": f"decoding_{metric} {name}"}
            score = {"value": float(values[0]), "ci_low": low, "ci_high": high, "n": len(sample)}
            rows.append(row | score | {"null": "", "aggregation": "pooled"})
    return pd.DataFrame(rows, columns=list(SCORES))


def weighted_r2(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1 - squared error / squared distance from the mean, one value a row of `weights` [rows, windows]."""
    total = weights.sum(1)
    spread = weights @ true**2 - (weights @ true) ** 2 / total
    return 1 - weights @ (true - predicted) ** 2 / spread


def weighted_r(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation, one value a row of `weights` [rows, windows]."""
    share = weights / weights.sum(1, keepdims=True)
    x, y = share @ true, share @ predicted
    spread = np.sqrt((share @ true**2 - x**2) * (share @ predicted**2 - y**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((share @ (true * predicted) - x * y) / spread)


def balanced_accuracy(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over classes of the share that is recognised, one value a row of `weights` [rows, windows]."""
    right = true == predicted
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [weights @ (right & (true == value)) / (weights @ (true == value)) for value in np.unique(true)]
    return np.asarray(np.nanmean(each, axis=0))


def generated_table(model: NeuroformerModel, data: FitData, part: str, rollouts: int, seed: int) -> pd.DataFrame:
    """Spikes that the model wrote in the place of the windows of a part, each rollout with generated past.

    Columns: session, rollout, sample, bin (from the start of the sample), unit (row of the session's units).
    """
    tables = []
    for session in data.sessions:
        heldin = data.heldin(session)
        samples = data.samples(session, part)
        first = 0
        for number, batch in enumerate(model.batches(data, session, part) if len(samples) else ()):
            index = samples.index[first : first + len(batch.counts)].to_numpy()
            first += len(batch.counts)
            for rollout in range(rollouts):
                draw = int(np.random.SeedSequence([seed, number, rollout]).generate_state(1)[0])
                counts = generate(model.network, batch, Sampling(), draw)[:, batch.history :].cpu().numpy()
                sample, bin, unit = np.nonzero(counts)
                times = counts[sample, bin, unit]
                columns = {"sample": index[sample], "bin": bin, "unit": heldin[unit]}
                spikes = pd.DataFrame({name: np.repeat(values, times) for name, values in columns.items()})
                tables.append(spikes.assign(session=session, rollout=rollout))
    return pd.concat(tables, ignore_index=True)[["session", "rollout", "sample", "bin", "unit"]]


def attention_table(model: NeuroformerModel, data: FitData, part: str) -> pd.DataFrame:
    """Attention to the past by pair (see `connectivity.attention`): session, sender, receiver (unit rows), attention;
    and `sender_spikes` in that part, for comparison with what rate alone explains."""
    tables = []
    for session in data.sessions:
        if not len(data.samples(session, part)):
            continue
        found = attention(model.network, model.batches(data, session, part))
        sender, receiver = np.indices(found.shape)
        spikes = data.counts(session, part).sum((0, 1))
        columns = {"sender": sender.ravel(), "receiver": receiver.ravel(), "attention": found.ravel()}
        tables.append(pd.DataFrame(columns | {"sender_spikes": spikes[sender.ravel()]}).assign(session=session))
    order = ["session", "sender", "receiver", "attention", "sender_spikes"]
    return pd.concat(tables, ignore_index=True)[order] if tables else pd.DataFrame(columns=order)
