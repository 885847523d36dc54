"""Which units of a session are kept: the options every source shares."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt

from pipeline_lib.errors import InputError
from pipeline_lib.sources.candidates import candidates
from pipeline_lib.sources.options import Names, as_tuple
from pipeline_lib.sources.presence import observed_rates
from pipeline_lib.sources.trials import column_text

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

COMPARE = {"<=": np.less_equal, ">=": np.greater_equal, "==": np.equal, "<": np.less, ">": np.greater}
THRESHOLD = re.compile(r"\s*(<=|>=|==|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
WORD = re.compile(r"\s*(==|!=)\s*(\S.*?)\s*")


@dataclass(frozen=True, kw_only=True)
class UnitSelection:
    """Options that choose units. A unit must pass all of them."""

    regions: Names | None = None
    """Regions to keep; all by default."""
    min_rate: Annotated[float, Ge(0)] = 0.0
    """Least mean rate, Hz: spikes while the unit was observed, by how long that was; 0 of a unit that never was."""
    max_units: Annotated[int, Gt(0)] | None = None
    """Keep at most this many units: those with the highest of these rates."""
    query: dict[str, str] = field(default_factory=dict)
    """Thresholds of numeric columns of the units table, such as `{isi_violations: "<=0.5"}`, and words in columns of
    text, such as `{quality: "==good"}` or `"!=noise"`; what is missing never passes."""

    def __post_init__(self) -> None:
        for column, text in self.query.items():
            if not THRESHOLD.fullmatch(text) and not WORD.fullmatch(text):
                accepted = 'a comparison with a number or a word, such as "<=0.5" or "==good"'
                raise InputError("options", f"option query, {column}", repr(text), accepted)


def passes(units: "pd.DataFrame", options: UnitSelection, where: Path) -> np.ndarray:
    """Which rows of `units` lie in the regions and meet the thresholds of `options`, as bool (units,).

    Raises
    ------
    InputError : a threshold of no numeric column, a word of no column.
    """
    kept = np.ones(len(units), dtype=bool)
    if options.regions is not None:
        kept &= units["region"].isin(as_tuple(options.regions)).to_numpy()
    for column, text in options.query.items():
        kept &= _meets(units, column, text, where)
    return kept


def _meets(units: "pd.DataFrame", column: str, text: str, where: Path) -> np.ndarray:
    """Which rows of `units` meet one condition of a query, as bool (units,)."""
    threshold, word = THRESHOLD.fullmatch(text), WORD.fullmatch(text)
    numeric = units.select_dtypes(["number", "bool"]).columns
    if threshold and column in numeric:
        return np.asarray(COMPARE[threshold[1]](units[column].to_numpy(dtype=np.float64), float(threshold[2])))
    if word is None:
        accepted = f"numeric columns of the units: {', '.join(numeric)}"
        raise InputError(where, "option query", f"no numeric column {column!r}", accepted)
    if column not in units:
        raise InputError(where, "option query", f"no column {column!r}", f"one of {', '.join(map(str, units))}")
    values = np.array(column_text(units[column], missing=""), dtype=object)
    return np.asarray((values != "") & ((values == word[2]) == (word[1] == "==")))


def require_some(kept: np.ndarray, units: "pd.DataFrame", where: Path) -> None:
    """Raise InputError where none of the `units` is `kept`, bool (units,)."""
    if len(units) and not kept.any():
        regions = ", ".join(sorted(set(units["region"])))
        found = f"none of {len(units)} passes the selection"
        raise InputError(where, "units", found, f"options that leave some (regions here: {regions})")


def select(recording: "Recording", options: UnitSelection, where: Path, keep: np.ndarray | None = None) -> "Recording":
    """The recording with only the units that pass, its spikes in order of time and its counts filled in.

    Parameters
    ----------
    recording : spikes in any order (ties keep the order they have); trials and signals stay as they are.
    keep : bool (units,), what the source's own options left.

    Raises
    ------
    InputError : no unit is left, or the query names no numeric column.
    """
    units = recording.units
    kept = passes(units, options, where)
    if keep is not None:
        kept &= keep
    if options.min_rate > 0 or options.max_units is not None:
        rates = observed_rates(recording)
        kept &= rates >= options.min_rate
        best_first = np.argsort(np.where(kept, -rates, np.inf), kind="stable")
        kept[best_first[options.max_units or len(units) :]] = False
    require_some(kept, units, where)
    rows = np.flatnonzero(kept)
    number = np.full(len(units), -1, dtype=np.int32)
    number[rows] = np.arange(len(rows), dtype=np.int32)
    times, unit = recording.spike_times, recording.spike_units
    if len(rows) < len(units):
        inside = number[unit] >= 0
        times, unit = times[inside], number[unit[inside]]
    if len(times) and np.diff(times).min(initial=0) < 0:
        order = np.argsort(times, kind="stable")
        times, unit = times[order], unit[order]
    intervals = recording.unit_intervals
    if intervals is not None:
        intervals = intervals[number[intervals["unit"]] >= 0].reset_index(drop=True)
        intervals["unit"] = number[intervals["unit"]]

    before = {"units_before": len(units), "spikes_before": len(recording.spike_times)}
    after = {"units_after": len(rows), "spikes_after": len(times), "trials_after": len(recording.trials)}
    counts = {"trials_before": len(recording.trials)} | recording.provenance.counts | before | after
    return replace(
        recording,
        spike_times=times,
        spike_units=unit.astype(np.int32, copy=False),
        units=units.iloc[rows].reset_index(drop=True),
        unit_intervals=intervals,
        provenance=replace(recording.provenance, counts=counts),
        candidates=None if kept.all() else candidates(recording, kept),
    )
