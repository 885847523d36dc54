"""The law of the next token of independent Poisson units, counted out by hand."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.law import rates_of_first, time_law, unit_law, unit_marginal

EXPECTED = np.array([0.3, 0.05, 0.8, 0.2])
AGAIN = np.array([-0.7, -1.2, -0.1, -2.0])
"""Log-odds of firing again in the bin of a spike."""
BINS = 4


def places() -> Iterator[tuple[int, int, int]]:
    """Last bin, last unit (-1: none yet) and width of a window."""
    for width in range(1, BINS + 1):
        yield 0, -1, width
        yield from ((bin, unit, width) for bin in range(width) for unit in range(4))


def bins_by_hand(last_bin: int, last_unit: int, width: int) -> np.ndarray:
    """Probabilities of the next token's bin, and of none."""
    rest = EXPECTED.sum()
    if last_unit >= 0:
        rest = EXPECTED[last_unit] * math.exp(AGAIN[last_unit]) + EXPECTED[last_unit + 1 :].sum()
    found, silent = np.zeros(BINS + 1), 1.0
    for bin in range(last_bin, width):
        quiet = math.exp(-(rest if bin == last_bin else EXPECTED.sum()))
        found[bin], silent = silent * (1 - quiet), silent * quiet
    found[-1] = silent
    return found


def units_by_hand(last_unit: int, same: bool) -> np.ndarray:
    """Probabilities of the unit of the next token, whose bin is known."""
    found = np.zeros(4)
    for unit in range(last_unit if same else 0, 4):
        found[unit] = (1 - math.exp(-EXPECTED[unit])) * math.exp(-EXPECTED[:unit].sum())
    if same:
        found[last_unit] *= math.exp(AGAIN[last_unit])
    return found / found.sum()


def test_bins_and_units_by_hand() -> None:
    bin, unit, width = (torch.tensor(each) for each in zip(*places(), strict=True))
    expected, again = torch.tensor(EXPECTED)[None], torch.tensor(AGAIN)
    times = time_law(expected, expected[0] * again.exp(), bin, unit, width, BINS)
    wanted = np.stack([bins_by_hand(*place) for place in places()])
    assert np.allclose(times.exp(), wanted, atol=1e-12) and np.allclose(wanted.sum(1), 1)
    began = unit >= 0
    for same in (began, torch.zeros_like(began)):
        found = unit_law(expected, again, unit, same).softmax(1)
        by_hand = [units_by_hand(*each) for each in zip(unit.tolist(), same.tolist(), strict=True)]
        assert np.allclose(found, by_hand, atol=1e-12)
    marginal = unit_marginal(times, expected, again, bin, unit).exp().numpy()
    for row, (last_bin, last_unit, _) in enumerate(places()):
        total = np.append(np.zeros(4), wanted[row, -1])
        for at in range(BINS):
            total[:4] += wanted[row, at] * units_by_hand(last_unit, last_unit >= 0 and at == last_bin)
        assert marginal[row] == pytest.approx(total, abs=2e-9)


def test_where_there_is_no_window_there_is_no_token() -> None:
    none = torch.tensor([-1])
    times = time_law(torch.tensor(EXPECTED)[None], torch.tensor(AGAIN).exp(), none + 1, none, none + 1, BINS)
    assert times.exp()[0].tolist() == [0, 0, 0, 0, 1]


def test_rates_are_those_that_make_a_unit_the_first() -> None:
    rates = np.random.default_rng(0).gamma(0.5, 0.2, (3, 300))
    first = (1 - np.exp(-rates)) * np.exp(rates - rates.cumsum(1))
    found = rates_of_first(torch.tensor(first, dtype=torch.float32)).numpy()
    sure = rates.cumsum(1) - rates < 4  # of the later ones little is said
    assert np.allclose(found[sure], rates[sure], rtol=1e-3, atol=1e-5)
