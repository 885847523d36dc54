"""Inputs of a GLM that are not counts: time in the window, signals and events, each through a basis. numpy only.

What is learned from the training part (scales, bounds, conditions) travels with the coefficients, so that new windows
give the same columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.bases import BSpline, basis_by_name
from pipeline_lib.clock import to_seconds, to_ticks
from pipeline_lib.errors import InputError, suggest
from pipeline_lib.models.glm.gain import gain_columns, populations
from pipeline_lib.models.glm.settings import EVENTS, Signal, lag_bins
from pipeline_lib.trains.signals import interpolated

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.glm.frames import Frames

Learned = dict[str, np.ndarray]


class Inputs:
    """Columns of one session: gains of the trial, baseline splines, those of the conditions, then every signal's.

    Parameters
    ----------
    data, session : where signals and trials are read.
    signals : what is asked for.
    learned : of `learn`.
    """

    def __init__(self, data: FitData, session: str, signals: tuple[Signal, ...], learned: Learned) -> None:
        self.data, self.session, self.signals, self.learned = data, session, signals, learned
        self.conditions = conditions_of(learned)

    def columns(self, layout: Frames, frames: np.ndarray) -> np.ndarray | None:
        """Values (frames, columns) float32 at some frames of a layout, 0 in the history; None without columns."""
        window, position = layout.places(frames)
        found = []
        if "usual" in self.learned:
            found.append(gain_columns(self.data, self.session, layout.windows, window, self.learned["usual"]))
        splines = int(self.learned["splines"][0])
        if splines:
            baseline = time_splines(position, int(self.learned["window"][0]), splines)
            found.append(baseline[:, 1:])
            # The first condition is the baseline itself, the others have what they differ by; one that training has
            # not seen is the mean of all.
            condition = layout.windows["condition"].to_numpy()[window]
            share = np.where(np.isin(condition, self.conditions), 0.0, 1.0 / max(len(self.conditions), 1))
            found += [baseline * np.where(condition == name, 1.0, share)[:, None] for name in self.conditions[1:]]
        ticks = layout.ticks(frames)
        for number, signal in enumerate(self.signals):
            found.append(self._signal(number, signal, ticks))
        return np.concatenate(found, axis=1).astype(np.float32) * (window >= 0)[:, None] if found else None

    def names(self) -> list[str]:
        """A name a column, in their order."""
        splines, names = int(self.learned["splines"][0]), list[str]()
        if "usual" in self.learned:
            names += [f"gain of {name}" for name in populations(self.data, self.session)[0]]
        names += [f"baseline[{number}]" for number in range(1, splines)]
        names += [f"baseline[{number}], {name}" for name in self.conditions[1:] for number in range(splines)]
        for number, signal in enumerate(self.signals):
            dimensions, values, lags = self._shape(number, signal)
            for dimension, value, lag in np.ndindex(dimensions, values, lags):
                parts = [signal.name + f"[{dimension}]" * (dimensions > 1)]
                parts += [f"value {value}"] * (values > 1) + [f"lag {lag}"] * (lags > 1)
                names.append(", ".join(parts))
        return names

    def _shape(self, number: int, signal: Signal) -> tuple[int, int, int]:
        """Dimensions, functions of the value, functions of the lag."""
        dimensions = len(self.learned[f"signal{number}_mean"])
        values = 1 if signal.basis == "value" else signal.n - (signal.basis == "bspline")
        return dimensions, values, self.learned[f"signal{number}_kernel"].shape[1]

    def _signal(self, number: int, signal: Signal, ticks: np.ndarray) -> np.ndarray:
        """Columns (frames, dimensions x functions of the value x functions of the lag)."""
        kernel = self.learned[f"signal{number}_kernel"]
        dimensions, values, lags = self._shape(number, signal)
        total = np.zeros((len(ticks), dimensions * values, lags))
        for lag, weights in enumerate(kernel):
            seen = self._of_value(number, signal, ticks - lag * self.data.split.bin_ticks)
            total += seen.reshape(len(ticks), -1)[:, :, None] * weights
        return total.reshape(len(ticks), -1)

    def _of_value(self, number: int, signal: Signal, ticks: np.ndarray) -> np.ndarray:
        """(frames, dimensions, functions of the value) at some ticks.

        A signal that is not known there counts as its mean, a value outside those of training as the nearest of them.
        """
        values = signal_values(self.data, self.session, signal.name, ticks)
        mean, scale, low, high = (self.learned[f"signal{number}_{name}"] for name in ("mean", "scale", "low", "high"))
        values = np.where(np.isfinite(values), values, mean)
        if signal.basis == "value":
            return ((values - mean) / scale)[..., None]
        s = (np.clip(values, low, high) - low) / np.where(high > low, high - low, 1.0)
        seen = basis_by_name(signal.basis, signal.n, signal.n).evaluate(s)
        # Splines that sum to one hold the intercept: one is left out.
        return seen[..., 1:] if signal.basis == "bspline" else seen


def learn(data: FitData, session: str, signals: tuple[Signal, ...], layout: Frames) -> Learned:
    """What the signals' columns need of the training part: mean, scale, bounds, share missing, kernels of the lags."""
    scored = np.concatenate([np.arange(*segment) for segment in layout.segments]) if signals else np.empty(0, np.int64)
    ticks, learned = layout.ticks(scored), dict[str, np.ndarray]()
    for number, signal in enumerate(signals):
        values = signal_values(data, session, signal.name, ticks)
        seen = np.isfinite(values)
        count = np.maximum(seen.sum(0), 1)
        mean = np.where(seen, values, 0.0).sum(0) / count
        deviation = np.sqrt(np.where(seen, (values - mean) ** 2, 0.0).sum(0) / count)
        found = {
            "mean": np.zeros_like(mean) if signal.event else mean,
            "scale": np.where((deviation > 0) & (not signal.event), deviation, 1.0),
            "low": np.where(seen, values, mean).min(0),
            "high": np.where(seen, values, mean).max(0),
            "missing": 1.0 - seen.mean(0),
            "kernel": signal.kernel(lag_bins(signal.history, data.split.bin_size)),
        }
        learned |= {f"signal{number}_{name}": value for name, value in found.items()}
    return learned


