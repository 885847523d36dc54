"""The baselines against direct loops, and their honesty: what a prediction may not depend on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData, LeakageError, Model
from pipeline_lib.models.gaussian import kernel_sums, smooth
from pipeline_lib.models.poisson_ridge import Problem, fit_poisson_ridge
from pipeline_lib.models.registry import check_config, load_model
from pipeline_lib.training.run import Run
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.store import Trains
from tests.small_cohort import SPLITS, UNITS, WINDOWS, open_cohort, recording, store, write_cohort

BASELINES = ("mean_rate", "psth", "smoothing", "gpfa", "reduced_rank")
SMALL: dict[str, dict] = {
    "gpfa": {"latents": [2, 3], "ridge": [10.0], "iterations": 15},
    "reduced_rank": {"rank": [2, 4], "ridge": [0.01]},
}
Cohort = tuple[list[Path], Path]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def fitted(cohort: Cohort, implementation: str, directory: Path, **settings: object) -> tuple[Model, Run]:
    model = load_model(implementation)(check_config(implementation, settings), 0)
    run = Run(directory)
    model.fit(open_cohort(*cohort, fitting=True), run)
    return model, run


@pytest.fixture(scope="module")
def models(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {name: fitted(cohort, name, tmp_path_factory.mktemp(name), **SMALL.get(name, {}))[0] for name in BASELINES}


def with_spikes(data: FitData, tick: np.ndarray, unit: np.ndarray, remove: int, directory: Path) -> FitData:
    """The same cohort after all spikes of the unit `remove` were taken away and others were put in."""
    trains = data.trains["small0"]
    keep = trains.unit != remove
    ticks = np.concatenate([trains.ticks[keep].astype(np.int64), tick])
    units = np.concatenate([trains.unit[keep].astype(np.int64), unit])
    order = np.lexsort((units, ticks))
    changed = recording("small0")
    changed.spike_times, changed.spike_units = ticks[order] / 1e5, units[order].astype(np.int32)
    return FitData({"small0": Trains.open(store(directory, changed))}, data.split)


# What a prediction may depend on


@pytest.mark.parametrize("name", BASELINES)
def test_own_spikes_never_change_own_prediction(
    cohort: Cohort, models: dict[str, Model], name: str, tmp_path: Path
) -> None:
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test")
    before = models[name].predict(data, "small0", samples)
    rng = np.random.default_rng(0)
    for unit in (int(data.heldin("small0")[0]), int(data.heldin("small0")[-1]), int(data.heldout("small0")[0])):
        ticks = np.sort(rng.integers(data.trains["small0"].duration_ticks, size=5000))
        changed = with_spikes(data, ticks, np.full(5000, unit), unit, tmp_path / f"{unit}")
        after = models[name].predict(changed, "small0", samples)
        np.testing.assert_array_equal(after[..., unit], before[..., unit])
        if unit in data.heldout("small0"):
            np.testing.assert_array_equal(after, before)
        elif name not in ("mean_rate", "psth"):
            assert np.abs(after - before).max() > 1e-3  # the other units do listen


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", BASELINES[2:])
def test_forward_bins_never_change_a_prediction(
    cohort: Cohort, models: dict[str, Model], name: str, part: str, tmp_path: Path
) -> None:
    """Nor those of training windows: a readout fitted to inputs that a test hides would lean on them."""
    data = open_cohort(*cohort)
    samples = data.samples("small0", part)
    unit = int(data.heldin("small0")[0])
    ends = samples["start_tick"].to_numpy() + samples["bins"].to_numpy() * data.split.bin_ticks
    burst = (ends[:, None] - np.arange(1, data.split.forward_bins * data.split.bin_ticks, 37)).ravel()
    trains = data.trains["small0"]
    own = trains.ticks[trains.unit == unit].astype(np.int64)
    changed = with_spikes(
        data, np.concatenate([own, burst]), np.full(len(own) + len(burst), unit), unit, tmp_path / "burst"
    )
    before = models[name].predict(data, "small0", samples)
    # The burst may be seen by windows that follow within their history: none does here, trials lie 0.5 s apart.
    np.testing.assert_array_equal(models[name].predict(changed, "small0", samples), before)


@pytest.mark.parametrize("name", BASELINES)
def test_batch_composition_and_order_do_not_matter(cohort: Cohort, models: dict[str, Model], name: str) -> None:
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test")
    together = models[name].predict(data, "small0", samples)
    order = np.random.default_rng(0).permutation(len(samples))
    shuffled = models[name].predict(data, "small0", samples.iloc[order])
    np.testing.assert_allclose(shuffled, together[order], rtol=1e-6)
    alone = np.concatenate([models[name].predict(data, "small0", samples.iloc[[i]]) for i in range(len(samples))])
    np.testing.assert_allclose(alone, together, rtol=1e-5)


def test_reading_test_windows_while_fitting_is_refused(cohort: Cohort) -> None:
    data = open_cohort(*cohort, fitting=True)
    for read in (data.counts, data.mask, data.inputs):
        with pytest.raises(LeakageError):
            read("small0", "test")
        with pytest.raises(LeakageError):
            read("small0", data.split.part("small0", "test").iloc[:1])


def test_heldout_units_and_forward_bins_are_hidden_outside_training(cohort: Cohort) -> None:
    data = open_cohort(*cohort)
    history, forward, heldout = data.split.history_bins, data.split.forward_bins, data.heldout("small0")
    assert (history, forward, len(heldout)) == (5, 5, 3)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([heldout, data.heldin("small0")])), np.arange(data.trains["small0"].n_units)
    )
    for part, hidden in (("train", False), ("validation", True), ("test", True)):
        counts, mask = data.counts("small0", part), data.mask("small0", part)
        assert counts.shape == mask.shape == (len(data.samples("small0", part)), history + 50, UNITS)
        assert not counts[~mask].any()
        assert mask[:, history:-forward, data.heldin("small0")].all()
        assert mask[..., heldout].any() != hidden
        assert mask[:, -forward:].any() != hidden
        inputs, shown = data.inputs("small0", part)  # what a test hides is no input in training either
        assert not shown[..., heldout].any() and not shown[:, -forward:].any()
        inside = np.ix_(range(len(mask)), range(history + 50 - forward), data.heldin("small0"))
        np.testing.assert_array_equal(shown[inside], mask[inside])
        np.testing.assert_array_equal(inputs, counts * shown)


def test_the_bins_ahead_are_the_last_of_each_window(tmp_path: Path) -> None:
    made = recording("small0", trials=40)
    made.trials["stop"] = made.trials["start"] + np.where(np.arange(40) % 2, 1.0, 0.6)
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, [made]))
    samples = data.samples("small0", "train")
    ahead = data.ahead("small0", samples)
    assert ahead.shape == (len(samples), 50) and set(samples["bins"]) == {30, 50}
    for bins, row in zip(samples["bins"], ahead, strict=True):
        assert np.flatnonzero(row).tolist() == list(range(bins - 5, bins))


# Against direct computations


def test_mean_rate_is_the_mean_of_observed_training_bins(cohort: Cohort, models: dict[str, Model]) -> None:
    data = open_cohort(*cohort)
    trains, samples = data.trains["small0"], data.samples("small0", "train")
    for unit in range(UNITS):
        ticks = trains.ticks[trains.unit == unit]
        spikes = sum(((ticks >= start) & (ticks < start + 100_000)).sum() for start in samples["start_tick"])
        rates = models["mean_rate"].predict(data, "small0", data.samples("small0", "test"))
        np.testing.assert_allclose(rates[:, :, unit], spikes / (50 * len(samples)), rtol=1e-6)


def test_psth_is_the_shrunk_mean_over_trials(cohort: Cohort, tmp_path: Path) -> None:
    model, _ = fitted(cohort, "psth", tmp_path, smoothing=[0], pseudo_trials=[3])
    data = open_cohort(*cohort)
    train, test = data.samples("small0", "train"), data.samples("small0", "test")
    counts = data.counts("small0", "train")[:, data.split.history_bins :].astype(float)
    mean = counts.mean(axis=(0, 1))
    overall = (counts.sum(axis=0) + 3 * mean) / (len(counts) + 3)
    rates = model.predict(data, "small0", test)
    for row, condition in enumerate(test["condition"]):
        same = counts[(train["condition"] == condition).to_numpy()]
        expected = (same.sum(axis=0) + 3 * overall) / (len(same) + 3)
        np.testing.assert_allclose(rates[row], expected, rtol=1e-5)


def test_psth_gives_an_unknown_condition_the_mean_over_conditions(cohort: Cohort, models: dict[str, Model]) -> None:
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test").assign(condition="new")
    rates = models["psth"].predict(data, "small0", samples)
    np.testing.assert_array_equal(
        rates, np.broadcast_to(models["psth"].sessions["small0"].table[-1], rates.shape).astype(np.float32)
    )


def test_psth_without_trials_is_the_mean_rate_and_says_so(tmp_path: Path) -> None:
    windows = replace(WINDOWS, mode="continuous", length=1.0)
    cohort = write_cohort(tmp_path, windows, replace(SPLITS, block=5.0))
    psth, run = fitted(cohort, "psth", tmp_path / "psth")
    mean, _ = fitted(cohort, "mean_rate", tmp_path / "mean_rate")
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test")
    np.testing.assert_array_equal(psth.predict(data, "small0", samples), mean.predict(data, "small0", samples))
    assert "mean rate" in run.rows[0]["note"]


def test_smoothing_is_a_weighted_mean_of_observed_bins() -> None:
    rng = np.random.default_rng(0)
    history, bins, sd = 7, 300, 3.0  # more bins than one block
    mask = rng.random((2, history + bins, 3)) < 0.7
    mask[1, 40:80, 2] = False
    counts = rng.poisson(0.5, mask.shape) * mask
    result = smooth(counts.astype(np.uint8), mask, sd, history)
    for window in range(2):
        for unit in range(3):
            for at in range(bins):
                others = np.arange(history + bins)
                distance = others - (history + at)
                weight = np.where(np.abs(distance) <= 12, np.exp(-(distance**2) / 18), 0) * mask[window, :, unit]
                if weight.sum() == 0:
                    assert np.isnan(result[window, at, unit])
                else:
                    expected = (weight * counts[window, :, unit]).sum() / weight.sum()
                    np.testing.assert_allclose(result[window, at, unit], expected, rtol=1e-5, atol=1e-7)
    assert np.isnan(result).any()


def test_kernel_of_width_zero_changes_nothing() -> None:
    values = np.random.default_rng(0).random((2, 600, 1))
    np.testing.assert_array_equal(kernel_sums(values, 0.0), values)


def test_poisson_ridge_equals_one_target_at_a_time_in_another_library() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    rows, width, targets = 9000, 6, 8  # more rows than one block
    inputs = (rng.standard_normal((rows, 2)) @ rng.standard_normal((2, width)) + rng.standard_normal((rows, width))) / 2
    counts = rng.poisson(np.exp(inputs @ rng.standard_normal((width, targets)) * 0.4 - 2)).astype(np.uint8)
    observed = rng.random(counts.shape) < 0.8
    counts *= observed
    own = np.r_[np.arange(width), -1, -1]
    ridge = 30.0
    problem = Problem(inputs.astype(np.float32), counts, observed, own)
    weights, bias = fit_poisson_ridge(problem, ridge, tolerance=1e-10)
    for target in range(targets):
        use, seen = np.arange(width) != own[target], observed[:, target]
        other = linear_model.PoissonRegressor(alpha=ridge / seen.sum(), tol=1e-10, max_iter=5000)
        other.fit(inputs[seen][:, use], counts[seen, target])
        np.testing.assert_allclose(weights[use, target], other.coef_, atol=2e-5)
        np.testing.assert_allclose(bias[target], other.intercept_, atol=2e-5)
        assert own[target] < 0 or weights[own[target], target] == 0


def test_poisson_ridge_does_not_mix_targets() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((4000, 5)).astype(np.float32)
    counts = rng.poisson(np.exp(inputs[:, :3] - 2)).astype(np.uint8)
    counts[:, 2] = 0  # a silent target
    own = np.full(3, -1)
    weights, bias = fit_poisson_ridge(Problem(inputs, counts, None, own), 10.0)
    alone, alone_bias = fit_poisson_ridge(Problem(inputs, counts[:, :1], None, own[:1]), 10.0)
    np.testing.assert_allclose(weights[:, :1], alone, atol=1e-5)
    np.testing.assert_allclose(bias[:1], alone_bias, atol=1e-5)
    assert np.isfinite(bias).all() and not weights[:, 2].any() and np.exp(bias[2]) == pytest.approx(0.5 / 4000)


# As science


def test_a_target_that_was_never_observed_gets_the_mean_of_all() -> None:
    """Units that come and go may all be away while a model is trained; no rate may become 0 or NaN for that."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2, (400, 3)).astype(np.uint8)
    observed = np.ones(counts.shape, dtype=bool)
    observed[:, 2], counts[:, 2] = False, 0
    problem = Problem(rng.normal(size=(400, 4)).astype(np.float32), counts, observed, np.full(3, -1))
    weights, bias = fit_poisson_ridge(problem, 1.0)
    assert np.isfinite(weights).all() and np.isfinite(bias).all()
    assert np.exp(bias[2]) == pytest.approx(counts[:, :2].mean())


