"""Whether times that were taken for seconds can be seconds: milliseconds and samples make sessions of many hours, too.

A recording of weeks is told from them by its neurons. Those that fire at all fire again within half a second now and
then, in bursts or by chance; in half a millisecond, or in half a sample, none does.
"""

from pathlib import Path

import numpy as np

from pipeline_lib.errors import InputError

LONG = 6 * 3600.0
"""Seconds up to which a session is not asked: they would be 22 s of milliseconds."""
SOON = 0.5
"""Seconds within which a neuron may fire again."""
FEW = 0.02
"""Share of spikes that follow another of their unit so `SOON`, below which these are not seconds. In recordings it is
around a half; in milliseconds it is the share of spikes that break the refractory period."""
ENOUGH = 100
"""Spikes without which this says nothing."""
APART = 100.0
"""How many times later than the last spike the last trial would have to end, for their units to differ."""
TIME_UNITS = "seconds, or the option time_unit (ms, samples; s if these are seconds)"


def check_seconds(times: np.ndarray, unit: np.ndarray, where: Path, field: str, accepted: str = TIME_UNITS) -> None:
    """Raise InputError where the spike `times` (spikes,) of units `unit` (spikes,), in any order, cannot be seconds."""
    if np.ptp(times) <= LONG:
        return
    order = np.lexsort((times, unit))
    intervals = np.diff(times[order])[np.diff(unit[order]) == 0]
    share = float(np.mean(intervals < SOON)) if len(intervals) >= ENOUGH else 1.0
    if share < FEW:
        found = (
            f"{np.ptp(times) / 3600:.1f} hours, in which {share:.1%} of spikes follow another of their unit in 0.5 s"
        )
        raise InputError(where, field, found, accepted)


def check_together(last: float, spikes: float, where: Path | None, field: str) -> None:
    """Raise InputError where times up to `last` and `spikes` up to those (both s) cannot be in the same unit."""
    if last > max(LONG, APART * spikes):
        found = f"times up to {last:g} s, with spikes up to {spikes:g} s"
        raise InputError(where, field, found, "times in the unit of the spikes (with time_unit: s, both are seconds)")
