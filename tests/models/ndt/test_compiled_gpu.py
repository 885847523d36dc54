"""On a GPU: what the compiler makes of an NDT, in sizes that tensor cores take and of kernels put together."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline_lib.models.ndt.network import Transformer
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.graphs import Recording
from pipeline_lib.training.noise import seed_noise
from tests.models.ndt.small import SILENT, network, windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DROPPING = replace(SILENT, dropout=0.2, dropout_embedding=0.2, dropout_rates=0.2)


def made(config: Config, sessions: int, compiled: bool) -> tuple[Transformer, Batch]:
    """Always the same network and windows."""
    some = network(config, sessions)
    torch.manual_seed(2)
    batch = some.prepare(windows(False), 0)
    some.cuda()
    if compiled:
        torch.compiler.reset()
        some.compile()
    return some, batch.holding({name: tensor.cuda() for name, tensor in batch.tensors().items()})


def gradient(some: Transformer, batch: Batch, half: bool) -> list[Tensor]:
    """The loss and its gradient."""
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        loss = some.loss(batch)["masked_nll"]
    return [loss.detach(), *torch.autograd.grad(loss, list(some.parameters()), materialize_grads=True)]


@pytest.mark.parametrize("sessions", [1, 2])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 0.05)], ids=["float32", "bfloat16"])
def test_a_compiled_loss_is_the_same(half: bool, tolerance: float, sessions: int) -> None:
    """In bfloat16 as near to float32 as that has digits."""
    exact, found = (gradient(*made(SILENT, sessions, compiled), half and compiled) for compiled in (False, True))
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() <= tolerance * other.norm() + 1e-6


def test_compiled_masks_are_those_that_are_launched() -> None:
    prepared = []
    for compiled in (False, True):
        some, batch = made(SILENT, 1, compiled)
        torch.manual_seed(3)
        prepared.append([some.prepare(batch, step).inputs for step in (0, 1, None)])
    for one, other in zip(*prepared, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("shown", "scored"))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_compiled_network_drops(half: bool) -> None:
    """Of several draws loss and gradient of the last norm are, in the mean, those of the network that is launched."""
    draws = []
    for compiled in (False, True):
        some, batch = made(DROPPING, 1, compiled)
        torch.manual_seed(0)
        each = [gradient(some, batch, half) for _ in range(200)]
        draws.append((torch.stack([one[0] for one in each]), torch.stack([one[-1] for one in each]).mean(0)))
    (launched, one), (other, two) = draws
    error = (launched.var() / 200 + other.var() / 200).sqrt()
    assert abs(launched.mean() - other.mean()) < 4 * error and 0.5 < launched.std() / other.std() < 2
    torch.testing.assert_close(two, one, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_compiled_noise_is_drawn_anew_at_each_launch_of_a_recording(half: bool) -> None:
    """Masks and dropout are those of the seed, on the way back, too."""
    some, batch = made(DROPPING, 1, compiled=True)

    def step(tensors: dict[str, Tensor]) -> Tensor:
        found = gradient(some, some.prepare(batch.holding(tensors), 0), half)
        return torch.cat([each.flatten() for each in found])

    recording, replayed = Recording(step, batch.tensors(), []), []
    for seed in (0, 1, 0):
        seed_noise(seed)
        launched = step(batch.tensors())
        seed_noise(seed)
        replayed.append(recording.run(batch.tensors()).clone())
        assert (replayed[-1] - launched).norm() <= 0.01 * launched.norm()
    first, other, again = replayed
    assert (first - again).norm() <= 0.01 * first.norm() < 0.1 * (first - other).norm()