@pytest.mark.parametrize("role", ["heldin", "heldout"])
@pytest.mark.parametrize("name", [*BASELINES, "glm"])
def test_a_unit_that_training_never_saw_has_the_mean_rate_of_all(tmp_path: Path, name: str, role: str) -> None:
    """One unit in four, and the only held-out one: in a group of its own there is no other to take a mean of."""
    import pandas as pd

    splits, made = replace(SPLITS, heldout_units=1, forward=0.0), recording("small0", units=4, trials=30)
    whole = open_cohort(*write_cohort(tmp_path / "whole", WINDOWS, splits, [made]))
    unit = int(getattr(whole, role)("small0")[0])
    made.unit_intervals = pd.DataFrame({"unit": [unit], "start": [44.9], "stop": [45.0]})
    keep = made.spike_units != unit
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    cohort = write_cohort(tmp_path / "part", WINDOWS, splits, [made])
    model, _ = fitted(cohort, name, tmp_path / "run", **SMALL.get(name, {}))
    data = open_cohort(*cohort)
    counts, mask = (each[:, data.split.history_bins :] for each in data.read("small0", "train"))
    assert not mask[:, :, unit].any()
    rates = model.predict(data, "small0", data.samples("small0", "test"))
    np.testing.assert_allclose(rates[:, :, unit], counts.sum() / mask.sum(), rtol=1e-5)


