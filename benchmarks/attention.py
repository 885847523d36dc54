"""The NDT's attention in training at MC_Maze size: as it is, and by torch's fused kernels, in which it is not yet.

    python benchmarks/attention.py               on a GPU: in bfloat16, compiled, launched as one graph
    python benchmarks/attention.py --device cpu  launched one by one: whether all of it runs

A residual branch of a layer, norm and dropout included, forward and backward. Heads of the fused way are as wide as
tensor cores take them, in the weights, so that nothing is copied; what it drops it draws by itself. The graph is
launched 20 times a reading; median of several readings that take turns.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks._timing import kernel_times, timed_in_turns
from pipeline_lib.models.ndt.layers import Attention, LayerNorm, Linear, context_bias, in_rows, missing, row
from pipeline_lib.training.graphs import Recording
from pipeline_lib.training.noise import dropout

BATCH, BINS, WIDTH, HEADS = 64, 140, 182, 2
CONTEXT = 8, 4
"""Bins before and after."""
SHARE = 0.1
"""Dropped."""
LAUNCHES = 20
FUSED = {
    "fused, memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "fused, cuDNN's": SDPBackend.CUDNN_ATTENTION,
    "fused, in plain products": SDPBackend.MATH,
}


class Fused(Attention):
    """By one of torch's kernels for queries, keys and values side by side."""

    def __init__(self, width: int, heads: int, share: float) -> None:
        super().__init__(width, heads, share)
        self.head_width += missing(self.head_width)
        inner = heads * self.head_width
        self.qkv, self.out = Linear(width, 3 * inner), Linear(inner, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend; `bias` [1, T, T or more] has rows as long as the kernels take them."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_width)).permute(2, 0, 3, 1, 4)
        mask = bias.to(qkv.dtype)[..., : x.shape[1]].expand(len(x), self.heads, -1, -1)
        share = self.dropout.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=mask, dropout_p=share)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Branch(nn.Module):
    """x + dropout(attention(norm(x)))."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.norm, self.attention = LayerNorm(WIDTH), attention

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + dropout(in_rows(self.attention(self.norm(x), bias)), SHARE)


def passes(branch: Branch, device: str) -> Callable[[], object]:
    """Forward and backward, 20 times."""
    length = row(WIDTH) if device == "cuda" else WIDTH
    x = functional.pad(torch.randn(BATCH, BINS, WIDTH), (0, length - WIDTH)).to(device)
    bias = functional.pad(context_bias(BINS, *CONTEXT), (0, missing(BINS))).to(device)
    bias = bias if isinstance(branch.attention, Fused) else bias[..., :BINS].contiguous()
    inputs = {"x": x, "bias": bias, "outer": torch.randn_like(x)}

    def both(tensors: dict[str, Tensor]) -> Tensor:
        x = tensors["x"].detach().requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            made = branch(x, tensors["bias"])
        return torch.autograd.grad(made, [x, *branch.parameters()], tensors["outer"])[0]

    if device == "cpu":
        return partial(both, inputs)
    branch.compile(fullgraph=True, options={"combo_kernels": True})
    graph = Recording(both, inputs, []).graph

    def launched() -> None:
        for _ in range(LAUNCHES):
            graph.replay()

    return launched


def main(device: str, repeats: int) -> None:
    torch.manual_seed(0)
    ways = {"as it is": passes(Branch(Attention(WIDTH, HEADS, SHARE)).to(device), device)}
    for name, backend in FUSED.items():
        try:
            with sdpa_kernel(backend):  # what is recorded stays
                ways[name] = passes(Branch(Fused(WIDTH, HEADS, SHARE)).to(device), device)
        except RuntimeError as error:
            print(f"{name}: {str(error).splitlines()[0]}")
    launches = LAUNCHES if device == "cuda" else 1
    spent = timed_in_turns(ways, repeats, device)
    print("| attention of a layer, forward and backward | us | kernels | of them |\n|---|---|---|---|")
    for name, way in ways.items():
        kernels = kernel_times(way, 2)
        seconds, count = (sum(each[k] for each in kernels.values()) / launches for k in (0, 1))
        print(f"| {name} | {1e6 * spent[name] / launches:.1f} | {count:.0f} | {1e6 * seconds:.1f} us |")
    for name, way in ways.items():
        print(f"\n{name}")
        for kernel, (seconds, count) in kernel_times(way, 2).items():
            print(f"| {1e6 * seconds / launches:.1f} us | {count / launches:.1f} | {kernel[:100]} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    if not (asked.device or torch.cuda.is_available()):
        print("no GPU here; --device cpu tries whether all of it runs")
        sys.exit()
    device = asked.device or "cuda"
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}\n")
    main(device, asked.repeats)
