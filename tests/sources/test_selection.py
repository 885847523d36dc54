from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources.selection import UnitSelection, select
from tests.sources.conftest import refuses

WHERE = Path("file.nwb")


@pytest.fixture
def shuffled(recording):
    """The small session, unit after unit as files hold it, with a quality column."""
    order = np.argsort(recording.spike_units, kind="stable")
    quality = [0.1, 0.6, np.nan, 0.5, 0.2, 0.9]
    return replace(
        recording,
        spike_times=recording.spike_times[order],
        spike_units=recording.spike_units[order],
        units=recording.units.assign(isi_violations=quality),
    )


def test_spikes_come_back_in_order_of_time(recording, shuffled):
    result = select(shuffled, UnitSelection(), WHERE)
    np.testing.assert_array_equal(result.spike_times, recording.spike_times)
    np.testing.assert_array_equal(result.spike_units, recording.spike_units)
    result.validate()


def test_every_kept_unit_keeps_its_own_spikes(shuffled):
    intervals = pd.DataFrame({"unit": [0, 1, 2, 3, 5], "start": [0.0, 0.2, 1.0, 0.5, 2.0], "stop": 4.8})
    shuffled.unit_intervals = intervals
    result = select(shuffled, UnitSelection(regions=("VISp", "CA1")), WHERE)
    assert set(result.units["region"]) == {"VISp", "CA1"}
    for row, unit_id in enumerate(result.units["unit_id"]):
        before = list(shuffled.units["unit_id"]).index(unit_id)
        own = np.sort(shuffled.spike_times[shuffled.spike_units == before])
        np.testing.assert_array_equal(result.spike_times[result.spike_units == row], own)
        expected = intervals.loc[intervals["unit"] == before, "start"]
        found = result.unit_intervals.loc[result.unit_intervals["unit"] == row, "start"]
        assert list(found) == list(expected)
    assert len(result.unit_intervals) == 4
    assert list(result.units.index) == [0, 1, 2, 3]
    counts = result.provenance.counts
    assert (counts["units_before"], counts["units_after"]) == (6, 4)
    assert counts["spikes_before"] == 200
    assert counts["spikes_after"] == len(result.spike_times) < 200


@pytest.mark.parametrize(("text", "kept"), [("<=0.5", 3), ("<0.5", 2), (">=0.5", 3), (">.5", 2), ("==5e-1", 1)])
def test_thresholds_and_nan_never_passes(shuffled, text, kept):
    assert len(select(shuffled, UnitSelection(query={"isi_violations": text}), WHERE).units) == kept


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ({"quality": "==good"}, [0, 5]),
        ({"quality": " != good "}, [1, 4]),
        ({"quality": "!=good", "isi_violations": "<0.5"}, [4]),
        ({"layer": "==4"}, [0, 1]),
        ({"layer": "!=4"}, [2, 3, 4]),
    ],
)
def test_words_of_columns_of_text_and_what_is_missing_never_passes(shuffled, query, kept):
    quality = ["good", "mua", None, "", "very good", "good"]
    shuffled.units = shuffled.units.assign(quality=quality, layer=["4", "4", "2/3", "5", "1", None])
    result = select(shuffled, UnitSelection(query=query), WHERE)
    assert list(result.units["unit_id"]) == list(shuffled.units["unit_id"][kept])
    with refuses("file.nwb", "option query", "'qualty'", "isi_violations"):
        select(shuffled, UnitSelection(query={"qualty": "==good"}), WHERE)


def test_rates_are_over_the_time_a_unit_was_observed(shuffled):
    shuffled.observed = np.array([[0.0, 1.5], [2.0, 4.5]])
    seen = (shuffled.spike_times < 1.5) | ((shuffled.spike_times > 2.0) & (shuffled.spike_times < 4.5))
    rates = np.bincount(shuffled.spike_units[seen]) / 4.0
    threshold = float(np.sort(rates)[3])
    assert len(select(shuffled, UnitSelection(min_rate=threshold), WHERE).units) == (rates >= threshold).sum()
    lazy = int(np.argmin(rates))
    first = shuffled.spike_times[shuffled.spike_units == lazy].min()
    shuffled.unit_intervals = pd.DataFrame({"unit": [lazy], "start": [first], "stop": [first + 0.001]})
    kept = select(shuffled, UnitSelection(max_units=1), WHERE)
    assert list(kept.units["unit_id"]) == [shuffled.units["unit_id"][lazy]]


def test_the_most_active_units_are_kept_in_the_order_of_the_file(shuffled):
    result = select(shuffled, UnitSelection(max_units=3), WHERE)
    best = np.sort(np.argsort(-np.bincount(shuffled.spike_units), kind="stable")[:3])
    assert list(result.units["unit_id"]) == list(shuffled.units["unit_id"].iloc[best])


def test_the_most_active_units_are_those_of_the_units_that_pass(shuffled):
    best = np.argsort(-np.bincount(shuffled.spike_units), kind="stable")
    shuffled.units["isi_violations"] = np.where(np.arange(6) == best[0], 1.0, 0.0)
    result = select(shuffled, UnitSelection(max_units=2, query={"isi_violations": "<0.5"}), WHERE)
    assert list(result.units["unit_id"]) == list(shuffled.units["unit_id"].iloc[np.sort(best[1:3])])
    third = select(shuffled, UnitSelection(max_units=1), WHERE, keep=~np.isin(np.arange(6), best[:2]))
    assert list(third.units["unit_id"]) == [shuffled.units["unit_id"].iloc[best[2]]]


def test_spikes_at_one_time_keep_their_order(shuffled):
    times, units = np.repeat([2.0, 1.0], 50), np.arange(100) % 6
    result = select(replace(shuffled, spike_times=times, spike_units=units), UnitSelection(), WHERE)
    assert list(result.spike_units) == [*units[50:], *units[:50]]


def test_a_selection_that_leaves_nothing_says_what_there_is(shuffled):
    with refuses("file.nwb", "none of 6", "CA1, VISl, VISp"):
        select(shuffled, UnitSelection(regions="VISX"), WHERE)
    with refuses("file.nwb", "option query", "'snr'", "isi_violations"):
        select(shuffled, UnitSelection(query={"snr": ">1"}), WHERE)
    with refuses("option query", "'region'"):
        select(shuffled, UnitSelection(query={"region": ">1"}), WHERE)


def test_a_unit_that_was_never_observed_has_no_rate(shuffled):
    """A probe that was invalid all along, or a single spike that is all of its unit's range."""
    best = int(np.argmax(np.bincount(shuffled.spike_units)))
    shuffled.unit_intervals = pd.DataFrame({"unit": [best], "start": [0.0], "stop": [0.0]})
    ids = shuffled.units["unit_id"]
    for options in (UnitSelection(max_units=5), UnitSelection(min_rate=0.01)):
        result = select(shuffled, options, WHERE)
        assert list(result.units["unit_id"]) == list(ids.drop(best))
        assert result.candidates["rate"][best] == 0
