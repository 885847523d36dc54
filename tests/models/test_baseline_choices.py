"""What the baselines choose: the settings that predict held-in units of the validation part best, seen from outside."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.models.gaussian import smooth
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge, log_rates
from pipeline_lib.models.registry import check_config, load_model
from pipeline_lib.models.smoothing import Encoder, Windows, _forecast
from pipeline_lib.recording import Recording
from pipeline_lib.training.run import Run
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

GRIDS: dict[str, dict[str, tuple]] = {
    "psth": {"smoothing": (400.0, 40.0, 0.0), "pseudo_trials": (200.0, 2.0, 0.01)},
    "smoothing": {"smoothing": (20.0, 200.0, 2000.0), "ridge": (0.1, 1e6, 30.0)},
    "reduced_rank": {"rank": (1, 2, 8), "ridge": (10.0, 0.1, 1e-4)},
}
Pair = tuple[float, float]


def partly_there(made: Recording, start: float, stop: float) -> Recording:
    """The same with the first unit away before `start` and after `stop`."""
    made.unit_intervals = pd.DataFrame({"unit": [0], "start": [start], "stop": [stop]})
    keep = (made.spike_units != 0) | ((made.spike_times >= start) & (made.spike_times < stop))
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    return made


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitData, FitData]:
    """For fitting and for reading."""
    paths = write_cohort(tmp_path_factory.mktemp("cohort"), made=[partly_there(recording(), 20.0, 70.0)])
    return open_cohort(*paths, fitting=True), open_cohort(*paths)


def fitted(name: str, data: FitData, directory: Path, settings: dict) -> tuple[Model, Run]:
    model, run = load_model(name)(check_config(name, settings), 0), Run(directory)
    model.fit(data, run)
    return model, run


def best_of(name: str, losses: dict[Pair, float]) -> Pair:
    """Smoothing: the kernel at the middle penalty, then the penalty; the others: the best pair of all."""
    if name == "smoothing":
        middle = sorted(GRIDS[name]["ridge"])[1]
        width = min(GRIDS[name]["smoothing"], key=lambda each: losses[each, middle])
        losses = {pair: loss for pair, loss in losses.items() if pair[0] == width}
    return min(losses, key=losses.__getitem__)


@pytest.mark.parametrize("name", GRIDS)
def test_the_pair_is_taken_that_predicts_heldin_units_best(cohort, tmp_path: Path, name: str) -> None:
    """Each pair fitted alone and judged by its own predictions, of observed bins that are no forecast."""
    fitting, data = cohort
    samples, history = data.samples("small0", "validation"), data.split.history_bins
    heldin, predicted, losses = data.heldin("small0"), {}, {}
    counts, mask = (values[:, history:][..., heldin] for values in data.read("small0", samples))
    assert not mask[:, :-5].all() and not mask[:, -5:].any()
    names = list(GRIDS[name])
    for pair in product(*GRIDS[name].values()):
        settings = {key: [each] for key, each in zip(names, pair, strict=True)}
        alone, _ = fitted(name, fitting, tmp_path / "alone", settings)
        predicted[pair] = alone.predict(data, "small0", samples)
        rates = predicted[pair][..., heldin].astype(float)
        losses[pair] = (rates - counts * np.log(rates))[mask].sum() / counts[mask].sum()
    best = best_of(name, losses)
    assert best != tuple(grid[-1] for grid in GRIDS[name].values()), "the last would be no choice"
    together, run = fitted(name, fitting, tmp_path / "together", GRIDS[name])
    logged = {tuple(row[key] for key in names): row["validation_nll_per_spike"] for row in run.rows}
    assert logged == pytest.approx({pair: losses[pair] for pair in logged}, rel=1e-3)
    np.testing.assert_allclose(together.predict(data, "small0", samples), predicted[best], rtol=0.01)
    if name == "smoothing":
        middle = sorted(GRIDS[name]["ridge"])[1]
        assert {(width, middle) for width in GRIDS[name]["smoothing"]} < logged.keys()
        assert together.encoders["small0"].sd == best[0] / data.split.bin_size  # bins


def test_inputs_of_smoothing_are_standardised_where_a_unit_was_observed(cohort) -> None:
    fitting, _ = cohort
    windows, heldin = Windows.read(fitting, "small0", fitting.samples("small0", "train")), fitting.heldin("small0")
    inputs, shown = Encoder.learn(heldin, 2.0, 1e-4, windows)[1], windows.shown[..., heldin]
    seen, smoothed = shown[:, 5:], smooth(windows.inputs[..., heldin], shown, 2.0, 5)
    assert heldin[0] == 0 and 0.3 < seen[..., 0].mean() < 0.8
    for unit in range(len(heldin)):
        logs = np.log(smoothed[..., unit] + 1e-4)
        own = logs[seen[..., unit]].astype(float)
        expected = np.nan_to_num((logs - own.mean()) / own.std())
        np.testing.assert_allclose(inputs[..., unit], expected, atol=1e-3)
    assert (inputs[..., 0] == 0)[~np.isfinite(smoothed[..., 0])].all()


def test_forecasts_are_penalised_as_if_their_inputs_were_standard() -> None:
    random = np.random.default_rng(0)
    standard = random.normal(size=(3000, 2))
    standard = ((standard - standard.mean(0)) / standard.std(0)).astype(np.float32)
    spread, mean = np.array([0.2, 5.0]), np.array([3.0, -1.0])
    counts = random.poisson(np.exp(0.8 * standard[:, :1] - 1)).astype(np.uint8)
    own = np.array([-1])
    expected = log_rates(standard, *fit_poisson_ridge(Problem(standard, counts, None, own), 500.0))
    inputs = (standard * spread + mean).astype(np.float32)
    found = log_rates(inputs, *_forecast(Problem(inputs, counts, None, own), 500.0))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_psth_smooths_spikes_and_trials_alike(tmp_path: Path) -> None:
    """Loop by loop, of units of which one is away for a part: Gaussian sums of spikes over those of trials."""
    made = partly_there(recording(units=3, trials=24), 0.3, 20.4)
    paths = write_cohort(tmp_path, WINDOWS, replace(SPLITS, heldout_units=0), [made])
    settings = {"smoothing": [40.0], "pseudo_trials": [3.0]}  # 40 ms are two bins
    model, _ = fitted("psth", open_cohort(*paths, fitting=True), tmp_path / "run", settings)
    data = open_cohort(*paths)
    train, history = data.samples("small0", "train"), data.split.history_bins
    counts, seen = (values[:, history:].astype(float) for values in data.read("small0", "train"))
    mean = counts.sum((0, 1)) / seen.sum((0, 1))
    distance = np.arange(50)[:, None] - np.arange(50)
    kernel = np.where(np.abs(distance) <= 8, np.exp(-0.5 * (distance / 2) ** 2), 0)
    kernel /= kernel.sum(axis=1, keepdims=True)

    def smoothed(values: np.ndarray) -> np.ndarray:
        return np.einsum("tu,un->tn", kernel, values.sum(0))

    overall = (smoothed(counts) + 3 * mean) / (smoothed(seen) + 3)
    window = data.samples("small0", "test").iloc[:1]
    same = (train["condition"] == window["condition"].iloc[0]).to_numpy()
    expected = (smoothed(counts[same]) + 3 * overall) / (smoothed(seen[same]) + 3)
    np.testing.assert_allclose(model.predict(data, "small0", window)[0], expected, rtol=1e-5)
    # Past the longest window of training there is the unit's mean.
    longer = model.predict(data, "small0", window.assign(bins=60))[0]
    np.testing.assert_allclose(longer[50:], np.tile(mean, (10, 1)), rtol=1e-6)
