"""The network of LFADS (Sussillo et al. 2016; Pandarinath et al. 2018), as its equations stand in `specs/lfads.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.lfads.concealment import Shown, conceal
from pipeline_lib.models.lfads.controlled import Weights, decode
from pipeline_lib.models.lfads.divergence import autoregressive_divergence, gaussian_divergence
from pipeline_lib.models.lfads.likelihood import gaussian_loss, poisson_loss
from pipeline_lib.models.lfads.noise import dropout_mask, standard_normal
from pipeline_lib.models.lfads.sequence import GRU
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.network import Network
from pipeline_lib.training.schedule import ramp

if TYPE_CHECKING:
    from pipeline_lib.models.lfads.alignment import Alignment
    from pipeline_lib.training.batches import Windows

SAMPLE, SIGNALS = "sample", "signals"
"""Names among a batch's inputs: sample ids [B], and external inputs [B, L, E]."""
LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Outputs:
    """Time first. `factors` [L, B, F]; `inputs`: inferred inputs [L, B, U], or None; `initial`: mean of the initial
    condition [B, I]; `rates` [L, B, N]."""

    rates: Tensor
    factors: Tensor
    inputs: Tensor | None
    initial: Tensor


@dataclass(frozen=True)
class Posterior:
    """Of the initial condition [B, I], and what the encoders tell the controller [L, B, C]."""

    mean: Tensor
    log_variance: Tensor
    codes: Tensor | None


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Weights N(0, 1 / inputs), bias 0."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Head(nn.Module):
    """What belongs to a session: its units' read-in and read-out, means of counts and signals."""

    mean: Tensor
    heldin: Tensor
    signal_mean: Tensor
    signal_sd: Tensor

    def __init__(self, units: int, heldin: list[int], config: Config, width: int | None) -> None:
        super().__init__()
        self.all = len(heldin) == units
        self.read_in = None if width is None else linear(len(heldin), width)
        self.read_out = linear(config.factors, units)
        self.log_variance = nn.Parameter(torch.zeros(units)) if config.observation == "gaussian" else None
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("heldin", torch.tensor(heldin), persistent=False)
        self.register_buffer("signal_mean", torch.zeros(len(config.signals)))
        self.register_buffer("signal_sd", torch.ones(len(config.signals)))

    @torch.no_grad()
    def start_from(self, alignment: Alignment) -> None:
        """Read in and out as `alignment` has it; factors beyond its latents keep their random read-out."""
        assert self.read_in is not None
        weight = self.read_out.weight
        self.read_in.weight.copy_(torch.as_tensor(alignment.read_in.T))
        self.read_in.bias.copy_(torch.as_tensor(alignment.offset))
        width = min(weight.shape[1], len(alignment.read_out))
        weight[:, :width] = torch.as_tensor(alignment.read_out[:width].T).to(weight)

    @property
    def inputs(self) -> Tensor | None:
        """Rows of the held-in units, None where that is all."""
        return None if self.all else self.heldin