def test_each_baseline_beats_the_one_below(cohort: Cohort, models: dict[str, Model]) -> None:
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test")
    starts, bins = samples["start_tick"].to_numpy(), int(samples["bins"].max())
    counts = bin_windows(data.trains["small0"], starts, bins, data.split.bin_ticks)
    scored = slice(bins - data.split.forward_bins)

    def gain(model: Model, units: np.ndarray) -> float:
        """Bits a spike, up to a constant."""
        rates = model.predict(data, "small0", samples)[:, scored, units].astype(float)
        spikes = counts[:, scored, units]
        return (spikes * np.log(rates) - rates).sum() / spikes.sum() / np.log(2)

    heldin, heldout = data.heldin("small0"), data.heldout("small0")
    mean_rate, psth, smoothing, gpfa, reduced_rank = (gain(models[name], heldin) for name in BASELINES)
    assert min(smoothing, gpfa, reduced_rank) > psth + 0.02 and psth > mean_rate + 0.1
    for name in BASELINES[2:]:
        assert gain(models[name], heldout) > gain(models["mean_rate"], heldout) + 0.05


def test_forecasts_beat_the_mean_rate_and_a_readout_of_the_window(tmp_path: Path) -> None:
    """What precedes a bin says less than what surrounds it: a readout made for the one is too bold for the other."""
    cohort = write_cohort(tmp_path, made=[recording("small0", trials=200)])
    data = open_cohort(*cohort)
    samples, forward = data.samples("small0", "test"), data.split.forward_bins
    starts, bins = samples["start_tick"].to_numpy(), int(samples["bins"].max())
    spikes = bin_windows(data.trains["small0"], starts, bins, data.split.bin_ticks)[:, bins - forward :]

    def gain(forecaster: Model) -> float:
        rates = forecaster.predict(data, "small0", samples)[:, bins - forward :].astype(float)
        return (spikes * np.log(rates) - rates).sum() / spikes.sum() / np.log(2)

    mean_rate = gain(fitted(cohort, "mean_rate", tmp_path / "mean_rate")[0])
    # Latents of a Gaussian process know how little they know: for GPFA one readout would nearly do.
    for name, bolder in (("smoothing", 0.05), ("reduced_rank", 0.02), ("gpfa", -0.02)):
        model, _ = fitted(cohort, name, tmp_path / name, **SMALL.get(name, {}))
        of_the_window = load_model(name)(model.config, 0)
        of_the_window.load_state(
            {key: array[:1] if key.endswith(("/weights", "/bias")) else array for key, array in model.state().items()}
        )
        assert gain(model) > mean_rate + 0.02
        assert gain(model) > gain(of_the_window) + bolder


