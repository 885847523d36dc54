"""Rates that come from anywhere are scored as those of a fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.arrays import COLUMNS, score_rates
from pipeline_lib.evaluation.bootstrap import interval, resampling_weights
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.metrics import (
    bits_per_spike,
    latent_r2,
    mean_over_units,
    negative_log_likelihood,
    null_rates,
    psth_r2,
    unit_bits_per_spike,
)
from pipeline_lib.evaluation.parts import train_means
from pipeline_lib.evaluation.sums import poisson_sums
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.trains.binning import bin_windows, observed_windows
from tests.small_cohort import open_cohort, recording, write_cohort

Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def data() -> Data:
    """Counts [9, 14, 6], some of them not observed, and rates that somebody expects."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 0.2, (9, 14, 6))
    counts = rng.poisson(rates).astype(float)
    counts[rng.random(counts.shape) < 0.1] = np.nan
    return counts, rates * rng.uniform(0.5, 1.5, rates.shape)


def test_arrays_score_as_the_fit_that_they_are_of(tmp_path: Path) -> None:
    stores, split = write_cohort(tmp_path, made=[recording(trials=30)])
    fit(stores, split, "smoothing", "smoothing", {"smoothing": [50.0], "ridge": [10.0]}, 0, tmp_path / "fit")
    evaluate(tmp_path / "fit", Scoring(stores, split, [], resamples=50), tmp_path / "scores.parquet")
    data = open_cohort(stores, split)
    trains, samples = data.trains["small0"], data.samples("small0", "test")
    inside = 50 - data.split.forward_bins
    where = samples["start_tick"].to_numpy(), inside, data.split.bin_ticks
    scores = score_rates(
        bin_windows(trains, *where),
        load_fit(tmp_path / "fit").predict(data, "small0", samples)[:, :inside],
        observed_windows(trains, *where),
        heldout=data.heldout("small0"),
        train_mean=train_means(trains, data.split),
        resamples=50,
    )
    table = pd.read_parquet(tmp_path / "scores.parquet")
    asked = (table["split"] == "test") & table["metric"].isin(scores["metric"])
    expected = table[asked & table["units"].isin(["heldin", "heldout"])]
    assert len(scores) == 12
    keys = ["units", "metric", "aggregation", "null"]
    both = (each.sort_values(keys, ignore_index=True) for each in (scores, expected[COLUMNS]))
    pd.testing.assert_frame_equal(*both, check_dtype=False)


def test_what_is_no_mean_and_no_unit_is_refused() -> None:
    counts, rates = np.ones((3, 4, 2)), np.full((3, 4, 2), 0.5)
    assert score_rates(counts, rates)["units"].unique() == "heldin"
    for means, message in (([0.5], r"shape \(1,\)"), ([0.5, 0.0], r"found 0\.0"), ([np.nan, 1.0], "found nan")):
        with pytest.raises(InputError, match=f"train_mean: {message}" if "found" in message else message):
            score_rates(counts, rates, train_mean=means)
    rates[:, :, 1] = 0.8  # units that score alike do not say which of them was held out
    marked = score_rates(counts, rates, heldout=[False, True])  # as rows, they would be 0 and 1
    for rows in ([1], [1, 1]):
        pd.testing.assert_frame_equal(marked, score_rates(counts, rates, heldout=rows))
    for rows in ([2], [-1, 0], [0.5], [True]):
        with pytest.raises(InputError, match=r"heldout: found .*; accepted: rows of the units, 0 to 1"):
            score_rates(counts, rates, heldout=rows)


def test_an_interval_is_of_drawn_windows_and_counts_them() -> None:
    """Also of a mean over units, whose n are the units that have a score."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 0.2, (9, 14, 6))
    counts = rng.poisson(rates)
    counts[:, :, 2] = 0
    scores = score_rates(counts, rates, resamples=50).set_index(["metric", "aggregation"])
    found = scores.loc[("bits_per_spike", "mean over units")]
    sums = poisson_sums(counts, rates)
    drawn = sums.weighted(resampling_weights(9, 50, seed=0))
    values = mean_over_units(unit_bits_per_spike(drawn, null_rates(sums.total())[0]))
    assert (found["ci_low"], found["ci_high"]) == interval(values[1:], 9)
    assert (found["value"], found["n"]) == (values[0], 5)


def test_arrays_of_other_tools_score_as_numpys(data: Data) -> None:
    """Tensors, lists, and masks of 0 and 1, which numpy would take for the rows to look up."""
    counts, estimate = data
    known = np.isfinite(counts)
    whole = np.where(known, counts, 0)
    expected = bits_per_spike(poisson_sums(whole, estimate, known).total())
    tensors = torch.tensor(whole), torch.tensor(estimate), torch.tensor(known).int()
    assert np.array_equal(bits_per_spike(poisson_sums(*tensors).total()), expected)
    lists = whole.tolist(), estimate.tolist(), known.astype(int).tolist()
    assert np.array_equal(bits_per_spike(poisson_sums(*lists).total()), expected)
    assert negative_log_likelihood(*lists) == negative_log_likelihood(whole, estimate, known)
    condition = ["a", "b", "a"] * 3
    assert psth_r2(*lists[:2], condition, 1.0) == psth_r2(whole, estimate, np.array(condition), 1.0)


@pytest.mark.parametrize("shape", [(126, 6), (756,), (1, 9, 14, 6)])
def test_arrays_without_windows_bins_and_units_are_refused(data: Data, shape: tuple[int, ...]) -> None:
    counts, estimate = data
    for score in (poisson_sums, negative_log_likelihood):
        with pytest.raises(InputError, match=r"shape \(.*\(samples, bins, units\)"):
            score(np.nan_to_num(counts).reshape(shape), estimate.reshape(shape))


def test_counts_that_nobody_counted_are_refused(data: Data) -> None:
    counts, estimate = data
    counts[2, 3, 1] = -1.0
    with pytest.raises(InputError, match=r"counts: found -1\.0; accepted: spikes a bin, none negative"):
        poisson_sums(counts, estimate)
    counts[2, 3, 1] = 0.5  # a smoothed count has no factorial
    with pytest.raises(InputError, match=r"counts: found 0\.5; accepted: whole numbers"):
        negative_log_likelihood(counts, estimate)
    with pytest.raises(InputError, match=r"condition: found shape \(3,\) of 9 samples"):
        psth_r2(counts, estimate, ["a", "b", "c"], 0.0)
    with pytest.raises(InputError, match="latents: found shapes"):
        latent_r2(estimate, estimate[:, :10])
