"""The GLM-Transformer: log-rate = background of the unit + coupling from other units + the unit's own past.

Xin & Kass 2025, arXiv 2506.02263. The background follows a few factors of the unit's population, which a transformer
reads off the whole trial; coupling passes through a few factors for each ordered pair of populations. Where the public
code departs from its own paper (attention over the trials of a batch, the bias twice) this does not, unless `compat`
asks for it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.models.glm_transformer.bases import bases
from pipeline_lib.models.glm_transformer.filters import filter_series, filter_units
from pipeline_lib.models.glm_transformer.session import Session
from pipeline_lib.models.glm_transformer.settings import PARTS
from pipeline_lib.models.glm_transformer.variational import Decoder, Posterior, divergence
from pipeline_lib.training.network import Network

if TYPE_CHECKING:
    from pipeline_lib.models.glm_transformer.settings import Config, Part
    from pipeline_lib.models.torch_model import Layout
    from pipeline_lib.training.batches import Batch

CUT = 1e-5
"""Filtered counts below this are 0 in the public code, which filters by FFT."""
GROUPS = {"readout": ("readout", "bias", "gain"), "coupling": ("send", "receive", "shape")}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
ENCODER = ("embed", "embed_bias", "posterior")


class GLMTransformer(Network):
    """All populations of all sessions of a cohort.

    `terms` says what the log-rate consists of at the moment, beside the background that is the same in every trial:
    "trials" (the background that varies), "coupling", "history". A fit brings them in one after the other.
    """

    has_latents = True
    vectorises = True
    splines: Tensor
    coupling_basis: Tensor
    history_basis: Tensor

    def __init__(self, config: Config, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.areas = sorted({name for names in layout.population.values() for name in names})
        self.token_bins = max(round(1000 * config.token / layout.bin_size), 1)
        for name, basis in bases(config, layout).items():
            self.register_buffer(name, torch.as_tensor(basis, dtype=torch.get_default_dtype()), persistent=False)
        heads = {session: Session(names, self.areas, config) for session, names in layout.population.items()}
        self.sessions = nn.ModuleDict(heads)
        self.terms = available_terms(config)
        if config.compat:
            # As published, one response for all sessions.
            self.response = nn.Parameter(torch.zeros(len(self.areas), config.factors, config.splines + 1))
        if config.background == "full":
            one = (config.factors, config.splines + 1)
            streams, shape = (len(self.areas), one) if config.area_specific else (1, (len(self.areas), *one))
            latents = config.latents * len(self.areas) // streams
            tokens = -(-(layout.bins - layout.history) // self.token_bins)
            self.posterior = Posterior(config, latents, tokens)
            # Recurrent layers read windows of several lengths by their values.
            self.vectorises = config.encoder != "gru"  # type: ignore[misc]
            decoders = [Decoder(latents, config.decoder * latents, shape) for _ in range(streams)]
            self.decoders = nn.ModuleList(decoders)

    def head(self, session: str) -> Session:
        """What belongs to a session."""
        return cast(Session, self.sessions[session])

    def pace(self, name: str) -> float:
        """The encoder learns at a rate of its own."""
        return self.config.encoder_rate if weight_group(name) == "encoder" else 1.0

    def prepare(self, batch: Batch, step: int | None) -> Batch:
        """Draw `latent_noise` for training, where latents are sampled: standard normal, of the latents' shape."""
        if step is None or not self.config.sample_latent or "trials" not in self.terms:
            return batch
        streams = len(self.areas) if self.config.area_specific else 1
        shape = len(batch.counts), streams, self.config.latents * len(self.areas) // streams
        noise = torch.randn(shape, dtype=self.splines.dtype, device=self.splines.device)
        return replace(batch, inputs=batch.inputs | {"latent_noise": noise})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative log-likelihood of a bin and unit (nats, without log y!), and the penalties."""
        # Of all the products only the encoder's bear bfloat16: log-rates in it would be off by a percent.
        with torch.autocast(batch.counts.device.type, enabled=False):
            return self._losses(batch)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        config, losses = self.config, dict[str, Tensor]()
        background, rough, known = self.factors(batch)
        scored = batch.observed[:, batch.history :]
        log_rates = self.log_rates(batch, background)
        counts = batch.counts[:, batch.history :]
        losses["nll"] = ((log_rates.exp() - counts * log_rates) * scored).sum() / self.counted(batch)["nll"]
        if known is not None:
            losses["kl"] = config.kl_weight * divergence(*known).mean() / scored[0].numel()
        losses["smoothness"] = config.smoothness * rough.diff(n=2, dim=-1).square().mean()
        if "coupling" in self.terms:
            losses["sparsity"] = config.sparsity * self.head(batch.session).sparsity(everywhere=config.compat)
        return losses

    def counted(self, batch: Batch) -> dict[str, Tensor]:
        """The counts that are scored; the penalties are means over windows, or the same for all."""
        return {"nll": batch.observed[:, batch.history :].sum().clamp(min=1)}

    def rates(self, batch: Batch) -> Tensor:
        """Expected spikes a bin [B, L, N], made of the `parts` of the settings; 0 in the history."""
        return functional.pad(self.sum_of_parts(batch, self.config.parts).exp(), (0, 0, batch.history, 0))

    def sum_of_parts(self, batch: Batch, parts: Collection[Part] = PARTS) -> Tensor:
        """Log-rates [B, T, N] made of those of the `parts` that are in use."""
        found = self.components(batch)
        return torch.stack([found[name] for name in parts if name in found]).sum(0)

    def latents(self, batch: Batch) -> Tensor:
        """Background factors [B, L, A F], in the order of `areas`; 0 in the history."""
        series = self.factors(batch)[0].expand(len(batch.counts), -1, -1, -1)
        return functional.pad(series.flatten(1, 2).transpose(1, 2), (0, 0, batch.history, 0))

    def components(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the log-rate that are in use, [B, T, N] each."""
        head, inputs = self.head(batch.session), self.inputs(batch)
        factors = self.factors(batch)[0].flatten(1, 2).transpose(1, 2)
        parts = {"background": factors @ head.loadings() + self._offset(batch, inputs)}
        if "coupling" in self.terms:
            parts["coupling"] = self.coupling_factors(batch.session, inputs, batch.history) @ head.receiving()
        if "history" in self.terms:
            parts["history"] = self._own_past(head, inputs, batch.history)
        windows, bins = len(batch.counts), batch.counts.shape[1] - batch.history
        return {name: part.expand(windows, bins, -1) for name, part in parts.items()}

    def log_rates(self, batch: Batch, background: Tensor) -> Tensor:
        """The sum of all terms [B, T, N], given the background factors [B or 1, A, F, T]."""
        head, inputs = self.head(batch.session), self.inputs(batch)
        windows = len(inputs)
        factors = [background.expand(windows, -1, -1, -1).flatten(1, 2).transpose(1, 2)]
        loadings = [head.loadings()]
        if "coupling" in self.terms:
            factors.append(self.coupling_factors(batch.session, inputs, batch.history))
            loadings.append(head.receiving())
        # One product for both: the sum over factors is never written unit by unit.
        total = torch.cat(factors, 2) @ torch.cat(loadings) + self._offset(batch, inputs)
        return total + self._own_past(head, inputs, batch.history) if "history" in self.terms else total

    def inputs(self, batch: Batch) -> Tensor:
        """The counts that may be looked at, as numbers [B, L, N]."""
        return (batch.counts * batch.visible).to(self.splines.dtype)

    def factors(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Background factors, and the posterior that those of the trial come from.

        Returns
        -------
        factors : [B, A, F, T], or [1, A, F, T] where they are the same in every trial.
        rough : what of them must be smooth, of the same shape: what varies from trial to trial, if anything does.
        posterior : mean and log-variance of the latent [B, A, latents] (or [B, 1, A latents]); None without.
        """
        head, bins = self.head(batch.session), batch.counts.shape[1] - batch.history
        splines = self.splines[:bins].T
        weights = self.response if head.response is None else head.response
        response = weights[None] @ splines
        if "trials" not in self.terms or self.config.background != "full":
            return response, response, None
        posterior = self.encode(batch)
        mean, log_variance = posterior
        noise = batch.inputs.get("latent_noise")
        latent = mean if noise is None else mean + noise * (log_variance / 2).exp()
        decoded = [decoder(each) for decoder, each in zip(self.decoders, latent.unbind(1), strict=True)]
        made = torch.stack(decoded, 1) if self.config.area_specific else decoded[0]
        varying = made @ splines
        return response + varying, varying, posterior

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent of each window; 0 for a population that its session lacks."""
        head, size = self.head(batch.session), self.token_bins
        counts = self.inputs(batch)[:, batch.history :]
        count = -(-counts.shape[1] // size)
        counts = functional.pad(counts, (0, 0, 0, count * size - counts.shape[1]))
        counts = counts.unflatten(1, (count, size)).sum(2)
        if self.config.area_specific:
            sizes, order = head.sizes, head.order
            parts = zip(counts[..., order].split(sizes, -1), head.embed[order].split(sizes), strict=True)
            tokens = torch.stack([part @ embed for part, embed in parts], 1) + head.embed_bias[:, None]
        else:
            tokens = (counts @ head.embed + head.embed_bias)[:, None]
        known = None
        if batch.ragged:
            known = torch.arange(count, device=counts.device) * size < (batch.bins - batch.history)[:, None]
        half = self.training and self.config.precision == "bfloat16"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=half):
            mean, log_variance = (each.to(tokens.dtype) for each in self.posterior(tokens, known))
        if self.config.area_specific:
            mean, log_variance = mean * head.present[:, None], log_variance * head.present[:, None]
        return mean, log_variance

    def coupling_factors(self, session: str, inputs: Tensor, history: int) -> Tensor:
        """What each pair of populations passes on [B, T, P]; P as in `Session.sending`."""
        head = self.head(session)
        if self.config.compat:
            return self._cut_coupling(head, inputs, history)
        # Projected first: P series are filtered, not N.
        return filter_series(inputs @ head.sending(), self.coupling_kernels(head).flatten(1), history)

    def coupling_kernels(self, head: Session) -> Tensor:
        """Filters [lags, A, A, K] of (sender, receiver, factor); 0 of pairs that are not coupled."""
        return torch.einsum("lb,ijbk->lijk", self.coupling_basis, head.shape) * head.coupled[:, :, None]

    def history_kernels(self, head: Session) -> Tensor:
        """Filters [lags, N] of the units' own past."""
        return self.history_basis @ head.history

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compile the encoder: the rest is a few products."""
        if self.config.background == "full":
            self.posterior.encoder.compile(*args, **kwargs)

    def _own_past(self, head: Session, inputs: Tensor, history: int) -> Tensor:
        result = filter_units(inputs, self.history_kernels(head), history)
        return cut(result) if self.config.compat else result

    def _offset(self, batch: Batch, inputs: Tensor) -> Tensor:
        """What is constant in a trial: the bias [N], or with a gain of the trial [B, 1, N]."""
        head = self.head(batch.session)
        if self.config.compat and "trials" in self.terms:
            return 2 * head.bias
        if "trials" in self.terms and head.gain is not None:
            activity = head.activity(inputs[:, batch.history :], batch.visible[:, batch.history :])
            return head.bias + (activity * head.gain)[:, None]
        return head.bias

    def _cut_coupling(self, head: Session, inputs: Tensor, history: int) -> Tensor:
        """As published: every unit's counts are filtered, cut, and then summed."""
        kernels = self.coupling_kernels(head)
        columns = []
        for receiver in range(len(self.areas)):
            for factor in range(self.config.rank):
                filtered = cut(filter_units(inputs, kernels[:, head.area, receiver, factor], history))
                weights = head.member * head.send[:, receiver, factor, None]
                columns.append(filtered @ weights)
        return torch.stack(columns, 3).unflatten(3, (len(self.areas), -1)).flatten(2)


def available_terms(config: Config) -> frozenset[str]:
    """The terms of a finished fit."""
    wanted = {
        "trials": config.background != "invariant",
        "coupling": config.coupling != "none",
        "history": config.history != "none",
    }
    return frozenset(term for term, there in wanted.items() if there)


def weight_group(name: str) -> str:
    """What a weight is for: "encoder", "decoder", "response", "readout", "coupling" or "history"."""
    first, last = name.split(".")[0], name.split(".")[-1]
    if first == "decoders":
        return "decoder"
    if first in ENCODER or last in ENCODER:
        return "encoder"
    return GROUP_OF.get(last, last)


def cut(values: Tensor) -> Tensor:
    """0 where `values` are close to it."""
    return values.masked_fill(values.abs() < CUT, 0)
