"""The kernels against a plain loop in float64: values and gradients to 1e-10, whatever the blocks."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from pipeline_lib.models.lfads import cell
from pipeline_lib.models.lfads.controlled import Weights, decode
from pipeline_lib.models.lfads.lagged_codes import lagged_codes
from pipeline_lib.models.lfads.likelihood import gaussian_loss, poisson_loss
from pipeline_lib.models.lfads.sequence import GRU
from pipeline_lib.training.noise import as_one
from tests.models.lfads import plain

BINS, WINDOWS = 7, 3


@pytest.fixture(autouse=True, params=[60, 10_000], ids=["many blocks", "one block"])
def precise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64, and blocks of some bins or of all."""
    monkeypatch.setattr(cell, "BLOCK", request.param)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def close(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("joint", "fans"), [(True, (150, 150)), (False, (50, 100))])
def test_weights_start_as_the_book_has_them(joint: bool, fans: tuple[int, int]) -> None:
    network = GRU(50, 100, 2, joint=joint)
    for weight, fan in zip((network.input, network.recurrent), fans, strict=True):
        assert weight.var().item() == pytest.approx(1 / fan, rel=0.05) and abs(weight.mean()) < 0.01
    assert GRU(0, 4).input.shape == (1, 0, 12)
    assert network.bias.tolist() == [[1.0] * 200 + [0.0] * 100] * 2


@pytest.mark.parametrize("asked", ["states", "last", "both"])
@pytest.mark.parametrize(("directions", "inputs", "ragged"), [(2, 5, True), (2, 5, False), (1, 5, False), (1, 0, True)])
def test_a_walk_is_the_plain_loop(directions: int, inputs: int, ragged: bool, asked: str) -> None:
    network = GRU(inputs, 4, directions)
    x = torch.randn(BINS, WINDOWS, inputs, requires_grad=True) if inputs else None
    start = torch.randn(directions, WINDOWS, 4, requires_grad=True)
    absent = torch.rand(BINS, WINDOWS) < 0.3 if ragged else None
    learned = [start, network.recurrent, network.bias] + ([x, network.input] if inputs else [])
    ours = network(x, BINS, start, absent)
    theirs = plain.walk(x, BINS, start, absent, network.input, network.recurrent, network.bias)
    assert close(ours, theirs)
    outer = [torch.randn_like(each) for each in theirs]
    chosen = {"states": [0], "last": [1], "both": [0, 1]}[asked]
    gradients = [
        torch.autograd.grad(sum((made[k] * outer[k]).sum() for k in chosen), learned) for made in (ours, theirs)
    ]
    assert close(*gradients)


@pytest.mark.parametrize(
    ("external", "noisy", "dropped"), [(True, True, True), (False, False, False), (True, False, True)]
)
def test_controller_and_generator_are_the_plain_loop(external: bool, noisy: bool, dropped: bool) -> None:
    c, e, u, f, k, g = 5, 2, 2, 3, 4, 6
    sizes = [(c, 3 * k), (f + k, 3 * k), (3 * k,), (k, 2 * u), (2 * u,), (e, 3 * g), (u + g, 3 * g), (3 * g,), (f, g)]
    weights = Weights(*(torch.randn(size).mul(0.5).requires_grad_() for size in sizes))
    codes, start_c, start_g = (
        torch.randn(size, requires_grad=True) for size in ((BINS, WINDOWS, c), (WINDOWS, k), (WINDOWS, g))
    )
    known = torch.randn(BINS, WINDOWS, e) if external else None
    noise = torch.randn(BINS, WINDOWS, u) if noisy else None
    kept = [(torch.rand(BINS, WINDOWS, n) < 0.7) / 0.7 if dropped else None for n in (f, g)]
    ours = decode(codes, known, noise, start_c, start_g, *kept, weights)
    theirs = plain.decode(codes, known, noise, start_c, start_g, *kept, weights)
    assert close(ours, theirs)
    learned = [codes, start_c, start_g] + [
        w for w, name in zip(weights, Weights._fields, strict=True) if name != "external"
    ]
    learned += [weights.external] if external else []
    outer = [torch.randn_like(each) for each in theirs]
    for chosen in (range(4), [0], [1, 2]):
        losses = [sum((made[k] * outer[k]).sum() for k in chosen) for made in (ours, theirs)]
        gradients = [torch.autograd.grad(loss, learned, retain_graph=True, materialize_grads=True) for loss in losses]
        assert close(*gradients)


