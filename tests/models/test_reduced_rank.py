"""Reduced-rank regression against its closed form, and what a unit's own group may not do."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.reduced_rank import Config, ReducedRank, _inputs, _Regression
from pipeline_lib.training.run import Run
from tests.small_cohort import SPLITS, UNITS, WINDOWS, open_cohort, recording, write_cohort

CONFIG = Config(rank=(2,), ridge=(0.1,), smoothing=(50.0, 200.0), groups=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort")), fitting=True)


@pytest.fixture(scope="module")
def model(data: FitData, tmp_path_factory: pytest.TempPathFactory) -> ReducedRank:
    model = ReducedRank(CONFIG, 0)
    model.fit(data, Run(tmp_path_factory.mktemp("run")))
    return model


def test_directions_are_those_of_the_best_fit_of_low_rank(data: FitData) -> None:
    """Among all maps of rank 2, the ridge loss is least on the span that was found (checked by random rivals)."""
    regression = _Regression(CONFIG, data, "small0")
    chosen = np.arange(len(regression.gram))
    found = regression._directions(chosen, 0.1)[:, :2]
    x = regression.inputs.astype(np.float64) - regression.inputs.mean(axis=0, dtype=np.float64)
    counts = regression.zones[0].counts
    scale = np.sqrt(counts.mean(axis=0))
    y = counts / scale - (counts / scale).mean(axis=0)
    penalty = 0.1 * np.trace(x.T @ x) / x.shape[1]

    def loss(span: np.ndarray) -> float:
        """Least ridge loss of a map that reads only x @ span."""
        inner = span.T @ (x.T @ x + penalty * np.eye(x.shape[1])) @ span
        return float((y**2).sum() - np.trace((y.T @ x @ span) @ np.linalg.solve(inner, span.T @ x.T @ y)))

    best, rng = loss(found), np.random.default_rng(0)
    rivals = [loss(found + 0.03 * np.abs(found).mean() * rng.standard_normal(found.shape)) for _ in range(20)]
    assert best < min(rivals)
    np.testing.assert_allclose((x @ found).std(axis=0), 1, rtol=1e-3)


def test_bins_in_which_a_unit_was_not_observed_are_none_in_which_it_was_silent(tmp_path: Path) -> None:
    made = recording(trials=30)
    made.unit_intervals = pd.DataFrame({"unit": [4, 4], "start": [0.0, 30.2], "stop": [10.1, made.duration]})
    regression = _Regression(CONFIG, open_cohort(*write_cohort(tmp_path, made=[made]), fitting=True), "small0")
    inputs, counts, seen = (getattr(regression.zones[0], name) for name in ("inputs", "counts", "observed"))
    assert seen[:, :4].all() and not seen[:, 4].all()
    x, y, mean = inputs - inputs.mean(axis=0, dtype=np.float64), counts[seen[:, 4], 4], counts[seen[:, 4], 4].mean()
    expected = x[seen[:, 4]].T @ (y - mean) / np.sqrt(mean)
    np.testing.assert_allclose(regression.cross[:, 4], expected, atol=1e-3)
    assert np.abs(expected).max() > 1


def test_weights_have_the_rank_and_spare_the_own_group(data: FitData, model: ReducedRank) -> None:
    both, heldin = model.readouts["small0"].weights, data.heldin("small0")
    assert both.shape == (2, 2 * len(heldin), UNITS)  # of the window, and of the bins to forecast
    group = np.arange(len(heldin)) % 3
    for weights in both:
        for place, unit in enumerate(heldin):
            own = np.tile(group == group[place], 2)
            assert not weights[own, unit].any() and weights[~own, unit].all()
        assert np.linalg.matrix_rank(weights[:, data.heldout("small0")], tol=1e-8) == 2


def test_predictions_follow_from_weights_and_smoothed_spikes(data: FitData, model: ReducedRank) -> None:
    reading = FitData(data.trains, data.split)
    samples = reading.samples("small0", "test")
    inputs = _inputs(CONFIG, reading, "small0", samples)
    assert inputs.shape[2] == 2 * len(reading.heldin("small0")) and (inputs >= 0).all()
    window, ahead = np.exp(
        inputs.astype(np.float64) @ model.readouts["small0"].weights[:, None]
        + model.readouts["small0"].bias[:, None, None]
    )
    expected = np.where(np.arange(50)[:, None] < 45, window, ahead)  # the last 0.1 s are to be forecast
    np.testing.assert_allclose(model.predict(reading, "small0", samples), expected, rtol=1e-4)


def test_silent_inputs_say_nothing(tmp_path: Path) -> None:
    made = recording(trials=30)
    keep = made.spike_units == 0
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    cohort = write_cohort(tmp_path, WINDOWS, SPLITS, [made])
    model = ReducedRank(CONFIG, 0)
    model.fit(open_cohort(*cohort, fitting=True), Run(tmp_path / "run"))
    data = open_cohort(*cohort)
    rates = model.predict(data, "small0", data.samples("small0", "test"))
    counts = data.counts("small0", "train")[:, data.split.history_bins :, 0]
    for bins in (slice(45), slice(45, 50)):  # the window, and the bins to forecast
        np.testing.assert_allclose(rates[:, bins, 0], counts[:, bins].mean(), rtol=1e-5)


def test_a_single_heldin_unit_has_its_mean_rate(tmp_path: Path) -> None:
    from dataclasses import replace

    cohort = write_cohort(tmp_path, WINDOWS, replace(SPLITS, heldout_units=1), [recording(units=2)])
    model = ReducedRank(CONFIG, 0)
    model.fit(open_cohort(*cohort, fitting=True), Run(tmp_path / "run"))
    data = open_cohort(*cohort)
    own = int(data.heldin("small0")[0])
    rates = model.predict(data, "small0", data.samples("small0", "test"))[:, :, own]
    counts = data.counts("small0", "train")[:, data.split.history_bins :, own]
    for bins in (slice(45), slice(45, 50)):  # the window, and the bins to forecast
        np.testing.assert_allclose(rates[:, bins], counts[:, bins].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"rank": ()}, {"rank": (0,)}, {"ridge": (0.0,)}, {"smoothing": ()}, {"groups": 1}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Config(**settings)
