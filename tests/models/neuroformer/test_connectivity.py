"""Cross-correlation, the reading that attention and couplings are compared with: within windows, lag by lag."""

import numpy as np
import pytest

from pipeline_lib.models.neuroformer import connectivity
from pipeline_lib.models.neuroformer.connectivity import attention, cross_correlation
from tests.models.neuroformer.small import batch, network, poisson


def followers() -> np.ndarray:
    """Counts [windows, bins, units]: unit 1 repeats unit 0 a bin later, unit 2 four bins later; unit 3 is silent."""
    rng = np.random.default_rng(0)
    long = rng.poisson(0.5, (40, 64)).astype(float)
    shifted = [long[:, 4 - lag : 64 - lag] for lag in (0, 1, 4)]
    return np.stack([*shifted, np.zeros((40, 60))], 2)


@pytest.mark.parametrize(("lags", "seen"), [(1, [1]), (3, [1]), (4, [1, 2])])
def test_who_follows_within_the_lags_is_found(lags: int, seen: list[int]) -> None:
    found = cross_correlation(followers(), lags)
    assert found.shape == (4, 4) and np.allclose(found[0, seen], 1, atol=0.02)
    others = np.ones((4, 4), dtype=bool)
    others[0, seen] = others[1, 2] = False
    assert found[others].max() < 0.15 and (found[3] == 0).all()
    assert (found[1, 2] > 0.9) == (lags >= 3)


def test_attention_is_held_for_a_few_samples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples = network(), batch(poisson(20))
    seen = []
    windows = made.windows
    monkeypatch.setattr(made, "windows", lambda each: seen.append(len(each.counts)) or windows(each))
    found = attention(made, [samples])
    assert seen == [8, 8, 4]
    monkeypatch.setattr(connectivity, "FEW", 20)
    assert np.allclose(found, attention(made, [samples]), rtol=1e-5)
