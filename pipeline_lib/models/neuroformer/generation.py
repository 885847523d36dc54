"""Writing spikes: token after token, all windows of a batch at once, with keys and values kept.

A window is finished when its end is drawn. The past of a window is the true one, or what was generated before it: then
the windows of a sample follow one another, and samples and rollouts run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.models.neuroformer.context import Context, Kept
from pipeline_lib.models.neuroformer.drafts import write_window
from pipeline_lib.models.neuroformer.layers import Rows, lay_out_for_few_rows
from pipeline_lib.models.neuroformer.reading import Last
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.tokens import Tokens, pack
from pipeline_lib.models.neuroformer.windows import Cut, cut_batch, slices

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.session import Head
    from pipeline_lib.training.batches import Batch


FEW, AHEAD = 2, 6
"""Windows up to which drafts are faster than writing them side by side; tokens of a draft."""


@torch.inference_mode()
def write(
    network: Neuroformer,
    head: Head,
    context: Context,
    width: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    ahead: int = AHEAD,
) -> Tokens:
    """The tokens of M windows.

    Parameters
    ----------
    context : what they attend to, past included; see `Neuroformer.context`.
    width : bins of each window [M].
    ahead : tokens that are drafted and judged together where few windows are written (see `drafts`); 0: one by one.
    """
    network.eval()
    lay_out_for_few_rows(network)
    windows = len(width)
    if ahead and windows <= FEW:
        single = [
            write_window(network, head, context.rows(row), width[row], sampling, generator, ahead)
            for row in torch.arange(windows, device=width.device).split(1)
        ]
        lengths = torch.tensor([bins.shape[0] for bins, _ in single], device=width.device)
        bins, units = (torch.cat(parts) for parts in zip(*single, strict=True))
        return pack(torch.arange(windows, device=width.device).repeat_interleave(lengths), bins, units, windows)
    window = torch.arange(windows, device=width.device)
    unit, bin = torch.full_like(width, -1), torch.zeros_like(width)
    kept = Kept()
    written = [(window[:0], bin[:0], unit[:0])]
    for place in range(sampling.most):
        x = network.embed(head, unit, bin, torch.full_like(unit, place))
        rows = Rows(len(window), 1)
        states, _ = network.states(x, rows, context, kept)
        last = Last(bin, unit, width, None)
        following = sampling.draw(network.bin_log_probabilities(head, states, last), generator)
        pair = network.who.pair(x, rows)
        going = following < network.bins
        if not bool(going.any()):
            break
        pair = kept.add(pair)
        kept.advance()
        pair, bias = context.who_with(pair, None)
        asked = network.unit_states(states, following.clamp(max=network.bins - 1), rows, pair, bias)
        same = (unit >= 0) & (bin == following)
        # A finished window is asked, too; what it answers is not written.
        chosen = sampling.draw(network.unit_log_probabilities(head, asked, last, same), generator)
        written.append((window[going], following[going], chosen[going]))
        bin, unit = following.clamp(max=network.bins - 1), chosen
        if int(going.sum()) <= len(window) // 2:
            rest = going.nonzero()[:, 0]
            window, unit, bin, width = window[rest], unit[rest], bin[rest], width[rest]
            context, kept = context.rows(rest), kept.rows(rest)
        elif not bool(going.all()):
            # Until half of them are, finished windows run along: their end stays drawn.
            width = torch.where(going, width, torch.zeros_like(width))
    window, bin, unit = (torch.cat(each) for each in zip(*written, strict=True))
    order = window.argsort(stable=True)
    return pack(window[order], bin[order], unit[order], windows)


def generate(network: Neuroformer, batch: Batch, sampling: Sampling, seed: int, true_past: bool = False) -> Tensor:
    """Counts [B, L, held-in units], int64, with the windows of a batch written anew; history and all as observed.

    Parameters
    ----------
    true_past : every window is written after the spikes that were recorded before it; else after those generated.
    """
    network.eval()
    head = network.head(batch.session)
    generator = torch.Generator(batch.counts.device).manual_seed(seed)
    counts = (batch.counts * batch.visible)[:, :, head.heldin].long()
    cut = cut_batch(batch, network.bins)

    def written(windows: Cut, past: Tensor) -> Tokens:
        with torch.inference_mode():
            others, _ = network.modalities(batch, windows)
            context = network.context(head, network.past_tokens(past), others)
        return write(network, head, context, windows.width, sampling, generator)

    if true_past:
        tokens = written(cut, slices(counts, cut, network.bins, network.past)[:, : network.past])
        counts[:, batch.history :] = 0
        return put(counts, tokens, cut.start.repeat(len(counts)), len(cut.start))
    counts[:, batch.history :] = 0
    widths = cut.width.view(len(counts), -1)
    for number, start in enumerate(cut.start.tolist()):
        width = widths[:, number]
        tokens = written(Cut(cut.start[number : number + 1], width), counts[:, start - network.past : start])
        counts = put(counts, tokens, torch.full_like(width, start), 1)
    return counts


def put(counts: Tensor, tokens: Tokens, first: Tensor, windows: int) -> Tensor:
    """Add the tokens of windows that start at bins `first` [M] to counts [B, L, N]; `windows` of them a sample."""
    row = tokens.real.nonzero()[:, 0]
    bin, unit = first[row] + tokens.bin[tokens.real], tokens.unit[tokens.real]
    ones = torch.ones_like(unit)
    return counts.index_put((row // windows, bin, unit), ones, accumulate=True)
