"""Windows as the network has read them, and where it stands when something is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.models.neuroformer.context import Context
from pipeline_lib.models.neuroformer.layers import Rows

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.session import Head


@dataclass(frozen=True)
class AtBins:
    """The network at the start of M x bins bins: `states` [M x bins, width] and the last token; `bin` [M x bins];
    `place` [M, bins] of the last token."""

    states: Tensor
    bin: Tensor
    place: Tensor
    last: Last


@dataclass(frozen=True)
class Last:
    """The last token at each of R places: its bin and its unit (0 and -1 before the first), bins of its window, and
    which units were observed in it ([R, N], None: all)."""

    bin: Tensor
    unit: Tensor
    width: Tensor
    seen: Tensor | None

    def expected(self, head: Head) -> Tensor:
        """Expected spikes a bin of the units that were observed, [1 or R, N]."""
        return head.expected[None] if self.seen is None else head.expected * self.seen

    def rows(self, rows: Tensor | slice) -> Last:
        """Some of the places."""
        return Last(self.bin[rows], self.unit[rows], self.width[rows], None if self.seen is None else self.seen[rows])


@dataclass(frozen=True)
class Reading:
    """Windows as the network has read them: embedded tokens `x` and `states` [R, width], and `window` [R] of each;
    `features` [M, width] by name, each before it has attended to another."""

    context: Context
    rows: Rows
    x: Tensor
    states: Tensor
    last: Last
    window: Tensor
    features: dict[str, Tensor]


def with_start(tokens: Tensor, value: float) -> Tensor:
    """[M, 1 + S]: `value` for the start token, then what `tokens` [M, S] says of each token."""
    return torch.cat([tokens.new_full((len(tokens), 1), value), tokens], 1)
