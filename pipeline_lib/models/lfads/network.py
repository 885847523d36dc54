"""The network of LFADS (Sussillo et al. 2016; Pandarinath et al. 2018), as its equations stand in `specs/lfads.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.lfads.concealment import Shown, conceal, kept_counts
from pipeline_lib.models.lfads.controlled import Weights, decode
from pipeline_lib.models.lfads.divergence import autoregressive_divergence, gaussian_divergence
from pipeline_lib.models.lfads.head import Head, linear
from pipeline_lib.models.lfads.lagged_codes import lagged_codes
from pipeline_lib.models.lfads.likelihood import gaussian_loss, poisson_loss
from pipeline_lib.models.lfads.noise import dropout_mask, normal, standard_normal
from pipeline_lib.models.lfads.products import product
from pipeline_lib.models.lfads.sequence import GRU
from pipeline_lib.models.lfads.settings import Config, segment_bins
from pipeline_lib.models.lfads.spikes import Spikes
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.network import Network
from pipeline_lib.training.schedule import ramp

SAMPLE, SIGNALS, RAMPS = "sample", "signals", "ramps"
"""Names among a batch's inputs: sample ids [B]; external inputs [B, L, E]; in a step of training, how far the weights
of divergences and penalties have risen, the same of every window [B, 2]."""
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


class LFADS(Network):
    """Encoders, controller, generator, and a head for each session.

    Parameters
    ----------
    config, layout : sizes.
    seed : of the noise of averaged predictions.

    Attributes
    ----------
    watched : training batches whose counts kept for sample validation are scored at every evaluation.
    """

    selects = "nll"
    has_latents = True
    vectorises = True

    def __init__(self, config: Config, layout: Layout, seed: int = 0) -> None:
        super().__init__()
        self.config, self.layout, self.seed = config, layout, seed
        self.watched: Iterable[Batch] = ()
        self.segment = min(segment_bins(config.initial_segment, layout.bin_size), layout.bins)
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

    @property
    def prepares_together(self) -> bool:
        """Nothing is drawn beforehand."""
        return True

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        """With the ramps of this step."""
        if step is None:
            return batch
        ramps = [ramp(step, *each) for each in (self.config.kl_ramp, self.config.l2_ramp)]
        of_windows = torch.tensor([ramps]).to(batch.counts.device, non_blocking=True).expand(len(batch.counts), -1)
        return replace(batch, inputs=batch.inputs | {RAMPS: of_windows})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, nats a window.

        `nll`: negative log-likelihood of a window's observed counts, estimated from those that coordinated dropout
        did not show (`evaluated_dropout` in an evaluation). `kl_initial`, `kl_inputs`, `l2`: weighted, ramped; in an
        evaluation at their full weights and at the means of the posteriors.
        """
        device = batch.counts.device.type
        half = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):  # only large products are worth bfloat16, and safe in it
            return self._loss(batch, batch.inputs.get(RAMPS), half)

    def _loss(self, batch: Batch, ramps: Tensor | None, half: bool) -> dict[str, Tensor]:
        config, head, windows = self.config, self.head(batch.session), len(batch.counts)
        kl_ramp, l2_ramp = (1.0, 1.0) if ramps is None else ramps[0].unbind()
        if ramps is None and config.evaluated_dropout is not None:
            config = replace(config, coordinated_dropout=config.evaluated_dropout, pass_rate=0.0, hide_units=0.0)
        alone = head.read_in is None
        dtype = torch.bfloat16 if half and alone else torch.float32
        sparse = alone and not config.input_dropout
        shown = conceal(batch, config, head.inputs, head.mean, self.layout.forward, self.segment, True, dtype, sparse)
        posterior = self.encode(head, shown, half)
        noise = None
        if ramps is not None:
            size = config.initial_conditions + len(shown.counts) * config.inferred_inputs
            noise = normal((windows, size), posterior.mean)
        factors, _, kl = self.decode(head, batch, posterior, noise, half)
        terms = {"nll": self._negative_log_likelihood(head, factors, shown, half) / windows}
        prior = self.prior_mean, torch.full_like(self.prior_mean, math.log(config.prior_variance))
        initial = gaussian_divergence(posterior.mean, posterior.log_variance, *prior)
        terms["kl_initial"] = kl_ramp * config.kl_initial * initial.sum() / windows
        if kl is not None:
            bins = torch.arange(len(kl), device=kl.device)
            inside = (bins[:, None] < batch.bins)[..., None]
            terms["kl_inputs"] = kl_ramp * config.kl_inputs * (kl * inside).sum() / windows
        terms["l2"] = l2_ramp * self._penalty()
        return terms

    def monitor(self) -> dict[str, float]:
        """`sample_validation_nll`: of training counts that were kept from the fit, nats a count, all others shown."""
        total, number = 0.0, 0
        for batch in self.watched:
            head, config = self.head(batch.session), self.config
            shown = conceal(batch, config, head.inputs, head.mean, self.layout.forward, self.segment, drop=False)
            kept = kept_counts(batch).transpose(0, 1).contiguous()
            factors, _, _ = self.decode(head, batch, self.encode(head, shown), None)
            scored = replace(shown, scored=kept, worth=torch.ones_like(shown.worth))
            total += self._negative_log_likelihood(head, factors, scored, half=False).item()
            number += int(kept.sum())
        return {"sample_validation_nll": total / number} if number else {}

    def encode(self, head: Head, shown: Shown, half: bool = False) -> Posterior:
        """Infer initial conditions, and what the controller is told."""
        config = self.config
        x = shown.inputs if head.read_in is None else head.read_in(shown.inputs)
        if isinstance(x, Tensor):
            x = self.drop(x.bfloat16() if half else x, config.input_dropout)
        absent = None if shown.present is None else ~shown.present
        windows = x.shape[1]
        first = slice(None, self.segment or None)
        start = self.initial_encoder_start[:, None].expand(-1, windows, -1)
        seen = x[first]
        _, last = self.initial_encoder(seen, len(seen), start, None if absent is None else absent[first], half)
        summary = self.drop(last.transpose(0, 1).flatten(1), config.dropout)
        mean, log_variance = self.posterior(summary).chunk(2, 1)
        log_variance = torch.log(torch.exp(log_variance) + LEAST_VARIANCE)
        return Posterior(mean, log_variance, self._codes(x, absent, half) if config.inferred_inputs else None)

    def _codes(self, x: Tensor | Spikes, absent: Tensor | None, half: bool) -> Tensor:
        """The input encoder's states, delayed by the lag from both sides; 0 outside the bins that it saw."""
        lag, segment = self.config.input_lag, self.segment
        rest = x[segment:]
        gone = None if absent is None else absent[segment:]
        start = self.input_encoder_start[:, None].expand(-1, x.shape[1], -1)
        states, _ = self.input_encoder(rest, len(rest), start, gone, half)
        if gone is not None:
            states = states.masked_fill(torch.stack([gone, gone.flip(0)])[..., None], 0)
        codes = lagged_codes(states, lag)
        if gone is not None:
            codes = codes.masked_fill(gone[..., None], 0)
        return functional.pad(codes, (0, 0, 0, 0, segment, 0)) if segment else codes

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
            return product(self.drop(states.squeeze(0), config.dropout), to_factors.t(), half), None, None
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
            self.drop(posterior.codes, config.dropout),
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

    def drop(self, x: Tensor, share: float) -> Tensor:
        """Dropout, in training."""
        return x * dropout_mask(x.shape, share, x) if self.training and share else x

    def _external(self, head: Head, batch: Batch) -> Tensor | None:
        """External inputs [L, B, E], standardised; the mean where they are not known."""
        if not self.config.signals:
            return None
        values = batch.inputs[SIGNALS][:, : batch.counts.shape[1]].transpose(0, 1)
        return torch.nan_to_num((values - head.signal_mean) / head.signal_sd)

    def _negative_log_likelihood(self, head: Head, factors: Tensor, shown: Shown, half: bool) -> Tensor:
        weight, bias = head.read_out.weight, head.read_out.bias
        if head.log_variance is not None:
            mean = head.read_out(factors.to(weight.dtype))
            return gaussian_loss(mean, head.log_variance, shown.counts, shown.scored, shown.worth)
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
                size = config.initial_conditions + len(shown.counts) * config.inferred_inputs
                noise = standard_normal(self.seed, batch.inputs[SAMPLE], draw, size)
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
