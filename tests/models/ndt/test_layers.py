"""Attention in blocks, or in sizes for tensor cores, is attention."""

from dataclasses import replace

import pytest
import torch

from pipeline_lib.models.ndt import layers
from pipeline_lib.models.ndt.layers import LEAST_BLOCK, Attention, Band, Layer, context_bias
from tests.models.ndt import small


@pytest.mark.parametrize(("backward", "forward"), [(8, 4), (0, 4), (5, 0), (0, 0), (20, 3)])
@pytest.mark.parametrize("bins", [96, 101])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_band_gives_what_the_whole_bias_gives(bins: int, backward: int, forward: int, ragged: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(12, 2, dropout=0.0).train()
    bias = context_bias(bins, backward, forward)
    if ragged:
        ends = torch.tensor([bins, bins - 9, bins // 2])
        past = (torch.arange(bins) >= ends[:, None])[:, None, :] & ~torch.eye(bins, dtype=torch.bool)
        bias = bias + torch.zeros(past.shape).masked_fill(past, -torch.inf)
    band = Band.of(bias, backward, forward)
    assert band is not None and band.bias.numel() < bias.numel()
    x = torch.randn(3, bins, 12, requires_grad=True)
    results = []
    for each in (bias, band):
        output = attention(x, each)
        results.append((output, *torch.autograd.grad(output.square().sum(), [x, *attention.parameters()])))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-4)
    # In training products written out, else torch's own attention.
    for each in (bias, None):
        torch.testing.assert_close(attention.train()(x, each), attention.eval()(x, each), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_layer_drops_attention_hidden_units_and_both_branches(
    pre_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(layers, "dropout", lambda x, share: dropped.append((share, tuple(x.shape))) or x)
    layer, x = Layer(8, 2, 10, 0.3, "relu", pre_norm), torch.randn(3, 5, 8)
    layer.train()(x, None)
    branch = (3, 5, 8)
    assert dropped == [(0.3, shape) for shape in ((3, 2, 5, 5), branch, (3, 5, 10), branch)]
    layer.eval()(x, None)
    assert len(dropped) == 4


def test_embeddings_and_what_rates_are_read_from_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []
    monkeypatch.setattr(layers, "dropout", lambda x, share: dropped.append((share, tuple(x.shape))) or x)
    config = replace(small.SILENT, read_in=6, layers=1, dropout_embedding=0.1, dropout=0.2, dropout_rates=0.3)
    network = small.network(config)
    counts = torch.ones(3, small.BINS, small.UNITS)
    network.outputs("s0", counts)
    inside = (3, small.BINS, 6)
    assert dropped[0] == (0.1, inside) and dropped[-1] == (0.3, inside)
    assert {share for share, _ in dropped[1:-1]} == {0.2}
    before = len(dropped)
    network.eval().outputs("s0", counts)
    assert len(dropped) == before


def test_short_windows_stay_whole() -> None:
    assert Band.of(context_bias(4 * LEAST_BLOCK - 1, 8, 4), 8, 4) is None
    assert Band.of(context_bias(4 * LEAST_BLOCK, 8, 4), 8, 4) is not None


@pytest.mark.parametrize("context", ["none", "band", "ragged"])
@pytest.mark.parametrize(("bins", "width"), [(13, 14), (16, 14), (13, 16), (16, 16)])
def test_attention_of_sizes_for_tensor_cores_is_attention(
    bins: int, width: int, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of 7 numbers and 13 bins are filled up; those of 8 and 16 are not."""
    torch.manual_seed(0)
    attention = Attention(width, 2, dropout=0.0).double().train()
    bias = None if context == "none" else context_bias(bins, 4, 2).double()
    if context == "ragged":
        past = (torch.arange(bins) >= torch.tensor([bins, bins - 9, bins - 1])[:, None])[:, None, :]
        bias = bias + torch.zeros(past.shape).masked_fill(past & ~torch.eye(bins, dtype=torch.bool), -torch.inf)
    x = torch.randn(3, bins, width, dtype=torch.double, requires_grad=True)
    results, sizes = [], []
    product = torch.matmul
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: sizes.append(a.shape[-2:]) or product(a, b))
    for suits in (False, True):
        monkeypatch.setattr(layers, "suits_tensor_cores", lambda device, suits=suits: suits)
        output = attention(x, bias)
        results.append((output, *torch.autograd.grad(output.square().sum(), [x, *attention.parameters()])))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    filled = (14, 14) if bins == 13 else (16, 16)  # rows of 16 bytes
    assert sizes[2:] == [(filled[0], 8), filled] and sizes[:2] == [(bins, width // 2), (bins, bins)]
