"""Writing spikes: token after token, all windows of a batch at once, with keys and values kept.

A window is finished when its end is drawn. The past of a window is the true one, or what was generated before it: then
the windows of a sample follow one another, and samples and rollouts run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.neuroformer.context import Context, Kept
from pipeline_lib.models.neuroformer.layers import Rows
from pipeline_lib.models.neuroformer.network import Last
from pipeline_lib.models.neuroformer.tokens import Tokens, pack, tokens_of_counts
from pipeline_lib.models.neuroformer.windows import Cut, cut_batch, slices

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.session import Head
    from pipeline_lib.training.batches import Batch


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: first its bin (or the end), then its unit, each from what these leave over."""

    temperature: float = 1.0
    """0: always the most probable one."""
    top_k: int | None = None
    """Only the so many most probable ones."""
    top_p: float = 1.0
    """Only the fewest that together have this probability."""
    most: int = 1000
    """Tokens of a window at which it ends whatever is drawn."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError("sampling", "temperature", self.temperature, "not below 0")
        if not 0 < self.top_p <= 1:
            raise InputError("sampling", "top_p", self.top_p, "above 0, at most 1")
        for name in ("top_k", "most"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError("sampling", name, value, "at least 1")

    def draw(self, log_probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
        """One of the C outcomes in each row of [R, C]."""
        if self.temperature == 0:
            return log_probabilities.argmax(1)
        scores = log_probabilities / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[1]:
            least = scores.topk(self.top_k, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        probabilities = scores.softmax(1)
        if self.top_p < 1:
            ordered, place = probabilities.sort(1, descending=True)
            beyond = ordered.cumsum(1) - ordered >= self.top_p
            probabilities = probabilities.scatter(1, place, ordered.masked_fill(beyond, 0))
        # By the cumulative sum: a fraction of the time of `multinomial`, which draws a number for every outcome.
        total = probabilities.cumsum(1)
        drawn = torch.rand(len(total), 1, generator=generator, device=total.device) * total[:, -1:]
        chosen = torch.searchsorted(total, drawn, right=True)[:, 0]
        # Rounding can put a number at the very end of the sum, where no outcome is left.
        last = total.shape[1] - 1 - (probabilities.flip(1) > 0).int().argmax(1)
        return torch.minimum(chosen, last)


@torch.inference_mode()
def write(
    network: Neuroformer,
    head: Head,
    context: Context,
    width: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    keep: bool = True,
) -> Tokens:
    """The tokens of M windows.

    Parameters
    ----------
    context : what they attend to, past included; see `Neuroformer.context`.
    width : bins of each window [M].
    keep : keep keys and values; without, everything is computed anew for each token (for comparison).
    """
    network.eval()
    windows = len(width)
    window = torch.arange(windows, device=width.device)
    unit, bin = torch.full_like(width, -1), torch.zeros_like(width)
    kept, history = Kept(), list[Tensor]()
    written: list[tuple[Tensor, Tensor, Tensor]] = []
    for place in range(sampling.most):
        x = network.embed(head, unit, bin, torch.full_like(unit, place))
        if not keep:
            history.append(x)
            x = torch.stack(history, 1).flatten(0, 1)
        rows = Rows(len(window), 1 if keep else place + 1)
        states, _ = network.states(x, rows, context, kept if keep else None)
        states = rows.spread(states)[:, -1]
        last = Last(bin, unit, width, None)
        following = sampling.draw(network.bin_log_probabilities(head, states, last), generator)
        pair = network.who.pair(x, rows)
        going = following < network.bins
        if not bool(going.any()):
            break
        if keep:
            pair = kept.add(pair)
            kept.advance()
        pair, bias = context.who_with(pair, None)
        asked = network.unit_states(states, following.clamp(max=network.bins - 1), Rows(len(window), 1), pair, bias)
        same = (unit >= 0) & (bin == following)
        # A finished window is asked, too; what it answers is not written.
        chosen = sampling.draw(network.unit_log_probabilities(head, asked, last, same), generator)
        written.append((window[going], following[going], chosen[going]))
        bin, unit = following.clamp(max=network.bins - 1), chosen
        if int(going.sum()) <= len(window) // 2 or not keep:
            rest = going.nonzero()[:, 0]
            window, unit, bin, width = window[rest], unit[rest], bin[rest], width[rest]
            context, kept, history = context.rows(rest), kept.rows(rest), [each[rest] for each in history]
        elif not bool(going.all()):
            # Until half of them are, finished windows run along: their end stays drawn.
            width = torch.where(going, width, torch.zeros_like(width))
    return _sequences(written, windows, len_device=network.start.device)


def _sequences(written: list[tuple[Tensor, Tensor, Tensor]], windows: int, len_device: torch.device) -> Tokens:
    if not written:
        empty = torch.zeros(0, dtype=torch.int64, device=len_device)
        return pack(empty, empty, empty, windows)
    window, bin, unit = (torch.cat(each) for each in zip(*written, strict=True))
    order = window.argsort(stable=True)
    return pack(window[order], bin[order], unit[order], windows)


def generate(network: Neuroformer, batch: Batch, sampling: Sampling, seed: int, true_past: bool = False) -> Tensor:
    """Counts [B, L, held-in units], int64, with the windows of a batch written anew; history and all as observed.

    Parameters
    ----------
    true_past : every window is written after the spikes that were recorded before it; else after those generated.
    """
    head = network.head(batch.session)
    generator = torch.Generator(batch.counts.device).manual_seed(seed)
    counts = (batch.counts * batch.visible)[:, :, head.heldin].long()
    cut = cut_batch(batch, network.bins)
    if true_past:
        with torch.inference_mode():
            others, _ = network.modalities(batch, cut)
            past = tokens_of_counts(slices(counts, cut, network.bins, network.past)[:, : network.past])
            context = network.context(head, past, others)
        tokens = write(network, head, context, cut.width, sampling, generator)
        first = cut.start.repeat(len(counts))
        return put(clear(counts, batch.history), tokens, first, len(cut.start))
    counts = clear(counts, batch.history)
    widths = cut.width.view(len(counts), -1)
    for number, start in enumerate(cut.start.tolist()):
        one = Cut(cut.start[number : number + 1], widths[:, number])
        with torch.inference_mode():
            others, _ = network.modalities(batch, one)
            past = tokens_of_counts(counts[:, start - network.past : start])
            context = network.context(head, past, others)
        tokens = write(network, head, context, one.width, sampling, generator)
        counts = put(counts, tokens, torch.full_like(one.width, start), 1)
    return counts


def clear(counts: Tensor, history: int) -> Tensor:
    """A copy without spikes after the history."""
    counts = counts.clone()
    counts[:, history:] = 0
    return counts


def put(counts: Tensor, tokens: Tokens, first: Tensor, windows: int) -> Tensor:
    """Add the tokens of windows that start at bins `first` [M] to counts [B, L, N]; `windows` of them a sample."""
    row = tokens.real.nonzero()[:, 0]
    bin, unit = first[row] + tokens.bin[tokens.real], tokens.unit[tokens.real]
    ones = torch.ones_like(unit)
    return counts.index_put((row // windows, bin, unit), ones, accumulate=True)
