"""A session of the small network and what a model is given of it."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm import MODEL
from pipeline_lib.models.glm.settings import Config
from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.small_cohort import open_cohort, write_cohort

BIN = 0.01
CONFIG = Config(history=0.3, n_basis=5, strength=1e-4)
CONTINUOUS = WindowSettings(bin_size=10.0, mode="continuous", length=1.0, history=0.3)
BLOCKS = SplitSettings(block=5.0, heldout_units=2)


def recording_of(counts: np.ndarray, trial: float = 1.5) -> Recording:
    """Spikes in the middle of their 10-ms bins; trials of `trial` s, back to back, in two conditions."""
    bins, units = counts.shape
    bin_, unit = np.nonzero(counts)
    repeats = counts[bin_, unit]
    times, rows = np.repeat((bin_ + 0.5) * BIN, repeats), np.repeat(unit, repeats)
    starts = np.arange(0, bins * BIN - trial, trial)
    groups = np.where(np.arange(units) < units // 2, "A", "B")
    seconds = np.arange(bins) * BIN
    return Recording(
        session="net",
        spike_times=times,
        spike_units=rows.astype(np.int32),
        units=pd.DataFrame({"unit_id": [f"u{i}" for i in range(units)], "region": groups, "population": groups}),
        trials=pd.DataFrame({"start": starts, "stop": starts + trial, "condition": ["a"] * len(starts)}),
        duration=bins * BIN,
        observed=np.array([[0.0, bins * BIN]]),
        provenance=Provenance("simulated", "net"),
        signals={"speed": pd.DataFrame({"time": seconds, "forward": np.sin(seconds), "turn": np.cos(seconds)})},
    )


def cohort(
    directory: Path, counts: np.ndarray | Recording, windows: WindowSettings, splits: SplitSettings
) -> tuple[FitData, FitData]:
    """What a model is given to fit and to predict."""
    recording = counts if isinstance(counts, Recording) else recording_of(counts)
    stores, split = write_cohort(directory, windows, splits, [recording])
    return open_cohort(stores, split, fitting=True), open_cohort(stores, split)


def fitted(config: Config, data: FitData, directory: Path) -> tuple[MODEL, Run]:
    model, run = MODEL(config, 0), Run(directory)
    model.fit(data, run)
    run.close()
    return model, run
