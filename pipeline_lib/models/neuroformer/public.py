"""The network of the public code, as it is: for its weights, and to compare with (specs/neuroformer.md, sections 1-2).

What differs from `network`: bin and unit are predicted independently from the same state; padding is attended to; a
bin enters as a number through a small network; keys and values are made of raw sources; frames have no place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.errors import InputError
from pipeline_lib.models.neuroformer.layers import Block, Rows, causal_bias, initialise
from pipeline_lib.models.neuroformer.tokens import Tokens


@dataclass(frozen=True)
class PublicSizes:
    """Sizes of a network of the public code; lengths in tokens, kernel and stride as (frames, height, width)."""

    units: int
    bins: int
    """Of the time vocabulary: those of the window or of the past, whichever are more."""
    width: int
    heads: int
    block: int
    past_block: int
    state: int
    past: int
    stimulus: int = 0
    frame_blocks: int = 0
    kernel: tuple[int, int, int] | None = None
    stride: tuple[int, int, int] | None = None
    regressed: tuple[str, ...] = ()
    classified: tuple[tuple[str, int], ...] = ()


class PublicNeuroformer(nn.Module):
    """The public network; without dropout, which has no weights."""

    def __init__(self, sizes: PublicSizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.unit = nn.Embedding(sizes.units + 3, width)
        self.position = nn.Parameter(torch.zeros(sizes.block, width))
        self.past_position = nn.Parameter(torch.zeros(sizes.past_block, width))
        self.time, self.past_time = number_embedding(width), number_embedding(width)

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, sizes.heads, 0.0, norm_source=False) for _ in range(count))

        self.state, self.frame_state = blocks(sizes.state), blocks(sizes.frame_blocks)
        counts = (sizes.past, sizes.stimulus, sizes.state)
        self.state_past, self.state_frames, self.state_last = (blocks(count) for count in counts)
        if sizes.kernel is not None:
            self.conv = nn.Conv3d(1, width, sizes.kernel, sizes.stride or sizes.kernel)
            self.conv_norm = nn.LayerNorm(width)
        self.id_head = nn.Linear(width, sizes.units + 3, bias=False)
        self.time_head = nn.Linear(width, sizes.bins + 4, bias=False)
        outputs = dict.fromkeys(sizes.regressed, 1) | dict(sizes.classified)
        self.read_out = nn.ModuleDict({name: nn.Linear(width, size) for name, size in outputs.items()})
        initialise(self)

    def forward(
        self, ids: Tensor, times: Tensor, past_ids: Tensor, past_times: Tensor, frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits of the next id [M, P, units + 3] and time [M, P, bins + 4], and what is read out [M, outputs].

        Parameters
        ----------
        ids, times : int64 [M, P], of `public_rows`.
        past_ids, past_times : the same of the past [M, K].
        frames : [M, frames, height, width].
        """
        x = self.unit(ids) + self.time(times[..., None].float()) + self.position[: ids.shape[1]]
        past = self.unit(past_ids) + self.past_time(past_times[..., None].float())
        past = past + self.past_position[: past_ids.shape[1]]
        rows, causal = Rows(*ids.shape), causal_bias(ids.shape[1], ids.device)
        x = attended(self.state, x.flatten(0, 1), rows, None, causal)
        x = attended(self.state_past, x, rows, past, None)
        if frames is not None:
            start = self.unit(ids.new_full((len(ids), 1), self.sizes.units))
            tokens = self.conv(frames[:, None]).flatten(2).transpose(1, 2)
            tokens = torch.cat([start, functional.relu(self.conv_norm(tokens))], 1)
            places = Rows(*tokens.shape[:2])
            tokens = places.spread(attended(self.frame_state, tokens.flatten(0, 1), places, None, None))
            x = attended(self.state_frames, x, rows, tokens, None)
        x = rows.spread(attended(self.state_last, x, rows, None, causal))
        mean = x.mean(1)
        return self.id_head(x), self.time_head(x), {name: head(mean) for name, head in self.read_out.items()}


def attended(blocks: nn.ModuleList, x: Tensor, rows: Rows, source: Tensor | None, bias: Tensor | None) -> Tensor:
    """`x` [R, width] through blocks that attend to `source` [M, K, width]; None: to `x` itself."""
    for block in blocks:
        layer = cast(Block, block)
        pair = layer.pair(x, rows) if source is None else layer.pair(source.flatten(0, 1), Rows(*source.shape[:2]))
        x = layer(x, rows, pair, bias)
    return x


def number_embedding(width: int) -> nn.Sequential:
    """A number, such as the index of a bin, as a vector."""
    return nn.Sequential(nn.Linear(1, width // 2), nn.GELU(), nn.Linear(width // 2, width))


def public_rows(tokens: Tokens, units: int, bins: int, block: int) -> tuple[Tensor, Tensor]:
    """Ids and times [M, block + 1] of windows: the start, the spikes, the end, padding. Inputs are all but the last,
    targets all but the first.

    Of more than `block` - 2 spikes the public code drops the earliest; here they must have been cut off before, by
    `limit`, where that is counted.

    Raises
    ------
    InputError : a window has no room for its spikes and the end.
    """
    windows, longest = tokens.unit.shape
    if longest > block - 1:
        raise InputError("public_rows", "tokens", f"{longest} spikes in a window", f"at most {block - 1} (`limit`)")
    place = torch.arange(block + 1, device=tokens.unit.device)
    end = tokens.count[:, None] + 1
    ids = torch.full((windows, block + 1), units + 2, device=place.device)
    times = torch.full_like(ids, bins + 3)
    ids[:, 0], times[:, 0] = units, 0
    ids[:, 1 : longest + 1] = torch.where(tokens.real, tokens.unit, units + 2)
    times[:, 1 : longest + 1] = torch.where(tokens.real, tokens.bin, bins + 3)
    return ids.masked_fill(place == end, units + 1), times.masked_fill(place == end, bins + 2)
