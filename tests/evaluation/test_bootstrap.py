"""The bootstrap: reproducible, and its intervals cover what they promise."""

import numpy as np

from pipeline_lib.evaluation.bootstrap import interval, resampling_weights


def test_row_0_is_the_data_and_every_resample_has_its_size() -> None:
    weights = resampling_weights(30, 200, seed=1)
    assert weights.shape == (201, 30)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 30).all()
    assert np.array_equal(weights, resampling_weights(30, 200, seed=1))
    assert not np.array_equal(weights, resampling_weights(30, 200, seed=2))


def test_intervals_of_a_mean_cover_it_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    weights = resampling_weights(60, 400, seed=0)[1:] / 60
    covered = 0
    for _ in range(400):
        low, high = interval(weights @ rng.standard_normal(60))
        covered += low < 0 < high
    assert 0.91 < covered / 400 < 0.98


def test_an_interval_needs_two_defined_values() -> None:
    assert np.isnan(interval(np.array([]))).all()
    assert np.isnan(interval(np.array([1.0, np.nan]))).all()
    assert interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)


def test_a_single_window_has_no_interval() -> None:
    """Drawn anew it is the same again, which says nothing of how well the score is known."""
    assert resampling_weights(1, 200, seed=0).tolist() == [[1.0]]
    assert np.isnan(interval(np.array([0.3])[1:])).all()
