"""The Neural Data Transformer: a transformer encoder over bins, trained to fill in spike counts that it was not shown.

Ye & Pandarinath 2021, Neurons Behav Data Anal Theory 5(3). Layer by layer the network of the public code; what that
gets wrong is put right unless `compat` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib.models.ndt.layers import (
    Band,
    Dropout,
    Encoder,
    Layer,
    LayerNorm,
    Linear,
    ScaleNorm,
    context_bias,
    suits_tensor_cores,
)
from pipeline_lib.models.ndt.masking import draw_width, mask_batch, show_all
from pipeline_lib.training.network import Network

if TYPE_CHECKING:
    from pipeline_lib.models.ndt.settings import Config, Mode
    from pipeline_lib.models.torch_model import Layout
    from pipeline_lib.training.batches import Batch

FIXUP = 0.67
READ_IN = 128
"""Width of the read-in of a cohort's sessions, unless set."""
SPARE_COUNTS = 3
"""How far beyond the largest training count the table of embeddings goes; larger counts are taken for the last."""
TOGETHER = {"combo_kernels": True}
"""For torch's compiler: kernels that do not wait for each other are one, as those that turn weights into bfloat16."""
UNIFORM = 0.1
"""Embeddings and read-outs start uniform within this of 0."""


class Head(nn.Module):
    """What belongs to a session: counts in, log-rates out.

    Counts [B, L, N] become `embedding` numbers a unit (0: the count itself) from a table that all units share, side by
    side unit by unit; a linear `read_in` to `width` follows where one is asked for. `population` names that of each
    unit.
    """

    region: Tensor

    def __init__(self, population: Sequence[str], config: Config, max_count: int, width: int | None) -> None:
        super().__init__()
        units = len(population)
        self.table = nn.Embedding(max_count + 2, config.embedding) if config.embedding else None
        flat = units * max(config.embedding, 1)
        self.read_in = Linear(flat, width) if width else None
        self.width = width or flat
        sizes = (self.width, config.decoder_hidden, units) if config.decoder_hidden else (self.width, units)
        layers = [Linear(*pair) for pair in pairwise(sizes)]
        self.hidden, self.last = nn.ModuleList(layers[:-1]), layers[-1]
        codes = torch.as_tensor(np.unique(population, return_inverse=True)[1])
        self.register_buffer("region", codes, persistent=False)
        if self.table is not None:
            start_table(self.table.weight, config.embedding_init)
        nn.init.uniform_(self.last.weight, -UNIFORM, UNIFORM)
        nn.init.zeros_(self.last.bias)

    def embed(self, counts: Tensor) -> Tensor:
        """Counts [B, L, N] as [B, L, width]."""
        if self.table is None:
            x = counts.to(torch.get_default_dtype())
        else:
            x = self.table(counts.long().clamp(max=self.table.num_embeddings - 2)).flatten(2)
        return x if self.read_in is None else self.read_in(x)

    def decode(self, x: Tensor) -> Tensor:
        """[B, L, width] as log-rates [B, L, N], or what stands in their place."""
        for layer in self.hidden:
            x = layer(x).relu()
        return self.last(x)


