"""The law of the next token of independent Poisson units: what the heads start from, and correct.

The tokens of a window are sorted by bin and unit, so given the last one, (b, n), the next is a further spike of unit n
in bin b, a spike of a later unit in bin b, a spike in a later bin, or none: the end of the window. The law gives all
else probability 0, which is the order constraint.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-9
"""Expected spikes below which a rate is not let fall."""


def log_fire(expected: Tensor) -> Tensor:
    """log(1 - exp(-expected)): the log-probability of at least one spike."""
    return torch.log(-torch.expm1(-expected.clamp(min=LEAST)))


def time_law(expected: Tensor, again: Tensor, last_bin: Tensor, last_unit: Tensor, width: Tensor, bins: int) -> Tensor:
    """Log-probabilities of the next token's bin, and of none, [R, bins + 1].

    Parameters
    ----------
    expected : spikes of a unit in a bin [1 or R, N].
    again : expected further spikes of a unit in the bin in which it has just fired [N].
    last_bin, last_unit : the last token [R]; unit -1: none yet, and bin 0.
    width : bins of the window [R], at most `bins`; 0: past the end of a trial, where no token can be.
    """
    total = expected.sum(1)  # [1 or R]
    later = total[:, None] - expected.cumsum(1)  # of the units after each
    unit = last_unit.clamp(min=0)
    after = later.expand(len(unit), -1).gather(1, unit[:, None])[:, 0] + again[unit]
    here = torch.where(last_unit >= 0, after, total).clamp(min=LEAST)
    bin = torch.arange(bins, device=unit.device)
    ahead = bin - last_bin[:, None]
    silent = here[:, None] + (ahead - 1) * total[:, None]
    event = torch.where(ahead > 0, log_fire(total)[:, None] - silent, log_fire(here)[:, None])
    event = event.masked_fill((ahead < 0) | (bin >= width[:, None]), -torch.inf)
    none = torch.where(width > 0, -here - (width - 1 - last_bin) * total, 0.0)
    return torch.cat([event, none[:, None]], 1)


def unit_law(expected: Tensor, again: Tensor, last_unit: Tensor, same: Tensor) -> Tensor:
    """Log-weights [R, N] of being the next unit to fire in a bin, up to a constant.

    Parameters
    ----------
    expected : spikes of a unit in a bin [1 or R, N].
    again : log of what is left of them for a unit that has just fired in the bin [N].
    last_unit : of the last token [R]; -1: none yet.
    same : bool [R], the last token lies in the same bin: no unit before its own can be next.
    """
    unit = last_unit.clamp(min=0)[:, None]
    weights = (log_fire(expected) - (expected.cumsum(-1) - expected)).expand(len(unit), -1)
    weights = weights.scatter_add(1, unit, again[unit] * same[:, None])
    earlier = torch.arange(weights.shape[1], device=unit.device) < unit
    return weights.masked_fill(earlier & same[:, None], -torch.inf)


def unit_marginal(times: Tensor, expected: Tensor, again: Tensor, last_bin: Tensor, last_unit: Tensor) -> Tensor:
    """Log-probabilities [R, N + 1] of the next token's unit, and of none, whatever its bin.

    `times` are log-probabilities of bins [R, bins + 1] of `time_law`, the others as there.
    """
    chance = times.exp()
    began = last_unit >= 0
    none = chance[:, -1]
    here = chance.gather(1, last_bin[:, None])[:, 0] * began
    same, later = (unit_law(expected, again, last_unit, where).softmax(1) for where in (began, torch.zeros_like(began)))
    units = here[:, None] * same + (1 - none - here).clamp(min=0)[:, None] * later
    return torch.cat([units, none[:, None]], 1).clamp(min=LEAST).log()


def rates_of_first(first: Tensor) -> Tensor:
    """Expected spikes [..., N] of every unit in a bin, given the probabilities [..., N] of being the first to fire.

    P(first is n) = P(n fires) P(no unit before n fires); a Poisson unit fires with probability 1 - exp(-rate).
    """
    first = first.double()
    quiet = (1 - (first.cumsum(-1) - first)).clamp(min=LEAST)
    fires = (first / quiet).clamp(max=1 - LEAST)
    return -torch.log1p(-fires).float()