def learn_conditions(train: pd.DataFrame) -> np.ndarray:
    """The conditions of the training windows, as UTF-8 bytes, a line each (what is learned is kept as numbers)."""
    return np.frombuffer("\n".join(sorted(train["condition"].astype(str).unique())).encode(), dtype=np.uint8).copy()


def conditions_of(learned: Learned) -> list[str]:
    """What `learn_conditions` wrote; empty where there are no baselines of conditions."""
    return bytes(learned["conditions"]).decode().split("\n") if "conditions" in learned else []


def time_splines(position: np.ndarray, bins: int, n: int) -> np.ndarray:
    """B-splines of the time in the window (frames, n) float64, 0 in the history (`position` -1)."""
    values = BSpline(n).evaluate(np.clip((position + 0.5) / bins, 0.0, 1.0))
    values[position < 0] = 0.0
    return values


def signal_values(data: FitData, session: str, name: str, ticks: np.ndarray) -> np.ndarray:
    """A signal at the middle of bins (frames, columns) float64, interpolated linearly, NaN where it was not measured
    (`trains.signals`; a few samples of NaN are bridged); of an event, `trials.column`, how many of its times fall in
    the bin.

    Raises
    ------
    InputError : the session has no such signal or column.
    """
    table, _, column = name.partition(".")
    width = data.split.bin_ticks
    if table == EVENTS:
        trials = data.trains[session].trials
        known = [str(each) for each in trials.select_dtypes("float").columns]
        if column not in known:
            accepted = f"a column of times: {', '.join(f'{EVENTS}.{each}' for each in known)}"
            raise InputError(f"session {session}", "signals", repr(name), accepted)
        times = trials[column].to_numpy(np.float64)
        events = np.sort(to_ticks(times[np.isfinite(times)]))
        inside = np.searchsorted(events, ticks + width) - np.searchsorted(events, ticks)
        return inside[:, None].astype(np.float64)
    signals, columns = data.trains[session].signals, []
    if table not in signals:
        raise InputError(f"session {session}", "signals", repr(name), suggest(table, sorted(signals)))
    frame = signals[table]
    known = [str(each) for each in frame.columns if each != "time"]
    if column and column not in known:
        accepted = f"one of {', '.join(f'{table}.{each}' for each in known)}"
        raise InputError(f"session {session}", "signals", repr(name), accepted)
    seconds = to_seconds(ticks) + to_seconds(width) / 2
    for each in [column] if column else known:
        values = frame[each].to_numpy(np.float64)
        good = np.isfinite(values)
        times = frame["time"].to_numpy(np.float64)
        columns.append(interpolated(seconds, times[good], values[good, None]))
    return np.concatenate(columns, axis=1)
