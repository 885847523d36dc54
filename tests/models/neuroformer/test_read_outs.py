"""What is read out of a window: its target, what it is read from, and the error that is made."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.models.neuroformer.regression import mean_and_spread
from pipeline_lib.models.neuroformer.session import Evidence, ReadOut
from pipeline_lib.models.neuroformer.windows import cut_batch, window_targets
from tests.models.neuroformer.small import batch, network, poisson, with_settings


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


@torch.no_grad()
def test_before_training_a_label_is_as_probable_as_the_regression_says() -> None:
    """At least a hundredth, and all of them together 1."""
    read_out = ReadOut(4, 2, 3, 0, 0.0)
    assert read_out.regression is not None
    for level in ([0.7, 0.2, 0.1], [-0.2, 0.4, 0.8]):
        read_out.regression.level.copy_(torch.tensor(level))
        expected = torch.tensor(level).clamp(min=0.01)
        assert torch.allclose(read_out(torch.randn(5, 6)), (expected / expected.sum()).expand(5, 3))


@torch.no_grad()
def test_what_is_read_from_is_dropped_in_training_but_no_count() -> None:
    torch.manual_seed(0)
    read_out, features = ReadOut(40, 3, 0, 0, 0.5), torch.randn(1, 43)
    assert read_out.regression is not None
    read_out.regression.weight.fill_(1.0)
    read_out.regression.bend[0] = 1.0
    calm, dropped = ({float(read_out.train(training)(features)) for _ in range(8)} for training in (False, True))
    assert len(calm) == len(dropped) == 1  # untrained, what the network says is nothing
    read_out.map[-1].weight.normal_()
    calm, dropped = ({float(read_out.train(training)(features)) for _ in range(8)} for training in (False, True))
    assert len(calm) == 1 and len(dropped) == 8


@torch.no_grad()
def test_the_network_adds_to_the_regression_and_knows_what_it_says() -> None:
    torch.manual_seed(0)
    read_out, features = ReadOut(4, 2, 0, 0, 0.0), torch.randn(5, 6)
    assert read_out.regression is not None
    read_out.regression.weight.normal_()
    read_out.regression.bend.normal_()
    read_out.map[-1].weight.normal_()
    said = read_out.regression(features[:, 4:])
    own, more = read_out.map[-1].weight[0].split((4, 1))
    assert torch.allclose(read_out(features), said[:, 0] + features[:, :4] @ own + said[:, 0] * more, atol=1e-5)


@torch.no_grad()
def test_a_variable_is_judged_by_its_own_values() -> None:
    variables = {"a/b": "regression", "a/c": "regression"}
    made, given = network(config=with_settings(decode=variables), decode=dict.fromkeys(variables, 0)), batch(poisson())
    values = torch.randn(5, 32, 2)
    before = made(replace(given, inputs={"targets": values}))
    for place, name in enumerate(variables):
        other = values.clone()
        other[..., place] += 1
        after = made(replace(given, inputs={"targets": other}))
        assert {term for term in before if after[term] != before[term]} == {f"decode:{name}"}


@torch.no_grad()
def test_evidence_of_past_and_window_is_by_its_place_in_both() -> None:
    """In units of what the noise of so many spikes would be."""
    made = network(config=with_settings(decode={"a/b": "regression"}), decode={"a/b": 0})
    head, given = made.head("one"), batch(poisson(3, 20, rate=0.5))
    assert head.evidence is not None
    head.evidence.bin.normal_()
    windows = made.windows(given)
    found = head.features(windows, torch.zeros(6, 16))[:, 16:32]
    counts, weight = given.counts.float(), head.evidence.unit.weight
    scale = (head.expected.sum() * 15).sqrt()
    for row, (sample, start) in enumerate((sample, start) for sample in range(3) for start in (10, 15)):
        spikes = counts[sample, start - 10 : start + 5]
        assert torch.allclose(found[row], ((spikes @ weight) * head.evidence.bin).sum(0) / scale, atol=1e-4)


def test_mean_and_spread_are_of_what_is_known() -> None:
    values = torch.tensor([[1.0, 5.0, torch.nan], [3.0, 5.0, torch.nan], [torch.nan, 5.0, torch.nan]])
    assert mean_and_spread(values).tolist() == [[2, 5, 0], [1, 1, 1]]
