"""What is scored of a session: observed bins of its windows, in whatever order and lengths they come."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.evaluation import parts, sums
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.parts import Fitted, joined, read_part, train_means
from pipeline_lib.evaluation.predictions import rows_of
from pipeline_lib.evaluation.responses import measured
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains
from tests.evaluation.made_up_fit import name_fit
from tests.evaluation.test_evaluate import gain_by_hand
from tests.small_cohort import SPLITS, TRIALS, UNITS, WINDOWS, recording, write_cohort

BINS, FORWARD = 50, 5


class Gappy:
    """A session of windows of different length, with pauses of the recording, and of single units."""

    def __init__(self, directory: Path, ragged: bool = True) -> None:
        rng = np.random.default_rng(3)
        made = recording()
        if ragged:
            made.trials["stop"] -= rng.integers(0, 30, TRIALS) * 0.02
        pauses = np.arange(0, TRIALS, 7) * 1.5 + 0.31  # s; each 0.2 s long
        made.observed = np.stack([np.r_[0.0, pauses + 0.2], np.r_[pauses, made.duration]], axis=1)
        own = np.sort(rng.uniform(0, made.duration, (UNITS, 4)), axis=1)
        made.unit_intervals = pd.DataFrame(
            {"unit": np.repeat(range(UNITS), 2), "start": own[:, ::2].ravel(), "stop": own[:, 1::2].ravel()}
        ).query("unit % 3 != 0", engine="python")
        windows = replace(WINDOWS, after=None if ragged else 1.0)
        (self.trains,), self.split_path = write_cohort(directory, windows, SPLITS, [made])
        self.made, self.directory = made, directory
        self.recording, self.split = directory / "recordings" / "small0", Split.read(self.split_path)

    def measured(self, samples: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Counts, and what was observed [S, T, N], by the spikes and intervals of each unit in its turn."""
        first = samples["start_tick"].to_numpy()[:, None] + np.arange(samples["bins"].max()) * 2000
        counts, known = np.zeros((*first.shape, UNITS)), np.zeros((*first.shape, UNITS), dtype=bool)
        for unit in range(UNITS):
            tick = np.rint(self.made.spike_times[self.made.spike_units == unit] * 1e5)
            counts[..., unit] = ((tick >= first[..., None]) & (tick < first[..., None] + 2000)).sum(axis=2)
            own = self.made.unit_intervals.query(f"unit == {unit}")[["start", "stop"]].to_numpy()
            spans = [np.rint(each * 1e5).T for each in (self.made.observed, own) if len(each)]
            inside = [(start <= first[..., None]) & (stop >= first[..., None] + 2000) for start, stop in spans]
            known[..., unit] = np.all([each.any(axis=2) for each in inside], axis=0)
        return counts, known

    def table(self, rates: np.ndarray, order: np.ndarray | None = None, **arrays: np.ndarray) -> pd.DataFrame:
        """Scores of predictions of all windows but the training ones, written in some `order`."""
        sample = self.split.samples.index[self.split.samples["split"] != "train"].to_numpy()
        order = np.arange(len(sample)) if order is None else order
        store = zarr.open_group(str(self.directory / "fit/predictions.zarr"), mode="w")
        for name, values in {"rates": rates, "sample": sample, **arrays}.items():
            store.create_array(f"small0/{name}", data=values[order])
        out = self.directory / "scores.parquet"
        scoring = Scoring([self.trains], self.split_path, [self.recording], 50, few_shot=[3])
        evaluate(name_fit(self.directory / "fit"), scoring, out)
        return pd.read_parquet(out)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Gappy:
    return Gappy(tmp_path_factory.mktemp("gappy"))


def test_what_was_not_observed_or_lies_after_a_window_is_in_no_score(gappy: Gappy) -> None:
    samples = gappy.split.samples[gappy.split.samples["split"] != "train"]
    counts, known = gappy.measured(samples)
    bins = samples["bins"].to_numpy()[:, None]
    place = np.arange(known.shape[1])
    window, ahead = (place < bins - FORWARD), (place >= bins - FORWARD) & (place < bins)
    assert len(np.unique(bins)) > 5 and 0.3 < known[place < bins].mean() < 0.7
    rates = np.random.default_rng(0).gamma(2.0, 0.2, known.shape)
    table = gappy.table(np.where(known & (place < bins)[:, :, None], rates, np.nan))
    table = table[table["null"] == "evaluated mean"].set_index(["split", "units", "metric", "aggregation"])
    found, number = table["value"], table["n"]
    heldin = np.setdiff1d(np.arange(UNITS), gappy.split.heldout["small0"])
    asked = {
        ("heldin", "bits_per_spike"): (window, heldin),
        ("heldout", "bits_per_spike"): (window, gappy.split.heldout["small0"]),
        ("all", "forward_bits_per_spike"): (ahead, np.arange(UNITS)),
    }
    for split in ("validation", "test"):
        here = (samples["split"] == split).to_numpy()
        for (units, metric), (where, members) in asked.items():
            gain, spikes, each = 0.0, 0.0, []
            for unit in members:
                scored = known[here, :, unit] & where[here]
                y, r = (values[here, :, unit][scored][None, :, None] for values in (counts, rates))
                if y.sum():
                    own = gain_by_hand(y, r, y.mean(axis=(0, 1))).sum()
                    gain, spikes = gain + own, spikes + y.sum()
                    each.append(own / y.sum() / np.log(2))
                else:
                    gain -= r.sum()
            assert found[split, units, metric, "pooled"] == pytest.approx(gain / spikes / np.log(2), abs=1e-6)
            over_units = split, units, metric, "mean over units"
            assert found[over_units] == pytest.approx(np.mean(each), abs=1e-6) and number[over_units] == len(each)
    assert (number[:, "all", "forward_bits_per_spike", "mean over units"] < UNITS).any(), "silent ones have no score"


