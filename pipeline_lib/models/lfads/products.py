"""Matrix products in the precision asked for; of an ensemble, one product for all members [M, ...]."""

from __future__ import annotations

from torch import Tensor, addmm, baddbmm


def rounded(x: Tensor, half: bool) -> Tensor:
    """`x`, or with `half` its bfloat16: two of them are multiplied with sums in float32."""
    return x.bfloat16() if half else x


def product(a: Tensor, b: Tensor, half: bool) -> Tensor:
    """a @ b, with `half` in bfloat16, which the result then has; `a` may be of either type."""
    return a.bfloat16() @ b.bfloat16() if half else a @ b


def plus_product(offset: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """offset + a @ b of matrices [..., K, L] and [..., L, N], all of one type; offset [..., K, N] or [..., N]."""
    if a.ndim == 2:
        return addmm(offset, a, b, out=out)
    return baddbmm(offset if offset.ndim == a.ndim else offset.unsqueeze(-2), a, b, out=out)
