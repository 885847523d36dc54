"""Settings are durations, not numbers of bins: a recording in slow motion, in longer bins, gives the same fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.models.registry import check_config, load_model
from pipeline_lib.recording import Recording
from pipeline_lib.training.run import Run
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

STEPS = {"steps": 2, "evaluate_every": 2, "batch": 8, "width": 8}
MODELS: dict[str, tuple[dict[str, float], dict[str, object]]] = {
    "smoothing": ({"smoothing": 50.0}, {"ridge": [10.0]}),
    "psth": ({"smoothing": 50.0}, {"pseudo_trials": [2.0]}),
    "reduced_rank": ({"smoothing": 50.0}, {"rank": [2], "ridge": [0.1]}),
    "gpfa": ({"timescale": 150.0}, {"latents": [2], "ridge": [10.0], "iterations": 2}),
    "glm": ({"history": 0.1, "refractory": 0.03}, {"n_basis": 3, "strength": 1e-3}),
    "glm_transformer": (
        {"token": 0.1, "coupling_peak": 0.04, "history_peak": 0.05},
        STEPS | {"splines": 5, "hidden": 8, "latents": 2},
    ),
    "neuroformer": ({"window": 0.1, "past": 0.1}, STEPS | {"heads": 2}),
}


def slowed(made: Recording, times: int) -> Recording:
    """Everything so many times as late."""
    trials = made.trials.assign(start=made.trials["start"] * times, stop=made.trials["stop"] * times)
    later = {"spike_times": made.spike_times * times, "duration": made.duration * times}
    return replace(made, trials=trials, observed=made.observed * times, **later)


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_of_slow_motion_is_the_same_fit(tmp_path: Path, name: str) -> None:
    durations, settings = MODELS[name]
    fits = []
    for times in (1, 2):
        windows = replace(WINDOWS, bin_size=20.0 * times, after=1.0 * times, history=0.1 * times)
        splits = replace(SPLITS, forward=0.0 if name == "neuroformer" else 0.1 * times)
        made = slowed(recording(units=8, trials=20), times)
        paths = write_cohort(tmp_path / f"times {times}", windows, splits, [made])
        given = {key: value * times for key, value in durations.items()}
        given = {key: [value] if key == "smoothing" else value for key, value in given.items()}
        model = load_model(name)(check_config(name, settings | given), 0)
        model.fit(open_cohort(*paths, fitting=True), Run(tmp_path / f"run {times}"))
        data = open_cohort(*paths)
        fits.append((model.state(), model.predict(data, "small0", data.samples("small0", "test"))))
    (first, rates), (second, others) = fits
    np.testing.assert_array_equal(rates, others)
    assert first.keys() == second.keys()
    for key in first.keys() - {"layout", "small0/bin_size", "small0/trained_on"}:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
