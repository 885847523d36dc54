"""One bin of the gated recurrent unit of LFADS, forward and backward, for kernels that walk through a sequence.

The reset gate acts before the matrix (Cho et al. 2014), unlike in `torch.nn.GRU`. With v what enters in this bin and p
what was computed for many bins at once (biases, and inputs known beforehand)::

    z, r = sigmoid(p_zr + [v, h] U_zr),   n = tanh(p_n + [v, r h] U_n),   h' = z h + (1 - z) n

Gates are in the order z, r, n. Since |n| < 1, the clip of |h| at 5 that LFADS names could only touch an initial state,
and is left out. Shapes: D directions, B windows, H units, K numbers in v.

What the gradient needs is stored for every bin, in float32 or in bfloat16: that halves the memory a step goes through,
and both products of a bin take it as it is. The state itself, its gradient and all that is done element by element are
in float32 always, in a `Room` that stays in the cache: an operation on two types would be several times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Room(NamedTuple):
    """Float32 of a single bin: gates `zr` [D, B, 2 H], candidates `n`, states `h`, and `spare`, each [D, B, H]."""

    zr: Tensor
    n: Tensor
    h: Tensor
    spare: Tensor

    @classmethod
    def like(cls, state: Tensor) -> Room:
        """For states such as `state`."""
        n, h, spare = (torch.empty_like(state) for _ in range(3))
        return cls(torch.cat([n, n], -1), n, h, spare)


def exact(stored: Tensor, room: Tensor) -> Tensor:
    """`stored` in the type of `room`: itself, or its copy in there."""
    return stored if stored.dtype == room.dtype else room.copy_(stored)


def place(stored: Tensor, room: Tensor) -> Tensor:
    """Where to compute what is to be stored: right there if it has the type of `room`, else in `room`."""
    return stored if stored.dtype == room.dtype else room


def keep(made: Tensor, stored: Tensor) -> None:
    """Store what was made at its `place`."""
    if made is not stored:
        stored.copy_(made)


def storage(half: bool, state: Tensor) -> torch.dtype:
    """The type of what is stored for every bin. A GPU has no trouble with operations on two types."""
    return torch.bfloat16 if half and state.device.type == "cpu" else state.dtype


def blocks(bins: int, width: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Cut `bins` into runs (first, stop) of about as many numbers as suit the device, `width` a bin."""
    size = max(1, (BLOCK if device.type == "cpu" else DEVICE_BLOCK) // width)
    for start in range(0, bins, size):
        yield start, min(start + size, bins)


def forward(
    zr: Tensor, n: Tensor, vh: Tensor, vrh: Tensor, state: Tensor, weights: Parts, room: Room, after: Tensor
) -> Tensor:
    """Make gates and candidate of their projections, and the state after this bin.

    Parameters
    ----------
    zr, n : stored; p of `Parts.prepared` weights on entry, gates and candidate on return; [D, B, 2 H], [D, B, H].
    vh : stored; what enters and the state before, [D, B, K + H].
    vrh : stored; of the same shape and with the same first K columns, the others are written.
    state : the state before, float32 [D, B, H].
    weights : recurrent ones, prepared.
    room : to work in.
    after : stored; to be written, [D, B, H].

    Returns
    -------
    The state after this bin, float32 [D, B, H]: `after`, or `room.h`.
    """
    hidden = n.shape[2]
    gates = exact(zr.baddbmm_(vh, weights.zr), room.zr).sigmoid_()
    keep(gates, zr)
    rh = vrh[..., -hidden:]
    keep(torch.mul(gates[..., hidden:], state, out=place(rh, room.spare)), rh)
    candidate = exact(n.baddbmm_(vrh, weights.n), room.n).sigmoid_().mul_(2).sub_(1)
    keep(candidate, n)
    state = torch.lerp(candidate, state, gates[..., :hidden], out=place(after, room.h))
    keep(state, after)
    return state


def backward(
    d_state: Tensor,
    before: Tensor,
    zr: Tensor,
    n: Tensor,
    weights: Parts,
    room: Room,
    d_room: Room,
    d_zr: Tensor,
    d_n: Tensor,
) -> Tensor | None:
    """Go back over a bin.

    Parameters
    ----------
    d_state : gradient of the state after it, float32 [D, B, H]; on return of the state before.
    before, zr, n : stored; state before, gates, candidate: [D, B, H], [D, B, 2 H], [D, B, H].
    weights : recurrent ones, transposed.
    room, d_room : to work in.
    d_zr, d_n : stored; to be written: gradients of the preactivations, [D, B, 2 H] and [D, B, H].

    Returns
    -------
    The gradient of v [D, B, K], None where K = 0.
    """
    hidden = n.shape[2]
    z, r = exact(zr, room.zr).chunk(2, -1)
    before, n = exact(before, room.h), exact(n, room.n)
    gates = place(d_zr, d_room.zr)
    spare, carried = room.spare, d_room.spare
    torch.mul(d_state, z, out=carried)
    candidate = place(d_n, d_room.n)
    torch.ops.aten.tanh_backward.grad_input(torch.sub(d_state, carried, out=spare), n, grad_input=candidate)
    keep(candidate, d_n)
    torch.sub(before, n, out=spare).mul_(d_state)
    torch.ops.aten.sigmoid_backward.grad_input(spare, z, grad_input=gates[..., :hidden])
    d_vrh = torch.bmm(d_n, weights.n)
    d_rh = exact(d_vrh[..., -hidden:], d_room.h)
    carried.addcmul_(d_rh, r)
    torch.ops.aten.sigmoid_backward.grad_input(torch.mul(d_rh, before, out=spare), r, grad_input=gates[..., hidden:])
    keep(gates, d_zr)
    d_vh = torch.bmm(d_zr, weights.zr)
    torch.add(carried, exact(d_vh[..., -hidden:], d_room.h), out=d_state)
    return d_vrh[..., :-hidden] + d_vh[..., :-hidden] if d_vh.shape[2] > hidden else None
