"""The bootstrap: reproducible, and its intervals cover what they promise."""

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.evaluate import Scoring


def test_row_0_is_the_data_and_every_resample_has_its_size() -> None:
    weights = resampling_weights(30, 200, seed=1)
    assert weights.shape == (201, 30)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 30).all()
    assert np.array_equal(weights, resampling_weights(30, 200, seed=1))
    assert not np.array_equal(weights, resampling_weights(30, 200, seed=2))


def test_fewer_resamples_than_none_and_readouts_of_no_window_are_refused() -> None:
    """Of -1 windows, a few-shot readout would learn from all but one."""
    with pytest.raises(InputError, match="resamples: found -5"):
        resampling_weights(30, -5, seed=0)
    with pytest.raises(InputError, match=r"few_shot: found \[4, -1\]"):
        Scoring(["trains"], "split.parquet", ["recording"], few_shot=[4, -1])


@pytest.mark.parametrize("samples", [6, 12, 60])
def test_intervals_of_a_mean_cover_it_95_times_in_100(samples: int) -> None:
    """Of few samples, too: plain percentiles cover it 86 times of 6."""
    rng = np.random.default_rng(0)
    weights = resampling_weights(samples, 2000, seed=0)[1:] / samples
    values = rng.standard_normal((400, samples)) @ weights.T
    covered = [low < 0 < high for low, high in (interval(each, samples) for each in values)]
    assert 0.92 < np.mean(covered) < 0.98


def test_of_many_samples_the_interval_is_the_middle_95_percent() -> None:
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(interval(values, 1_000_000), (0.025, 0.975), atol=1e-4)


def test_an_interval_needs_two_defined_values_and_two_samples() -> None:
    assert np.isnan(interval(np.array([]), 5)).all()
    assert np.isnan(interval(np.array([1.0, np.nan]), 5)).all()
    assert np.isnan(interval(np.array([1.0, 2.0]), 1)).all()
    assert interval(np.array([1.0, 1.0, np.nan]), 5) == (1.0, 1.0)


def test_a_single_window_has_no_interval() -> None:
    """Drawn anew it is the same again, which says nothing of how well the score is known."""
    assert resampling_weights(1, 200, seed=0).tolist() == [[1.0]]
    assert np.isnan(interval(np.array([0.3])[1:], 1)).all()
    assert resampling_weights(2, 200, seed=0).shape == (201, 2)
