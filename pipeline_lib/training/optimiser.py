"""AdamW (Loshchilov & Hutter 2019), by torch's fused kernel.

The classes of torch.optim import torch's compiler when they are made, which takes longer than many fits of this
package (4 CPU-seconds); the function behind them does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adamw import adamw

KINDS = ("mean", "square", "steps")


class AdamW:
    """Updates named weights by their gradients; a weight without a gradient is left alone, decay included.

    Parameters
    ----------
    weights : by name.
    betas : decay of the running means of the gradient and of its square.
    epsilon : added to the root of the latter.
    weight_decay : share of a weight, times the learning rate, that every step takes off it.
    paces : by what the learning rate of a weight is multiplied; 1 where it is not named.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        paces: Mapping[str, float] | None = None,
    ) -> None:
        self.weights, self.betas, self.epsilon, self.weight_decay = weights, betas, epsilon, weight_decay
        self.paces = {name: (paces or {}).get(name, 1.0) for name in weights}
        self.state: dict[str, Tensor] = {}
        for name, weight in weights.items():
            zeros = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros((), device=weight.device)
            self.state |= {f"{name}/{kind}": zero for kind, zero in zip(KINDS, zeros, strict=True)}

    @torch.no_grad()
    def step(
        self, learning_rate: float | Tensor, decay: float | Tensor | None = None, shrink: Tensor | None = None
    ) -> None:
        """One update of every weight that has a gradient; the gradients are then gone.

        Learning rate and `decay`, by what the weight decay is multiplied (None: 1), are tensors where the update is
        recorded, to follow the schedule. The kernel divides the gradients by `shrink`.
        """
        for pace in sorted(set(self.paces.values())):
            rate = learning_rate if pace == 1 else learning_rate * pace
            self._update([name for name in self.weights if self.paces[name] == pace], rate, decay, shrink)
        self.clear()

    def _update(
        self, names: list[str], learning_rate: float | Tensor, decay: float | Tensor | None, shrink: Tensor | None
    ) -> None:
        gradients = {name: grad for name in names if (grad := self.weights[name].grad) is not None}
        weights = [self.weights[name] for name in gradients]
        mean, square, steps = ([self.state[f"{name}/{kind}"] for name in gradients] for kind in KINDS)
        if decay is not None and weights:  # the kernel takes a number, which a recording would hold for ever
            torch._foreach_mul_(weights, 1 - learning_rate * decay * self.weight_decay)
        adamw(
            weights,
            list(gradients.values()),
            mean,
            square,
            max_exp_avg_sqs=[],
            state_steps=steps,
            fused=True,
            capturable=isinstance(learning_rate, Tensor),
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=learning_rate,
            weight_decay=self.weight_decay if decay is None else 0.0,
            eps=self.epsilon,
            maximize=False,
            grad_scale=shrink,
        )

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in self.weights.values():
            weight.grad = None


def move_towards(means: list[Tensor], values: list[Tensor], share: float | Tensor) -> None:
    """Move `means` by a share of the way to `values`; the share is a tensor where that is recorded."""
    if isinstance(share, float):
        torch._foreach_lerp_(means, values, share)
        return
    way = torch._foreach_sub(values, means)
    torch._foreach_mul_(way, share)
    torch._foreach_add_(means, way)
