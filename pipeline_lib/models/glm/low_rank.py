"""Couplings through few channels: a fitted coupling matrix brought to low rank, and refitted there.

The couplings of all receivers, (senders x basis, receivers), are projected on the matrices of rank r that lose the
least likelihood to second order: reduced-rank regression (Izenman, 1975) in the metric of the inputs' covariance and
the receivers' curvatures; for one area driving another this is its communication subspace (Semedo et al., 2019). The r
channels are then inputs in their own right, and every receiver's weights on them are fitted exactly, under the ridge of
the full fit: its objective has its minimum over all couplings made of these channels.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.data import Data
from pipeline_lib.models.glm.design import Design
from pipeline_lib.models.glm.engine import Problem, Solution


@dataclass
class LowRank:
    """A fit whose couplings have rank r.

    `coefficients` (units, columns) as in `Solution`; `loss` (units,) nats a bin; `channels` (senders, basis, r) what
    each channel sums; `readout` (r, units) what it does to each receiver; `share` (r,) part of the second-order
    likelihood of all couplings that the first channels explain together.
    """

    coefficients: Tensor
    loss: Tensor
    channels: Tensor
    readout: Tensor
    share: np.ndarray


def low_rank(problem: Problem, solution: Solution, rank: int, strength: float) -> LowRank:
    """The best couplings of `rank` near a `solution` of the full `problem` at a `strength`; own histories count, too.

    To keep own histories out, fit with them masked and pass them as features.

    Raises
    ------
    InputError : a rank that is not between 1 and the smaller side of the coupling matrix, or masked couplings (a
        product of two factors cannot keep single couplings at zero).
    """
    design = problem.design
    first, sides = 1 + design.n_features, (design.n_senders * design.n_basis, design.n_receivers)
    if not 1 <= rank <= min(sides):
        raise InputError("low rank", "rank", rank, f"1 to {min(sides)}")
    if not bool((problem.allowed | problem.constant)[:, first - 1 :].all()):
        raise InputError("low rank", "allowed", "masked couplings", "couplings from every sender to every receiver")
    data = design.data
    if not isinstance(data, Data):
        raise InputError("low rank", "memory", "a streamed session", "one in memory")
    root, inverse = _roots(problem.covariance.of_couplings())
    weigh = torch.where(problem.fitted, problem.curvature.sqrt(), 0.0)
    weights = solution.coefficients[:, first:].T
    left, values, _ = torch.linalg.svd(root @ (weights * weigh), full_matrices=False)
    channels = inverse @ left[:, :rank]
    share = (values**2).cumsum(0)[:rank] / (values**2).sum().clamp(min=1e-300)

    # What couplings made of channels cost is a sum over these combinations of channels.
    penalties, turn = torch.linalg.eigh(channels.T @ (problem.scale[first - 1 :, None] * channels))
    scale = torch.cat([problem.scale[: first - 1], penalties])
    inputs = _channel_inputs(design, data, channels @ turn)
    dense = inputs if data.features is None else torch.cat([data.features.to(inputs), inputs], dim=1)
    data = replace(data, senders=np.empty(0, dtype=np.int64), features=dense)
    reduced = Problem(Design(data, design.dtype, str(design.device), design.memory), problem.observation, scale=scale)
    refitted = reduced.solve(strength)
    readout = turn @ refitted.coefficients[:, first:].T
    coefficients = torch.cat([refitted.coefficients[:, :first], (channels @ readout).T], dim=1)
    shaped = channels.reshape(design.n_senders, design.n_basis, rank)
    return LowRank(coefficients, refitted.loss, shaped, readout, share.cpu().numpy())


def _channel_inputs(design: Design, data: Data, channels: Tensor) -> Tensor:
    """What each channel carries at the scored frames (frames, r)."""
    rank = channels.shape[1]
    data = replace(data, receivers=data.receivers[:1].repeat(rank), features=None, weights=None, offset=None)
    coefficients = torch.cat([torch.zeros(rank, 1, dtype=torch.float64, device=design.device), channels.T], dim=1)
    return Design(data, design.dtype, str(design.device), "low").predictors(coefficients).cpu()


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of a covariance, and its inverse where there is variance."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp(min=0.0)
    inverse = torch.where(values > values.max() * 1e-8, values.rsqrt(), 0.0)
    return (vectors * values.sqrt()) @ vectors.T, (vectors * inverse) @ vectors.T
