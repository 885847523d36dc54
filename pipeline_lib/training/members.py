"""Operations with hand-written gradients, of which the members of an ensemble make a single one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.training.noise import vectorised


def over_members(operation: Callable[..., Any], *arguments: Any) -> Any:
    """`operation(*arguments)`, tensors [...]; while networks run as one, once for all of their members.

    `torch.vmap` cannot see into an operation that works in place and in buffers of its own. So it is given the tensors
    of all members [M, ...] and returns those of all; its gradient is then that of its call, and needs no more.

    Parameters
    ----------
    operation : of tensors with members as their first axis, or without; its results (a tensor or several) have them
        there, too. Of what is not a tensor all members share one.
    """
    return _OverMembers.apply(operation, *arguments) if vectorised() else operation(*arguments)


class _OverMembers(torch.autograd.Function):
    @staticmethod
    def forward(operation: Callable[..., Any], *arguments: Any) -> Any:
        raise RuntimeError("an operation of an ensemble was given nothing that its members do not share")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing to keep: the operation itself, called outside of vmap, has the gradient."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
        def of_all(x: Any, dim: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)

        return operation(*(of_all(x, dim) for x, dim in zip(arguments, in_dims[1:], strict=True))), 0
