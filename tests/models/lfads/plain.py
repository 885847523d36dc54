"""LFADS' recurrent parts written the slow way, bin by bin, from the equations: what the kernels are held against."""

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pipeline_lib.models.lfads.controlled import Weights
from pipeline_lib.models.lfads.network import LFADS
from pipeline_lib.models.lfads.sequence import GRU


def cell(p: Tensor, v: Tensor, h: Tensor, recurrent: Tensor) -> Tensor:
    """One bin of the GRU that resets before the matrix; gates in the order z, r, n."""
    hidden = h.shape[1]
    gates = torch.sigmoid(p[:, : 2 * hidden] + torch.cat([v, h], 1) @ recurrent[:, : 2 * hidden])
    z, r = gates.chunk(2, 1)
    n = torch.tanh(p[:, 2 * hidden :] + torch.cat([v, r * h], 1) @ recurrent[:, 2 * hidden :])
    return z * h + (1 - z) * n


def walk(
    x: Tensor | None,
    bins: int,
    start: Tensor,
    absent: Tensor | None,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """A GRU over windows; arguments and results as of `GRU.forward`."""
    everything, last = [], []
    for direction, h in enumerate(start):
        states = []
        for step in range(bins):
            t = step if direction == 0 else bins - 1 - step
            p = bias[direction].expand(len(h), -1)
            if x is not None:
                p = p + x[t] @ weight[direction]
            after = cell(p, h[:, :0], h, recurrent[direction])
            h = after if absent is None else torch.where(absent[t][:, None], h, after)
            states.append(h)
        everything.append(torch.stack(states))
        last.append(h)
    return torch.stack(everything), torch.stack(last)


def decode(
    codes: Tensor,
    external: Tensor | None,
    noise: Tensor | None,
    c: Tensor,
    g: Tensor,
    kept_factors: Tensor | None,
    kept_states: Tensor | None,
    weights: Weights,
) -> tuple[Tensor, ...]:
    """Controller and generator; arguments and results as of `controlled.decode`."""
    f = g @ weights.factors.t()
    made = []
    for t in range(len(codes)):
        heard = f if kept_factors is None else f * kept_factors[t]
        c = cell(codes[t] @ weights.codes + weights.controller_bias, heard, c, weights.controller)
        mean, log_variance = (c @ weights.inputs + weights.inputs_bias).chunk(2, 1)
        u = mean if noise is None else mean + torch.exp(log_variance / 2) * noise[t]
        p = weights.generator_bias.expand(len(g), -1)
        if external is not None:
            p = p + external[t] @ weights.external
        g = cell(p, u, g, weights.generator)
        f = (g if kept_states is None else g * kept_states[t]) @ weights.factors.t()
        made.append((f, mean, log_variance, u))
    return tuple(torch.stack(each) for each in zip(*made, strict=True))


class PlainLFADS:
    """A training step of LFADS for one session of which all is observed, on the weights of a `Network`.

    The same equations and dropouts, bin by bin: the loss differs from the network's by the random numbers alone.
    """

    def __init__(self, network: LFADS) -> None:
        self.network = network

    def loss(self, counts: Tensor) -> Tensor:
        """Of counts [B, T, N]: all terms at their full weights, nats a window."""
        network, config = self.network, self.network.config
        windows, bins, _ = counts.shape
        y = counts.transpose(0, 1).float()
        keep = torch.rand_like(y) >= config.coordinated_dropout
        x = y * keep / (1 - config.coordinated_dropout)
        drop = torch.nn.Dropout(config.dropout)

        def encoded(encoder: GRU, start: Tensor) -> tuple[Tensor, Tensor]:
            begin = start[:, None].expand(-1, windows, -1)
            return walk(x, bins, begin, None, encoder.input, encoder.recurrent, encoder.bias)

        _, last = encoded(network.initial_encoder, network.initial_encoder_start)
        mean, log_variance = network.posterior(drop(torch.cat(list(last), 1))).chunk(2, 1)
        posterior = Normal(mean, (log_variance.exp() + 1e-4).sqrt())
        prior = Normal(network.prior_mean, config.prior_variance**0.5)
        total = config.kl_initial * kl_divergence(posterior, prior).sum()
        g = network.to_generator(posterior.rsample())
        to_factors = network.to_factors / network.to_factors.norm(dim=1, keepdim=True)
        if config.inferred_inputs:
            states, _ = encoded(network.input_encoder, network.input_encoder_start)
            nothing = torch.zeros_like(states[0, :1])
            codes = torch.cat([torch.cat([nothing, states[0, :-1]]), torch.cat([states[1].flip(0)[1:], nothing])], -1)
            factors, divergence = self._controlled(drop(codes), g, to_factors)
            total = total + config.kl_inputs * divergence
        else:
            start = g[None]
            weights = network.generator.input, network.generator.recurrent, network.generator.bias
            states, _ = walk(None, bins, start, None, *weights)
            factors = drop(states[0]) @ to_factors.t()
        logs = network.head("s").read_out(factors)
        nll = logs.exp() - y * logs + torch.lgamma(y + 1)
        total = total + (nll * ~keep).sum() / config.coordinated_dropout
        return total / windows + network._penalty()

    def _controlled(self, codes: Tensor, g: Tensor, to_factors: Tensor) -> tuple[Tensor, Tensor]:
        network, config = self.network, self.network.config
        heard, inferred = codes.shape[2], config.inferred_inputs
        c = network.controller_start.expand(len(g), -1)
        drop = torch.nn.Dropout(config.dropout)
        f = g @ to_factors.t()
        factors, means, deviations, samples = [], [], [], []
        into_c, into_g = network.controller.input[0], network.generator.input[0]
        for t in range(len(codes)):
            p = codes[t] @ into_c[:heard] + drop(f) @ into_c[heard:] + network.controller.bias[0]
            c = cell(p, c[:, :0], c, network.controller.recurrent[0])
            mean, log_variance = network.to_inputs(c).chunk(2, 1)
            posterior = Normal(mean, (log_variance / 2).exp())
            u = posterior.rsample()
            g = cell(u @ into_g[:inferred] + network.generator.bias[0], g[:, :0], g, network.generator.recurrent[0])
            f = drop(g) @ to_factors.t()
            for kept, each in zip((factors, means, deviations, samples), (f, mean, posterior.scale, u), strict=True):
                kept.append(each)
        decay = torch.exp(-torch.exp(-network.prior_log_time_constant))
        noise = network.prior_log_noise.exp()
        divergence = g.new_zeros(())
        for t, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            prior = Normal(decay * samples[t - 1], noise.sqrt()) if t else Normal(0.0, (noise / (1 - decay**2)).sqrt())
            divergence = divergence + kl_divergence(Normal(mean, deviation), prior).sum()
        return torch.stack(factors), divergence
