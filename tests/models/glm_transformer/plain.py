"""The GLM-Transformer written out term by term from its description, with the tensor names of the public code.

Slow and literal: counts are (bin, unit, trial), every unit is filtered before anything is summed, loops run over
populations and pairs. `over_trials` (with `cut` and `bias_twice`) computes what the public code computes.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor, nn


class PlainGLMTransformer(nn.Module):
    def __init__(
        self,
        units: dict[str, list[int]],
        bins: int = 60,
        history: int = 12,
        splines: int = 6,
        factors: int = 2,
        latents: int = 6,
        decoder: int = 2,
        width: int = 16,
        hidden: int = 32,
        layers: int = 2,
        rank: int = 1,
        coupling: tuple[float, int] = (5, 3),
        past: tuple[float, int, float] = (1.5, 2, 1.0),
        token: int = 10,
        area_specific: bool = True,
        public: bool = True,
    ) -> None:
        super().__init__()
        areas = len(next(iter(units.values())))
        self.units, self.areas, self.token, self.area_specific, self.public = units, areas, token, area_specific, public
        self.bins, self.padding, self.latents, self.factors = bins, history, latents, factors
        self.splines = bsplines(bins, splines)
        self.coupling_basis = cosines(coupling[1], coupling[0], 0.5)
        self.history_basis = cosines(past[1], past[0], past[2])
        self.sti_inhomo = nn.Parameter(0.1 * torch.randn(areas, factors, splines + 1))
        keys = {f"{s}_{a}": n for s, ns in units.items() for a, n in enumerate(ns)}
        if not area_specific:
            keys = {s: sum(ns) for s, ns in units.items()}
        self.token_converter_dict = nn.ModuleDict({key: nn.Linear(n, width) for key, n in keys.items()})
        layer = nn.TransformerEncoderLayer(width, 1, hidden, 0.0, "gelu", batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        own = latents // areas if area_specific else latents
        self.to_latent = nn.Linear(width, 2 * own)
        if area_specific:
            made = [self._decoder(own, decoder, factors * (splines + 1)) for _ in range(areas)]
            self.sti_decoder = nn.Module()
            self.sti_decoder.naive_sti_decoder = nn.ModuleList(made)
        else:
            self.sti_decoder = nn.Linear(latents, areas * factors * (splines + 1))
        self.sti_readout_matrix_dict = nn.ModuleDict(
            {s: nn.ModuleList(nn.Linear(factors, n) for n in ns) for s, ns in units.items()}
        )
        self.positional_encoding = nn.Module()
        self.positional_encoding.register_buffer("pe", positions(500, width)[:, None])

        def each_pair(make):
            return nn.ModuleDict(
                {
                    s: nn.ModuleList(nn.ParameterList(make(ns[i], ns[j]) for j in range(areas)) for i in range(areas))
                    for s, ns in units.items()
                }
            )

        self.cp_beta_coupling_dict = each_pair(lambda i, j: torch.randn(coupling[1], rank))
        self.cp_weight_sending_dict = each_pair(lambda i, j: 0.3 * torch.randn(i, rank))
        self.cp_weight_receiving_dict = each_pair(lambda i, j: 0.3 * torch.randn(j, rank))
        self.beta_self_history_dict = nn.ParameterDict({s: -torch.rand(past[1], sum(ns)) for s, ns in units.items()})

    def _decoder(self, own: int, decoder: int, outputs: int) -> nn.Module:
        if decoder == 0:
            return nn.Sequential(nn.Linear(own, outputs))
        return nn.Sequential(nn.Linear(own, decoder * own), nn.ReLU(), nn.Linear(decoder * own, outputs))

    def slices(self, session: str) -> list[slice]:
        return [slice(a, b) for a, b in pairwise(np.cumsum([0, *self.units[session]]))]

    def filtered(self, y: Tensor, kernel: Tensor) -> Tensor:
        """sum_tau kernel[tau, unit] y[t - 1 - tau] of counts (bin, unit, trial)."""
        out = torch.zeros(self.bins, *y.shape[1:], dtype=kernel.dtype)
        for t in range(self.bins):
            for tau in range(len(kernel)):
                if self.padding + t - 1 - tau >= 0:
                    out[t] = out[t] + kernel[tau][:, None] * y[self.padding + t - 1 - tau]
        return torch.where(out.abs() < 1e-5, 0.0, out) if self.public else out

    def posterior(self, y: Tensor, session: str) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (trial, latent)."""
        counts = y[self.padding :]
        tokens = counts.reshape(-1, self.token, *counts.shape[1:]).sum(1)
        means, log_variances = [], []
        parts = self.slices(session) if self.area_specific else [slice(None)]
        for area, part in enumerate(parts):
            key = f"{session}_{area}" if self.area_specific else session
            x = self.token_converter_dict[key](tokens[:, part].transpose(1, 2))  # token, trial, width
            x = x + self.positional_encoding.pe[: len(x)]
            x = (
                self.transformer_encoder(x)
                if self.public
                else self.transformer_encoder(x.transpose(0, 1)).transpose(0, 1)
            )
            mean, log_variance = self.to_latent(x.mean(0)).chunk(2, 1)
            means.append(mean)
            log_variances.append(log_variance)
        return torch.cat(means, 1), torch.cat(log_variances, 1)

    def trial_factors(self, latent: Tensor) -> Tensor:
        """Factors (trial, area, factor, bin) of latents (trial, latent)."""
        if self.area_specific:
            parts = zip(latent.chunk(self.areas, 1), self.sti_decoder.naive_sti_decoder, strict=True)
            weights = torch.stack([decoder(part) for part, decoder in parts], 1)
        else:
            weights = self.sti_decoder(latent)
        weights = weights.reshape(len(latent), self.areas, self.factors, -1)
        return weights @ self.splines.to(weights.dtype).T

    def parts(self, y: Tensor, session: str) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, Tensor]]:
        """Parts of the log-rate (bin, unit, trial), the trial's factors, and the posterior."""
        posterior = self.posterior(y, session)
        varying = self.trial_factors(posterior[0])
        fixed = self.sti_inhomo @ self.splines.to(varying.dtype).T
        background = torch.zeros(self.bins, *y.shape[1:], dtype=varying.dtype)
        coupling = torch.zeros_like(background)
        areas = self.slices(session)
        for a, part in enumerate(areas):
            readout = self.sti_readout_matrix_dict[session][a]
            both = varying[:, a] + fixed[a]  # trial, factor, bin
            background[:, part] = (both.transpose(1, 2) @ readout.weight.T).permute(1, 2, 0)
            background[:, part] += (2 if self.public else 1) * readout.bias[:, None]
        for i, sender in enumerate(areas):
            for j, receiver in enumerate(areas):
                kernel = self.coupling_basis.to(varying.dtype) @ self.cp_beta_coupling_dict[session][i][j]
                for k in range(kernel.shape[1]):
                    each = self.filtered(y[:, sender], kernel[:, k, None].expand(-1, self.units[session][i]))
                    factor = torch.einsum("n,tnm->tm", self.cp_weight_sending_dict[session][i][j][:, k], each)
                    weights = self.cp_weight_receiving_dict[session][i][j][:, k]
                    coupling[:, receiver] = coupling[:, receiver] + weights[:, None] * factor[:, None]
        past = self.filtered(y, self.history_basis.to(varying.dtype) @ self.beta_self_history_dict[session])
        return {"background": background, "coupling": coupling, "history": past}, varying, posterior

    def log_rates(self, y: Tensor, session: str) -> Tensor:
        return sum(self.parts(y, session)[0].values())

    def losses(self, y: Tensor, session: str, smoothness: float, sparsity: float, kl: float) -> dict[str, Tensor]:
        parts, varying, (mean, log_variance) = self.parts(y, session)
        log_rate, counts = sum(parts.values()), y[self.padding :]
        divergence = (-(1 + log_variance - mean**2 - log_variance.exp()) / 2).mean(0).sum()
        norms = torch.zeros((), dtype=log_rate.dtype)
        for i in range(self.areas):
            for j in range(self.areas):
                norms = norms + self.cp_weight_sending_dict[session][i][j].norm(dim=1).mean()
                norms = norms + self.cp_weight_receiving_dict[session][i][j].norm(dim=1).mean()
        second = varying[..., 2:] - 2 * varying[..., 1:-1] + varying[..., :-2]
        return {
            "nll": (log_rate.exp() - counts * log_rate).mean(),
            "kl": kl * divergence / (self.bins * counts.shape[1]),
            "smoothness": smoothness * (second**2).mean(),
            "sparsity": sparsity * norms,
        }


