"""One bin of the gated recurrent unit of LFADS, forward and backward, for kernels that walk through a sequence.

The reset gate acts before the matrix (Cho et al. 2014), unlike in `torch.nn.GRU`. With v what enters in this bin and p
what was computed for many bins at once (biases, and inputs known beforehand)::

    z, r = sigmoid(p_zr + [v, h] U_zr),   n = tanh(p_n + [v, r h] U_n),   h' = z h + (1 - z) n

Gates are in the order z, r, n. Since |n| < 1, the clip of |h| at 5 that LFADS names could only touch an initial state,
and is left out. Shapes: D directions, B windows, H units, K numbers in v.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**20
"""Numbers that a processor works on at once, so that they stay in its cache."""
DEVICE_BLOCK = 2**27
"""The same for a GPU: few large operations."""


class Parts(NamedTuple):
    """A weight or a gradient [..., 3 H] cut into its gates `zr` [..., 2 H] and its candidate `n` [..., H]."""

    zr: Tensor
    n: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Parts:
        """Views of both parts."""
        hidden = weight.shape[-1] // 3
        return cls(weight[..., : 2 * hidden], weight[..., 2 * hidden :])

    def prepared(self) -> Parts:
        """For `forward`: tanh(a) = 2 sigmoid(2 a) - 1, and on a processor sigmoid takes a sixth of the time of tanh."""
        return Parts(self.zr.contiguous(), 2 * self.n)

    def transposed(self) -> Parts:
        """For `backward`."""
        return Parts(*(weight.transpose(-1, -2).contiguous() for weight in self))


def blocks(bins: int, width: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Cut `bins` into runs (first, stop) of about as many numbers as suit the device, `width` a bin."""
    size = max(1, (BLOCK if device.type == "cpu" else DEVICE_BLOCK) // width)
    for start in range(0, bins, size):
        yield start, min(start + size, bins)


def forward(zr: Tensor, n: Tensor, vh: Tensor, vrh: Tensor, weights: Parts, after: Tensor) -> None:
    """Make gates and candidate of their projections, and write the state after this bin.

    Parameters
    ----------
    zr, n : p of `Parts.prepared` weights on entry, the gates and the candidate on return; [D, B, 2 H], [D, B, H].
    vh : what enters and the state before, [D, B, K + H].
    vrh : of the same shape and with the same first K columns; the others are written.
    weights : recurrent ones, prepared.
    after : to be written, [D, B, H].
    """
    hidden = n.shape[2]
    before = vh[..., -hidden:]
    zr.baddbmm_(vh, weights.zr).sigmoid_()
    torch.mul(zr[..., hidden:], before, out=vrh[..., -hidden:])
    n.baddbmm_(vrh, weights.n).sigmoid_().mul_(2).sub_(1)
    torch.lerp(n, before, zr[..., :hidden], out=after)


class Slopes(NamedTuple):
    """Derivatives of a block of bins that need no gradient to be known, each [D, bins, B, H].

    `n`: of the state by the candidate's preactivation; `z`: by the update gate's; `r`: of r h by the reset gate's.
    """

    n: Tensor
    z: Tensor
    r: Tensor

    @classmethod
    def of(cls, before: Tensor, zr: Tensor, n: Tensor) -> Slopes:
        """Given the states before, the gates and the candidates of these bins."""
        z, r = zr.chunk(2, -1)
        return cls(
            torch.ops.aten.tanh_backward(1 - z, n),
            torch.ops.aten.sigmoid_backward(before - n, z),
            torch.ops.aten.sigmoid_backward(before, r),
        )


def backward(
    d_state: Tensor, slopes: Slopes, zr: Tensor, weights: Parts, d_zr: Tensor, d_n: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Go back over a bin.

    Parameters
    ----------
    d_state : gradient of the state after it [D, B, H]; overwritten.
    slopes : of this bin.
    zr : gates [D, B, 2 H].
    weights : recurrent ones, transposed.
    d_zr, d_n : to be written: gradients of the preactivations, [D, B, 2 H] and [D, B, H].

    Returns
    -------
    The gradients of the state before [D, B, H] and of v [D, B, K], None where K = 0.
    """
    hidden = d_n.shape[2]
    torch.mul(d_state, slopes.n, out=d_n)
    torch.mul(d_state, slopes.z, out=d_zr[..., :hidden])
    d_vrh = torch.bmm(d_n, weights.n)
    d_rh = d_vrh[..., -hidden:]
    torch.mul(d_rh, slopes.r, out=d_zr[..., hidden:])
    d_state.mul_(zr[..., :hidden]).addcmul_(d_rh, zr[..., hidden:])
    if d_vrh.shape[2] == hidden:
        return d_state.baddbmm_(d_zr, weights.zr), None
    d_vh = torch.bmm(d_zr, weights.zr)
    d_vrh = d_vrh[..., :-hidden] + d_vh[..., :-hidden]
    return d_state.add_(d_vh[..., -hidden:]), d_vrh
