"""A gated recurrent network over whole windows, in one direction or both: one operation with a hand-written gradient.

Inputs of many bins are projected at once, and the gradients of the weights are products over many bins too: only the
products with the state are left inside the loop. Bins are worked on in blocks that fit a processor's cache.

Members of an ensemble, where there are any, are the first axis of all tensors in a kernel, written M below. The walk
takes their directions for more directions of one network, and products of many bins are batched over them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.models.lfads.cell import Gates, Parts, Room, backward, bins_of, blocks, forward, stacked, storage
from pipeline_lib.models.lfads.products import plus_product, product, rounded
from pipeline_lib.models.lfads.spikes import Spikes
from pipeline_lib.training.members import over_members

Inputs = Tensor | Spikes | None
"""Inputs [T, B, N], if there are any."""
HELD = 1e4
"""Preactivation of an update gate that keeps the state exactly, for bins that are not there."""


class GRU(nn.Module):
    """A GRU of one direction or two.

    Weights are N(0, 1 / fan-in), where the fan-in is that of input and state together with `joint`, else each one's
    own. The biases of both gates start at 1. Learned: `input` [D, N, 3 H], `recurrent` [D, H, 3 H], `bias` [D, 3 H].
    """

    def __init__(self, inputs: int, hidden: int, directions: int = 1, joint: bool = False) -> None:
        super().__init__()
        fans = (inputs + hidden, inputs + hidden) if joint else (max(inputs, 1), hidden)
        self.input = nn.Parameter(torch.randn(directions, inputs, 3 * hidden) / fans[0] ** 0.5)
        self.recurrent = nn.Parameter(torch.randn(directions, hidden, 3 * hidden) / fans[1] ** 0.5)
        self.bias = nn.Parameter(torch.cat([torch.ones(2 * hidden), torch.zeros(hidden)]).repeat(directions, 1))

    def forward(
        self, x: Inputs, bins: int, start: Tensor, absent: Tensor | None = None, half: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Walk through windows.

        Parameters
        ----------
        x : inputs [T, B, N], time first, also as `Spikes`; None where there are none.
        bins : T.
        start : initial states [D, B, H].
        absent : bool [T, B], bins over which a state does not change; None: none.
        half : compute products with the inputs, and gradients of weights, in bfloat16.

        Returns
        -------
        states : after each bin, [D, T, B, H], in the order in which a direction meets them: the second starts at the
            end of the window.
        last : of these the last, [D, B, H].
        """
        weights = self.input, self.recurrent, self.bias
        result: tuple[Tensor, Tensor] = over_members(_Walk.apply, x, bins, start, absent, half, *weights)
        return result


def ordered(x: Inputs, direction: int, first: int, stop: int) -> Inputs:
    """Bins of `x` [M, T, B, N] that a direction meets as its first-th to stop-th; None of None."""
    if x is None:
        return None
    if isinstance(x, Spikes):
        return x[first:stop] if direction == 0 else x.reversed[first:stop]
    bins = x.shape[-3]
    return x[..., first:stop, :, :] if direction == 0 else x[..., bins - stop : bins - first, :, :].flip(-3)