def test_samples_are_found_in_whatever_order_they_are_asked_for() -> None:
    stored = {"one/sample": np.array([5, 2, 9])}
    assert rows_of(stored, "one", np.array([9, 2, 7, 5])).tolist() == [2, 1, -1, 0]


def test_the_order_in_which_a_model_wrote_its_windows_changes_nothing(gappy: Gappy) -> None:
    """Not even intervals: those of two models are drawn alike, whatever each did with its windows."""
    samples = gappy.split.samples[gappy.split.samples["split"] != "train"]
    shape, rng = (len(samples), int(samples["bins"].max())), np.random.default_rng(1)
    rates, latents = rng.gamma(2.0, 0.2, (*shape, UNITS)), rng.standard_normal((*shape, 2))
    tables = [gappy.table(rates, order, latents=latents) for order in (None, rng.permutation(len(samples)))]
    few = tables[0][tables[0]["metric"].str.startswith("few_shot")]
    assert len(few) and few["ci_low"].notna().all()
    pd.testing.assert_frame_equal(*tables)


def test_the_mean_of_the_training_part_is_that_of_its_observed_bins(
    gappy: Gappy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all of its windows are read at once or a few at a time."""
    samples = gappy.split.part("small0", "train")
    counts, known = gappy.measured(samples)
    known &= (np.arange(known.shape[1]) < samples["bins"].to_numpy()[:, None])[:, :, None]
    expected = np.where(known, counts, 0).sum(axis=(0, 1)) / known.sum(axis=(0, 1))
    trains = Trains.open(gappy.trains)
    np.testing.assert_allclose(train_means(trains, gappy.split), expected)
    monkeypatch.setattr(sums, "BLOCK", 5 * known.shape[1] * UNITS)
    np.testing.assert_allclose(train_means(trains, gappy.split), expected)


def test_responses_to_all_trials_are_those_of_their_observed_bins(gappy: Gappy) -> None:
    """Spikes near a bin over what was observed near it, by a Gaussian of 70 ms that ends at three times that."""
    samples = gappy.split.samples
    counts, known = gappy.measured(samples)
    place = np.arange(known.shape[1])
    known &= (place < samples["bins"].to_numpy()[:, None])[:, :, None]
    found = measured(Trains.open(gappy.trains), gappy.split)
    assert found is not None and found.names.tolist() == ["c0", "c1", "c2"]
    for name, psth in zip(found.names, found.psths, strict=True):
        own = (samples["condition"] == name).to_numpy()
        seen, spikes = (each[own].sum(axis=0) for each in (known, known * counts))
        for at in place:
            near = np.where(abs(place - at) <= 10.5, np.exp(-0.5 * ((place - at) / 3.5) ** 2), 0)
            with np.errstate(invalid="ignore"):
                expected = np.where(seen[at], near @ spikes / (near @ seen), np.nan)
            np.testing.assert_allclose(psth[at], expected)


def test_two_parts_together_are_what_one_part_of_both_would_be(gappy: Gappy) -> None:
    trains, split = Trains.open(gappy.trains), gappy.split
    rng, fits = np.random.default_rng(2), {}
    longest = int(split.samples["bins"].max())
    for name in ("train", "validation"):
        sample = split.part("small0", name).index.to_numpy()
        shape = (len(sample), int(split.samples["bins"].loc[sample].max()))
        arrays = rng.random((*shape, UNITS)), sample, rng.random((*shape, 2))
        fits[name] = read_part(trains, split, Fitted(*arrays, None, {}), name)
    found = joined(fits["train"], fits["validation"])
    own = split.samples[split.samples["split"] != "test"]
    assert found.samples.equals(own) and not own["split"].is_monotonic_increasing
    one = replace(split, samples=split.samples.assign(split="train"))
    every = Fitted(np.zeros((len(own), longest, UNITS)), own.index.to_numpy(), None, None, {})
    whole = parts.read_part(trains, one, every, "train")
    inside = (np.arange(longest) < own["bins"].to_numpy()[:, None])[:, :, None]
    for name in ("counts", "observed"):
        np.testing.assert_array_equal(getattr(found, name) * inside, getattr(whole, name) * inside)
    for row, sample in enumerate(own.index):
        part = fits[own["split"].loc[sample]]
        at, bins = part.samples.index.get_loc(sample), own["bins"].loc[sample]
        for name in ("rates", "latents"):
            np.testing.assert_array_equal(getattr(found, name)[row, :bins], getattr(part, name)[at, :bins])
