"""Tables of a fitted Neuroformer that only it can make: token likelihood, what it read out, what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from pipeline_lib.clock import to_seconds
from pipeline_lib.evaluation.bootstrap import resampling_weights
from pipeline_lib.evaluation.decoding import balanced_accuracy
from pipeline_lib.evaluation.metrics import r2
from pipeline_lib.evaluation.parts import train_means
from pipeline_lib.evaluation.rows import score_row
from pipeline_lib.evaluation.sums import square_sums
from pipeline_lib.models.neuroformer.connectivity import attention, cross_correlation
from pipeline_lib.models.neuroformer.generation import generate
from pipeline_lib.models.neuroformer.likelihood import RESAMPLES, score_rows, window_sums
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.windows import cut_batch

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.neuroformer.model import NeuroformerModel
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.training.batches import Batch

ROUNDING = 1e-12
"""Share of its mean square that a variance has at least."""
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


@torch.inference_mode()
def decoding_table(model: NeuroformerModel, data: FitData, parts: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was read out of every window, and its scores.

    The first: session, split, sample, time (s, middle of the window), variable, true, predicted; for a label both are
    values of the signal. The second: R2 and Pearson r (regression), balanced accuracy (classification).
    """
    variables = model.config.decode
    networks = {name: model.best_of(f"decode:{name}") for name in variables}
    tables = []
    for session in data.sessions:
        for part in parts:
            samples = data.samples(session, part)
            for rows, batch in _batches_of(model, data, session, samples):
                decoded: dict[str, Tensor] = {}
                for network in set(networks.values()):
                    own = {name for name in variables if networks[name] is network}
                    decoded |= {name: values for name, values in network.decoded(batch).items() if name in own}
                where = _windows_of(model.network, data, batch, rows)
                true = model.network.targets(batch, cut_batch(batch, model.network.bins)).cpu().numpy()
                for number, name in enumerate(variables):
                    values, target = decoded[name].float().cpu().numpy(), true[:, number]
                    if name in model.classes[session]:
                        known = np.array(model.classes[session][name])
                        values = known[values.argmax(1)]
                        target = np.where(np.isfinite(target), known[np.nan_to_num(target).astype(int)], np.nan)
                    frame = where.assign(true=target, predicted=values, session=session, split=part, variable=name)
                    tables.append(frame[where["width"] > 0])
    order = ["session", "split", "sample", "time", "variable", "true", "predicted"]
    table = pd.concat(tables, ignore_index=True)[order] if tables else pd.DataFrame(columns=order)
    table = table.astype({"true": "float64", "predicted": "float64"})
    return table, _decoding_scores(table, variables)


def _batches_of(
    model: NeuroformerModel, data: FitData, session: str, samples: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, Batch]]:
    """The samples batch by batch; none where there are none."""
    first = 0
    for batch in model.batches(data, session, samples) if len(samples) else ():
        yield samples.iloc[first : first + len(batch.counts)], batch
        first += len(batch.counts)


def _windows_of(network: Neuroformer, data: FitData, batch: Batch, rows: pd.DataFrame) -> pd.DataFrame:
    """The windows of a batch of samples: sample, time of their middle (s), width (bins)."""
    cut = cut_batch(batch, network.bins)
    each, width = len(cut.start), cut.width.cpu().numpy()
    place = np.tile(cut.start.cpu().numpy() - batch.history, len(rows))
    begin = np.repeat(rows["start_tick"].to_numpy(), each)
    time = to_seconds(begin + place * data.split.bin_ticks + width * data.split.bin_ticks // 2)
    return pd.DataFrame({"sample": np.repeat(rows.index, each), "time": time, "width": width})


def _decoding_scores(table: pd.DataFrame, kinds: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for (session, part, name), group in table.dropna().groupby(["session", "split", "variable"]):
        true, predicted = group["true"].to_numpy(), group["predicted"].to_numpy()
        sample, index = np.unique(group["sample"], return_inverse=True)
        weights = resampling_weights(len(sample), RESAMPLES, seed=0)[:, index]
        if kinds[str(name)] == "classification":
            found = {"balanced_accuracy": balanced_accuracy(true, predicted, weights)}
        else:
            sums = square_sums(true[:, None, None], predicted[:, None, None])
            found = {"r2": r2(sums.weighted(weights)), "r": weighted_r(true, predicted, weights)}
        where, n = {"session": session, "split": part, "units": "heldin"}, len(sample)
        rows += [where | score_row(f"decoding_{metric} {name}", each, n, windows=n) for metric, each in found.items()]
    return pd.DataFrame(rows, columns=list(SCORES))


def weighted_r(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation, one value a row of `weights` [rows, windows]; NaN where nothing varies."""
    share = weights / weights.sum(1, keepdims=True)
    means, squares = (np.stack([share @ true**power, share @ predicted**power]) for power in (1, 2))
    variances = squares - means**2
    # What rounding leaves of the variance of a constant is none.
    spread = np.sqrt(np.where(variances > ROUNDING * squares, variances, np.nan).prod(0))
    return np.asarray((share @ (true * predicted) - means.prod(0)) / spread)


def generated_table(model: NeuroformerModel, data: FitData, part: str, rollouts: int, seed: int) -> pd.DataFrame:
    """Spikes that the model wrote in the place of the windows of a part, each rollout with generated past.

    Columns: session, rollout, sample, bin (from the start of the sample), unit (row of the session's units).
    """
    tables = []
    for session in data.sessions:
        heldin = data.heldin(session)
        for number, (rows, batch) in enumerate(_batches_of(model, data, session, data.samples(session, part))):
            for rollout in range(rollouts):
                draw = int(np.random.SeedSequence([seed, number, rollout]).generate_state(1)[0])
                counts = generate(model.network, batch, Sampling(), draw)[:, batch.history :].cpu().numpy()
                sample, bin, unit = np.nonzero(counts)
                times = counts[sample, bin, unit]
                columns = {"sample": rows.index.to_numpy()[sample], "bin": bin, "unit": heldin[unit]}
                spikes = pd.DataFrame({name: np.repeat(values, times) for name, values in columns.items()})
                tables.append(spikes.assign(session=session, rollout=rollout))
    order = ["session", "rollout", "sample", "bin", "unit"]
    return pd.concat(tables, ignore_index=True)[order] if tables else pd.DataFrame(columns=order)


def attention_table(model: NeuroformerModel, data: FitData, part: str) -> pd.DataFrame:
    """Attention to the past by pair (see `connectivity.attention`): session, sender, receiver (unit rows), attention;
    and, to compare with, `cross_correlation` of the same windows and `sender_spikes` in them."""
    tables = []
    for session in data.sessions:
        if not len(data.samples(session, part)):
            continue
        found = attention(model.network, model.batches(data, session, part))
        sender, receiver = np.indices(found.shape)
        heldin = data.heldin(session)
        counts, mask = data.read(session, part)
        correlation = np.full(found.shape, np.nan)
        correlation[np.ix_(heldin, heldin)] = cross_correlation(
            counts[:, :, heldin], mask[:, :, heldin], model.network.past
        )
        spikes = np.asarray(counts.sum((0, 1)))[sender]
        columns = {"sender": sender, "receiver": receiver, "attention": found, "cross_correlation": correlation}
        table = pd.DataFrame({name: values.ravel() for name, values in (columns | {"sender_spikes": spikes}).items()})
        tables.append(table.assign(session=session))
    order = ["session", "sender", "receiver", "attention", "cross_correlation", "sender_spikes"]
    return pd.concat(tables, ignore_index=True)[order] if tables else pd.DataFrame(columns=order)
