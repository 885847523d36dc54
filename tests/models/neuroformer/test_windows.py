"""Windows are cut and read as plain loops would: no spike that is hidden, no bin past the end of a sample."""

from itertools import product

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.windows import cut_batch, read_windows, window_targets
from pipeline_lib.training.batches import Batch
from tests.models.neuroformer.small import batch, poisson
from tests.models.neuroformer.test_tokens import rows_of

BINS, PAST, LENGTHS = 5, 10, (33, 21, 28)


@pytest.fixture
def given() -> Batch:
    """Samples of different lengths; unit 5 is held out, forward bins are hidden, unit 2 was away for two bins."""
    made = batch(poisson(3, 33, rate=0.5), heldout=1, bins=np.array(LENGTHS))
    made.visible[0, 30:] = False
    for each in (made.observed, made.visible):
        each[1, 12:14, 2] = False
    return made


@pytest.mark.parametrize(("offset", "limit"), [(0, None), (2, None), (0, 4)])
def test_tokens_are_what_was_seen_of_units_that_were_there(given: Batch, offset: int, limit: int | None) -> None:
    cut = cut_batch(given, BINS, offset)
    windows = read_windows(given, torch.arange(5), cut, BINS, PAST, limit)
    shown, there = (given.counts * given.visible).numpy(), given.observed.numpy()
    starts = range(10 + offset, 33, BINS)
    assert cut.start.tolist() == list(starts)
    tokens = rows_of(windows.now), rows_of(windows.past)
    assert len(tokens[0]) == len(tokens[1]) == 3 * len(starts)
    assert windows.seen is not None
    for row, (sample, start) in enumerate(product(range(3), starts)):
        stop = max(min(start + BINS, LENGTHS[sample]), start)
        assert int(cut.width[row]) == stop - start
        seen = [bool(there[sample, start:stop, unit].all()) for unit in range(5)]
        assert windows.seen[row].tolist() == seen
        now = [(bin, unit) for bin, unit in _spikes(shown[sample, start:stop]) if seen[unit]]
        assert tokens[0][row] == now[:limit]
        assert tokens[1][row] == _spikes(shown[sample, start - PAST : start])[-limit if limit else 0 :]
    assert not all(seen for each in windows.seen.tolist() for seen in each)


def test_a_target_is_the_mean_inside_a_window_or_the_last_value_there(given: Batch) -> None:
    values = np.random.default_rng(0).normal(size=(3, 33, 2))
    values[0, 16] = values[2, 10:15] = np.nan
    cut = cut_batch(given, BINS)
    found = window_targets(torch.as_tensor(values), cut, BINS, [False, True]).numpy()
    for row, (sample, start) in enumerate(product(range(3), cut.start.tolist())):
        inside = values[sample, start : min(start + BINS, LENGTHS[sample])]
        known = inside[~np.isnan(inside[:, 0]), 0]
        expected = [known.mean() if len(known) else np.nan, inside[-1, 1] if len(inside) else np.nan]
        assert np.allclose(found[row], expected, equal_nan=True)


def _spikes(counts: np.ndarray) -> list[tuple[int, int]]:
    """Bin and unit of every spike of counts [bins, units] of the held-in units, in the order of tokens."""
    return [(bin, unit) for bin in range(len(counts)) for unit in range(5) for _ in range(int(counts[bin, unit]))]
