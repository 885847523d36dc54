"""Frames, signals and the contrastive loss against what they are, written out window by window."""

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from pipeline_lib.models.neuroformer.modalities import Contrast, FrameEncoder, SignalEncoder, pooled
from pipeline_lib.models.neuroformer.windows import Cut, cut_batch
from tests.models.neuroformer.small import batch, poisson, with_settings

BINS, HISTORY = 5, 10


def ragged() -> Cut:
    """Windows of 5 bins of three samples, 10 bins of history before; the second sample ends in its second window."""
    return cut_batch(batch(poisson(3, 27), bins=np.array([27, 17, 27])), BINS)


@torch.no_grad()
@pytest.mark.parametrize("past", [10, 8, 3])
def test_a_signal_is_a_token_of_its_mean_in_every_step(past: int) -> None:
    torch.manual_seed(0)
    encoder, cut = SignalEncoder(8, 2, BINS, past).double(), ragged()
    encoder.step.weight.normal_()
    values = torch.randn(3, 27, 2, dtype=torch.float64)
    values[0, 9:14, 1] = values[2, 21] = values[2, 5:10] = values[0, 15:20, 0] = torch.nan
    tokens, real = encoder(values, cut)
    steps = 1 + past // BINS
    assert tokens.shape == (12, 2 * steps, 8)
    for sample in range(3):
        for number, start in enumerate((10, 15, 20, 25)):
            for step in range(steps):
                first = start - (steps - 1 - step) * BINS
                for signal in range(2):
                    piece = values[sample, first : first + BINS, signal]
                    known = piece[piece.isfinite()]
                    row, place = 4 * sample + number, 2 * step + signal
                    assert bool(real[row, place]) == (len(known) > 0)
                    mean = known.mean() if len(known) else torch.zeros((), dtype=torch.float64)
                    hidden = gelu(encoder.hidden.weight[:, 0] * mean + encoder.hidden.bias)
                    expected = encoder.out(hidden) + encoder.signal.weight[signal] + encoder.step.weight[step]
                    assert torch.allclose(tokens[row, place], expected, atol=1e-12)
    assert real.any() and not real.all()


@torch.no_grad()
def test_a_frame_is_patches_that_know_their_place_and_age() -> None:
    """Frames of 7 x 9 pixels in patches of 3 x 4, every 4 bins, three of them for a window."""
    torch.manual_seed(0)
    frames, step, cut = 3, 4, ragged()
    config = with_settings(width=8, frames=frames, frame_kernel=(3, 4), layers_frames=0)
    encoder = FrameEncoder(config, (7, 9), step)
    grid = torch.randint(0, 256, (3, frames - 1 + 7, 7, 9), dtype=torch.uint8)
    tokens = encoder(grid, cut).view(3, 4, frames, 4, 8)
    for sample, length in enumerate((27, 17, 27)):
        for number, start in enumerate((10, 15, 20, 25)):
            if start >= length:
                continue
            last = (min(start + BINS, length) - 1) // step  # of the steps from the sample's first bin on
            for age in range(frames):
                shown = grid[sample, last + age].double() / 127.5 - 1
                for patch, (top, left) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
                    x = shown[top : top + 3, left : left + 4].flatten().float()
                    expected = encoder.norm(encoder.patch(x)) + encoder.place.weight[patch] + encoder.age.weight[age]
                    assert torch.allclose(tokens[sample, number, age, patch], expected, atol=1e-5)


@torch.no_grad()
def test_patches_look_at_all_others_of_their_window() -> None:
    """Every frame of it, the latest too; windows do not see each other's."""
    torch.manual_seed(0)
    frames, step = 3, 5
    encoder = FrameEncoder(with_settings(width=8, frames=frames, frame_kernel=(3, 4)), (6, 8), step)
    cut = cut_batch(batch(poisson(2, 20)), BINS)
    grid = torch.randint(0, 256, (2, frames - 1 + 4, 6, 8), dtype=torch.uint8)
    before = encoder(grid, cut).view(2, 2, frames * 4, 8)
    for at, seen in ((2, [True, False]), (4, [True, True]), (5, [False, True])):
        other = grid.clone()
        other[0, at, :3, :4] = 255 - other[0, at, :3, :4]
        changed = (encoder(other, cut).view(2, 2, frames * 4, 8) - before).abs().amax(3) > 1e-5
        assert not changed[1].any()
        for window in range(2):
            assert bool(changed[0, window].all() if seen[window] else not changed[0, window].any())


@torch.no_grad()
def test_the_contrastive_loss_by_hand() -> None:
    """Three features make three pairs; each window must be told from the others that are kept, in both directions."""
    torch.manual_seed(0)
    names = ("spikes", "frames", "signals")
    contrast = Contrast(names, 6, 4, 0.3).double()
    given = {name: torch.randn(8, 6, dtype=torch.float64) for name in names}
    kept = torch.tensor([True, False, True, True, True, False, True, True])
    vectors = []
    for name in names:
        projected = contrast.projections[name](given[name])[kept].numpy()
        vectors.append(projected / np.linalg.norm(projected, axis=1, keepdims=True))
    losses = []
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for first, second in ((one, other), (other, one)):
            for row, vector in enumerate(vectors[first]):
                scores = vectors[second] @ vector / 0.3
                losses.append(np.log(np.exp(scores).sum()) - scores[row])
    assert contrast(given, kept).item() == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_mean_over_tokens_is_that_of_each_window() -> None:
    x, window = torch.randn(7, 3), torch.tensor([0, 2, 2, 0, 0, 2, 3])
    found = pooled(x, window, 5)
    for number in (0, 2, 3):
        assert torch.allclose(found[number], x[window == number].mean(0))
    assert not found[[1, 4]].any()