def cosines(number: int, peak: float, stretch: float) -> Tensor:
    """Raised cosines (lag, function), as the description gives them."""
    shift = stretch * peak
    low, high = math.log(shift + 1e-10), math.log(peak + shift + 1e-10)
    step = (high - low) / (number - 1)
    lags = int(math.exp(high + 2 * step) - 1e-10 - shift)
    table = torch.zeros(lags, number, dtype=torch.float64)
    for x in range(lags):
        for f in range(number):
            angle = (math.log(x + shift + 1e-10) - (low + f * step)) * math.pi / (2 * step)
            table[x, f] = (1 + math.cos(min(max(angle, -math.pi), math.pi))) / 2
    return table


def bsplines(bins: int, number: int) -> Tensor:
    """A one and quadratic B-splines (bin, function), each divided by its maximum; by scipy."""
    knots = np.concatenate([[0, 0], np.linspace(0, bins, number - 1), [bins, bins]])
    x = np.linspace(0, bins, bins)
    values = np.stack([BSpline(knots, row, 2)(x) for row in np.eye(number)], 1)
    values = np.concatenate([np.ones((bins, 1)), values], 1)
    return torch.as_tensor(values / values.max(0))


def positions(count: int, width: int) -> Tensor:
    table = torch.zeros(count, width)
    for position in range(count):
        for pair in range(0, width, 2):
            angle = position / 1000 ** (pair / width)
            table[position, pair], table[position, pair + 1] = math.sin(angle), math.cos(angle)
    return table
