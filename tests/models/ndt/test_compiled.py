"""A compiled NDT is the same network: traced, and where there is a compiler turned into machine code."""

import shutil
from dataclasses import replace

import pytest
import torch

from pipeline_lib.models.ndt import layers
from pipeline_lib.models.ndt import network as ndt_network
from pipeline_lib.models.ndt.layers import Encoder, Layer, LayerNorm, Linear, context_bias, in_rows
from pipeline_lib.models.ndt.network import TOGETHER
from tests.models.ndt.small import SILENT, network, windows

OTHERS = {"decoder_hidden": 5, "log_rates": False, "norm": "post", "final_norm": "scale", "activation": "gelu"}


@pytest.mark.parametrize(
    ("settings", "sessions", "ragged", "device"),
    [
        ({}, 1, False, "cpu"),
        ({}, 1, True, "gpu"),
        ({}, 2, True, "gpu"),
        ({"embedding": 0, "read_in": None}, 1, False, "gpu"),
        (OTHERS, 1, False, "gpu"),
        ({"hardest_share": 0.4, "context_backward": None}, 1, True, "gpu"),
    ],
    ids=["on a CPU", "ragged", "cohort", "identity", "other layers", "hardest"],
)
def test_a_compiled_loss_is_the_same(
    settings: dict, sessions: int, ragged: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU in sizes that its tensor cores take, the masks, too; of a cohort the encoder alone is compiled."""
    results, traced = [], []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], options: dict | None = None) -> object:
        traced.append({node.target for node in graph.graph.nodes if node.op == "call_method"})
        return graph.forward

    for compiled in (False, True):
        for module in (layers, ndt_network):
            monkeypatch.setattr(module, "suits_tensor_cores", lambda _, on=compiled and device == "gpu": on)
        made = network(replace(SILENT, **settings), sessions)
        if compiled:
            torch.compiler.reset()
            made.compile(backend=backend, fullgraph=True)
        torch.manual_seed(2)
        prepared = made.prepare(windows(ragged), 0)
        loss = made.loss(prepared)["masked_nll"]
        results.append(
            (prepared.inputs, loss, torch.autograd.grad(loss, list(made.parameters()), materialize_grads=True))
        )
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    assert len(traced) == (2 if sessions == 1 and device == "gpu" else 1)
    assert ("exp" in traced[-1] or "log" in traced[-1]) == (sessions == 1)


def test_the_compiler_for_a_gpu_puts_kernels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    made = network(SILENT)
    made.compile()
    made.to("meta").compile()
    assert asked == [{}, {"options": TOGETHER | {"fallback_random": True}}, {"options": TOGETHER}]


@pytest.fixture
def for_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers take the CPU for a GPU."""
    monkeypatch.setattr(layers, "suits_tensor_cores", lambda device: True)


@pytest.mark.usefixtures("for_tensor_cores")
@pytest.mark.parametrize(("before", "after"), [(7, 5), (8, 8), (15, 16)])
def test_a_compiled_product_with_the_bias_in_it_is_the_linear_layer(before: int, after: int) -> None:
    layer = Linear(before, after).double()
    x = torch.randn(2, 3, before, dtype=torch.double, requires_grad=True)
    shapes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        shapes.extend(node.meta["example_value"].shape for node in graph.graph.nodes if "linear" in node.name)
        return graph.forward

    made = []
    for each in (layer, torch.compile(layer, backend=backend, fullgraph=True)):
        output = each(x)
        made.append((output, *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])))
    torch.testing.assert_close(made[1], made[0], rtol=1e-12, atol=1e-12)
    assert [(len(shape), shape[-1] % 8) for shape in shapes] == [(2, 0)]  # of three axes it would be copied first


@pytest.mark.usefixtures("for_tensor_cores")
@pytest.mark.parametrize("width", [7, 8])
def test_a_compiled_norm_of_longer_rows_is_the_layer_norm(width: int) -> None:
    norm = LayerNorm(width).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = 3 + torch.randn(2, 3, width, dtype=torch.double, requires_grad=True)
    made = []
    for function in (norm, torch.compile(lambda x: norm(in_rows(x)), backend="aot_eager", fullgraph=True)):
        output = function(x)
        kept = output[..., :width]
        made.append((kept, *torch.autograd.grad(kept.pow(3).sum(), [x, *norm.parameters()])))
    torch.testing.assert_close(made[1], made[0], rtol=1e-9, atol=1e-9)
    assert output.shape[-1] == (8 if width == 7 else 16) and not output[..., width:].any()


def test_a_compiled_encoder_is_the_same_and_drops() -> None:
    """The draws are other ones."""
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler of C++ for torch's own")
@pytest.mark.parametrize("sessions", [1, 2])
def test_machine_code_drops_and_learns(sessions: int) -> None:
    """Of several draws loss and gradient are, in the mean, those of the network that is launched."""
    made = []
    for compiled in (False, True):
        some = network(replace(SILENT, dropout=0.2, dropout_embedding=0.2, dropout_rates=0.2), sessions)
        if compiled:
            torch.compiler.reset()
            some.compile()
        losses, gradients = [], torch.zeros_like(some.head("s0").last.bias)
        for draw in range(200):
            torch.manual_seed(2)
            batch = some.prepare(windows(False), 0)  # always the same
            torch.manual_seed(draw)
            loss = some.loss(batch)["masked_nll"]
            gradients += torch.autograd.grad(loss, some.head("s0").last.bias)[0] / 200
            losses.append(loss.item())
        made.append((torch.tensor(losses), gradients))
    (launched, one), (other, two) = made
    error = (launched.var() / 200 + other.var() / 200).sqrt()
    assert abs(launched.mean() - other.mean()) < 4 * error and 0.5 < launched.std() / other.std() < 2
    torch.testing.assert_close(two, one, rtol=0.1, atol=0.02)