class Transformer(Network):
    """Encoder, positions, and a head for each session."""

    has_latents = True
    vectorises = True
    position: Tensor
    context: Tensor | None

    def __init__(self, config: Config, layout: Layout) -> None:
        super().__init__()
        self.config = config
        shared = config.read_in or (READ_IN if len(layout.units) > 1 else None)
        heads = {
            session: Head(names, config, layout.most + SPARE_COUNTS, shared)
            for session, names in layout.population.items()
        }
        self.sessions = nn.ModuleDict(heads)
        width = next(iter(heads.values())).width
        self.scale = math.sqrt(width)
        if config.position == "learned":
            self.position = nn.Parameter(torch.randn(layout.bins, width))
        else:
            fixed = sinusoids(layout.bins, width) if config.position == "sinusoid" else torch.zeros(layout.bins, width)
            self.register_buffer("position", fixed)
        self.embedding_dropout = Dropout(config.dropout_embedding)
        self.rates_dropout = Dropout(config.dropout_rates)
        layers = [
            Layer(width, config.heads, config.hidden, config.dropout, config.activation, config.norm == "pre")
            for _ in range(config.layers)
        ]
        initialise(layers, config)
        self.encoder = Encoder(layers, LayerNorm(width) if config.final_norm == "layer" else ScaleNorm(width))
        backward, forward = (reach(seconds, layout) for seconds in (config.context_backward, config.context_forward))
        self.reach = None if backward is None or forward is None else (backward, forward)
        bias = None if backward is forward is None else context_bias(layout.bins, backward, forward)
        self.register_buffer("context", bias, persistent=False)

    def head(self, session: str) -> Head:
        """What belongs to a session."""
        return cast(Head, self.sessions[session])

    @property
    def prepares_together(self) -> bool:
        """Masks differ by draws of windows alone."""
        return self.prepares_alike and self.config.mask_token_ratio == 1

    @property
    def prepares_alike(self) -> bool:
        """Neither the mode nor the width of a mask is drawn on the host, and no count is looked at."""
        return len(self.config.masking) == self.config.mask_span == 1 and not self.config.compat

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        """Draw masks: `shown` [B, K, L, N], counts as the network is shown them, and `scored`, bool, of K modes.

        Training draws one mode a step; an evaluation takes them all.
        """
        config, modes = self.config, self.config.masking
        if step is not None and len(modes) > 1:
            modes = (modes[int(torch.randint(len(modes), ()))],)
        if step is None and config.evaluated_ratio:
            config = replace(config, mask_ratio=config.evaluated_ratio, mask_token_ratio=1.0)
        if step is None and config.evaluated_ratio == 0:
            modes = ()
        width = 1 if step is None else draw_width(config, step)  # validation hides single bins
        shown, scored = self._masked(batch, modes, config, width)
        return replace(batch, inputs={"shown": shown, "scored": scored})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The Poisson negative log-likelihood (without log y!) of the scored entries, nats an entry; mean of modes."""
        modes = zip(batch.inputs["shown"].unbind(1), batch.inputs["scored"].unbind(1), strict=True)
        return {"masked_nll": torch.stack([self._loss(batch, *each) for each in modes]).mean()}

    def counted(self, batch: Batch) -> dict[str, Tensor]:
        """The entries that are scored."""
        return {"masked_nll": batch.inputs["scored"].sum().clamp(min=1)}

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N], every visible count shown."""
        output = self.outputs(batch.session, batch.counts * batch.visible, ends(batch))
        return output.exp() if self.config.log_rates else output.relu()

    def outputs(self, session: str, inputs: Tensor, bins: Tensor | None = None) -> Tensor:
        """Log-rates (rates before their ReLU without `log_rates`) [B, L, N] given `inputs` [B, L, N].

        `bins` [B] of each window; None: all have L.
        """
        return self.head(session).decode(self.rates_dropout(self.encoded(session, inputs, bins)))

    def encoded(self, session: str, inputs: Tensor, bins: Tensor | None = None) -> Tensor:
        """What the encoder makes of `inputs` [B, L, N]: [B, L, width]."""
        length = inputs.shape[1]
        x = self.embedding_dropout(self.head(session).embed(inputs) * self.scale + self.position[:length])
        bias = self._attention_bias(length, bins)
        if self.training and x.device.type == "cpu" and bias is not None and self.reach is not None:
            return self.encoder(x, Band.of(bias, *self.reach) or bias)
        return self.encoder(x, bias)

    def latents(self, batch: Batch) -> Tensor:
        """The encoder's output [B, L, width], every visible count shown."""
        return self.encoded(batch.session, batch.counts * batch.visible, ends(batch))

    @torch.no_grad()
    def start_at(self, session: str, mean: Tensor) -> None:
        """Set the bias of the read-out to the mean spikes a bin `mean` [N], above 0."""
        self.head(session).last.bias.copy_(mean.log() if self.config.log_rates else mean)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the loss; of a cohort the encoder alone, which does not differ by session.

        For a GPU the masks, too, which are the same: their random numbers are torch's own.
        """
        alone = len(self.sessions) == 1
        if suits_tensor_cores(self.position.device):
            kwargs = {"options": TOGETHER} | kwargs
            if alone and self.prepares_alike:
                drawing = kwargs | {"options": kwargs["options"] | {"fallback_random": True}}
                self._masked = torch.compile(self._masked, *args, **drawing)  # type: ignore[method-assign]
        if alone:
            self.loss = torch.compile(self.loss, *args, **kwargs)  # type: ignore[method-assign]
        else:
            self.encoder.compile(*args, **kwargs)

    def _masked(self, batch: Batch, modes: Sequence[Mode], config: Config, width: int) -> tuple[Tensor, Tensor]:
        """`shown` and `scored`, stacked; without modes nothing is masked."""
        region = self.head(batch.session).region
        made = [mask_batch(batch, mode, config, width, region) for mode in modes] or [show_all(batch)]
        shown, scored = zip(*made, strict=True)
        return torch.stack(shown, 1), torch.stack(scored, 1)

    def _loss(self, batch: Batch, inputs: Tensor, scored: Tensor) -> Tensor:
        output = self.outputs(batch.session, inputs, ends(batch)).float()
        target = batch.counts.to(output.dtype)
        if self.config.log_rates:
            loss = output.exp() - target * output
        else:
            rates = output.relu()
            loss = rates - target * (rates + 1e-8).log()
        share = self.config.hardest_share if self.training or self.config.compat else 1.0
        total = (loss * scored).sum() if share == 1 else sum_of_largest(loss, scored, share)
        return total / scored.sum().clamp(min=1)

    def _attention_bias(self, length: int, bins: Tensor | None) -> Tensor | None:
        """The context, and no attention to bins past the end of a window."""
        bias = None if self.context is None else self.context[:, :length, :length]
        if bins is None:
            return bias
        position = torch.arange(length, device=bins.device)
        past = (position >= bins[:, None])[:, None, :] & ~torch.eye(length, dtype=torch.bool, device=bins.device)
        padding = torch.zeros(past.shape, device=bins.device).masked_fill(past, -torch.inf)
        return padding if bias is None else bias + padding


def ends(batch: Batch) -> Tensor | None:
    """Bins of each window [B], where they differ."""
    return batch.bins if batch.ragged else None


@torch.no_grad()
def start_table(table: Tensor, how: str) -> None:
    """Where embeddings [counts, numbers] start: `uniform` within 0.1 of 0; or `log`, on the logarithm of 1 + the count,
    centred and 0.1 long, but for noise of a tenth of that."""
    if how == "uniform":
        nn.init.uniform_(table, -UNIFORM, UNIFORM)
        return
    log = torch.arange(1, len(table) + 1, dtype=table.dtype).log()
    nn.init.uniform_(table, -UNIFORM / 10, UNIFORM / 10)
    table += (UNIFORM * (log - log.mean()) / log[-1])[:, None]


def sum_of_largest(loss: Tensor, scored: Tensor, share: float) -> Tensor:
    """The sum of the largest of the entries that are `scored`: of that share of them, rounded down.

    How many that are stays on the device, and all is of the shape of `loss`: a step can be recorded.
    """
    largest = loss.masked_fill(~scored, -torch.inf).flatten().sort(descending=True).values
    count = (scored.sum().double() * share).floor()
    kept = torch.arange(len(largest), device=loss.device) < count
    return torch.where(kept, largest, 0.0).sum()


@torch.no_grad()
def initialise(layers: list[Layer], config: Config) -> None:
    """Small residual branches at the start, where `fixup` asks for them (after Huang et al. 2020).

    In the public code all layers start the same, and the projection to values keeps its size.
    """
    if config.compat:
        for layer in layers[1:]:
            layer.load_state_dict(layers[0].state_dict())
    factor = FIXUP * len(layers) ** -0.25
    for layer in layers if config.fixup else ():
        for weight in (layer.linear1.weight, layer.linear2.weight, layer.attention.out.weight):
            weight.mul_(factor)
        if not config.compat:
            values = layer.attention.qkv.weight[-layer.attention.out.in_features :]
            values.mul_(factor * math.sqrt(2))


def reach(seconds: float | None, layout: Layout) -> int | None:
    """Whole bins in a context of `seconds`."""
    return None if seconds is None else int(seconds * 1000 / layout.bin_size + 1e-6)


def sinusoids(bins: int, width: int) -> Tensor:
    """Fixed positions [bins, width]: sines in the even columns, cosines in the odd ones (Vaswani et al. 2017)."""
    position = torch.arange(1, bins + 1)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(bins, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate[: width // 2])
    return table
