"""What one part reads is never what another part is scored on."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains.leakage import _first_overlap, check_leakage
from pipeline_lib.trains.splits import PARTS, Split


def _two_windows(gap_bins: int, history_bins: int, parts: tuple[str, str]) -> Split:
    samples = pd.DataFrame(
        {
            "session": "s",
            "start_tick": [100_000, 100_000 + (100 + gap_bins) * 500],
            "bins": [100, 100],
            "trial": [0, 1],
            "condition": "",
            "split": parts,
        }
    )
    return Split(samples, {"s": np.array([], int)}, 0, 5.0, history_bins, "c")


@pytest.mark.parametrize(
    ("gap", "history", "leaks"),
    [(0, 0, False), (-1, 0, True), (10, 10, False), (9, 10, True), (-100, 0, True), (-50, 20, True), (500, 50, False)],
)
def test_leakage_is_an_overlap_of_what_is_read_with_what_is_scored(gap, history, leaks):
    for parts in (("train", "test"), ("test", "train"), ("validation", "test")):
        split = _two_windows(gap, history, parts)
        if leaks:
            with pytest.raises(InputError, match="leakage"):
                check_leakage(split)
        else:
            check_leakage(split)
    check_leakage(_two_windows(gap, history, ("test", "test")))  # within a part, windows may overlap


def test_a_leaky_split_is_found_among_many_windows():
    """A long window of another part that began long before; against a loop over all pairs."""
    random = np.random.default_rng(0)
    for _ in range(200):
        samples = pd.DataFrame(
            {
                "session": "s",
                "start_tick": random.integers(0, 400, 6) * 1000,
                "bins": random.integers(1, 40, 6),
                "trial": 0,
                "condition": "",
                "split": random.choice(PARTS, 6),
            }
        )
        split = Split(samples, {"s": np.array([], int)}, 0, 5.0, 20, "c")
        begin = samples["start_tick"].to_numpy()
        stop = begin + samples["bins"].to_numpy() * 500
        leaks = any(
            samples["split"][i] != samples["split"][j] and begin[i] - 10_000 < stop[j] and begin[j] < stop[i]
            for i in range(6)
            for j in range(6)
        )
        try:
            check_leakage(split)
            assert not leaks
        except InputError:
            assert leaks


def test_first_overlap_against_a_loop():
    random = np.random.default_rng(1)
    for _ in range(300):
        begin, other = random.integers(0, 100, 4), random.integers(0, 100, 4)
        stop, other_stop = begin + random.integers(1, 30, 4), other + random.integers(1, 60, 4)
        pairs = [(i, j) for i in range(4) for j in range(4) if begin[i] < other_stop[j] and other[j] < stop[i]]
        found = _first_overlap(begin, stop, other, other_stop)
        assert (found in pairs) if pairs else found is None
