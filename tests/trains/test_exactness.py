"""No spike in the wrong bin, against arithmetic with exact fractions."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline_lib.clock import bin_ticks
from pipeline_lib.errors import InputError
from pipeline_lib.recording import Recording
from pipeline_lib.trains import binning
from pipeline_lib.trains.binning import bin_windows, count_events, count_type, observed_windows
from pipeline_lib.trains.store import Trains

BIN_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0)
DURATION = 40
UNITS = 3


@pytest.fixture(autouse=True, params=[2**62, 0], ids=["indexed", "sparse"])
def way(request, monkeypatch):
    """Few events are added one way, many another: everything here, both ways."""
    monkeypatch.setattr(binning, "_FEW", request.param)


def _counted(exact: list[Fraction], bin_size: float) -> np.ndarray:
    """Counts of exact times (s) in bins [k b, (k + 1) b), by exact division."""
    bins = [int(time * 1000 / Fraction(bin_size)) for time in exact]
    return np.bincount(bins, minlength=int(DURATION * 1000 / bin_size))


def _times(grid: str, random: np.random.Generator) -> tuple[np.ndarray, list[Fraction]]:
    """Spike times as a file holds them (float64) and what they mean exactly."""
    if grid == "milliseconds":
        steps = np.sort(random.choice(DURATION * 1000, 9000, replace=False))
        return steps / 1000, [Fraction(int(step), 1000) for step in steps]
    if grid == "30 kHz":
        steps = np.sort(random.choice(DURATION * 30_000, 9000, replace=False))
        return steps / 30_000, [Fraction(int(step), 30_000) for step in steps]
    times = np.sort(random.uniform(0, DURATION - 0.001, 9000))
    # A free time means the nearest tick: that rounding is the clock's definition.
    return times, [Fraction(round(Fraction(time) * 100_000), 100_000) for time in times.tolist()]


@pytest.mark.parametrize("grid", ["milliseconds", "30 kHz", "free"])
def test_no_spike_is_in_the_wrong_bin(grid, store):
    random = np.random.default_rng(1)
    units = [_times(grid, random) for _ in range(UNITS)]
    trains = store([times for times, _ in units], DURATION)
    for bin_size in BIN_SIZES:
        bins = int(DURATION * 1000 / bin_size)
        counts = bin_windows(trains, np.array([0]), bins, bin_ticks(bin_size))[0]
        expected = np.stack([_counted(exact, bin_size) for _, exact in units], axis=1)
        np.testing.assert_array_equal(counts, expected)


def test_flooring_would_be_wrong():
    """The test above can fail: flooring the same millisecond times puts many in the wrong bin."""
    times, exact = _times("milliseconds", np.random.default_rng(1))
    floored = np.bincount(np.floor(times / 0.005).astype(int), minlength=DURATION * 200)
    assert (floored != _counted(exact, 5.0)).sum() > 50


def test_every_window_is_a_slice_of_the_whole(recording):
    trains = Trains.from_recording(recording)
    whole = bin_windows(trains, np.array([0]), 100_000, 100)[0]
    starts = np.random.default_rng(2).integers(0, 99_000, 200)
    windows = bin_windows(trains, starts * 100, 1000, 100)
    for start, window in zip(starts, windows, strict=True):
        np.testing.assert_array_equal(window, whole[start : start + 1000])


@settings(max_examples=60)
@given(
    start=some.lists(some.integers(-3_000_000, 13_000_000), min_size=1, max_size=5),
    bins=some.integers(1, 40),
    width=some.integers(1, 200_000),
)
def test_any_window_counts_the_spikes_between_its_edges(recording, start, bins, width):
    trains = Trains.from_recording(recording)
    counts = bin_windows(trains, np.array(start), bins, width)
    assert counts.shape == (len(start), bins, 20)
    for row, first in enumerate(start):
        inside = (trains.ticks >= first) & (trains.ticks < first + bins * width)
        cell = (trains.ticks[inside].astype(int) - first) // width * 20 + trains.unit[inside]
        np.testing.assert_array_equal(counts[row].ravel(), np.bincount(cell, minlength=bins * 20))


@pytest.mark.parametrize("starts", [[0.5, 1.5], [0.0, 2.0], [[0, 100_000]], 0])
def test_windows_that_begin_at_no_ticks_are_refused(recording, starts):
    """Seconds cut off to ticks would all be windows at the recording's start."""
    trains = Trains.from_recording(recording)
    for binned in (bin_windows, observed_windows):
        with pytest.raises(InputError, match=r"start_ticks.*a whole number for each window"):
            binned(trains, starts, 10, 500)
    samples = pd.Series([0, 100_000], dtype=np.uint32)
    np.testing.assert_array_equal(bin_windows(trains, samples, 10, 500), bin_windows(trains, [0, 100_000], 10, 500))
    assert bin_windows(trains, [], 10, 500).shape == (0, 10, 20)


def test_bins_add_up(recording):
    trains = Trains.from_recording(recording)
    fine = bin_windows(trains, np.array([12_300]), 5000, 100)[0]
    coarse = bin_windows(trains, np.array([12_300]), 1000, 500)[0]
    np.testing.assert_array_equal(fine.reshape(1000, 5, -1).sum(axis=1), coarse)


@pytest.mark.parametrize("width", [2**31, 2**32, 2**33])
def test_bins_longer_than_the_session(recording, width):
    trains = Trains.from_recording(recording)
    counts = bin_windows(trains, np.array([0, -width]), 2, width)
    everything = np.bincount(trains.unit, minlength=20)
    np.testing.assert_array_equal(counts, [[everything, 0 * everything], [0 * everything, everything]])