def test_the_likelihood_is_that_of_torch() -> None:
    factors, weight, bias = (torch.randn(size, requires_grad=True) for size in ((BINS, WINDOWS, 3), (4, 3), (4,)))
    counts = torch.poisson(torch.full((BINS, WINDOWS, 4), 1.5)).to(torch.uint8)
    assert counts.max() > 3
    scored, worth = torch.rand(counts.shape) < 0.6, torch.rand(counts.shape)
    logs = factors @ weight.t() + bias
    theirs = -(torch.distributions.Poisson(logs.exp()).log_prob(counts.double()) * scored * worth).sum()
    ours = poisson_loss(factors, weight, bias, counts, scored, worth)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert close(*(torch.autograd.grad(3 * loss, (factors, weight, bias)) for loss in (ours, theirs)))
    log_variance = torch.randn(4)
    ours = gaussian_loss(logs, log_variance, counts, scored, worth)
    normal = torch.distributions.Normal(logs, log_variance.exp().sqrt())
    assert torch.allclose(ours, -(normal.log_prob(counts.double()) * scored * worth).sum(), rtol=1e-12)


def alike_over_members(operation: Callable[..., Sequence[Tensor]], of_each: list[Tensor], shared: list[Tensor]) -> None:
    """What an operation makes of the tensors of several members under vmap, and its gradients, are each one's own."""
    for each in of_each:
        each.requires_grad_(each.is_floating_point())
    learned = [each for each in of_each if each.requires_grad]
    with as_one():
        together = torch.vmap(operation, (*[0] * len(of_each), *[None] * len(shared)))(*of_each, *shared)
    alone = [operation(*members, *shared) for members in zip(*of_each, strict=True)]
    alone = [torch.stack(each) for each in zip(*alone, strict=True)]
    assert close(together, alone)
    outer = [torch.randn_like(each) for each in alone]
    gradients = (
        torch.autograd.grad(sum((one * other).sum() for one, other in zip(made, outer, strict=True)), learned)
        for made in (together, alone)
    )
    assert close(*gradients)


@pytest.mark.parametrize("shared", [False, True])
def test_members_walk_as_one(shared: bool) -> None:
    """Also through inputs that are the same for all, as in an evaluation."""
    network = GRU(5, 4, 2)
    names = [name for name, _ in network.named_parameters()]
    x, absent = torch.randn(3, BINS, WINDOWS, 5), torch.rand(3, BINS, WINDOWS) < 0.3
    own = [torch.randn(3, 2, WINDOWS, 4), *(torch.randn(3, *weight.shape) for weight in network.parameters())]

    def walk(start: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        *weights, x, absent = given
        return torch.func.functional_call(network, dict(zip(names, weights, strict=True)), (x, BINS, start, absent))

    alike_over_members(walk, own if shared else [*own, x, absent], [x[0], absent[0]] if shared else [])


def test_members_decode_as_one() -> None:
    c, e, u, f, k, g = 5, 2, 2, 3, 4, 6
    sizes = [(c, 3 * k), (f + k, 3 * k), (3 * k,), (k, 2 * u), (2 * u,), (e, 3 * g), (u + g, 3 * g), (3 * g,), (f, g)]
    own = [torch.randn(3, *size).mul(0.5) for size in [*sizes, (BINS, WINDOWS, c), (WINDOWS, k), (WINDOWS, g)]]
    known, noise = torch.randn(BINS, WINDOWS, e), torch.randn(BINS, WINDOWS, u)
    kept = [(torch.rand(BINS, WINDOWS, n) < 0.7) / 0.7 for n in (f, g)]

    def decoded(*given: Tensor) -> tuple[Tensor, ...]:
        weights, (codes, c, g, known, noise, *kept) = Weights(*given[:9]), given[9:]
        return decode(codes, known, noise, c, g, *kept, weights)

    alike_over_members(decoded, own, [known, noise, *kept])


def test_members_have_codes_and_a_likelihood_as_one() -> None:
    alike_over_members(lambda states: (lagged_codes(states, 2),), [torch.randn(3, 2, BINS, WINDOWS, 4)], [])
    own = [torch.randn(3, BINS, WINDOWS, 3), torch.randn(3, 4, 3), torch.randn(3, 4)]
    counts = torch.poisson(torch.full((3, BINS, WINDOWS, 4), 1.5)).to(torch.uint8)
    scored, worth = torch.rand(counts.shape) < 0.6, torch.rand(BINS, WINDOWS, 4)
    alike_over_members(lambda *given: (poisson_loss(*given),), [*own, counts, scored], [worth])


def test_bfloat16_is_near() -> None:
    network = GRU(20, 16, 2).float()
    x, start = torch.rand(BINS, WINDOWS, 20).float(), torch.zeros(2, WINDOWS, 16, dtype=torch.float32)
    made = []
    for half in (False, True):
        _, last = network(x, BINS, start, half=half)
        made.append((last.detach(), *torch.autograd.grad(last.square().sum(), list(network.parameters()))))
    for exact, rough in zip(*made, strict=True):
        assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
        assert (exact - rough).norm() < 0.02 * exact.norm()
