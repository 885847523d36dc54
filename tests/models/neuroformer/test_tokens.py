"""Tokens are the spikes: each once, in order, whether they come from events or from counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.tokens import Tokens, tokens_of_counts, tokens_of_trains
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.store import Trains, write_store


@pytest.fixture(scope="module")
def trains(tmp_path_factory: pytest.TempPathFactory) -> Trains:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 20, rng.poisson(20 * rate))) for rate in (3.0, 80.0, 0.0, 400.0, 12.0)]
    directory: Path = tmp_path_factory.mktemp("tokens")
    write_store(directory, "tokens", times, 20.0)
    return Trains.open(directory)


def by_hand(trains: Trains, starts: np.ndarray, bins: int, ticks: int) -> list[list[tuple[int, int]]]:
    rows = []
    for start in starts:
        found = [
            ((int(tick) - int(start)) // ticks, int(unit))
            for tick, unit in zip(trains.ticks, trains.unit, strict=True)
            if start <= tick < start + bins * ticks
        ]
        rows.append(sorted(found))
    return rows


def rows_of(tokens: Tokens) -> list[list[tuple[int, int]]]:
    return [
        list(zip(bin[real].tolist(), unit[real].tolist(), strict=True))
        for bin, unit, real in zip(tokens.bin, tokens.unit, tokens.real, strict=True)
    ]


@pytest.mark.parametrize("starts", [np.arange(40) * 5000, np.array([0, 700, 1400, 900_000, 1_999_000])])
def test_every_spike_is_a_token_in_order(trains: Trains, starts: np.ndarray) -> None:
    expected = by_hand(trains, starts, 5, 1000)
    from_events = tokens_of_trains(trains, starts, 5, 1000)
    from_counts = tokens_of_counts(torch.as_tensor(bin_windows(trains, starts, 5, 1000)))
    assert rows_of(from_events) == expected == rows_of(from_counts)
    assert max(len(row) for row in expected) == from_events.unit.shape[1] and from_events.cut == 0
    assert sum(len(row) != len(set(row)) for row in expected) > 2  # counts above 1 are there


def test_a_limit_cuts_and_counts(trains: Trains) -> None:
    starts = np.arange(40) * 5000
    expected = by_hand(trains, starts, 5, 1000)
    counts = torch.as_tensor(bin_windows(trains, starts, 5, 1000))
    lost = sum(max(len(row) - 7, 0) for row in expected)
    first, last = tokens_of_counts(counts, 7), tokens_of_counts(counts, 7, latest=True)
    assert lost > 100 and first.cut == last.cut == tokens_of_trains(trains, starts, 5, 1000, 7).cut == lost
    assert rows_of(first) == [row[:7] for row in expected] and rows_of(last) == [row[-7:] for row in expected]


def test_windows_without_a_spike_have_no_token() -> None:
    tokens = tokens_of_counts(torch.zeros(3, 5, 4, dtype=torch.uint8))
    assert tokens.unit.shape == (3, 1) and not tokens.real.any() and tokens.count.tolist() == [0, 0, 0]


def test_after_each_token_comes_the_next_or_the_end() -> None:
    """Of the longest row, too, and after the start of a silent one."""
    counts = torch.zeros(3, 4, 3, dtype=torch.uint8)
    counts[0, 1, 2], counts[0, 3, 0], counts[2, 2, 1] = 2, 1, 1
    tokens = tokens_of_counts(counts)
    assert tokens.unit.tolist() == [[2, 2, 0], [0, 0, 0], [1, 0, 0]] and tokens.count.tolist() == [3, 0, 1]
    assert tokens.bin.tolist() == [[1, 1, 3], [0, 0, 0], [2, 0, 0]]
    bins, units = tokens.following(no_bin=4, no_unit=9)
    assert bins.tolist() == [[1, 1, 3, 4], [4, 4, 4, 4], [2, 4, 4, 4]]
    assert units.tolist() == [[2, 2, 0, 9], [9, 9, 9, 9], [1, 9, 9, 9]]
    assert tokens.goes_on.tolist() == [[True] * 3 + [False], [False] * 4, [True] + [False] * 3]
