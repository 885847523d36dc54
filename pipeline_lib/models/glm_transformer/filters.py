"""Causal filters over bins: what the past of each unit, or of a sum of units, does now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def filter_units(counts: Tensor, kernels: Tensor, history: int) -> Tensor:
    """Filter each unit's counts with a kernel of its own.

    Parameters
    ----------
    counts : [B, history + T, N], of the type of the kernels.
    kernels : [lags, N]; row k weighs the count k + 1 bins ago. Bins before the first are silent.
    history : bins before the window.

    Returns
    -------
    [B, T, N]; its gradient goes to the kernels, not to the counts.
    """
    result: Tensor = _FilterUnits.apply(counts, kernels, history)
    return result


class _FilterUnits(torch.autograd.Function):
    """Lag by lag in place: on a CPU 3 times faster, forward and backward, than a grouped convolution."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, kernels: Tensor, history: int) -> Tensor:
        ctx.save_for_backward(counts)
        ctx.history, ctx.lags = history, len(kernels)
        windows, length, units = counts.shape
        result = counts.new_zeros(windows, length - history, units)
        for lag, kernel in enumerate(kernels):
            past, skipped = _shifted(counts, history, lag)
            result[:, skipped:].addcmul_(past, kernel)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (counts,), (gradient,) = ctx.saved_tensors, gradients
        units = counts.shape[2]
        product, rows = torch.empty_like(gradient), []
        ones = counts.new_ones(1, gradient.shape[0] * gradient.shape[1])
        for lag in range(ctx.lags):
            past, skipped = _shifted(counts, ctx.history, lag)
            product[:, :skipped] = 0
            torch.mul(past, gradient[:, skipped:], out=product[:, skipped:])
            rows.append(ones @ product.view(-1, units))  # a sum over bins and windows; .sum() is 3 times slower
        return None, torch.cat(rows), None


def _shifted(counts: Tensor, history: int, lag: int) -> tuple[Tensor, int]:
    """Counts lag + 1 bins before each bin of the window, and how many first bins have no such past."""
    first, stop = history - 1 - lag, counts.shape[1] - 1 - lag
    skipped = max(-first, 0)
    return counts[:, first + skipped : max(stop, 0)], skipped


def filter_series(series: Tensor, kernels: Tensor, history: int) -> Tensor:
    """Filter each of P series with a kernel of its own; gradients go to both.

    Parameters
    ----------
    series : [B, history + T, P].
    kernels : [lags, P], as in `filter_units`.

    Returns
    -------
    [B, T, P].
    """
    lags, number = kernels.shape
    past = functional.pad(series.transpose(1, 2)[:, :, :-1], (lags - history, 0))
    weights = kernels.flip(0).T[:, None].contiguous()
    return functional.conv1d(past, weights, groups=number).transpose(1, 2)


def filter_back(series: Tensor, kernels: Tensor) -> Tensor:
    """What a spike in each bin would meet: `series` in the bins after it, weighted by the kernel.

    The transpose of `filter_series`, without history: ``sum(filter_series(x) * y) = sum(x * filter_back(y))``.

    Parameters
    ----------
    series : [B, T, P].
    kernels : [lags, P].

    Returns
    -------
    [B, T, P].
    """
    lags, number = kernels.shape
    future = functional.pad(series.transpose(1, 2)[:, :, 1:], (0, lags))
    return functional.conv1d(future, kernels.T[:, None].contiguous(), groups=number).transpose(1, 2)
