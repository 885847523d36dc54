"""Draws of several networks that run as one: of each what it would draw alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline_lib.models.lfads.noise import chosen, dropout_mask, normal
from pipeline_lib.training.noise import as_one, dropout, fusible_dropout, seed_noise, seed_stream

KINDS = {
    "dropout": lambda x: dropout(x, 0.3),
    "chosen": lambda x: chosen(x.shape, 0.3, x),
    "mask": lambda x: dropout_mask(x.shape, 0.3, x),
    "normal": lambda x: normal((11, 5), x),
}
SEEDS = [4, 1, 7]


def alone(draws: Callable[[Tensor], Tensor], seed: int) -> Tensor:
    """Two draws, one after the other."""
    seed_noise(seed)
    x = torch.ones(7, 5)
    return torch.cat([draws(x), draws(x)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_draws_what_it_would_draw_alone(kind: str) -> None:
    draws, streams = KINDS[kind], [torch.Generator() for _ in SEEDS]
    for stream, seed in zip(streams, SEEDS, strict=True):
        seed_stream(stream, seed)
    with as_one(streams):
        together = torch.vmap(lambda x: torch.cat([draws(x), draws(x)]))(torch.ones(3, 7, 5))
    each = [alone(draws, seed) for seed in SEEDS]
    assert torch.equal(together, torch.stack(each))
    assert not torch.equal(each[0], each[1]) and not torch.equal(*each[0].chunk(2))


def test_what_members_share_has_no_noise_of_one_of_them() -> None:
    with as_one([torch.Generator()] * 3), pytest.raises(RuntimeError, match="beside what all its members share"):
        torch.vmap(lambda x: x * chosen((2,), 0.5, torch.zeros(1)))(torch.ones(3, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_without_streams_all_members_share_a_draw(kind: str) -> None:
    """As in an evaluation, whose noise is the same for all."""
    draws = KINDS[kind]
    expected = alone(draws, 3)
    seed_noise(3)
    with as_one():
        x = torch.ones(7, 5)
        together = torch.vmap(lambda one: one + torch.cat([draws(x), draws(x)]), randomness="same")(torch.zeros(3, 1))
    assert torch.equal(together, expected.expand(3, *expected.shape).to(together.dtype))


def test_dropout_for_a_compiler_keeps_the_share_scales_and_has_its_gradient() -> None:
    seed_noise(0)
    x = torch.full((400, 500), 2.0, dtype=torch.bfloat16, requires_grad=True)
    dropped = fusible_dropout(x, 0.3)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert dropped.dtype == torch.bfloat16 and torch.equal(2 * gradient, dropped)
    assert torch.unique(dropped).tolist() == pytest.approx([0.0, 2 / 0.7], rel=0.01)
    zeros = (dropped == 0).float()
    assert zeros.mean().item() == pytest.approx(0.3, abs=0.005)
    assert zeros.mean(0).std() < 0.03 and zeros.mean(1).std() < 0.03
