"""A small cohort of ragged windows, and a model fitted to it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.training.run import Run
from tests.models.lfads.small import CONTROLLED
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions of different size, trials of different length, held-out units, forward bins, history, a signal."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=30)]
    for each in made:
        each.trials["stop"] = each.trials["start"] + np.linspace(0.4, 1.2, 30)
        time = np.arange(0.0, each.duration, 0.05)
        each.signals["running"] = pd.DataFrame({"time": time, "speed": np.sin(time), "angle": np.cos(time)})
    windows = replace(WINDOWS, after=None)
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("ragged"), windows, SPLITS, made))


@pytest.fixture(scope="module")
def model(ragged: FitData, tmp_path_factory: pytest.TempPathFactory) -> LFADS:
    model = LFADS(replace(CONTROLLED, signals=("running.speed",), posterior_samples=3), 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path_factory.mktemp("run")))
    return model
