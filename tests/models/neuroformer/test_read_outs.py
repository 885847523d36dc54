"""What is read out of a window: its target, what it is read from, and the error that is made."""

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.regression import mean_and_spread
from pipeline_lib.models.neuroformer.session import Evidence, ReadOut
from pipeline_lib.models.neuroformer.windows import cut_batch, window_targets
from tests.models.neuroformer.small import batch, network, poisson


def test_targets_by_hand() -> None:
    """The mean of what is known in the window, or its last value; of what is no window, nothing."""
    lengths = np.array([27, 18, 27])
    cut = cut_batch(batch(poisson(3, 27), bins=lengths), 5)
    values = torch.randn(3, 27, 2)
    values[0, 12:14] = values[2, 15:20] = values[2, 26, 1] = torch.nan
    found = window_targets(values, cut, 5, [False, True]).view(3, 4, 2)
    for sample, length in enumerate(lengths):
        for number, start in enumerate((10, 15, 20, 25)):
            piece = values[sample, start : min(start + 5, length)].numpy()
            known = piece[np.isfinite(piece[:, 0]), 0]
            mean, last = (known.mean() if len(known) else np.nan), (piece[-1, 1] if len(piece) else np.nan)
            assert np.allclose(found[sample, number], [mean, last], equal_nan=True, atol=1e-6)


def test_evidence_is_a_sum_over_spikes() -> None:
    torch.manual_seed(0)
    made, evidence = network(), Evidence(6, 15, 4)
    with torch.no_grad():
        evidence.bin.normal_()
    windows = made.windows(batch(poisson(3, 25, rate=0.5)))
    for tokens, first in ((windows.past, 0), (windows.now, 10)):
        found = evidence(tokens, first)
        for row, count in enumerate(tokens.count.tolist()):
            spikes = zip(tokens.unit[row, :count].tolist(), tokens.bin[row, :count].tolist(), strict=True)
            expected = sum(evidence.unit.weight[unit] * evidence.bin[first + bin] for unit, bin in spikes)
            assert torch.allclose(found[row], expected + torch.zeros(4), atol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_error_is_in_standard_deviations_or_nats(classes: int) -> None:
    torch.manual_seed(0)
    read_out = ReadOut(6, 0, classes, 4, 0.0)
    features = torch.randn(20, 6)
    target = torch.randint(3, (20,)).float() if classes else 40 + 5 * torch.randn(20)
    known = torch.arange(20) % 4 > 0
    read_out.scale.copy_(mean_and_spread(target[known, None])[:, 0] if not classes else read_out.scale)
    untrained = read_out(features)
    if classes:
        assert torch.allclose(untrained, torch.full((20, 3), 1 / 3))
    else:
        assert torch.allclose(untrained, target[known].mean().expand(20)) and read_out.scale[1] > 3
        assert read_out.loss(features, target.masked_fill(~known, torch.nan)).item() == pytest.approx(1, rel=1e-4)
    with torch.no_grad():
        read_out.map[-1].weight.normal_()
    found = read_out(features)[known]
    if classes:
        expected = -found.gather(1, target[known].long()[:, None]).log().mean()
    else:
        expected = ((found - target[known]) / target[known].std(correction=0)).square().mean()
    loss = read_out.loss(features, target.masked_fill(~known, torch.nan))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    standard = read_out.standard(target.masked_fill(~known, torch.nan))
    assert torch.equal(standard.isfinite().all(1), known) and standard.shape == (20, max(classes, 1))
    # The standardised target, as an output, is the target.
    if classes:
        assert torch.equal(standard[known].argmax(1), target[known].long())
    else:
        assert torch.allclose(standard[known, 0] * read_out.scale[1] + read_out.scale[0], target[known], rtol=1e-5)


def test_mean_and_spread_are_of_what_is_known() -> None:
    values = torch.tensor([[1.0, 5.0, torch.nan], [3.0, 5.0, torch.nan], [torch.nan, 5.0, torch.nan]])
    assert mean_and_spread(values).tolist() == [[2, 5, 0], [1, 1, 1]]
