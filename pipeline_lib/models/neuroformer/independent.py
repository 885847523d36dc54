"""Heads of the public code, to measure what they cost: bin and unit of the next token drawn independently.

p(bin, unit) = p(bin) p(unit), each from the same state and each with an end of its own, which is paid for twice; a
token may come before the last one. For independent Poisson units this loses 0.74 bits a spike at 20 units of 4
spikes/s and 0.07 at 600 of 5.5 (specs/neuroformer.md, section 4, 20), whatever the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline_lib.models.neuroformer.law import unit_marginal
from pipeline_lib.models.neuroformer.layers import causal_bias
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.reading import Last, Reading

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.session import Head
    from pipeline_lib.models.neuroformer.settings import Config
    from pipeline_lib.models.neuroformer.windows import Windows
    from pipeline_lib.models.torch_model import Layout


class IndependentNeuroformer(Neuroformer):
    """A Neuroformer (`compat` in its settings) whose unit does not know the bin.

    Written spikes and rates take the end from the bins alone, and the unit given that there is one.
    """

    def __init__(self, config: Config, layout: Layout, shapes: Shapes) -> None:
        super().__init__(config, layout, shapes)
        del self.bin_query
        self.end = nn.Linear(config.width, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)

    def unit_query(self, states: Tensor, bin: Tensor) -> Tensor:
        """The states as they are."""
        return states

    def unit_log_probabilities(self, head: Head, states: Tensor, last: Last, same: Tensor) -> Tensor:
        """Log-probabilities [R, N] of the next unit, given that there is one."""
        return self.next_log_probabilities(head, states, last)[:, :-1].log_softmax(1)

    def next_log_probabilities(self, head: Head, states: Tensor, last: Last) -> Tensor:
        """Log-probabilities [R, N + 1] of the next unit, and of the end."""
        times = self.time_law(head, last).log_softmax(1)
        law = unit_marginal(times, last.expected(head), head.again, last.bin, last.unit)
        logits = law + torch.cat([head.logits(states), self.end(states)], 1)
        if last.seen is not None:
            logits = torch.cat([logits[:, :-1].masked_fill(~last.seen, -torch.inf), logits[:, -1:]], 1)
        return logits.log_softmax(1)

    def token_log_likelihood(self, head: Head, windows: Windows, reading: Reading) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of every window [M], nats: of its bins and of its units, an end in both."""
        rows, context = reading.rows, reading.context
        bin, unit = windows.now.following(self.bins, len(head.heldin))
        bin, unit = rows.collect(bin), rows.collect(unit)
        times = self.bin_log_probabilities(head, reading.states, reading.last).gather(1, bin[:, None])[:, 0]
        pair = self.who.pair(reading.x, rows)
        pair, bias = context.who_with(pair, causal_bias(rows.places, pair[0].device))
        asked = self.unit_states(reading.states, bin, rows, pair, bias)
        units = self.next_log_probabilities(head, asked, reading.last).gather(1, unit[:, None])[:, 0]
        empty = times.new_zeros(rows.sequences)
        return empty.index_add(0, reading.window, times), empty.index_add(0, reading.window, units)
