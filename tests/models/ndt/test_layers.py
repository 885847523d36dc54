"""Attention in blocks is attention; layers can be compiled."""

import pytest
import torch

from pipeline_lib.models.ndt.layers import LEAST_BLOCK, Attention, Band, Encoder, Layer, context_bias


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


def test_short_windows_stay_whole() -> None:
    assert Band.of(context_bias(4 * LEAST_BLOCK - 1, 8, 4), 8, 4) is None
    assert Band.of(context_bias(4 * LEAST_BLOCK, 8, 4), 8, 4) is not None


def test_a_compiled_encoder_is_the_same_and_drops() -> None:
    """Traced, not turned into machine code, which would need a compiler; the draws are then other ones."""
    x, bias = torch.randn(2, 40, 12), context_bias(40, 4, 2)
    for share in (0.0, 0.4):
        torch.manual_seed(0)
        layer = Layer(12, 2, 8, share, "relu", True)
        plain = Encoder([layer], torch.nn.Identity()).train()
        compiled = Encoder([layer], torch.nn.Identity()).train()
        compiled.compile(backend="aot_eager", fullgraph=True)
        made = []
        for encoder in (plain, compiled):
            layer.zero_grad()
            output = encoder(x, bias)
            output.square().sum().backward()
            made.append((output.detach(), layer.linear2.weight.grad))
        if share == 0:
            torch.testing.assert_close(made[1], made[0], rtol=1e-4, atol=1e-4)
            continue
        # What neither branch adds to: dropped after attention, and after the feed-forward network.
        untouched = [(output == x).double().mean().item() for output, _ in made]
        assert untouched == pytest.approx([share**2] * 2, abs=0.05)
