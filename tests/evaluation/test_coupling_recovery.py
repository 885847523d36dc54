"""Coupling recovery: closed cases, an independent AUC, and what must not change it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline_lib.evaluation.coupling import CouplingMatrices, auc, recovery


def couplings(filters: np.ndarray, bin_size: float = 5.0) -> CouplingMatrices:
    return CouplingMatrices(filters.sum(axis=2), filters, bin_size)


@pytest.fixture
def true() -> CouplingMatrices:
    rng = np.random.default_rng(0)
    shape = np.exp(-np.arange(12) / 3.0)
    size = np.where(rng.random((10, 10)) < 0.2, rng.uniform(0.2, 1, (10, 10)), 0) * np.sign(
        rng.standard_normal((10, 1))
    )
    np.fill_diagonal(size, 0)
    return couplings(size[:, :, None] * shape)


def test_the_truth_recovers_itself(true: CouplingMatrices) -> None:
    found = recovery(true, true)
    assert found.auc == found.filter_auc == found.sign_accuracy == 1
    assert found.strength_correlation == pytest.approx(1) and found.filter_correlation == pytest.approx(1)
    assert found.false_share == 0 and found.pairs == 90 and found.not_fitted == 0
    assert found.synapses == (true.strength != 0).sum()


def test_a_wrong_sign_a_wrong_pair_and_an_unfitted_sender_are_seen(true: CouplingMatrices) -> None:
    flipped = recovery(couplings(-true.filters), true)
    assert flipped.sign_accuracy == 0 and flipped.auc == 1 and flipped.strength_correlation == pytest.approx(-1)
    assert flipped.filter_correlation == pytest.approx(-1)

    filters = np.zeros((4, 4, 2))
    filters[0, 1] = [1.0, 0.0]
    truth = couplings(filters)
    fitted = filters.copy()
    fitted[2, 3] = [0.0, 0.5]
    found = recovery(couplings(fitted), truth)
    assert found.false_share == pytest.approx(0.2)  # 0.25 of 1.25
    assert found.auc == 1
    assert recovery(replace(couplings(fitted), filters=None), truth).false_share == pytest.approx(0.2)

    fitted[2] = np.nan
    found = recovery(couplings(fitted), truth)
    assert found.not_fitted == 3 and found.pairs == 9 and found.false_share == 0


def test_a_filter_without_a_shape_has_no_correlation() -> None:
    """It is left out, not counted as one of 0."""
    true, fitted = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    true[0, 1] = true[1, 2] = [3.0, 2.0, 0.5]
    fitted[0, 1], fitted[1, 2] = [1.0, 0.0, 0.2], 0.4
    found = recovery(couplings(fitted), couplings(true))
    assert found.synapses == 2
    assert found.filter_correlation == pytest.approx(np.corrcoef(fitted[0, 1], true[0, 1])[0, 1])


def test_the_diagonal_is_not_scored(true: CouplingMatrices) -> None:
    filters = true.filters.copy()
    filters[np.arange(10), np.arange(10)] = -50
    assert recovery(couplings(filters), true) == recovery(true, true)


def test_weak_couplings_outside_the_designed_synapses_count_as_none() -> None:
    strength = np.full((6, 6), 1e-3)
    strength[:2, 4:] = 0.5
    synapse = strength > 0.1
    fitted = np.where(synapse, 1.0, 0.0)
    found = recovery(CouplingMatrices(fitted, None, 5.0), CouplingMatrices(strength, None, 2.0), synapse)
    assert found.auc == 1 and found.synapses == 4 and found.false_share == 0
    assert np.isnan(found.filter_correlation)
    assert recovery(CouplingMatrices(fitted, None, 5.0), CouplingMatrices(strength, None, 2.0)).synapses == 30


def test_auc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        score, positive = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.3
        positive[:2] = True, False
        assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
    assert np.isnan(auc(score, np.zeros(40, dtype=bool)))
    assert auc(np.zeros(40), positive) == 0.5


def test_random_fits_are_at_chance(true: CouplingMatrices) -> None:
    rng = np.random.default_rng(2)
    scores = [recovery(couplings(rng.standard_normal((10, 10, 12))), true) for _ in range(200)]
    assert np.mean([score.auc for score in scores]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([score.sign_accuracy for score in scores]) == pytest.approx(0.5, abs=0.05)
    share = 1 - scores[0].synapses / 90
    assert np.mean([score.false_share for score in scores]) == pytest.approx(share, abs=0.02)


def test_the_order_of_units_changes_nothing(true: CouplingMatrices) -> None:
    rng = np.random.default_rng(3)
    fitted = couplings(true.filters + 0.05 * rng.standard_normal(true.filters.shape))
    order = rng.permutation(10)
    first = recovery(fitted, true)
    second = recovery(*(couplings(side.filters[order][:, order]) for side in (fitted, true)))
    for name in ("auc", "sign_accuracy", "strength_correlation", "filter_correlation", "false_share"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-12), name


def test_filters_in_other_bins_are_compared_at_the_same_lags() -> None:
    def sampled(bin_size: float, length: float, delay: float = 15.0) -> CouplingMatrices:
        lag = np.arange(1, round(length / bin_size) + 1) * bin_size
        filters = np.zeros((2, 2, len(lag)))
        filters[0, 1] = np.exp(-((lag - delay) ** 2) / (2 * 8**2))
        return couplings(filters, bin_size)

    true = sampled(5.0, 100.0)
    assert recovery(sampled(1.0, 100.0), true).filter_correlation == pytest.approx(1, abs=1e-3)
    assert recovery(sampled(1.0, 50.0), true).filter_correlation == pytest.approx(1, abs=1e-3)
    assert recovery(sampled(10.0, 100.0), true).filter_correlation == pytest.approx(1, abs=1e-3)
    assert recovery(sampled(5.0, 100.0, delay=60.0), true).filter_correlation < 0.2


def test_beyond_its_end_a_filter_is_zero() -> None:
    short, long = np.zeros((2, 2, 4)), np.zeros((2, 2, 8))
    short[0, 1] = long[0, 1, :4] = [1.0, 0.5, 1.0, 0.5]
    assert recovery(couplings(short), couplings(long)).filter_correlation == pytest.approx(1)
    assert recovery(couplings(long), couplings(short)).filter_correlation == pytest.approx(1)
    long[0, 1, 4:] = [1.0, 0.5, 1.0, 0.5]
    for one, other in ((short, long), (long, short)):
        found = recovery(couplings(one), couplings(other)).filter_correlation
        assert found == pytest.approx(np.corrcoef([1, 0.5, 1, 0.5, 0, 0, 0, 0], long[0, 1])[0, 1])


def test_a_filter_whose_lags_cancel_is_found_by_its_norm() -> None:
    filters = np.zeros((3, 3, 4))
    filters[0, 1] = [1.0, 0.0, -0.5, -0.5]
    filters[1, 2] = [0.1, 0.1, 0.0, 0.0]
    true = np.zeros((3, 3))
    true[0, 1] = 1.0
    found = recovery(couplings(filters), CouplingMatrices(true, None, 1.0))
    assert found.filter_auc == 1 and found.auc < 0.5


def test_only_the_asked_pairs_are_scored(true: CouplingMatrices) -> None:
    group = np.arange(10) < 4
    fitted = couplings(np.where((group[:, None] == group)[..., None], 7.0 - 10 * true.filters, true.filters))
    found = recovery(fitted, true, among=group[:, None] != group)
    assert found.auc == 1 and found.pairs == 48 and found.false_share == 0
    assert found.filter_correlation == pytest.approx(1)


def test_a_pair_whose_truth_is_not_known_is_not_scored(true: CouplingMatrices) -> None:
    filters = true.filters.copy()
    filters[3] = np.nan
    found = recovery(true, couplings(filters))
    assert found.pairs == 81 and found.auc == found.sign_accuracy == 1 and found.false_share == 0
    assert found.synapses == (np.delete(true.strength, 3, 0) != 0).sum() and found.not_fitted == 0
