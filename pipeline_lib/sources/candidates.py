"""The units that a selection chose from: what the figures show of those that were left out."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.sources.presence import observed_rates

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.recording import Recording

REFRACTORY = 1.5e-3
"""Seconds in which a neuron does not fire twice, as the Allen Institute counts violations."""
PARTS = 100
"""Parts of a session in which a unit is present or not, as the Allen Institute counts presence."""
EXCERPT = 10.0
"""Seconds from which the spikes of units that are left out are kept, to be seen beside those of the others."""


def candidates(recording: "Recording", kept: np.ndarray) -> "pd.DataFrame":
    """Quality of every unit of a recording that is about to lose some.

    Parameters
    ----------
    recording : all units, spikes in any order.
    kept : bool (units,), which ones stay.

    Returns
    -------
    Columns unit_id, region, kept, rate (`observed_rates`, spikes/s), presence (share of `PARTS` equal parts of the
    session in which the unit fired), violations (share of its intervals below `REFRACTORY`; NaN for fewer than two
    spikes) and excerpt (the times, s, of its spikes in `excerpt`; none for a unit that stays, whose spikes are all in
    the recording).

    Examples
    --------
    >>> import pandas as pd
    >>> from pipeline_lib.recording import Provenance, Recording
    >>> units = pd.DataFrame({"unit_id": ["a", "b"], "region": "CA1", "population": "CA1"})
    >>> times, observed = np.array([0.5, 0.501, 2.0, 9.0]), np.array([[0.0, 10.0]])
    >>> trials = pd.DataFrame({"start": [], "stop": [], "condition": []})
    >>> session = Recording("s", times, np.array([0, 0, 0, 1]), units, trials, 10.0, observed, Provenance("", ""))
    >>> found = candidates(session, np.array([True, False]))
    >>> found.drop(columns="excerpt").round(3).to_dict("list")
    {'unit_id': ['a', 'b'], 'region': ['CA1', 'CA1'], 'kept': [True, False], 'rate': [0.3, 0.1],
     'presence': [0.02, 0.01], 'violations': [0.5, nan]}
    >>> [times.tolist() for times in found["excerpt"]]
    [[], [9.0]]
    """
    import pandas as pd

    units = recording.spike_units
    counts = np.bincount(units, minlength=len(kept))
    edges = np.concatenate([[0], np.cumsum(counts)])
    # Files hold spikes unit by unit or in order of time; only the latter need sorting (linear for 16-bit numbers).
    grouped = bool((units[1:] >= units[:-1]).all())
    order = None if grouped else np.argsort(units.astype(np.uint16) if len(kept) < 2**16 else units, kind="stable")
    presence, violations = np.zeros(len(kept)), np.full(len(kept), np.nan)
    excerpts = [np.empty(0)] * len(kept)
    stretch = excerpt(recording.trials["start"].to_numpy(dtype=float), recording.observed)
    with np.errstate(all="ignore"):  # a recording is validated after this: times that are no numbers are refused there
        for unit in np.flatnonzero(counts):
            own = slice(edges[unit], edges[unit + 1])
            times = np.sort(recording.spike_times[own if order is None else order[own]])
            part = np.minimum((times * np.divide(PARTS, recording.duration)).astype(np.int64), PARTS - 1)
            presence[unit] = (1 + np.count_nonzero(np.diff(part))) / PARTS
            if len(times) > 1:
                violations[unit] = np.mean(np.diff(times) < REFRACTORY)
            if not kept[unit]:
                excerpts[unit] = times[slice(*np.searchsorted(times, stretch))]
    return pd.DataFrame(
        {
            "unit_id": recording.units["unit_id"].to_numpy(),
            "region": recording.units["region"].to_numpy(),
            "kept": kept,
            "rate": observed_rates(recording),
            "presence": presence,
            "violations": violations,
            "excerpt": excerpts,
        }
    )


def excerpt(trials: np.ndarray, observed: np.ndarray, length: float = EXCERPT) -> tuple[float, float]:
    """Start and end (s) of the stretch of a session that shows its spikes.

    From the start of the middle trial on, or from the middle of what was observed where there is no trial; earlier,
    where otherwise less than `length` of the same observed interval would be left.

    Parameters
    ----------
    trials : starts of the trials (trials,), s, in any order.
    observed : intervals (k, 2), s, in order.

    Examples
    --------
    >>> excerpt(np.array([30.0, 10.0, 50.0]), np.array([[0.0, 60.0]]))
    (30.0, 40.0)
    >>> excerpt(np.array([]), np.array([[0.0, 4.0], [20.0, 32.0]]))
    (22.0, 32.0)
    """
    if len(trials):
        start = float(np.sort(trials)[len(trials) // 2])
    else:
        lengths = np.diff(observed, axis=1).ravel()
        before = np.cumsum(lengths) - lengths
        row = int(np.searchsorted(np.cumsum(lengths), lengths.sum() / 2))
        start = float(observed[row, 0] + lengths.sum() / 2 - before[row])
    inside = observed[(observed[:, 0] <= start) & (start < observed[:, 1])]
    low, high = inside[0] if len(inside) else (start, start + length)
    start = max(float(low), min(start, float(high) - length))
    return start, min(start + length, float(high))