class LFADS(Network):
    """Encoders, controller, generator, and a head for each session.

    Parameters
    ----------
    config, layout : sizes.
    seed : of the noise of averaged predictions.
    """

    selects = "nll"
    has_latents = True

    def __init__(self, config: Config, layout: Layout, seed: int = 0) -> None:
        super().__init__()
        self.config, self.layout, self.seed = config, layout, seed
        self.segment = min(round(config.initial_segment * 1000 / layout.bin_size), layout.bins)
        shared = config.read_in or (config.factors if len(layout.units) > 1 else None)
        self.sessions = nn.ModuleDict(
            {session: Head(units, layout.heldin[session], config, shared) for session, units in layout.units.items()}
        )
        width = shared or len(next(iter(layout.heldin.values())))
        inferred, external = config.inferred_inputs, len(config.signals)
        self.initial_encoder = GRU(width, config.initial_encoder, directions=2, joint=True)
        self.initial_encoder_start = nn.Parameter(torch.zeros(2, config.initial_encoder))
        self.posterior = linear(2 * config.initial_encoder, 2 * config.initial_conditions)
        self.prior_mean = nn.Parameter(torch.zeros(config.initial_conditions))
        self.to_generator = linear(config.initial_conditions, config.generator)
        self.generator = GRU(inferred + external, config.generator)
        self.to_factors = nn.Parameter(torch.randn(config.factors, config.generator) / config.generator**0.5)
        if inferred:
            self.input_encoder = GRU(width, config.input_encoder, directions=2, joint=True)
            self.input_encoder_start = nn.Parameter(torch.zeros(2, config.input_encoder))
            self.controller = GRU(2 * config.input_encoder + config.factors, config.controller)
            self.controller_start = nn.Parameter(torch.zeros(config.controller))
            self.to_inputs = linear(config.controller, 2 * inferred)
            self.prior_log_time_constant = nn.Parameter(torch.full((inferred,), math.log(config.prior_time_constant)))
            self.prior_log_noise = nn.Parameter(torch.full((inferred,), math.log(config.prior_noise)))

    def head(self, session: str) -> Head:
        """What belongs to a session."""
        return cast(Head, self.sessions[session])

    @torch.no_grad()
    def start_at(self, session: str, windows: Windows) -> None:
        """Start the units of a session at the mean of their training counts, and scale its signals by theirs."""
        head, mean = self.head(session), windows.mean_counts()
        head.mean.copy_(mean)
        if head.log_variance is None:
            head.read_out.bias.copy_(mean.log())
        else:
            head.read_out.bias.copy_(mean)
            head.log_variance.copy_(mean.log())
        if self.config.signals:
            known = [_known(batch.inputs[SIGNALS]) for batch in windows.pieces()]
            number, total, squares = (sum(each) for each in zip(*known, strict=True))
            head.signal_mean.copy_(total / number.clamp(min=1))
            variance = squares / number.clamp(min=1) - head.signal_mean.double().square()
            head.signal_sd.copy_(torch.where(variance > 0, variance, 1.0).sqrt())

    def forward(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        """The terms of the loss, nats a window.

        `nll`: negative log-likelihood of a window's observed counts, estimated from those that coordinated dropout
        did not show. `kl_initial`, `kl_inputs`, `l2`: weighted, ramped; in an evaluation at their full weights and at
        the means of the posteriors.
        """
        device = batch.counts.device.type
        half = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):  # only large products are worth bfloat16, and safe in it
            return self._loss(batch, step, half)

    def _loss(self, batch: Batch, step: int | None, half: bool) -> dict[str, Tensor]:
        config, head, windows = self.config, self.head(batch.session), len(batch.counts)
        shown = conceal(batch, config, head.inputs, head.mean, self.layout.forward, self.segment, drop=True)
        posterior = self.encode(head, shown, half)
        noise = None
        if step is not None:
            noise = torch.randn(
                windows,
                config.initial_conditions + len(shown.counts) * config.inferred_inputs,
                device=shown.inputs.device,
            )
        factors, _, kl = self.decode(head, batch, posterior, noise, half)
        terms = {"nll": self._negative_log_likelihood(head, factors, shown, half) / windows}
        weight = 1.0 if step is None else ramp(step, *config.kl_ramp)
        prior = self.prior_mean, torch.tensor(math.log(config.prior_variance), device=factors.device)
        initial = gaussian_divergence(posterior.mean, posterior.log_variance, *prior)
        terms["kl_initial"] = weight * config.kl_initial * initial.sum() / windows
        if kl is not None:
            bins = torch.arange(len(kl), device=kl.device)
            inside = (bins[:, None] < batch.bins)[..., None]
            terms["kl_inputs"] = weight * config.kl_inputs * (kl * inside).sum() / windows
        weight = 1.0 if step is None else ramp(step, *config.l2_ramp)
        terms["l2"] = weight * self._penalty()
        return terms

    def encode(self, head: Head, shown: Shown, half: bool = False) -> Posterior:
        """Infer initial conditions, and what the controller is told."""
        config = self.config
        x = shown.inputs if head.read_in is None else head.read_in(shown.inputs)
        if half:
            x = x.bfloat16()
        absent = None if bool(shown.present.all()) else ~shown.present
        windows = x.shape[1]
        first = slice(None, self.segment or None)
        start = self.initial_encoder_start[:, None].expand(-1, windows, -1)
        seen = x[first]
        _, last = self.initial_encoder(seen, len(seen), start, None if absent is None else absent[first], half)
        summary = self.drop(last.transpose(0, 1).flatten(1))
        mean, log_variance = self.posterior(summary).chunk(2, 1)
        log_variance = torch.log(torch.exp(log_variance) + LEAST_VARIANCE)
        return Posterior(mean, log_variance, self._codes(x, absent, half) if config.inferred_inputs else None)

    def _codes(self, x: Tensor, absent: Tensor | None, half: bool) -> Tensor:
        """The input encoder's states, delayed by the lag from both sides; 0 outside the bins that it saw."""
        lag, segment = self.config.input_lag, self.segment
        rest = x[segment:]
        gone = None if absent is None else absent[segment:]
        start = self.input_encoder_start[:, None].expand(-1, x.shape[1], -1)
        states, _ = self.input_encoder(rest, len(rest), start, gone, half)
        ahead, back = states[0], states[1].flip(0)
        if gone is not None:
            ahead, back = ahead.masked_fill(gone[..., None], 0), back.masked_fill(gone[..., None], 0)
        codes = torch.cat([shifted(ahead, lag), shifted(back, -lag)], -1)
        if gone is not None:
            codes = codes.masked_fill(gone[..., None], 0)
        return functional.pad(codes, (0, 0, 0, 0, segment, 0))

    def decode(
        self, head: Head, batch: Batch, posterior: Posterior, noise: Tensor | None, half: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Factors [L, B, F]; with a controller inferred inputs and the divergence of each [L, B, U].

        `noise` is standard normal [B, I + L U]; None: at the means of the posteriors.
        """
        config, (windows, length) = self.config, batch.counts.shape[:2]
        initial = posterior.mean
        inferred = None
        if noise is not None:
            size = config.initial_conditions
            initial = initial + torch.exp(0.5 * posterior.log_variance) * noise[:, :size]
            inferred = noise[:, size:].view(windows, length, -1).transpose(0, 1)
        start = self.to_generator(initial)
        external = self._external(head, batch)
        to_factors = functional.normalize(self.to_factors, dim=1)
        share = config.dropout if self.training else 0.0
        if posterior.codes is None:
            states, _ = self.generator(external, length, start[None], None, half)
            return self.drop(states[0]) @ to_factors.t(), None, None
        kept_factors = kept_states = None
        if share:
            kept_factors = dropout_mask((length, windows, config.factors), share, start)
            kept_states = dropout_mask((length, windows, config.generator), share, start)
        codes, u = 2 * config.input_encoder, config.inferred_inputs
        weights = Weights(
            codes=self.controller.input[0, :codes],
            controller=torch.cat([self.controller.input[0, codes:], self.controller.recurrent[0]]),
            controller_bias=self.controller.bias[0],
            inputs=self.to_inputs.weight.t(),
            inputs_bias=self.to_inputs.bias,
            external=self.generator.input[0, u:],
            generator=torch.cat([self.generator.input[0, :u], self.generator.recurrent[0]]),
            generator_bias=self.generator.bias[0],
            factors=to_factors,
        )
        controller_start = self.controller_start.expand(windows, -1)
        decoded = decode(
            self.drop(posterior.codes),
            external,
            inferred,
            controller_start,
            start,
            kept_factors,
            kept_states,
            weights,
            half,
        )
        kl = autoregressive_divergence(
            decoded.mean, decoded.log_variance, decoded.sample, self.prior_log_time_constant, self.prior_log_noise
        )
        return decoded.factors, decoded.sample, kl

    def drop(self, x: Tensor) -> Tensor:
        """Dropout."""
        share = self.config.dropout if self.training else 0.0
        return x * dropout_mask(x.shape, share, x) if share else x

    def _external(self, head: Head, batch: Batch) -> Tensor | None:
        """External inputs [L, B, E], standardised; the mean where they are not known."""
        if not self.config.signals:
            return None
        values = batch.inputs[SIGNALS][:, : batch.counts.shape[1]].transpose(0, 1)
        return torch.nan_to_num((values - head.signal_mean) / head.signal_sd)

    def _negative_log_likelihood(self, head: Head, factors: Tensor, shown: Shown, half: bool) -> Tensor:
        weight, bias = head.read_out.weight, head.read_out.bias
        if head.log_variance is not None:
            return gaussian_loss(head.read_out(factors), head.log_variance, shown.counts, shown.scored, shown.worth)
        return poisson_loss(factors, weight, bias, shown.counts, shown.scored, shown.worth, half)

    def _penalty(self) -> Tensor:
        """L2 of the recurrent weights: half their weighted squares, over the number of all that are penalised."""
        config = self.config
        penalised = [(config.l2_generator, self.generator), (config.l2_encoders, self.initial_encoder)]
        if config.inferred_inputs:
            penalised += [(config.l2_controller, self.controller), (config.l2_encoders, self.input_encoder)]
        active = [(scale, network.recurrent) for scale, network in penalised if scale]
        if not active:
            return torch.zeros((), device=self.prior_mean.device)
        squares = torch.stack([0.5 * scale * weight.square().sum() for scale, weight in active])
        return squares.sum() / sum(weight.numel() for _, weight in active)

    def outputs(self, batch: Batch) -> Outputs:
        """What the model makes of windows of which it sees all it may: means over posterior samples, or at the mean."""
        config, head = self.config, self.head(batch.session)
        shown = conceal(batch, config, head.inputs, head.mean, self.layout.forward, self.segment, drop=False)
        posterior = self.encode(head, shown)
        total: list[Tensor] = []
        draws = max(config.posterior_samples, 1)
        for draw in range(draws):
            noise = None
            if config.posterior_samples:
                length, steps = shown.counts.shape[0], self.layout.bins
                size = config.initial_conditions
                noise = standard_normal(self.seed, batch.inputs[SAMPLE], draw, size + steps * config.inferred_inputs)
                noise = noise[:, : size + length * config.inferred_inputs]
            factors, inputs, _ = self.decode(head, batch, posterior, noise, half=False)
            output = head.read_out(factors)
            rates = output.exp() if head.log_variance is None else output.clamp(min=0)
            made = [rates, factors] + ([] if inputs is None else [inputs])
            total = made if not total else [sum_.add_(each) for sum_, each in zip(total, made, strict=True)]
        rates, factors, *inputs_ = (each / draws for each in total)
        return Outputs(rates, factors, inputs_[0] if inputs_ else None, posterior.mean)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Nothing: the loops are in kernels written by hand, which a compiler would only unroll."""

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N]."""
        return self.outputs(batch).rates.transpose(0, 1)

    def latents(self, batch: Batch) -> Tensor:
        """Factors [B, L, F]."""
        return self.outputs(batch).factors.transpose(0, 1)


def _known(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of values [..., E]: how many are known, their sum and the sum of their squares, each [E]."""
    flat = values.double().flatten(0, -2)
    known = torch.isfinite(flat)
    flat = flat.nan_to_num()
    return known.sum(0), flat.sum(0), flat.square().sum(0)


def shifted(x: Tensor, bins: int) -> Tensor:
    """`x` [T, ...] moved by `bins` to later (negative: earlier) places; zeros come in."""
    length = len(x)
    if abs(bins) >= length:
        return torch.zeros_like(x)
    empty = torch.zeros_like(x[: abs(bins)])
    return torch.cat([empty, x[: length - bins]]) if bins >= 0 else torch.cat([x[-bins:], empty])
