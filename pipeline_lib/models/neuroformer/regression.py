"""Ridge regression on a window's counts, bent by a curve, in closed form: what read-outs start from.

As the law of independent Poisson units is what tokens start from (`law`): what is known without training need not be
learned, and the network corrects it. Counts add up to the logarithm of a posterior, and the best guess bends with it:
an animal that stands still runs no slower, however few spikes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib.models.neuroformer.windows import Windows, cut_batch

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.session import ReadOut
    from pipeline_lib.training import batches

MOST = 2000
"""Counts of a window, at most: above, they are of longer steps."""
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 3))
"""Of standardised counts, as shares of the number of windows."""
LATE = 0.2
"""Share of the training samples, the last ones, by which the penalty is chosen."""
KNOTS = 8
"""Places where the curve bends, evenly over the middle 90 % of the windows whose target is known."""


Piece = tuple[Tensor, Tensor, Tensor]
"""Of some windows features [M, F], targets [M, C] (NaN: unknown), and the number of their sample [M]."""


@dataclass(frozen=True)
class Steps:
    """Steps in which the spikes of a window and its past are counted: `length` bins each, the last of them ending with
    the window; the first may be shorter."""

    units: int
    bins: int
    """Of the window and its past."""
    length: int

    @classmethod
    def of(cls, units: int, bins: int, window: int) -> Steps:
        """Steps as long as a window, or longer where there are so many units."""
        return cls(units, bins, max(window, -(-bins // max(1, MOST // max(units, 1)))))

    @property
    def number(self) -> int:
        """How many steps there are."""
        return -(-self.bins // self.length)

    def roots(self, windows: Windows) -> Tensor:
        """Square roots of the counts [M, steps x units]: their noise is the same at all rates."""
        places = len(windows.counts) * self.number * self.units
        counts = torch.zeros(places, device=windows.counts.device)
        for tokens, first in ((windows.past, 0), (windows.now, self.bins - windows.counts.shape[1])):
            window, _ = tokens.real.nonzero(as_tuple=True)
            step = self.number - 1 - (self.bins - 1 - first - tokens.bin[tokens.real]) // self.length
            place = (window * self.number + step) * self.units + tokens.unit[tokens.real]
            counts += torch.bincount(place, minlength=places)
        return counts.view(len(windows.counts), -1).sqrt()


class Regression(nn.Module):
    """Of roots of counts [M, F] the expected outputs [M, C]: a linear map, then a piecewise linear curve of each thing
    it gives. Nothing of it is trained by gradients; all zeros before it is fitted."""

    weight: Tensor
    bias: Tensor
    knots: Tensor
    bend: Tensor
    level: Tensor

    def __init__(self, counts: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(counts, outputs))
        self.register_buffer("bias", torch.zeros(outputs))
        self.register_buffer("knots", torch.zeros(KNOTS, outputs))
        self.register_buffer("bend", torch.zeros((1 + KNOTS) * outputs, outputs))
        self.register_buffer("level", torch.zeros(outputs))

    def forward(self, roots: Tensor) -> Tensor:
        """Expected outputs [M, C]."""
        return self.hinges(self.line(roots)) @ self.bend + self.level

    def line(self, roots: Tensor) -> Tensor:
        """What the linear map gives [M, C]."""
        return roots @ self.weight + self.bias

    def hinges(self, line: Tensor) -> Tensor:
        """What the curve is a linear map of [M, (1 + knots) C]."""
        return torch.cat([line[:, None], (line[:, None] - self.knots).clamp(min=0)], 1).flatten(1)

    @torch.no_grad()
    def fit(self, pieces: Callable[[], Iterator[Piece]], early: float) -> None:
        """Fit the map and then the curve; `pieces` of roots of counts, as for `moments`, are gone through twice."""
        weight, bias = ridge(moments(pieces(), early), len(self.weight))
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        lines = [(self.line(roots), targets, sample) for roots, targets, sample in pieces()]
        known = torch.cat([line[targets.isfinite().all(1)] for line, targets, _ in lines])
        if len(known):
            middle = torch.linspace(0.05, 0.95, KNOTS).tolist()
            self.knots.copy_(torch.as_tensor(np.quantile(known.cpu().numpy(), middle, 0)))
        bent = ((self.hinges(line), targets, sample) for line, targets, sample in lines)
        bend, level = ridge(moments(bent, early), len(self.bend))
        self.bend.copy_(bend)
        self.level.copy_(level)


@torch.no_grad()
def start_read_outs(network: Neuroformer, session: str, windows: batches.Windows, names: Sequence[str]) -> None:
    """Start some read-outs of a session: mean and spread of their variable, and the regression on counts, all from the
    training `windows`."""
    head, steps = network.head(session), network.head(session).steps
    targets = [network.targets(batch, cut_batch(batch, network.bins)) for batch in windows.pieces()]
    for name in names:
        place = list(head.classes).index(name)
        read_out = cast("ReadOut", head.decode[name])
        if not read_out.classes:
            read_out.scale.copy_(mean_and_spread(torch.cat(targets)[:, place, None])[:, 0])
        if steps is None or read_out.regression is None:
            continue

        def pieces(steps: Steps = steps, read_out: ReadOut = read_out, place: int = place) -> Iterator[Piece]:
            first = 0
            for batch, target in zip(windows.pieces(), targets, strict=True):
                cut = network.windows(batch)
                sample = torch.arange(first, first + len(batch.counts)).repeat_interleave(len(cut.cut.start))
                first += len(batch.counts)
                yield steps.roots(cut), read_out.standard(target[:, place]), sample.to(target.device)

        read_out.regression.fit(pieces, (1 - LATE) * len(windows))


def mean_and_spread(values: Tensor) -> Tensor:
    """Mean and standard deviation [2, C] of values [S, C], NaN left out; 0 and 1 where there is nothing to see."""
    values = values.double()
    centre = values.nanmean(0).nan_to_num()
    spread = (values - centre).square().nanmean(0).sqrt().nan_to_num()
    return torch.stack([centre, torch.where(spread > 0, spread, 1.0)])


def moments(pieces: Iterable[Piece], early: float) -> Tensor:
    """Sums of products [2, K, K] of 1, features and targets: of early windows, and of those from sample `early` on."""
    sums: Tensor | float = 0.0
    for features, targets, sample in pieces:
        known = targets.isfinite().all(1)
        row = torch.cat([features.new_ones(len(features), 1), features, targets], 1)
        parts = [row[known & chosen] for chosen in (sample < early, sample >= early)]
        sums = sums + torch.stack([part.T @ part for part in parts]).double()
    assert isinstance(sums, Tensor)
    return sums


def ridge(sums: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Weights [F, C] and bias [C] of the penalty that predicts the late windows best, fitted to all of them.

    `sums` of `moments`, of F `features`; all zeros where there are no windows to fit to or to choose by.
    """
    targets = sums.shape[1] - 1 - features
    if not bool((sums[:, 0, 0] > 0).all()):
        return sums.new_zeros(features, targets).float(), sums.new_zeros(targets).float()
    late = sums[1] / sums[1, 0, 0]
    errors = []
    for coefficients in path(sums[0], features):
        residual = torch.cat([-coefficients, torch.eye(targets).to(coefficients)])
        errors.append((residual * (late @ residual)).sum())
    chosen = path(sums.sum(0), features)[int(torch.stack(errors).argmin())].float()
    return chosen[1:], chosen[0]


def path(sums: Tensor, features: int) -> list[Tensor]:
    """Coefficients [1 + F, C], the intercept first, for each of `PENALTIES`."""
    mean = sums / sums[0, 0]
    inside, targets = slice(1, features + 1), slice(features + 1, None)
    centre, level = mean[0, inside], mean[0, targets]
    covariance = mean[inside, inside] - torch.outer(centre, centre)
    spread = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.where(spread > 0, 1 / spread.clamp(min=1e-12), 0.0)
    values, vectors = torch.linalg.eigh(covariance * torch.outer(scale, scale))
    along = vectors.T @ (scale[:, None] * (mean[inside, targets] - torch.outer(centre, level)))
    found = []
    for penalty in PENALTIES:
        weights = scale[:, None] * (vectors @ (along / (values.clamp(min=0) + penalty)[:, None]))
        found.append(torch.cat([(level - centre @ weights)[None], weights]))
    return found