@pytest.mark.parametrize(
    ("spikes", "dtype"), [(255, np.uint8), (256, np.uint16), (700, np.uint16), (65_536, np.uint32)]
)
def test_counts_never_wrap(spikes, dtype, store):
    trains = store([np.linspace(1.0, 1.004, spikes), np.array([2.0])], 3.0)
    counts = bin_windows(trains, np.array([0, 99_900]), 100, 500)
    assert counts.dtype == dtype
    assert counts[1].sum() == spikes
    assert bin_windows(trains, np.array([100_000]), 1, 500)[0, 0, 0] == spikes


def test_many_units_together_do_not_widen_the_counts():
    """300 units fire at once: above 255 spikes in the bin, but no unit above 1."""
    ticks, unit = np.full(300, 1000, np.int32), np.arange(300, dtype=np.uint16)
    assert count_type(ticks, unit, 500) == np.uint8
    # Beside them, a unit of as many spikes, which never are within a bin.
    ticks, unit = np.append(ticks, 2000 + 1000 * np.arange(300, dtype=np.int32)), np.append(unit, 0 * unit)
    assert count_type(ticks, unit, 500) == np.uint8
    ticks, unit = np.arange(256, dtype=np.int32), np.zeros(256, np.uint16)  # the last is 255 ticks after the first
    assert count_type(ticks, unit, 255) == np.uint8
    assert count_type(ticks, unit, 256) == np.uint16


def test_first_and_last_tick_and_silence(store):
    trains = store([np.array([0.0, 10.0]), np.array([]), np.array([9.99999])], 10.0)
    counts = bin_windows(trains, np.array([0]), 2001, 500)[0]
    assert counts[0, 0] == counts[2000, 0] == counts[1999, 2] == 1
    assert counts.sum() == 3
    assert trains.duration_ticks == 1_000_001
    observed = observed_windows(trains, np.array([0]), 2001, 500)[0]
    assert observed[:2000].all() and not observed[2000].any()


@pytest.mark.parametrize("hours", [5.9, 7.0, 13.0, 26.0])
def test_sessions_of_many_hours_with_long_gaps(hours, store):
    end = hours * 3600
    times = np.array([0.0, 0.5, end - 1.0, end - 0.99999, end - 0.00001])
    trains = store([times, np.array([end / 2])], end)
    assert trains.ticks.tolist() == sorted([*np.rint(times * 1e5).astype(int), round(end / 2 * 1e5)])
    late = bin_windows(trains, np.array([round((end - 1) * 1e5), -500]), 1000, 100)
    assert late[0, :, 0].tolist() == [2] + [0] * 998 + [1]
    assert late[1, :, 0].nonzero()[0].tolist() == [5, 505]


def test_five_thousand_units(store):
    random = np.random.default_rng(0)
    times = [np.sort(random.uniform(0, 20, 40)) for _ in range(5000)]
    trains = store(times, 20.0)
    counts = bin_windows(trains, np.array([0]), 1000, 2000)[0]
    for unit in random.choice(5000, 50):
        bins = np.rint(times[unit] * 1e5).astype(int) // 2000
        np.testing.assert_array_equal(counts[:, unit], np.bincount(bins, minlength=1000)[:1000])


def test_filling_an_array_that_is_there(recording):
    trains = Trains.from_recording(recording)
    out = np.full((2, 50, 20), 9, np.uint8)
    starts = np.array([0, 777])
    assert bin_windows(trains, starts, 50, 500, out=out) is out
    for wrong in (out.astype(np.int8), out[:1], out.swapaxes(0, 1).copy().swapaxes(0, 1)):
        with pytest.raises(ValueError, match="contiguous uint8"):
            bin_windows(trains, starts, 50, 500, out=wrong)
    np.testing.assert_array_equal(out, bin_windows(trains, starts, 50, 500))
    whole = np.full((1, 20_000, 20), 9, np.uint8)  # several blocks of bins
    np.testing.assert_array_equal(
        bin_windows(trains, starts[:1], 20_000, 500, out=whole), bin_windows(trains, starts[:1], 20_000, 500)
    )
    count_events(out, trains.ticks[:0], trains.unit[:0], starts, 500)
    assert not out.any()


def test_observed_bins_against_a_loop(recording: Recording):
    trains = Trains.from_recording(recording)
    edges = np.array([0, 2_000_000, 3_000_000, 5_000_000, 6_000_000, 8_000_000, 8_500_000, 10_000_000])
    # A bin ends just before, at and after each edge; or each edge lies within the first bin of a window.
    starts = (edges[:, None] - np.array([2501, 2500, 2499, 250])).ravel()
    observed = observed_windows(trains, starts, 30, 500)
    session, own = [(0, 8_000_000), (8_500_000, 10_000_000)], [(0, 2_000_000), (3_000_000, 6_000_000)]
    for row, start in enumerate(starts):
        for k in range(30):
            bin_start, bin_stop = start + k * 500, start + (k + 1) * 500
            whole = any(begin <= bin_start and bin_stop <= stop for begin, stop in session)
            unit = any(begin <= bin_start and bin_stop <= stop for begin, stop in own)
            assert observed[row, k, 0] == whole, (start, k)
            assert observed[row, k, 3] == (whole and unit), (start, k)
    trains.observed = trains.observed[:0]
    assert not observed_windows(trains, starts, 30, 500).any()


def test_every_bin_has_its_place_where_units_come_and_go_and_all_is_observed(recording: Recording):
    trains = Trains.from_recording(recording)
    observed = observed_windows(trains, np.array([0, 100_000]), 7, 500)
    assert observed.shape == bin_windows(trains, np.array([0, 100_000]), 7, 500).shape and observed.all()
