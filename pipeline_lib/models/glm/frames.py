"""From windows of a session to the frames a GLM reads: windows that touch become one stretch, none crosses another."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_lib.bases import BSpline
from pipeline_lib.clock import to_seconds
from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData

BATCHES = 16


@dataclass
class Frames:
    """Stretches of a session, end to end.

    `counts` (frames, units) unsigned; `observed` (frames, units) bool; `segments` (k, 2) scored frames, each after
    `lead` frames of history; `tick` (frames,) int64 first tick of the frame's bin; `position` (frames,) int32 bin in
    its window; `sample` (frames,) int64 number of its window among the samples asked for (history: -1).
    """

    counts: np.ndarray
    observed: np.ndarray
    segments: np.ndarray
    tick: np.ndarray
    position: np.ndarray
    sample: np.ndarray


def read_frames(data: FitData, session: str, samples: pd.DataFrame, lead: int, merge: bool) -> Frames:
    """The frames of `samples`, each stretch with `lead` frames of history before it.

    History comes from the real past as far as the windows give it (`split.history_bins`); beyond that it is silence.
    `merge` joins windows that follow each other without a gap, so that no history is read twice.
    """
    samples = (
        samples.reset_index(names="id").assign(number=np.arange(len(samples))).sort_values("start_tick", kind="stable")
    )
    start, bins = samples["start_tick"].to_numpy(np.int64), samples["bins"].to_numpy(np.int64)
    per_bin, given = data.split.bin_ticks, data.split.history_bins
    touching = (start[1:] == start[:-1] + bins[:-1] * per_bin) if merge else np.zeros(len(start) - 1, dtype=bool)
    stretch = np.concatenate([[0], np.cumsum(~touching)])
    firsts = np.flatnonzero(np.concatenate([[True], ~touching]))
    merged = samples.iloc[firsts].set_index("id")[["session", "start_tick", "trial", "condition"]]
    lengths = np.bincount(stretch, bins).astype(np.int64)
    merged["bins"] = lengths

    # Windows are read padded to the longest of a batch; sorting by length keeps the padding small.
    order = np.argsort(lengths, kind="stable")
    counts, observed = [np.empty(0)] * len(lengths), [np.empty(0)] * len(lengths)
    skip, pad = max(given - lead, 0), max(lead - given, 0)
    for batch in np.array_split(order, min(BATCHES, len(order))):
        rows = merged.iloc[batch]
        read, seen = data.counts(session, rows), data.mask(session, rows)
        for row, number in enumerate(batch):
            stop = given + lengths[number]
            counts[number] = np.pad(read[row, skip:stop], ((pad, 0), (0, 0)))
            observed[number] = np.pad(seen[row, skip:stop], ((pad, 0), (0, 0)))
    ends = np.cumsum(lengths + lead)
    segments = np.stack([ends - lengths, ends], axis=1)
    offset = np.arange(ends[-1]) - np.repeat(segments[:, 0], lengths + lead)
    tick = np.repeat(merged["start_tick"].to_numpy(np.int64), lengths + lead) + offset * per_bin
    scored = offset >= 0
    position, sample = np.full(len(offset), -1, np.int32), np.full(len(offset), -1, np.int64)
    position[scored] = np.arange(bins.sum()) - np.repeat(np.cumsum(bins) - bins, bins)
    sample[scored] = np.repeat(samples["number"].to_numpy(), bins)
    return Frames(np.concatenate(counts), np.concatenate(observed), segments, tick, position, sample)


def time_splines(position: np.ndarray, bins: int, n: int) -> np.ndarray:
    """B-splines of the time in the window (frames, n - 1) float32, 0 in the history.

    One spline is left out: all `n` sum to one, which the intercept already is.
    """
    s = np.clip((position + 0.5) / bins, 0.0, 1.0)
    values = BSpline(n).evaluate(s)[:, 1:]
    values[position < 0] = 0.0
    return values.astype(np.float32)


def signal_values(data: FitData, session: str, names: tuple[str, ...], ticks: np.ndarray) -> np.ndarray:
    """Signals at the middle of bins (frames, columns) float64, interpolated linearly; NaN outside their samples.

    Raises
    ------
    InputError : the session has no such signal or column.
    """
    signals, columns = data.trains[session].signals, []
    seconds = to_seconds(ticks) + to_seconds(data.split.bin_ticks) / 2
    for name in names:
        table, _, column = name.partition(".")
        if table not in signals:
            raise InputError(
                f"session {session}", "signals", repr(table), f"one of {', '.join(sorted(signals)) or 'none'}"
            )
        frame = signals[table]
        known = [str(each) for each in frame.columns if each != "time"]
        if column and column not in known:
            raise InputError(f"session {session}", f"signals/{table}", repr(column), f"one of {', '.join(known)}")
        for each in [column] if column else known:
            values = frame[each].to_numpy(np.float64)
            good = np.isfinite(values)
            times = frame["time"].to_numpy(np.float64)[good]
            interpolated = np.interp(seconds, times, values[good], left=np.nan, right=np.nan) if good.any() else np.nan
            columns.append(np.broadcast_to(interpolated, seconds.shape))
    return np.stack(columns, axis=1)
