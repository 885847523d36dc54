"""The Lorenz simulator: an accurate trajectory, and spikes with the rates it promises."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pipeline_lib.clock import to_ticks
from pipeline_lib.sources.simulate import lorenz, simulate


@pytest.fixture(scope="module")
def published():
    return simulate("lorenz", {}, 1, "published")


def counts_of(recording, bins: int, bin_ticks: int) -> np.ndarray:
    starts, ticks = to_ticks(recording.trials["start"]), to_ticks(recording.spike_times)
    trial = np.searchsorted(starts, ticks, side="right") - 1
    counts = np.zeros((len(starts), bins, len(recording.units)), dtype=int)
    np.add.at(counts, (trial, (ticks - starts[trial]) // bin_ticks, recording.spike_units), 1)
    return counts


def test_the_path_is_that_of_an_accurate_solver_and_of_fourth_order() -> None:
    start = np.array([[1.0, 2.0, 20.0]])
    exact = solve_ivp(lambda _, y: lorenz.derivative(y), (0, 0.48), start[0], rtol=1e-12, atol=1e-12).y[:, -1]
    errors = []
    for steps in (40, 80, 160):
        end = lorenz.trajectory(start, 0.48 / steps, steps + 1)[0, -1]
        errors.append(np.abs(end - exact).max())
    assert errors[1] < 1e-3  # the default step, 0.006
    assert 12 < errors[0] / errors[1] < 20 and 12 < errors[1] / errors[2] < 20


def test_trials_are_on_the_attractor_and_share_the_path_of_their_condition(published) -> None:
    latents = published.truth.arrays["latents"]
    assert np.allclose(latents.mean(axis=(0, 1)), 0) and np.allclose(latents.std(axis=(0, 1)), 1)
    assert np.abs(latents).max() < 4
    conditions = published.trials["condition"].to_numpy()
    assert len(np.unique(conditions)) == 65 and np.all(np.unique(conditions, return_counts=True)[1] == 24)
    same = conditions == conditions[0]
    assert np.array_equal(np.broadcast_to(latents[same][0], latents[same].shape), latents[same])
    assert not np.array_equal(conditions, np.sort(conditions))


def test_rates_are_the_exponential_of_the_loadings_on_the_latents(published) -> None:
    truth = published.truth.arrays
    assert np.allclose(truth["rates"], 5 * np.exp(truth["latents"] @ truth["loadings"].T), rtol=1e-5)
    assert 0.12 < truth["rates"].mean() * 0.02 < 0.17  # the set it is modelled on: 0.142


def test_counts_are_poisson_with_the_true_rates(published) -> None:
    expected = published.truth.arrays["rates"].astype(float) * 0.02
    counts = counts_of(published, 50, 2000)
    z = (counts.sum(axis=(0, 1)) - expected.sum(axis=(0, 1))) / np.sqrt(expected.sum(axis=(0, 1)))
    assert np.abs(z).max() < 4
    chi_square = ((counts - expected) ** 2 / expected).mean()
    spread = np.sqrt((2 + 1 / expected).mean() / expected.size)
    assert abs(chi_square - 1) < 4 * spread
    for low, high in ((0, 0.05), (0.05, 0.15), (0.15, 0.5), (0.5, np.inf)):
        chosen = (expected >= low) & (expected < high)
        total = expected[chosen].sum()
        assert abs(counts[chosen].sum() - total) < 4 * np.sqrt(total)


def test_spikes_fall_anywhere_in_their_bin(published) -> None:
    phase = to_ticks(published.spike_times) % 2000
    histogram = np.bincount(phase // 100, minlength=20)
    assert np.abs(histogram - histogram.mean()).max() < 4.5 * np.sqrt(histogram.mean())


def test_one_condition_per_trial_and_other_bins() -> None:
    made = simulate("lorenz", {"conditions": 30, "repeats": 1, "bins": 80, "bin_size": 10, "units": 4}, 0, "s")
    assert made.truth.arrays["rates"].shape == (30, 80, 4)
    assert np.allclose(made.trials["stop"] - made.trials["start"], 0.8)
    assert np.allclose(np.diff(made.trials["start"]), 1.0)  # 0.2 s between them


def test_latents_are_those_at_the_middle_of_the_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    def squares(states: np.ndarray, dt: float, steps: int) -> np.ndarray:
        return np.broadcast_to(np.arange(steps)[None, :, None] ** 2.0, (len(states), steps, 3))

    monkeypatch.setattr(lorenz, "trajectory", squares)
    settings = {"conditions": 1, "repeats": 1, "bins": 5, "units": 2, "steps_per_bin": 4}
    expected = np.array([2.0, 6, 10, 14, 18]) ** 2
    found = simulate("lorenz", settings, 0, "s").truth.arrays["latents"][0, :, 0]
    assert np.allclose(found, (expected - expected.mean()) / expected.std())


def test_a_single_bin_has_the_base_rate() -> None:
    made = simulate("lorenz", {"conditions": 1, "repeats": 3, "bins": 1, "units": 2}, 0, "s")
    assert np.allclose(made.truth.arrays["rates"], 5)
