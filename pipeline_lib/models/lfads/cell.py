"""One bin of the gated recurrent unit of LFADS, forward and backward, for kernels that walk through a sequence.

The reset gate acts before the matrix (Cho et al. 2014), unlike in `torch.nn.GRU`. With v what enters in this bin and p
what was computed for many bins at once (biases, and inputs known beforehand)::

    z, r = sigmoid(p_zr + [v, h] U_zr),   n = tanh(p_n + [v, r h] U_n),   h' = z h + (1 - z) n

Gates are in the order z, r, n. Since |n| < 1, the clip of |h| at 5 that LFADS names could only touch an initial state,
and is left out. Shapes: D directions (of an ensemble those of all members), B windows, H units, K numbers in v.

What the gradient needs is stored for every bin, in float32 or in bfloat16: that halves the memory a step goes through,
and both products of a bin take it as it is. The state itself, its gradient and all that is done element by element are
in float32 always, in a `Room` that stays in the cache: an operation on two types would be several times slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**21
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

    def prepared(self, dtype: torch.dtype) -> Parts:
        """For `forward`: tanh(a) = 2 sigmoid(2 a) - 1, and on a processor sigmoid takes a sixth of the time of tanh."""
        return Parts(self.zr.to(dtype).contiguous(), (2 * self.n).to(dtype))

    def transposed(self, dtype: torch.dtype) -> Parts:
        """For `backward`."""
        return Parts(*(weight.transpose(-1, -2).to(dtype).contiguous() for weight in self))


class Gates(NamedTuple):
    """Gates `zr` [..., 2 H], each of them, and candidates `n`, [..., H]: views."""

    zr: Tensor
    z: Tensor
    r: Tensor
    n: Tensor

    @classmethod
    def of(cls, zr: Tensor, n: Tensor) -> Gates:
        """Of `zr` and `n`."""
        z, r = zr.chunk(2, -1)
        return cls(zr, z, r, n)

    @classmethod
    def bins(cls, zr: Tensor, n: Tensor) -> list[Gates]:
        """Of each bin, as `bins_of`; all at once, as one by one they would take as long as what is done with them."""
        return [cls(*views) for views in zip(*(bins_of(each) for each in cls.of(zr, n)), strict=True)]


class Room(NamedTuple):
    """Float32 of a single bin: gates and their gradients; states `h`, `spare` and `carried`, each [D, B, H]; `d_vh`,
    the gradient of what enters and of the state, [D, B, K + H], and `d_state`, its last columns; at first 0."""

    gates: Gates
    d_gates: Gates
    h: Tensor
    spare: Tensor
    carried: Tensor
    d_vh: Tensor
    d_state: Tensor

    @classmethod
    def like(cls, state: Tensor, entering: int = 0) -> Room:
        """For states such as `state`, and K numbers that enter."""
        n, d_n, h, spare, carried = (torch.empty_like(state) for _ in range(5))
        d_vh = state.new_zeros(*state.shape[:2], entering + state.shape[2])
        gates, d_gates = (Gates.of(torch.cat([each, each], -1), each) for each in (n, d_n))
        return cls(gates, d_gates, h, spare, carried, d_vh, d_vh[..., entering:])


def stacked(x: Tensor, dims: int) -> Tensor:
    """`x` with one axis before its last `dims`: all that come before as one, or an axis of a single entry."""
    return x[None] if x.ndim == dims else x.flatten(0, -dims - 1)


def bins_of(x: Tensor) -> Sequence[Tensor]:
    """Views [D, B, H] of each bin of `x` [T, B, H], [D, T, B, H] or, with members M, [M, D, T, B, H]."""
    return stacked(x, 3).unbind(1)


def move(source: Tensor, target: Tensor) -> Tensor:
    """Copy `source` into `target` unless it is that; `target`."""
    return target if source is target else target.copy_(source)


def storage(half: bool, state: Tensor) -> torch.dtype:
    """The type of what is stored for every bin. A GPU has no trouble with operations on two types."""
    return torch.bfloat16 if half and state.device.type == "cpu" else state.dtype


def blocks(bins: int, width: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Cut `bins` into runs (first, stop) of about as many numbers as suit the device, `width` a bin."""
    size = max(1, (BLOCK if device.type == "cpu" else DEVICE_BLOCK) // width)
    for start in range(0, bins, size):
        yield start, min(start + size, bins)


def forward(
    stored: Gates, vh: Tensor, vrh: Tensor, rh: Tensor, state: Tensor, weights: Parts, room: Room, after: Tensor
) -> Tensor:
    """Make gates and candidate of their projections, and the state after this bin.

    Parameters
    ----------
    stored : p of `Parts.prepared` weights on entry, gates and candidate on return.
    vh : stored; what enters and the state before, [D, B, K + H].
    vrh, rh : stored; of the same shape and with the same first K columns; the others, `rh`, are written.
    state : the state before, float32 [D, B, H].
    weights : recurrent ones, prepared.
    room : to work in.
    after : stored; to be written, [D, B, H].

    Returns
    -------
    The state after this bin, float32 [D, B, H]: `after`, or `room.h`.
    """
    same = after.dtype == room.h.dtype
    gates = stored if same else room.gates
    move(stored.zr.baddbmm_(vh, weights.zr), gates.zr).sigmoid_()
    move(gates.zr, stored.zr)
    move(torch.mul(gates.r, state, out=rh if same else room.spare), rh)
    move(stored.n.baddbmm_(vrh, weights.n), gates.n).sigmoid_().mul_(2).sub_(1)
    move(gates.n, stored.n)
    state = torch.lerp(gates.n, state, gates.z, out=after if same else room.h)
    move(state, after)
    return state


def backward(before: Tensor, stored: Gates, weights: Parts, room: Room, d_stored: Gates) -> None:
    """Go back over a bin.

    The gradient of the state after it is taken from `room.d_state`, and `room.d_vh` becomes that of what entered and of
    the state before.

    Parameters
    ----------
    before, stored : state before [D, B, H]; gates and candidate.
    weights : recurrent ones, transposed.
    room : to work in.
    d_stored : to be written: gradients of the preactivations.
    """
    same = before.dtype == room.h.dtype
    gates, d_gates, h = (stored, d_stored, before) if same else (room.gates, room.d_gates, room.h)
    for source, target in ((stored.zr, gates.zr), (stored.n, gates.n), (before, h)):
        move(source, target)
    d_state, spare = room.d_state, room.spare
    carried = torch.mul(d_state, gates.z, out=room.carried)
    d_state -= carried
    torch.ops.aten.tanh_backward.grad_input(d_state, gates.n, grad_input=d_gates.n)
    move(d_gates.n, d_stored.n)
    torch.mul(torch.sub(h, gates.n, out=spare).mul_(d_state), gates.z, out=d_gates.z)
    add_product(room.d_vh, d_stored.n, weights.n, 0)
    torch.ops.aten.sigmoid_backward.grad_input(torch.mul(d_state, h, out=spare), gates.r, grad_input=d_gates.r)
    torch.addcmul(carried, d_state, gates.r, out=d_state)
    move(d_gates.zr, d_stored.zr)
    add_product(room.d_vh, d_stored.zr, weights.zr, 1)


def add_product(total: Tensor, a: Tensor, b: Tensor, beta: int) -> None:
    """Make `total` beta (0 or 1) times itself plus the products of `a` and `b`, which may be of another type."""
    if a.dtype == total.dtype:
        total.baddbmm_(a, b, beta=beta)
    elif beta:
        total.add_(torch.bmm(a, b).to(total.dtype))
    else:
        total.copy_(torch.bmm(a, b))
