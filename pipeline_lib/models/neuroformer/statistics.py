"""What generated spikes have in common with those recorded in the same windows: rates, intervals, correlations, PSTHs.

Spikes that are drawn need not be those that were recorded; how units fire should be alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline_lib.evaluation.rows import score_row

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData

COARSE = 0.05
"""Seconds of the bins in which correlations and PSTHs are taken."""
LONGEST = 1.0
"""Seconds of the longest interval between spikes that is looked at."""


def generated_statistics(data: FitData, generated: pd.DataFrame, part: str) -> pd.DataFrame:
    """Statistics of generated (`report.generated_table`) and recorded spikes of a part, all rollouts together.

    Columns: session, kind, source, x, y. Rows by `kind`: "rate" (a held-in unit) and "correlation" (a pair of them),
    x recorded and y generated; "interval", x = ms, y = share of the intervals that are not longer, by `source`
    ("recorded", "generated"); "psth", where windows are trials: a unit, x = correlation of its PSTHs of the
    training windows, y = that of the generated ones, both with those recorded in the part.
    """
    tables = []
    for session in data.sessions:
        samples, heldin = data.samples(session, part), data.heldin(session)
        if not len(samples):
            continue
        counts, mask = data.read(session, samples)
        true, inside = (each[:, data.split.history_bins :, heldin] for each in (counts, mask))
        own = generated[generated["session"] == session]
        made = np.zeros((int(own["rollout"].max()) + 1 if len(own) else 1, *true.shape), dtype=np.int64)
        row = pd.Index(samples.index).get_indexer(own["sample"])
        unit = np.searchsorted(heldin, own["unit"])
        np.add.at(made, (own["rollout"].to_numpy(), row, own["bin"].to_numpy(), unit), 1)
        made *= inside
        seconds = data.split.bin_size / 1000
        found = [*_alike(true, made, inside, seconds), _psths(data, session, samples, true, made, inside, seconds)]
        tables.append(pd.concat([each for each in found if len(each)], ignore_index=True).assign(session=session))
    order = ["session", "kind", "source", "x", "y"]
    return pd.concat(tables, ignore_index=True)[order] if tables else pd.DataFrame(columns=order)


def statistics_scores(statistics: pd.DataFrame, part: str) -> list[dict[str, Any]]:
    """Rows of the score table: `generated_rate_r`, `generated_correlation_r` (over units and pairs), `generated_psth_r`
    and, to compare with, `train_psth_r` (means over units), and `generated_interval_distance`, the largest difference
    of the two distributions of intervals (0: the same)."""
    rows = []
    for session, table in statistics.groupby("session"):
        kinds = {str(kind): group for kind, group in table.groupby("kind")}
        found = {
            f"generated_{kind}_r": (kinds[kind]["x"].corr(kinds[kind]["y"]), len(kinds[kind]), f"over {what}")
            for kind, what in (("rate", "units"), ("correlation", "pairs"))
            if kind in kinds
        }
        if "psth" in kinds:
            units = len(kinds["psth"])
            for name, axis in (("generated_psth_r", "y"), ("train_psth_r", "x")):
                found[name] = (kinds["psth"][axis].mean(), units, "mean over units")
        curves = kinds["interval"].pivot(index="x", columns="source", values="y")
        distance = (curves["recorded"] - curves["generated"]).abs().max()
        found["generated_interval_distance"] = (distance, len(curves), "largest difference")
        for metric, (value, n, aggregation) in found.items():
            where = {"session": session, "split": part, "units": "heldin"}
            rows.append(where | score_row(metric, np.array([value]), n, aggregation=aggregation))
    return rows


def _alike(true: np.ndarray, made: np.ndarray, inside: np.ndarray, seconds: float) -> list[pd.DataFrame]:
    """Rates, correlations and intervals of counts `true` [S, T, N] and `made` [rollouts, S, T, N]."""
    both = {"recorded": true, "generated": made.reshape(-1, *true.shape[1:])}
    seen = inside.sum((0, 1))
    duration = np.where(seen > 0, seen, np.nan) * seconds
    rates = [true.sum((0, 1)) / duration, made.sum((0, 1, 2)) / duration / len(made)]
    # Past the end of a short trial all units are silent together: that is no correlation.
    whole = _coarse(~inside, seconds) == 0
    known = whole[:, :, whole.any((0, 1))].all(2)
    rows = {"recorded": known, "generated": np.tile(known, (len(made), 1))}
    correlations = [_correlations(_coarse(counts, seconds)[rows[source]]) for source, counts in both.items()]
    tables = [
        pd.DataFrame({"kind": kind, "source": "", "x": x, "y": y}).dropna()
        for kind, (x, y) in (("rate", rates), ("correlation", correlations))
    ]
    return tables + [_intervals(counts, seconds).assign(source=source) for source, counts in both.items()]


def _correlations(counts: np.ndarray) -> np.ndarray:
    """Pearson correlations of the pairs of columns of counts [R, N]; NaN where a column does not vary."""
    first, second = np.triu_indices(counts.shape[1], 1)
    if len(counts) < 2:
        return np.full(len(first), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(counts.T, dtype=np.float64).reshape(2 * [counts.shape[1]])[first, second]


def _intervals(counts: np.ndarray, seconds: float) -> pd.DataFrame:
    """Intervals between bins with spikes, within a window [S, T, N] and a unit."""
    window, unit, bin_ = np.nonzero(counts.transpose(0, 2, 1))
    same = (np.diff(window) == 0) & (np.diff(unit) == 0)
    found = np.bincount(np.diff(bin_)[same], minlength=1).cumsum()
    shown = np.unique(np.geomspace(1, LONGEST / seconds, 40).round().astype(int))
    share = found[shown.clip(max=len(found) - 1)] / max(found[-1], 1)
    return pd.DataFrame({"kind": "interval", "x": shown * seconds * 1000, "y": share})


def _psths(
    data: FitData, session: str, samples: pd.DataFrame, true: np.ndarray, made: np.ndarray, inside: np.ndarray,
    seconds: float,
) -> pd.DataFrame:  # fmt: skip
    """Correlations of PSTHs, conditions one after the other; empty where windows are aligned to nothing."""
    if (samples["trial"] < 0).any():
        return pd.DataFrame()
    conditions = np.unique(samples["condition"])
    train = data.samples(session, "train")
    counts, mask = data.read(session, train)
    history, heldin = data.split.history_bins, data.heldin(session)
    old, known = (each[:, history : history + true.shape[1], heldin] for each in (counts, mask))
    longest = min(old.shape[1], true.shape[1])

    def psth(spikes: np.ndarray, seen: np.ndarray, condition: np.ndarray) -> np.ndarray:
        each = []
        for name in conditions:
            rows = condition == name
            total, bins = (_coarse(part[rows, :longest].sum(0)[None], seconds)[0] for part in (spikes, seen))
            with np.errstate(invalid="ignore"):
                each.append(np.where(bins > 0, total / bins, np.nan))
        return np.concatenate(each)

    here = samples["condition"].to_numpy()
    recorded = pd.DataFrame(psth(true, inside, here))
    rollouts = len(made)
    written = psth(made.sum(0), rollouts * inside.astype(np.int64), here)
    before = psth(old, known, train["condition"].to_numpy())
    table = {"x": recorded.corrwith(pd.DataFrame(before)), "y": recorded.corrwith(pd.DataFrame(written))}
    return pd.DataFrame(table).dropna().assign(kind="psth", source="")


def _coarse(counts: np.ndarray, seconds: float) -> np.ndarray:
    """Counts [S, T, N] in bins of about `COARSE`; what is left over at the end is dropped."""
    width = max(1, round(COARSE / seconds))
    whole = counts[:, : counts.shape[1] // width * width]
    return np.asarray(whole.reshape(len(counts), -1, width, counts.shape[2]).sum(2, dtype=np.int64))
