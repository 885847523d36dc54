"""Simulated trials laid on one session clock, as an experiment would have recorded them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.clock import to_seconds
from pipeline_lib.recording import Provenance, Recording, Truth
from pipeline_lib.sources.simulate.settings import SimulatorSettings


def trial_recording(
    session: str,
    seed: int,
    settings: SimulatorSettings,
    spikes: Iterable[np.ndarray],
    regions: Sequence[str],
    conditions: Sequence[str],
    trial_ticks: int,
    gap_ticks: int,
    events: dict[str, int],
    truth: dict[str, np.ndarray],
    truth_bin_size: float,
) -> Recording:
    """Trials one after another, each observed for `trial_ticks` and followed by `gap_ticks` nobody recorded.

    Parameters
    ----------
    spikes : trial, tick (10 us) since the start of that trial, and unit of each (spikes,), in any order.
    regions : one name a unit; it is the unit's population too.
    conditions : one name a trial, in the order in which the trials ran.
    events : name -> ticks after the start of every trial; becomes a column of `trials`, in seconds.
    truth : arrays of `Truth`, time axes in bins of `truth_bin_size` ms from the start of each trial.
    """
    trial, tick, unit = spikes
    starts = np.arange(len(conditions)) * (trial_ticks + gap_ticks)
    stops = starts + trial_ticks
    trials = pd.DataFrame({"start": to_seconds(starts), "stop": to_seconds(stops), "condition": list(conditions)})
    for name, after in events.items():
        trials[name] = to_seconds(starts + after)
    return session_recording(
        session=session,
        seed=seed,
        settings=settings,
        tick=starts[trial] + tick,
        unit=unit,
        regions=regions,
        trials=trials,
        observed=np.stack([trials["start"], trials["stop"]], axis=1),
        truth=truth,
        truth_attributes={"bin_size": truth_bin_size, "trial_start": trials["start"].tolist()},
    )


def session_recording(
    session: str,
    seed: int,
    settings: SimulatorSettings,
    tick: np.ndarray,
    unit: np.ndarray,
    regions: Sequence[str],
    trials: pd.DataFrame,
    observed: np.ndarray,
    truth: dict[str, np.ndarray],
    truth_attributes: dict[str, Any],
) -> Recording:
    """A recording of spikes at `tick` (ticks of 10 us, session clock) of `unit`, in any order; see `Recording`."""
    order = np.lexsort((unit, tick))
    unit_id = [str(row) for row in range(len(regions))]
    values = asdict(settings)
    size = {"units": len(regions), "spikes": len(tick), "trials": len(trials)}
    return Recording(
        session=session,
        spike_times=to_seconds(tick[order]),
        spike_units=unit[order].astype(np.int32),
        units=pd.DataFrame({"unit_id": unit_id, "region": list(regions), "population": list(regions)}),
        trials=trials,
        duration=float(observed[-1, 1]),
        observed=observed.astype(np.float64),
        provenance=Provenance(
            source="simulate",
            source_id=f"{settings.NAME}, seed {seed}",
            licence="CC0-1.0",
            citation=settings.CITATION,
            selection=values,
            counts={f"{name}_{when}": count for name, count in size.items() for when in ("before", "after")},
        ),
        truth=Truth(truth, truth_attributes | {"unit_id": unit_id, "simulator": settings.NAME, "settings": values}),
    )
