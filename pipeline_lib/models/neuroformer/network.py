"""The Neuroformer: a transformer that writes the spikes of a window one after the other.

The next token is a bin and a unit: p(bin | tokens so far) p(unit | bin, tokens so far), never before the last token
(`law`). The bin is known when the unit is asked for, so the query for the unit is made of it. specs/neuroformer.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pipeline_lib.clock import duration_bins
from pipeline_lib.models.ndt.layers import Dropout
from pipeline_lib.models.neuroformer.context import Context, Kept, Source
from pipeline_lib.models.neuroformer.law import rates_of_first, time_law, unit_law
from pipeline_lib.models.neuroformer.layers import Block, Pair, Rows, causal_bias, initialise, padding_bias
from pipeline_lib.models.neuroformer.modalities import Contrast, FrameEncoder, SignalEncoder, pooled
from pipeline_lib.models.neuroformer.reading import AtBins, Last, Reading, with_start
from pipeline_lib.models.neuroformer.session import Head
from pipeline_lib.models.neuroformer.tokens import Tokens, tokens_of_counts
from pipeline_lib.models.neuroformer.windows import Cut, Windows, cut_batch, read_windows, slices, window_targets
from pipeline_lib.training.network import Network

if TYPE_CHECKING:
    from pipeline_lib.models.neuroformer.settings import Config
    from pipeline_lib.models.torch_model import Layout
    from pipeline_lib.training.batches import Batch

LENGTHS = ("window", "past")
SLOTS = 512
"""Places in a window that are told apart; later ones share the last."""


@dataclass(frozen=True)
class Shapes:
    """Sizes that a `Layout` does not tell: of a frame (pixels), and for each session the classes of the variables that
    are read out (0: a number)."""

    frame: tuple[int, int] = (0, 0)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)


class Neuroformer(Network):
    """Tokens in, tokens out; `layout` gives sizes, held-in units and sessions."""

    has_latents = True

    def __init__(self, config: Config, layout: Layout, shapes: Shapes) -> None:
        super().__init__()
        self.config = config
        self.bins, self.past = (duration_bins(getattr(config, each), layout.bin_size, each) for each in LENGTHS)
        width = config.width

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(count))

        self.start = nn.Parameter(torch.zeros(2, width))
        """What stands before the tokens of the window and of the past."""
        self.time, self.past_time = nn.Embedding(self.bins, width), nn.Embedding(self.past, width)
        self.slot = nn.Embedding(SLOTS, width)
        self.embedding_dropout = Dropout(config.dropout)
        self.state, self.state_last = blocks(config.layers_state), blocks(config.layers_state)
        self.fusion = nn.ModuleDict({"past": blocks(config.layers_past)})
        if config.frames:
            step = duration_bins(config.frame_step, layout.bin_size, "frame_step")
            self.frames = FrameEncoder(config, shapes.frame, step)
            self.fusion["frames"] = blocks(config.layers_frames)
        if config.signals:
            self.signals = SignalEncoder(width, len(config.signals), self.bins, self.past)
            self.fusion["signals"] = blocks(config.layers_signals)
        if config.contrastive:
            self.contrast = Contrast(config.contrastive, width, config.contrastive_width, config.temperature)
        self.when = nn.Linear(width, self.bins + 1)
        self.bin_query = nn.Embedding(self.bins, width)
        self.who = Block(width, config.heads, config.dropout)
        initialise(self)
        nn.init.normal_(self.start, std=0.02)
        nn.init.zeros_(self.when.weight)
        if config.signals:
            nn.init.normal_(self.signals.hidden.weight)
        self.sessions = nn.ModuleDict(
            {
                session: Head(config, layout.heldin[session], units, self.bins, self.past, shapes.classes[session])
                for session, units in layout.units.items()
            }
        )
        # Of a single term the engine knows only the sum.
        heldout = any(len(self.head(session).heldout) for session in layout.units)
        several = sum(name != "heldout" or heldout for name in config.trained) > 1
        self.selects = config.select if several else None  # type: ignore[misc]

    def head(self, session: str) -> Head:
        """What belongs to a session."""
        return cast(Head, self.sessions[session])

    def blocks(self, name: str) -> list[Block]:
        """The blocks that attend to a source."""
        return [cast(Block, block) for block in cast(nn.ModuleList, self.fusion[name])]

    # Reading a batch

    def windows(self, batch: Batch) -> Windows:
        """The windows of a batch, the first from the bin on that `prepare` has drawn."""
        head, drawn = self.head(batch.session), batch.inputs.get("offset")
        offset = 0 if drawn is None else int(drawn[0])
        return read_windows(
            batch, head.heldin, cut_batch(batch, self.bins, offset), self.bins, self.past, self.config.limit
        )

    def past_tokens(self, counts: Tensor) -> Tokens:
        """The tokens of pasts whose counts are [M, past, held-in units]; the latest of them, where there is a limit."""
        return tokens_of_counts(counts, self.config.limit, latest=True)

    def context(self, head: Head, past: Tokens, others: dict[str, Source] | None = None) -> Context:
        """What windows attend to besides themselves; `others` of `modalities`."""
        x, rows, bias = self.embed_past(head, past)
        sources = {"past": Source([block.pair(x, rows) for block in self.blocks("past")], bias)}
        return Context(sources | (others or {}), Source([self.who.pair(x, rows)], bias))

    def modalities(self, batch: Batch, cut: Cut) -> tuple[dict[str, Source], dict[str, Tensor]]:
        """Frames and signals as sources of attention, and each pooled [M, width], by name."""
        sources, features = {}, {}
        for name, tokens, real in self._modality_tokens(batch, cut):
            rows = Rows.of(real)
            x = rows.collect(tokens)
            window = rows.collect(torch.arange(len(real), device=real.device)[:, None].expand(real.shape))
            features[name] = pooled(x, window, len(real))
            sources[name] = Source([block.pair(x, rows) for block in self.blocks(name)], padding_bias(real))
        return sources, features

    def _modality_tokens(self, batch: Batch, cut: Cut) -> Iterator[tuple[str, Tensor, Tensor]]:
        if self.config.frames:
            frames = self.frames(batch.inputs["frames"], cut)
            yield "frames", frames, frames.new_ones(frames.shape[:2], dtype=torch.bool)
        if self.config.signals:
            centre, spread = self.head(batch.session).signal_scale
            values = (batch.inputs["signals"] - centre) / spread
            after = torch.arange(values.shape[1], device=values.device) >= batch.bins[:, None]
            tokens, real = self.signals(values.masked_fill(after[..., None], torch.nan), cut)
            # Attention needs something to look at: where nothing is known, tokens of the mean.
            yield "signals", tokens, real | ~real.any(1, keepdim=True)

    def embed_past(self, head: Head, tokens: Tokens) -> tuple[Tensor, Rows, Tensor]:
        """A start token and the tokens of the past as vectors [R, width], their rows, and a bias [M, 1, 1 + K]."""
        real = with_start(tokens.real, True)
        rows = Rows.of(real)
        unit, bin = (rows.collect(with_start(each, -1)) for each in (tokens.unit, tokens.bin))
        x = head.unit(unit.clamp(min=0)) + self.past_time(bin.clamp(min=0))
        x = torch.where(unit[:, None] >= 0, x, self.start[1])
        return self.embedding_dropout(x), rows, padding_bias(real)

    def embed(self, head: Head, unit: Tensor, bin: Tensor, place: Tensor) -> Tensor:
        """Tokens [R] of windows at their places [R] as vectors [R, width]; unit -1: the start token, at place 0."""
        x = torch.where(unit[:, None] >= 0, head.unit(unit.clamp(min=0)) + self.time(bin), self.start[0])
        return self.embedding_dropout(x + self.slot(place.clamp(max=SLOTS - 1)))

    # States and heads

    def states(self, x: Tensor, rows: Rows, context: Context, kept: Kept | None = None) -> tuple[Tensor, Tensor]:
        """States [R, width] from which the next token follows, of embedded tokens `x` [R, width].

        With `kept`, `x` are the next tokens of each window, and attend to those whose keys and values are kept, too.
        The second result is the state before anything but the window itself was attended to.
        """
        before = 0 if kept is None else kept.length
        # A single next token may look at all there is.
        bias = None if kept is not None and rows.places == 1 else causal_bias(rows.places, x.device, before)
        for block in self.state:
            x = block(x, rows, self._own(block, x, rows, kept), bias)
        alone = x
        for name, source in context.sources.items():
            for block, pair in zip(self.blocks(name), source.pairs, strict=True):
                x = block(x, rows, pair, source.bias)
        for block in self.state_last:
            x = block(x, rows, self._own(block, x, rows, kept), bias)
        return x, alone

    def _own(self, block: nn.Module, x: Tensor, rows: Rows, kept: Kept | None) -> Pair:
        pair = cast(Block, block).pair(x, rows)
        return pair if kept is None else kept.add(pair)

    def bin_log_probabilities(self, head: Head, states: Tensor, last: Last) -> Tensor:
        """Log-probabilities [R, bins + 1] of the next token's bin and of the end; see `law.time_law`."""
        return (self.time_law(head, last) + self.when(states)).log_softmax(1)

    def time_law(self, head: Head, last: Last) -> Tensor:
        """Log-probabilities [R, bins + 1] of the next token's bin by the law alone."""
        again = head.expected * head.again.exp()
        return time_law(last.expected(head), again, last.bin, last.unit, last.width, self.bins)

    def unit_states(self, states: Tensor, bin: Tensor, rows: Rows, pair: Pair, bias: Tensor | None) -> Tensor:
        """What the next unit is read from [R, width]: `states` [R, width] of which the next bin [R] is known."""
        return cast(Tensor, self.who(self.unit_query(states, bin), rows, pair, bias))

    def unit_query(self, states: Tensor, bin: Tensor) -> Tensor:
        """`states` [R, width] that know the next bin [R]."""
        return states + self.bin_query(bin)

    def unit_log_probabilities(self, head: Head, states: Tensor, last: Last, same: Tensor) -> Tensor:
        """Log-probabilities [R, N] of the next unit; `states` of `unit_states`; `same` [R]: in the last token's bin."""
        logits = head.logits(states) + unit_law(last.expected(head), head.again, last.unit, same)
        if last.seen is not None:
            logits = logits.masked_fill(~last.seen, -torch.inf)
        return logits.log_softmax(1)

    def read(self, batch: Batch, windows: Windows) -> Reading:
        """The states of all windows, each place given the tokens up to it."""
        return self.read_tokens(self.head(batch.session), windows, *self.modalities(batch, windows.cut))

    def read_tokens(
        self, head: Head, windows: Windows, others: dict[str, Source], features: dict[str, Tensor]
    ) -> Reading:
        """`read`, given what `modalities` makes of the rest of the batch."""
        tokens, context = windows.now, self.context(head, windows.past, others)
        rows = Rows.of(with_start(tokens.real, True))
        unit, bin = rows.collect(with_start(tokens.unit, -1)), rows.collect(with_start(tokens.bin, 0))
        place = torch.arange(rows.places, device=unit.device).expand(rows.sequences, -1)
        x = self.embed(head, unit, bin, rows.collect(place))
        window = rows.collect(torch.arange(rows.sequences, device=unit.device)[:, None].expand(place.shape))
        seen = None if windows.seen is None else windows.seen[window]
        last = Last(bin, unit, windows.cut.width[window], seen)
        states, alone = self.states(x, rows, context)
        spikes = {"spikes": pooled(alone, window, rows.sequences)}
        return Reading(context, rows, x, states, last, window, features | spikes)

    def token_log_likelihood(self, head: Head, windows: Windows, reading: Reading) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of every window [M], nats: of its bins, the end included, and of its units."""
        tokens, rows, last = windows.now, reading.rows, reading.last
        following = rows.collect(tokens.following(self.bins, 0)[0])
        times = self.bin_log_probabilities(head, reading.states, last).gather(1, following[:, None])[:, 0]

        goes_on = following < self.bins
        more = Rows.of(tokens.goes_on)
        pair = self.who.pair(reading.x, rows)
        pair, bias = reading.context.who_with(pair, causal_bias(rows.places, pair[0].device))
        bin, last = following[goes_on], last.rows(goes_on)
        asked = self.unit_states(reading.states[goes_on], bin, more, pair, bias)
        same = (last.unit >= 0) & (last.bin == bin)
        units = self.unit_log_probabilities(head, asked, last, same)
        chosen = units.gather(1, tokens.unit[tokens.real][:, None])[:, 0]
        empty = times.new_zeros(rows.sequences)
        return empty.index_add(0, reading.window, times), empty.index_add(0, reading.window[goes_on], chosen)

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        """Draw for training, with `jitter`, the bin that windows are cut from, `offset` [B], the same for all."""
        if step is None or not self.config.jitter:
            return batch
        # No further than samples shorter than a window reach.
        most = min(self.bins, batch.counts.shape[1] - batch.history)
        offset = torch.randint(most, ()).to(batch.bins.device).expand(len(batch.bins))
        return replace(batch, inputs=batch.inputs | {"offset": offset})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss: `time` and `id`, nats a spike, of bins and units of tokens; `heldout`, nats a spike of the
        held-out units (without log y!); `contrastive`; `decode:{variable}`."""
        wanted, windows = self.config.trained, self.windows(batch)
        head, reading = self.head(batch.session), self.read(batch, windows)
        terms: dict[str, Tensor] = {}
        if "time" in wanted or "id" in wanted:
            spikes = windows.now.count.sum().clamp(min=1)
            bins, units = self.token_log_likelihood(head, windows, reading)
            terms |= {"time": -bins.sum() / spikes, "id": -units.sum() / spikes}
        if head.log_rates is not None and "heldout" in wanted:
            terms["heldout"] = self._heldout_loss(batch, head, windows, reading)
        if "contrastive" in wanted:
            contrast = self.contrast(reading.features, windows.cut.width > 0)
            terms["contrastive"] = self.config.contrastive_weight * contrast
        if head.classes:
            targets = self.targets(batch, windows.cut)
            terms |= head.decode_losses(self.window_features(head, windows, reading), targets)
        return {name: value for name, value in terms.items() if name in wanted}

    def counted(self, batch: Batch) -> dict[str, Tensor]:
        """Spikes of tokens and of held-out units; windows that are told apart, and that have a value to be read out."""
        head, windows = self.head(batch.session), self.windows(batch)
        spikes, heldout = windows.now.count.sum(), torch.mul(*self._heldout(batch, head, windows)).sum()
        found = {"time": spikes, "id": spikes, "heldout": heldout, "contrastive": (windows.cut.width > 0).sum()}
        if head.classes:
            known = self.targets(batch, windows.cut).isfinite().sum(0)
            found |= {f"decode:{name}": each for name, each in zip(head.classes, known, strict=True)}
        return {name: number.clamp(min=1) for name, number in found.items()}

    def _heldout(self, batch: Batch, head: Head, windows: Windows) -> tuple[Tensor, Tensor]:
        """Counts of the held-out units, and what of them was observed, each [M, bins, held-out units]."""
        both = (each[:, :, head.heldout] for each in (batch.counts, batch.observed))
        counts, observed = (slices(each, windows.cut, self.bins, 0) for each in both)
        return counts, observed

    def _heldout_loss(self, batch: Batch, head: Head, windows: Windows, reading: Reading) -> Tensor:
        asked = self.at_bins(windows, reading)
        queried = self.bin_states(asked, reading)
        assert head.log_rates is not None
        log_rates = head.log_rates(queried).view(len(windows.counts), self.bins, -1)
        counts, observed = self._heldout(batch, head, windows)
        loss = (log_rates.exp() - counts * log_rates) * observed
        return loss.sum() / (counts * observed).sum().clamp(min=1)

    def targets(self, batch: Batch, cut: Cut) -> Tensor:
        """What is to be read out of each window [M, variables], class numbers of labels; NaN: unknown."""
        last = [classes > 0 for classes in self.head(batch.session).classes.values()]
        return window_targets(batch.inputs["targets"], cut, self.bins, last)

    def window_features(self, head: Head, windows: Windows, reading: Reading) -> Tensor:
        """What variables are read from [M, 2 width + counts]; see `Head.features`."""
        return head.features(windows, pooled(reading.states, reading.window, reading.rows.sequences))

    def decoded(self, batch: Batch) -> dict[str, Tensor]:
        """What is read out of each window: values [M], or probabilities of the classes [M, classes]."""
        head, windows = self.head(batch.session), self.windows(batch)
        return head.decoded(self.window_features(head, windows, self.read(batch, windows)))

    # What a fit gives

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N] given the spikes of all earlier bins.

        At the start of a bin the tokens so far give the probability of each unit to be the first to fire in it; for
        Poisson units the rates follow (`law.rates_of_first`).
        """
        head, windows = self.head(batch.session), self.windows(batch)
        reading = self.read(batch, windows)
        asked = self.at_bins(windows, reading)
        return in_samples(batch, self.bin_rates(head, asked, self.bin_states(asked, reading)))

    def latents(self, batch: Batch) -> Tensor:
        """What the rates of each bin are read from [B, L, width]: it knows the spikes of all earlier bins."""
        windows = self.windows(batch)
        reading = self.read(batch, windows)
        states = self.bin_states(self.at_bins(windows, reading), reading)
        return in_samples(batch, states.view(len(windows.counts), self.bins, -1))

    def at_bins(self, windows: Windows, reading: Reading) -> AtBins:
        """Where the network stands at the start of every bin of every window."""
        tokens, rows = windows.now, reading.rows
        bin = torch.arange(self.bins, device=tokens.bin.device).expand(rows.sequences, -1)
        # The place of the last token before each bin.
        place = (tokens.real[:, None] & (tokens.bin[:, None] < bin[..., None])).sum(2)
        window = torch.arange(rows.sequences, device=place.device)[:, None]
        states = rows.spread(reading.states)[window, place].flatten(0, 1)
        unit, before = with_start(tokens.unit, -1).gather(1, place), with_start(tokens.bin, 0).gather(1, place)
        seen = None if windows.seen is None else windows.seen.repeat_interleave(self.bins, 0)
        last = Last(before.flatten(), unit.flatten(), torch.full_like(place, self.bins).flatten(), seen)
        return AtBins(states, bin.flatten(), place, last)

    def bin_states(self, asked: AtBins, reading: Reading) -> Tensor:
        """What the units of every bin are read from [M x bins, width]."""
        ahead = torch.arange(reading.rows.places, device=asked.place.device) > asked.place[..., None]
        own = torch.zeros(ahead.shape, device=ahead.device).masked_fill(ahead, -torch.inf)
        pair, bias = reading.context.who_with(self.who.pair(reading.x, reading.rows), own)
        return self.unit_states(asked.states, asked.bin, Rows(reading.rows.sequences, self.bins), pair, bias)

    def bin_rates(self, head: Head, asked: AtBins, queried: Tensor) -> Tensor:
        """Expected spikes [M, bins, all units]."""
        last = asked.last
        times = self.bin_log_probabilities(head, asked.states, last)
        # The last token lies before the bin and the next one not before it: what is left of the law.
        later = torch.arange(self.bins + 1, device=times.device) >= asked.bin[:, None]
        now = times.masked_fill(~later, -torch.inf).log_softmax(1).gather(1, asked.bin[:, None])
        first = self.unit_log_probabilities(head, queried, last, torch.zeros_like(last.unit, dtype=torch.bool))
        rates = first.new_zeros(len(first), len(head.heldin) + len(head.heldout))
        told = rates_of_first((now + first).exp())
        # A unit that was not observed in the whole window has no tokens there, and no probability: it has its mean.
        rates[:, head.heldin] = told if last.seen is None else torch.where(last.seen, told, head.expected)
        if head.log_rates is not None:
            rates[:, head.heldout] = head.log_rates(queried).exp()
        return rates.view(-1, self.bins, rates.shape[1])


def in_samples(batch: Batch, values: Tensor) -> Tensor:
    """Values of the windows [M, bins, C] put back into their samples [B, L, C]; 0 in the history."""
    samples, length = batch.counts.shape[:2]
    inside = values.reshape(samples, -1, values.shape[-1])[:, : length - batch.history]
    return torch.cat([inside.new_zeros(samples, batch.history, values.shape[-1]), inside], 1)
