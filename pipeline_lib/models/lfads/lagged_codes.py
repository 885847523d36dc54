"""The codes that LFADS' controller is given: what its encoder made of the bins before and after, with a lag."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline_lib.training.members import over_members


def lagged_codes(states: Tensor, lag: int) -> Tensor:
    """In every bin the forward state of `lag` bins before and the backward state of `lag` bins later; 0 outside.

    A controller without a lag would see the very bin whose spikes it explains.

    Parameters
    ----------
    states : [2, T, B, H], the second direction from the end of the window, as `GRU` gives them.
    lag : bins, not below 0.

    Returns
    -------
    [T, B, 2 H].
    """
    codes: Tensor = over_members(_LaggedCodes.apply, states, lag)
    return codes


class _LaggedCodes(torch.autograd.Function):
    """Written by hand, as the gradients of single slices would each fill all of the states.

    Members of an ensemble, where there are any, are the first axis of all tensors.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, lag: int) -> Tensor:
        *members, _, bins, windows, hidden = states.shape
        ctx.inside = inside = max(bins - lag, 0)
        first, second = states[..., :inside, :, :].unbind(-4)
        codes = states.new_zeros(*members, bins, windows, 2 * hidden)
        codes[..., bins - inside :, :, :hidden] = first
        codes[..., :inside, :, hidden:] = second.flip(-3)
        return codes

    @staticmethod
    def backward(ctx: Any, d_codes: Tensor) -> tuple[Tensor, None]:
        *members, bins, windows, width = d_codes.shape
        hidden, inside = width // 2, ctx.inside
        d_states = d_codes.new_zeros(*members, 2, bins, windows, hidden)
        first, second = d_states[..., :inside, :, :].unbind(-4)
        first.copy_(d_codes[..., bins - inside :, :, :hidden])
        second.copy_(d_codes[..., :inside, :, hidden:].flip(-3))
        return d_states, None
