"""The codes that LFADS' controller is given: what its encoder made of the bins before and after, with a lag."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
    codes: Tensor = _LaggedCodes.apply(states, lag)
    return codes


class _LaggedCodes(torch.autograd.Function):
    """Written by hand, as the gradients of single slices would each fill all of the states."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, lag: int) -> Tensor:
        _, bins, windows, hidden = states.shape
        ctx.inside = inside = max(bins - lag, 0)
        codes = states.new_zeros(bins, windows, 2 * hidden)
        codes[bins - inside :, :, :hidden] = states[0, :inside]
        codes[:inside, :, hidden:] = states[1, :inside].flip(0)
        return codes

    @staticmethod
    def backward(ctx: Any, d_codes: Tensor) -> tuple[Tensor, None]:
        bins, windows, width = d_codes.shape
        hidden, inside = width // 2, ctx.inside
        d_states = d_codes.new_zeros(2, bins, windows, hidden)
        d_states[0, :inside] = d_codes[bins - inside :, :, :hidden]
        d_states[1, :inside] = d_codes[:inside, :, hidden:].flip(0)
        return d_states, None
