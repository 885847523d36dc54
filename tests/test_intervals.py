import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline_lib.intervals import common, complement, merged, overlap_any

SPANS = st.lists(st.tuples(st.integers(-5, 25), st.integers(-5, 25)), max_size=8)


def covered(intervals: np.ndarray) -> np.ndarray:
    """Which of the unit cells 0..19 lie in an interval."""
    cells = np.arange(20) + 0.5
    return ((cells[:, None] > intervals[:, 0]) & (cells[:, None] < intervals[:, 1])).any(axis=1)


@given(SPANS)
def test_merged_covers_the_same_time_without_overlap(spans):
    intervals = np.array(spans, dtype=float).reshape(-1, 2)
    result = merged(intervals)
    assert (np.diff(result.ravel()) > 0).all()
    np.testing.assert_array_equal(covered(result), covered(intervals))


def test_intervals_that_touch_overlap_or_nest_become_one_and_stay_whole_ticks():
    intervals = np.array([[50, 60], [0, 40], [5, 10], [20, 30], [40, 45], [70, 70]])
    assert merged(intervals).tolist() == [[0, 45], [50, 60]]
    assert merged(intervals[-1:]).shape == (0, 2) and merged(intervals[-1:]).dtype == intervals.dtype


@given(SPANS)
@example([(22, 25)])
@example([(-5, -1)])
def test_complement_covers_exactly_the_rest(spans):
    intervals = np.array(spans, dtype=float).reshape(-1, 2)
    result = complement(intervals, 20.0)
    assert (np.diff(result.ravel()) > 0).all()
    assert ((result >= 0) & (result <= 20)).all()
    np.testing.assert_array_equal(covered(result), ~covered(intervals))


@given(SPANS, SPANS)
@example([(0, 5), (3, 9)], [(2, 4), (9, 12)])
def test_common_covers_what_both_cover(spans, others):
    one, other = (np.array(each, dtype=float).reshape(-1, 2) for each in (spans, others))
    result = common(one, other)
    assert (np.diff(result.ravel()) > 0).all() and (result >= 0).all()
    np.testing.assert_array_equal(covered(result), covered(one) & covered(other))


@given(SPANS, st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=6))
def test_overlap_any_is_the_pairwise_test(spans, queries):
    intervals = np.array(spans, dtype=float).reshape(-1, 2)
    starts = np.array([start for start, _ in queries], dtype=float)
    stops = starts + [length for _, length in queries]
    whole = intervals[intervals[:, 1] > intervals[:, 0]]
    expected = ((starts[:, None] < whole[:, 1]) & (stops[:, None] > whole[:, 0])).any(axis=1)
    np.testing.assert_array_equal(overlap_any(starts, stops, intervals), expected)


def test_what_overlaps_an_interval_against_a_loop():
    begin, stop = (edge.ravel() for edge in np.mgrid[0:10, 0:10])
    intervals = np.array([[1, 3], [3, 4], [6, 8]])
    expected = [any(a < last and first < b for first, last in intervals) for a, b in zip(begin, stop, strict=True)]
    later = begin < stop
    np.testing.assert_array_equal(overlap_any(begin, stop, intervals)[later], np.array(expected)[later])
    assert not overlap_any(begin, stop, intervals[:0]).any()
