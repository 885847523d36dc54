"""Penalties on the couplings: ridge, lasso, elastic net, group lasso (a sender's filter is kept or dropped as one)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.errors import InputError

PENALTIES = ("ridge", "lasso", "elastic_net", "group_lasso")


@dataclass(frozen=True)
class Penalty:
    """strength x scale x one of these, of a coefficient w (or the n coefficients of a sender, for the group lasso)::

        ridge        w^2 / 2
        lasso        |w|                                       (Tibshirani, 1996)
        elastic_net  ratio |w| + (1 - ratio) w^2 / 2           (Zou & Hastie, 2005)
        group_lasso  n^1/2 (sum of w^2)^1/2                    (Yuan & Lin, 2006)

    Features are groups of one.
    """

    kind: str = "ridge"
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in PENALTIES:
            raise InputError("glm", "penalty", repr(self.kind), f"one of {', '.join(PENALTIES)}")
        if not 0 < self.ratio <= 1:
            raise InputError("glm", "ratio", self.ratio, "above 0 and at most 1")

    @property
    def sparse(self) -> bool:
        """It sets coefficients to exactly zero."""
        return self.kind != "ridge"

    @property
    def ridge_share(self) -> float:
        """How much of the strength is a ridge's."""
        return {"ridge": 1.0, "elastic_net": 1.0 - self.ratio}.get(self.kind, 0.0)

    @property
    def sparse_share(self) -> float:
        """How much of the strength is the part with a kink at zero."""
        return {"ridge": 0.0, "elastic_net": self.ratio}.get(self.kind, 1.0)


@dataclass
class Kink:
    """The part of a penalty that is not smooth, for coefficients (units, columns - 1).

    `weights` (columns - 1,) penalty of a column at strength 1; `features` columns before the couplings, whose groups
    have one column; `group` columns of every other group (1: a lasso).
    """

    weights: Tensor
    features: int
    group: int

    def value(self, coefficients: Tensor, strength: Tensor) -> Tensor:
        """Of each unit (units,), for `strength` (units,)."""
        return strength * (self._norms(coefficients) * self._group_weights()).sum(1)

    def shrink(self, coefficients: Tensor, amount: Tensor) -> Tensor:
        """The proximal map: every group is shortened by its weight times `amount` (units,), to zero if shorter."""
        norms = self._norms(coefficients)
        left = (1 - amount[:, None] * self._group_weights() / norms.clamp(min=1e-300)).clamp(min=0.0)
        return coefficients * self._spread(left)

    def largest(self, gradient: Tensor) -> float:
        """The strength from which on no coupling is worth its penalty, given the gradient without any."""
        couplings = (self._norms(gradient) / self._group_weights())[:, self.features :]
        return float(couplings.max()) if couplings.numel() else 0.0

    def _norms(self, coefficients: Tensor) -> Tensor:
        grouped = coefficients[:, self.features :].reshape(len(coefficients), -1, self.group)
        return torch.cat([coefficients[:, : self.features].abs(), grouped.norm(dim=2)], dim=1)

    def _group_weights(self) -> Tensor:
        return torch.cat([self.weights[: self.features], self.weights[self.features :: self.group]])

    def _spread(self, groups: Tensor) -> Tensor:
        couplings = groups[:, self.features :].repeat_interleave(self.group, dim=1)
        return torch.cat([groups[:, : self.features], couplings], dim=1)


def kink(penalty: Penalty, scale: Tensor, features: int, basis: int) -> Kink:
    """The part of `penalty` with a kink; `scale` (columns - 1,) relative penalties of the columns."""
    group = basis if penalty.kind == "group_lasso" else 1
    size = torch.ones_like(scale)
    size[features:] = group**0.5
    return Kink(scale * size, features, group)
