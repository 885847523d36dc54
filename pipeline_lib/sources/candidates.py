"""The units that a selection chose from: what the figures show of those that were left out."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

REFRACTORY = 1.5e-3
"""Seconds in which a neuron does not fire twice, as the Allen Institute counts violations."""
PARTS = 100
"""Parts of a session in which a unit is present or not, as the Allen Institute counts presence."""


def candidates(recording: "Recording", seconds: np.ndarray, kept: np.ndarray) -> "pd.DataFrame":
    """Quality of every unit of a recording that is about to lose some.

    Parameters
    ----------
    recording : all units, spikes in any order.
    seconds : (units,), how long each was observed.
    kept : bool (units,), which ones stay.

    Returns
    -------
    Columns unit_id, region, kept, rate (spikes/s), presence (share of `PARTS` equal parts of the session in which the
    unit fired) and violations (share of its intervals below `REFRACTORY`; NaN for fewer than two spikes).

    Examples
    --------
    >>> import pandas as pd
    >>> from pipeline_lib.recording import Provenance, Recording
    >>> units = pd.DataFrame({"unit_id": ["a", "b"], "region": "CA1", "population": "CA1"})
    >>> times, observed = np.array([0.5, 0.501, 2.0, 9.0]), np.array([[0.0, 10.0]])
    >>> trials = pd.DataFrame({"start": [], "stop": [], "condition": []})
    >>> session = Recording("s", times, np.array([0, 0, 0, 1]), units, trials, 10.0, observed, Provenance("", ""))
    >>> candidates(session, np.array([10.0, 10.0]), np.array([True, False])).round(3).to_dict("list")
    {'unit_id': ['a', 'b'], 'region': ['CA1', 'CA1'], 'kept': [True, False], 'rate': [0.3, 0.1],
     'presence': [0.02, 0.01], 'violations': [0.5, nan]}
    """
    import pandas as pd

    units = recording.spike_units
    counts = np.bincount(units, minlength=len(kept))
    edges = np.concatenate([[0], np.cumsum(counts)])
    # Files hold spikes unit by unit or in order of time; only the latter need sorting (linear for 16-bit numbers).
    grouped = bool((units[1:] >= units[:-1]).all())
    order = None if grouped else np.argsort(units.astype(np.uint16) if len(kept) < 2**16 else units, kind="stable")
    presence, violations = np.zeros(len(kept)), np.full(len(kept), np.nan)
    with np.errstate(all="ignore"):  # a recording is validated after this: times that are no numbers are refused there
        for unit in np.flatnonzero(counts):
            own = slice(edges[unit], edges[unit + 1])
            times = np.sort(recording.spike_times[own if order is None else order[own]])
            part = np.minimum((times * np.divide(PARTS, recording.duration)).astype(np.int64), PARTS - 1)
            presence[unit] = (1 + np.count_nonzero(np.diff(part))) / PARTS
            if len(times) > 1:
                violations[unit] = np.mean(np.diff(times) < REFRACTORY)
    return pd.DataFrame(
        {
            "unit_id": recording.units["unit_id"].to_numpy(),
            "region": recording.units["region"].to_numpy(),
            "kept": kept,
            "rate": counts / seconds,
            "presence": presence,
            "violations": violations,
        }
    )
