"""Matrix products in the precision asked for."""

from __future__ import annotations

from torch import Tensor


def rounded(x: Tensor, half: bool) -> Tensor:
    """`x`, or with `half` its bfloat16: two of them are multiplied with sums in float32."""
    return x.bfloat16() if half else x


def product(a: Tensor, b: Tensor, half: bool) -> Tensor:
    """a @ b, with `half` in bfloat16, which the result then has; `a` may be of either type."""
    return a.bfloat16() @ b.bfloat16() if half else a @ b