def test_a_silent_unit_is_given_half_a_spike(tmp_path: Path) -> None:
    """Not a rate of 0 or next to it, to which a single spike in the test would be a surprise of 30 bits."""
    made = recording("small0", trials=30)
    keep = made.spike_units != 1
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    cohort = write_cohort(tmp_path, WINDOWS, replace(SPLITS, forward=0.0), [made])
    data = open_cohort(*cohort)
    expected = 0.5 / data.mask("small0", "train")[:, data.split.history_bins :, 1].sum()
    for name in ("mean_rate", "smoothing", "gpfa", "reduced_rank", "glm"):
        model, _ = fitted(cohort, name, tmp_path / name, **SMALL.get(name, {}))
        rates = model.predict(data, "small0", data.samples("small0", "test"))
        np.testing.assert_allclose(rates[:, :, 1], expected, rtol=1e-5)


def test_state_alone_makes_the_same_predictions(cohort: Cohort, models: dict[str, Model]) -> None:
    data = open_cohort(*cohort)
    samples = data.samples("small0", "test")
    for name, model in models.items():
        copy = load_model(name)(model.config, 0)
        copy.load_state(model.state())
        np.testing.assert_array_equal(copy.predict(data, "small0", samples), model.predict(data, "small0", samples))


def test_ragged_windows_and_units_that_come_and_go(tmp_path: Path) -> None:
    import pandas as pd

    made = recording("small0", trials=40)
    made.trials["stop"] = made.trials["start"] + np.where(np.arange(40) % 2, 1.0, 0.6)
    made.unit_intervals = pd.DataFrame({"unit": [0], "start": [0.0], "stop": [30.0]})
    keep = (made.spike_units != 0) | (made.spike_times < 30)
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    cohort = write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, [made])
    data = open_cohort(*cohort)
    for name in BASELINES:
        model, _ = fitted(cohort, name, tmp_path / name, **SMALL.get(name, {}))
        samples = data.samples("small0", "test")
        rates = model.predict(data, "small0", samples)
        assert rates.shape == (len(samples), samples["bins"].max(), UNITS) and np.isfinite(rates).all()
        if name == "mean_rate":
            # Unit 0 fires at its rate while it is there, as all units do, and not at half of it.
            counts, mask = data.counts("small0", "train")[:, 5:, 0], data.mask("small0", "train")[:, 5:, 0]
            assert 0.3 < mask.mean() < 0.7
            np.testing.assert_allclose(rates[..., 0], counts.sum() / mask.sum(), rtol=1e-6)


def test_validation_part_is_asked_for(cohort: Cohort, tmp_path: Path) -> None:
    data = open_cohort(*cohort, fitting=True)
    data.split.samples.loc[data.split.samples["split"] == "validation", "split"] = "train"
    for name in BASELINES[1:]:
        with pytest.raises(InputError, match="validation"):
            load_model(name)(check_config(name, {}), 0).fit(data, Run(tmp_path))
