"""Writing a window several tokens at a time: the law drafts them, the network judges them together.

Spikes are nearly those of independent Poisson units, so what the law and the state of the last token say of the next
few is mostly what the network will say. To put a draft through the network takes little longer than a token, as the
time goes into reading the weights. Each drafted token stays with the probability that makes the whole a draw from the
network, and the first that does not is drawn from what the draft left over (Leviathan et al. 2023, ICML). Greedy
writing is the same with all probability on one outcome: it gives the very tokens of writing one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_lib.models.neuroformer.context import Kept
from pipeline_lib.models.neuroformer.layers import Rows, causal_bias
from pipeline_lib.models.neuroformer.reading import Last
from pipeline_lib.models.neuroformer.sampling import Sampling, pick

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.context import Context
    from pipeline_lib.models.neuroformer.network import Neuroformer
    from pipeline_lib.models.neuroformer.session import Head


@dataclass(frozen=True)
class Draft:
    """K proposed tokens, `bin` and `unit` [K], and what each was drawn with: `bins` [K, bins + 1], `units` [K, N]."""

    bin: Tensor
    unit: Tensor
    bins: Tensor
    units: Tensor

    @classmethod
    def none(cls, last: Last, bins: int, units: int) -> Draft:
        """No token."""
        nothing = torch.zeros(0, max(bins + 1, units), device=last.bin.device)
        return cls(last.bin[:0], last.unit[:0], nothing[:, : bins + 1], nothing[:, :units])

    def after(self, last: Last) -> Last:
        """The last token at each of the K + 1 places from `last` on."""
        bin, unit = torch.cat([last.bin, self.bin]), torch.cat([last.unit, self.unit])
        return Last(bin, unit, last.width.expand(len(bin)), None)


def write_window(
    network: Neuroformer,
    head: Head,
    context: Context,
    width: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None,
    ahead: int,
) -> tuple[Tensor, Tensor]:
    """Bins and units [tokens] of one window; arguments as for `generation.write`, `width` [1], `ahead` at least 1."""
    kept, written = Kept(), 0
    last = Last(torch.zeros_like(width), torch.full_like(width, -1), width, None)
    draft = Draft.none(last, network.bins, len(head.heldin))
    bins, units = [draft.bin], [draft.unit]
    while written < sampling.most:
        places, drafted = draft.after(last), len(draft.bin)
        place = torch.arange(written, written + drafted + 1, device=width.device)
        x, rows = network.embed(head, places.unit, places.bin, place), Rows(1, drafted + 1)
        states, _ = network.states(x, rows, context, kept)
        own = kept.add(network.who.pair(x, rows))
        bin_laws = sampling.probabilities(network.bin_log_probabilities(head, states, places))
        asked = states[:drafted]
        if drafted:
            bias = causal_bias(drafted + 1, width.device, kept.length)[:, :drafted]
            asked = network.unit_states(asked, draft.bin, Rows(1, drafted), *context.who_with(own, bias))
        unit_laws = unit_probabilities(network, head, asked, places.rows(slice(drafted)), draft.bin, sampling)
        stay, bin_stays = judged(draft, bin_laws, unit_laws, generator)
        bins.append(draft.bin[:stay])
        units.append(draft.unit[:stay])

        # Then one token that is drawn anew.
        here = slice(stay, stay + 1)
        state, before = states[here], places.rows(here)
        if bin_stays:
            bin, at = draft.bin[here], asked[here]
            unit = pick(left_over(unit_laws[here], draft.units[here]), generator)
        else:
            law = bin_laws[here]
            bin = pick(left_over(law, draft.bins[here]) if stay < drafted else law, generator)
            if int(bin) == network.bins:
                break
            keys, values = (each[:, :, : kept.length + stay + 1] for each in own)
            at = network.unit_states(state, bin, Rows(1, 1), *context.who_with((keys, values), None))
            unit = pick(unit_probabilities(network, head, at, before, bin, sampling), generator)
        bins.append(bin)
        units.append(unit)
        kept.advance(stay + 1)
        written += stay + 1
        last = Last(bin, unit, width, None)
        draft = drafted_from(network, head, state, at, last, sampling, generator, min(ahead, sampling.most - written))
    return torch.cat(bins)[: sampling.most], torch.cat(units)[: sampling.most]


def drafted_from(
    network: Neuroformer, head: Head, state: Tensor, asked: Tensor, last: Last, sampling: Sampling,
    generator: torch.Generator | None, most: int,
) -> Draft:  # fmt: skip
    """Up to `most` tokens after `last`, by the law and by what the network thought a token ago, `state` and `asked`
    [1, width]. The end of the window is never drafted: it is for the network to see."""
    draft = Draft.none(last, network.bins, len(head.heldin))
    proposed = []
    for _ in range(most):
        logs = network.bin_log_probabilities(head, state, last)
        logs[:, -1] = -torch.inf
        bins = sampling.probabilities(logs)
        bin = pick(bins, generator)
        units = unit_probabilities(network, head, asked, last, bin, sampling)
        unit = pick(units, generator)
        proposed.append((bin, unit, bins, units))
        last = Last(bin, unit, last.width, None)
    return Draft(*(torch.cat(parts) for parts in zip(*proposed, strict=True))) if proposed else draft


def unit_probabilities(
    network: Neuroformer, head: Head, asked: Tensor, last: Last, bin: Tensor, sampling: Sampling
) -> Tensor:
    """Probabilities [R, N] of the next unit, whose bin [R] is known."""
    same = (last.unit >= 0) & (last.bin == bin)
    return sampling.probabilities(network.unit_log_probabilities(head, asked, last, same))


def judged(draft: Draft, bin_laws: Tensor, unit_laws: Tensor, generator: torch.Generator | None) -> tuple[int, bool]:
    """How many drafted tokens stay, and whether of the next one at least the bin does."""
    drafted = len(draft.bin)
    chance = torch.rand(2, drafted, generator=generator, device=draft.bin.device)
    laws = ((bin_laws[:drafted], draft.bins, draft.bin), (unit_laws, draft.units, draft.unit))
    stays = []
    for row, (true, proposed, token) in zip(chance, laws, strict=True):
        share = [law.gather(1, token[:, None])[:, 0] for law in (true, proposed)]
        stays.append((row * share[1] < share[0]).tolist())
    for place, (bin, unit) in enumerate(zip(*stays, strict=True)):
        if not (bin and unit):
            return place, bin
    return drafted, False


def left_over(true: Tensor, proposed: Tensor) -> Tensor:
    """What of the probabilities `true` [R, C] a draft with `proposed` has not served, to be drawn from."""
    rest = (true - proposed).clamp(min=0)
    # Rounding can leave nothing where the two are the same.
    return torch.where(rest.sum(1, keepdim=True) > 0, rest, true)
