"""Truth is cut to the bins of a window exactly, whatever their size and place."""

import numpy as np
import pytest

from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.recording import Truth

STARTS = [0.0, 1.5, 4.0]


@pytest.fixture
def truth() -> Truth:
    rates = np.random.default_rng(0).uniform(1, 9, (3, 10, 4))
    return Truth({"rates": rates}, {"bin_size": 20.0, "trial_start": STARTS})


def mean_by_hand(truth: Truth, left: int, right: int) -> np.ndarray:
    """Mean over the ticks [left, right) of the true rate, tick by tick; NaN if one is in no trial."""
    values = []
    for tick in range(left, right):
        for trial, start in enumerate(STARTS):
            inside = tick - round(start * 100_000)
            if 0 <= inside < 20_000:
                values.append(truth.arrays["rates"][trial, inside // 2000])
                break
        else:
            return np.full(4, np.nan)
    return np.mean(values, axis=0)


@pytest.mark.parametrize("ticks", [2000, 500, 4000, 1300])
def test_means_are_those_over_every_tick(truth: Truth, ticks: int) -> None:
    starts = np.array([0, -3_000, 150_000, 400_000, 151_000, 149_000, 405_300, 30_000, 900_000])
    found = window_means(truth, "rates", starts, 6, ticks)
    expected = [[mean_by_hand(truth, s + k * ticks, s + (k + 1) * ticks) for k in range(6)] for s in starts]
    assert np.allclose(found, np.array(expected), equal_nan=True, rtol=1e-10)
    assert np.isfinite(found[0]).all() or ticks == 4000
    assert np.isnan(found[7:]).all()


def test_bins_of_the_truth_come_back_as_they_are(truth: Truth) -> None:
    found = window_means(truth, "rates", np.array([0, 150_000, 400_000]), 10, 2000)
    assert np.allclose(found, truth.arrays["rates"], rtol=1e-12)
