"""Who drives whom, by what the network does and by what it looks at.

`probed_couplings`: a spike of the sender is put into the past and the log-rates of all units change by so much: a
coupling in the unit of a GLM's. `attention`: how much more than its share a unit's spikes are looked at when a spike of
another is predicted. Sums of attention, as in the public code, mostly say who fires often.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.neuroformer.layers import Block, Rows, causal_bias
from pipeline_lib.models.neuroformer.tokens import tokens_of_counts
from pipeline_lib.models.neuroformer.windows import Cut, Windows

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.session import Head
    from pipeline_lib.training.batches import Batch

AT_ONCE = 1024
FEW = 8
"""Samples whose attention is held at a time: several tables with a number for every two spikes of a window."""


@torch.inference_mode()
def probed_couplings(network: Neuroformer, session: str, backgrounds: int, seed: int = 0) -> np.ndarray:
    """What a spike adds to the log-rates [sender, receiver, lag], all units; NaN for senders that are held out.

    Lag k is the effect k + 1 bins after the spike, on the first bin of a window, averaged over `backgrounds` pasts of
    independent Poisson spikes at the units' mean rates. Frames and signals are left out of what is attended to.
    """
    network.eval()
    head = network.head(session)
    units, lags = len(head.heldin), network.past
    generator = torch.Generator().manual_seed(seed)
    mean = head.expected.cpu().expand(backgrounds, lags, units)
    past = torch.poisson(mean, generator=generator).long().to(head.expected.device)
    before = _first_log_rates(network, head, past)
    probes = torch.cartesian_prod(torch.arange(units), torch.arange(lags))
    result = np.full((before.shape[1], before.shape[1], lags), np.nan, np.float32)
    at_once = max(1, AT_ONCE // backgrounds)
    for some in probes.split(at_once):
        counts = past.repeat(len(some), 1, 1)
        row = torch.arange(len(some)).repeat_interleave(backgrounds)
        counts[torch.arange(len(counts)), lags - 1 - some[row, 1], some[row, 0]] += 1
        change = _first_log_rates(network, head, counts).view(len(some), backgrounds, -1) - before
        sender = head.heldin[some[:, 0]].cpu().numpy()
        result[sender, :, some[:, 1].numpy()] = change.mean(1).cpu().numpy()
    return result


def _first_log_rates(network: Neuroformer, head: Head, past: Tensor) -> Tensor:
    """Log-rates [M, units] of the first bin after a past of counts [M, bins, held-in units]."""
    nothing = tokens_of_counts(past.new_zeros(len(past), network.bins, past.shape[2]))
    width = torch.full((len(past),), network.bins, device=past.device)
    cut = Cut(torch.zeros(1, dtype=torch.int64, device=past.device), width)
    windows = Windows(nothing, network.past_tokens(past), cut, past[:, :0], None)
    reading = network.read_tokens(head, windows, {}, {})
    asked = network.at_bins(windows, reading)
    return network.bin_rates(head, asked, network.bin_states(asked, reading))[:, 0].log()


def cross_correlation(counts: np.ndarray, observed: np.ndarray, lags: int) -> np.ndarray:
    """What counts alone say, to compare with: the largest |correlation| [sender, receiver] of the counts [S, L, N] of
    one unit with those of another up to `lags` bins later, where both were `observed` (the same shape). Common input is
    taken for a coupling."""
    seen = observed.astype(np.float64)
    bins = np.maximum(seen.sum((0, 1)), 1)
    standard = (counts - (counts * seen).sum((0, 1)) / bins) * seen
    spread = np.sqrt(np.square(standard).sum((0, 1)) / bins)
    standard /= np.where(spread > 0, spread, np.inf)
    found = np.zeros(2 * [counts.shape[2]])
    for lag in range(1, min(lags, counts.shape[1] - 1) + 1):
        total, pairs = (
            part[:, :-lag].reshape(-1, part.shape[2]).T @ part[:, lag:].reshape(-1, part.shape[2])
            for part in (standard, seen)
        )
        found = np.maximum(found, np.abs(total) / np.maximum(pairs, 1))
    return found


@torch.inference_mode()
def attention(network: Neuroformer, batches: Iterable[Batch]) -> np.ndarray:
    """Attention to the past, relative to an even look at all its spikes, [sender, receiver] of all units.

    The mean over pairs of a spike of the sender in the past and a predicted spike of the receiver, over heads and over
    all blocks that attend to the past; 1: as much as any spike. NaN where no such pair was seen.
    """
    network.eval()
    total: Tensor | None = None
    for batch in _few_at_a_time(batches):
        head, windows = network.head(batch.session), network.windows(batch)
        units = len(head.heldin) + len(head.heldout)
        if total is None:
            total = torch.zeros(2, units * units, dtype=torch.float64)
        found = _attended(network, batch, windows)
        places, spikes = windows.now, windows.past
        pair = places.real[:, :, None] & spikes.real[:, None]
        sender = head.heldin[spikes.unit][:, None].expand(pair.shape)[pair]
        receiver = head.heldin[places.unit][:, :, None].expand(pair.shape)[pair]
        even = 1 / spikes.count.clamp(min=1)[:, None, None]
        values = (found / found.sum(2, keepdim=True).clamp(min=1e-9) / even)[pair].double().cpu()
        index = (sender * units + receiver).cpu()
        total[0].index_add_(0, index, values)
        total[1].index_add_(0, index, torch.ones_like(values))
    assert total is not None
    mean = torch.where(total[1] > 0, total[0] / total[1], torch.nan)
    return mean.view(units, units).float().numpy()


def _few_at_a_time(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        for rows in torch.arange(len(batch.counts)).split(FEW):
            yield batch.windows(rows)


def _attended(network: Neuroformer, batch: Batch, windows: Windows) -> Tensor:
    """Attention [M, S, K] of the place before each token to each spike of the past, mean over blocks and heads."""
    reading = network.read(batch, windows)
    tokens, rows, bias = windows.now, reading.rows, causal_bias(reading.rows.places, reading.x.device)
    x = reading.x
    for layer in network.state:
        block = cast(Block, layer)
        x = block(x, rows, block.pair(x, rows), bias)
    found = []
    source = reading.context.sources["past"]
    for block, pair in zip(network.blocks("past"), source.pairs, strict=True):
        weights = block.attention.weights(block.ln1(x), rows, pair, source.bias)
        found.append(weights.mean(1)[:, :-1, 1:])
        x = block(x, rows, pair, source.bias)
    goes_on, more = reading.rows.collect(tokens.goes_on), Rows.of(tokens.goes_on)
    pair, who_bias = reading.context.who_with(network.who.pair(reading.x, rows), bias)
    asked = network.unit_query(reading.states[goes_on], tokens.bin[tokens.real])
    weights = network.who.attention.weights(network.who.ln1(asked), more, pair, who_bias).mean(1)
    past = windows.past.unit.shape[1]
    found.append(weights[:, : tokens.unit.shape[1], 1 : 1 + past])
    return torch.stack(found).mean(0)