def project(x: Inputs, weights: Parts, bias: Parts, target: Parts, half: bool) -> None:
    """Write p of a block of bins into `target` [M, bins, B, 2 H] and [M, bins, B, H]; weights and bias are prepared."""
    for weight, offset, made in zip(weights, bias, target, strict=True):
        if x is None:
            made.copy_(offset[..., None, None, :])
            continue
        if isinstance(x, Spikes):
            torch.add(x.times(weight).view(made.shape), offset, out=made)
            continue
        rows = rounded(x.flatten(-3, -2), half)
        if made.dtype == rows.dtype:
            plus_product(offset, rows, weight, out=made.view(*rows.shape[:-1], made.shape[-1]))
        else:
            made.copy_(plus_product(offset.to(rows.dtype), rows, weight.to(rows.dtype)).view(made.shape))


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Inputs,
        bins: int,
        start: Tensor,
        absent: Tensor | None,
        half: bool,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        *members, directions, windows, hidden = start.shape
        stored = storage(half, start)
        weights, biases = (Parts.of(each).prepared(stored) for each in (weight, bias))
        inner = Parts.of(stacked(recurrent, 2)).prepared(stored)
        states = start.new_empty(*members, directions, bins + 1, windows, hidden, dtype=stored)
        states[..., 0, :, :] = start
        zr, n, rh = (states.new_empty(*members, directions, bins, windows, k * hidden) for k in (2, 1, 1))
        at, rh_at, gates_at = bins_of(states), bins_of(rh), Gates.bins(zr, n)
        state = stacked(start, 2)
        room = Room.like(state)
        if absent is not None:
            absent = absent[..., None]
        for first, stop in blocks(bins, 4 * bias.numel() * windows, start.device):  # short: p is needed at once
            for each in range(directions):
                target = Parts(*(part.select(-4, each)[..., first:stop, :, :] for part in (zr, n)))
                shown = ordered(x, each, first, stop)
                into = Parts(*(w.select(-3, each) for w in weights))
                project(shown, into, Parts(*(b.select(-2, each) for b in biases)), target, half)
                if absent is not None:
                    gone = ordered(absent, each, first, stop)
                    assert isinstance(gone, Tensor)
                    target.zr[..., :hidden].masked_fill_(gone, HELD)
            for t in range(first, stop):
                state = forward(gates_at[t], at[t], rh_at[t], rh_at[t], state, inner, room, at[t + 1])
        ctx.spikes = x if isinstance(x, Spikes) else None
        ctx.save_for_backward(None if isinstance(x, Spikes) else x, weight, recurrent, states, zr, n, rh)
        ctx.half = half
        ctx.set_materialize_grads(False)
        return states[..., 1:, :, :], state.clone().view(start.shape)

    @staticmethod
    def backward(ctx: Any, d_states: Tensor | None, d_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, recurrent, states, zr, n, rh = ctx.saved_tensors
        *members, directions, bins, windows, hidden = n.shape
        half = ctx.half
        shown = x if ctx.spikes is None else ctx.spikes
        inner = Parts.of(stacked(recurrent, 2)).transposed(n.dtype)
        d_x = torch.zeros_like(x) if x is not None and ctx.needs_input_grad[0] else None
        d_weight, d_recurrent = torch.zeros_like(weight), torch.zeros_like(recurrent)
        d_bias = weight.new_zeros(*members, directions, 3 * hidden)
        room = Room.like(recurrent.new_empty(len(inner.zr), windows, hidden))
        d_state = room.d_state if d_last is None else room.d_state.copy_(stacked(d_last, 2))
        d_outer = None if d_states is None else bins_of(d_states)
        at, gates_at = bins_of(states), Gates.bins(zr, n)
        width = (4 if shown is None else 1) * d_bias.numel() * windows  # short where no inputs ask for long products
        for first, stop in reversed(list(blocks(bins, width, n.device))):
            block = ..., slice(first, stop), slice(None), slice(None)
            d_p = Parts(torch.empty_like(zr[block]), torch.empty_like(n[block]))
            d_gates_at = Gates.bins(d_p.zr, d_p.n)
            for t in reversed(range(first, stop)):
                if d_outer is not None:
                    d_state += d_outer[t]
                backward(at[t], gates_at[t], inner, room, d_gates_at[t - first])
            for each in range(directions):
                d_shown = accumulate(
                    Parts(*(part.select(-4, each) for part in d_p)),
                    Parts(states.select(-4, each)[block], rh.select(-4, each)[block]),
                    ordered(shown, each, first, stop),
                    Parts.of(d_recurrent.select(-3, each)),
                    Parts.of(d_weight.select(-3, each)),
                    d_bias.select(-2, each),
                    half,
                    weight.select(-3, each) if d_x is not None else None,
                )
                if d_x is not None and d_shown is not None:
                    d_shown = d_shown.unflatten(-2, (stop - first, windows))
                    if each == 0:
                        d_x[block] += d_shown
                    else:
                        d_x[..., bins - stop : bins - first, :, :] += d_shown.flip(-3)
        return d_x, None, d_state.view(*members, directions, windows, hidden), None, None, d_weight, d_recurrent, d_bias


def accumulate(
    d_p: Parts,
    inside: Parts,
    shown: Inputs,
    d_recurrent: Parts,
    d_weight: Parts,
    d_bias: Tensor,
    half: bool,
    weight: Tensor | None,
) -> Tensor | None:
    """Add what a block of bins contributes to the gradients of one direction's weights.

    Parameters
    ----------
    d_p : gradients of the projections, [M, bins, B, 2 H] and [M, bins, B, H].
    inside : what the recurrent weights were multiplied with, [v, h] and [v, r h], [M, bins, B, K + H].
    shown : inputs [M, bins, B, N].
    d_recurrent, d_weight, d_bias : gradients to add to.
    half : products in bfloat16.
    weight : of the inputs [M, N, 3 H], where their gradient is wanted.

    Returns
    -------
    The gradient of the inputs [M, bins x B, N], or None.
    """
    d_p = Parts(*(part.flatten(-3, -2) for part in d_p))
    small = Parts(*(rounded(part, half) for part in d_p))
    for part, values, target in zip(small, inside, d_recurrent, strict=True):
        target += product(values.flatten(-3, -2).mT, part, half)
    d_bias += torch.cat([part.sum(-2) for part in d_p], -1)
    if shown is None:
        return None
    for part, target in zip(small, d_weight, strict=True):
        if isinstance(shown, Spikes):
            target += shown.transposed_times(part)
        else:
            target += product(shown.flatten(-3, -2).mT, part, half)
    if weight is None:
        return None
    first, second = (rounded(each.mT, half) for each in Parts.of(weight))
    return plus_product(small.zr @ first, small.n, second)
