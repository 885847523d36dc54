"""The chaotic network: the published spikes, bit for bit, on this package's session clock."""

import hashlib

import numpy as np
import pytest

from pipeline_lib.clock import to_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.sources.simulate import chaotic_rnn
from pipeline_lib.sources.simulate.chaotic_rnn import Settings


@pytest.fixture(scope="module")
def published():
    return chaotic_rnn.simulate(Settings(), 5, "published")


def counts_of(recording, settings: Settings) -> np.ndarray:
    starts, ticks = to_ticks(recording.trials["start"]), to_ticks(recording.spike_times)
    trial = np.searchsorted(starts, ticks, side="right") - 1
    counts = np.zeros((len(starts), settings.bins, settings.units), dtype=np.int64)
    np.add.at(counts, (trial, (ticks - starts[trial]) // int(settings.bin_size * 100), recording.spike_units), 1)
    return counts


def test_spikes_are_the_published_ones(published) -> None:
    """A generator written as the spec tells it: the check value, then trial by trial and unit by unit."""
    draw = np.random.RandomState(5)
    weights = draw.normal(size=(50, 50)) / 50**0.5
    assert abs(weights[0, 0] - 0.06239899) < 1e-8
    draw.normal(size=100)
    starts = [draw.normal(size=50) for _ in range(130)]
    counts = counts_of(published, Settings())
    assert counts.shape == (1300, 100, 50) and counts.max() == 6
    for trial in range(25):
        state, path = starts[trial // 10], []
        for _ in range(100):
            state = (1 - 0.010 / 0.025) * state + np.dot(0.010 / 0.025 * weights * 1.5, np.tanh(state))
            path.append(np.tanh(state))
        path = np.array(path)
        share = (path - path.min(0)) / (path.max(0) - path.min(0))
        for unit in range(50):
            assert np.array_equal(counts[trial, :, unit], draw.poisson(share[:, unit] * 30.0 * 0.010, size=100))


def test_the_whole_set_is_pinned(published) -> None:
    counts = counts_of(published, Settings())
    digest = hashlib.sha256(np.ascontiguousarray(counts, dtype=np.uint8).tobytes()).hexdigest()
    assert (int(counts.sum()), digest[:16]) == (973_403, "d124ef19deca3157")


def test_rates_span_the_range_in_every_trial_and_make_the_spikes(published) -> None:
    rates = published.truth.arrays["rates"]
    assert rates.shape == (1300, 100, 50) and rates.dtype == np.float32
    assert (rates.min(axis=1) == 0).all() and (rates.max(axis=1) == 30).all()
    counts = counts_of(published, Settings())
    score = (counts - rates * 0.01) / np.sqrt(np.maximum(rates * 0.01, 1e-3))
    assert abs(score[rates > 0.5].mean()) < 0.01 and abs(score[rates > 0.5].std() - 1) < 0.02


def test_repeats_share_their_rates_and_are_told_apart(published) -> None:
    trials = published.trials
    assert trials["repeat"].tolist() == list(range(10)) * 130
    assert (trials.groupby("condition").size() == 10).all()
    rates = published.truth.arrays["rates"].reshape(130, 10, 100, 50)
    assert (rates == rates[:, :1]).all()
    published.validate()


def test_a_small_difference_grows_as_chaos_wants() -> None:
    weights = np.random.default_rng(0).standard_normal((50, 50)) / 50**0.5
    start = np.random.default_rng(1).standard_normal(50)
    far = {}
    for gain in (0.5, 5.0):
        settings = Settings(gain=gain, bins=600)
        paths = [chaotic_rnn.run(weights, start + shift, settings) for shift in (0.0, 1e-6)]
        far[gain] = np.abs(paths[0] - paths[1])[-20:].max()
    assert far[0.5] < 1e-8 and far[5.0] > 1e-2


def test_units_that_saturate_for_a_whole_trial_are_silent() -> None:
    rates, counts = chaotic_rnn.published_trials(Settings(conditions=1, repeats=2, units=5, bins=30, gain=1e6), seed=0)
    assert not rates.any() and not counts.any()


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"bin_size: found 30.0; accepted: at most tau, 25.0 ms"):
        Settings(bin_size=30.0)
