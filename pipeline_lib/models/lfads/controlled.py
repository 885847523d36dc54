"""Controller and generator of LFADS over whole windows, as one operation with a hand-written gradient.

In bin t, with the factors of the bin before, ::

    c_t = GRU([codes_t, dropout(f_{t-1})], c_{t-1})
    (m_t, v_t) = c_t W_u + b_u,   u_t = m_t + exp(v_t / 2) noise_t
    g_t = GRU([u_t, external_t], g_{t-1}),   f_t = dropout(g_t) W_f^T

Time comes first: T bins, B windows, C codes, E external inputs, U inferred inputs, F factors, K controller units,
G generator units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline_lib.models.lfads.cell import Parts, Slopes, backward, blocks, forward
from pipeline_lib.models.lfads.products import product
from pipeline_lib.models.lfads.sequence import accumulate, project


class Decoded(NamedTuple):
    """Factors [T, B, F]; means, log-variances and the sample of the inferred inputs, each [T, B, U]."""

    factors: Tensor
    mean: Tensor
    log_variance: Tensor
    sample: Tensor


class Weights(NamedTuple):
    """Of both networks: `codes` [C, 3 K], `controller` [F + K, 3 K], `controller_bias` [3 K]; `inputs` [K, 2 U] and
    `inputs_bias` [2 U]; `external` [E, 3 G], `generator` [U + G, 3 G], `generator_bias` [3 G]; `factors` [F, G]."""

    codes: Tensor
    controller: Tensor
    controller_bias: Tensor
    inputs: Tensor
    inputs_bias: Tensor
    external: Tensor
    generator: Tensor
    generator_bias: Tensor
    factors: Tensor


def decode(
    codes: Tensor,
    external: Tensor | None,
    noise: Tensor | None,
    controller_start: Tensor,
    generator_start: Tensor,
    kept_factors: Tensor | None,
    kept_states: Tensor | None,
    weights: Weights,
    half: bool = False,
) -> Decoded:
    """Run controller and generator.

    Parameters
    ----------
    codes : [T, B, C], what the input encoder tells the controller.
    external : [T, B, E] or None.
    noise : standard normal [T, B, U]; None: the inferred inputs are their means.
    controller_start, generator_start : states before the first bin, [B, K] and [B, G].
    kept_factors, kept_states : factors that dropout multiplies the controller's factors [T, B, F] and the generator's
        output [T, B, G] by; None: no dropout.
    weights : of both networks.
    half : products with codes and external inputs, and gradients of weights, in bfloat16.
    """
    return Decoded(
        *_Decode.apply(
            codes, external, noise, controller_start, generator_start, kept_factors, kept_states, half, *weights
        )
    )


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        external: Tensor | None,
        noise: Tensor | None,
        controller_start: Tensor,
        generator_start: Tensor,
        kept_factors: Tensor | None,
        kept_states: Tensor | None,
        half: bool,
        *given: Tensor,
    ) -> tuple[Tensor, ...]:
        weights = Weights(*given)
        bins, windows, _ = codes.shape
        new, inputs = controller_start.new_empty, weights.inputs.shape[1] // 2
        factors, controlled, generated = len(weights.factors), controller_start.shape[1], generator_start.shape[1]
        # What goes into the cells: [f, c] before bin t, and [u, g]. The last row of each only has a state.
        fc = new(bins + 1, 1, windows, factors + controlled)
        ug = new(bins + 1, 1, windows, inputs + generated)
        fc[0, 0, :, factors:], ug[0, 0, :, inputs:] = controller_start, generator_start
        frc, urg = torch.empty_like(fc[0]), torch.empty_like(ug[0])
        c_zr, c_n = new(bins, 1, windows, 2 * controlled), new(bins, 1, windows, controlled)
        g_zr, g_n = new(bins, 1, windows, 2 * generated), new(bins, 1, windows, generated)
        posterior, read = new(bins, windows, 2 * inputs), new(bins, windows, factors)
        sample = new(bins, windows, inputs)
        spread = None if noise is None else torch.empty_like(noise)
        controller, generator = (Parts.of(each[None]).prepared() for each in (weights.controller, weights.generator))
        known = (
            (
                codes,
                Parts.of(weights.codes).prepared(),
                Parts.of(weights.controller_bias).prepared(),
                Parts(c_zr[:, 0], c_n[:, 0]),
            ),
            (
                external,
                Parts.of(weights.external).prepared(),
                Parts.of(weights.generator_bias).prepared(),
                Parts(g_zr[:, 0], g_n[:, 0]),
            ),
        )
        to_factors = weights.factors.t().contiguous()
        last = generator_start @ to_factors
        width = 3 * (controlled + generated)
        for first, stop in blocks(bins, width * windows, codes.device):
            for x, weight, bias, target in known:
                shown = None if x is None else x[first:stop]
                project(shown, weight, bias, Parts(*(part[first:stop] for part in target)), half)
            for t in range(first, stop):
                entering = fc[t, :, :, :factors]
                entering.copy_(last) if kept_factors is None else torch.mul(last, kept_factors[t], out=entering[0])
                frc[..., :factors] = entering
                forward(c_zr[t], c_n[t], fc[t], frc, controller, fc[t + 1, :, :, factors:])
                torch.addmm(weights.inputs_bias, fc[t + 1, 0, :, factors:], weights.inputs, out=posterior[t])
                drawn = sample[t]
                drawn.copy_(posterior[t, :, :inputs])
                if noise is not None and spread is not None:
                    torch.exp(0.5 * posterior[t, :, inputs:], out=spread[t]).mul_(noise[t])
                    drawn += spread[t]
                ug[t, 0, :, :inputs] = urg[0, :, :inputs] = drawn
                forward(g_zr[t], g_n[t], ug[t], urg, generator, ug[t + 1, :, :, inputs:])
                output = ug[t + 1, 0, :, inputs:]
                last = torch.mm(output if kept_states is None else output * kept_states[t], to_factors, out=read[t])
        ctx.save_for_backward(
            codes, external, spread, kept_factors, kept_states, fc, ug, c_zr, c_n, g_zr, g_n, *weights
        )
        ctx.half = half
        ctx.set_materialize_grads(False)
        return read, posterior[..., :inputs], posterior[..., inputs:], sample

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        codes, external, spread, kept_factors, kept_states, fc, ug, c_zr, c_n, g_zr, g_n, *given = ctx.saved_tensors
        weights, half = Weights(*given), ctx.half
        bins, windows, _ = codes.shape
        factors, inputs = len(weights.factors), weights.inputs.shape[1] // 2
        controlled, generated = c_n.shape[3], g_n.shape[3]
        new = fc.new_empty
        controller, generator = (Parts.of(each[None]).transposed() for each in (weights.controller, weights.generator))
        to_inputs = weights.inputs.t().contiguous()
        d_codes = torch.zeros_like(codes) if ctx.needs_input_grad[0] else None
        grads = Weights(*(torch.zeros_like(weight) for weight in weights))
        d_c, d_g = fc.new_zeros(1, windows, controlled), fc.new_zeros(1, windows, generated)
        d_next = fc.new_zeros(windows, factors)
        for first, stop in reversed(list(blocks(bins, 3 * (controlled + generated) * windows, codes.device))):
            count = stop - first
            c_before, g_before = fc[first:stop, :, :, factors:], ug[first:stop, :, :, inputs:]
            c_slopes = Slopes.of(c_before, c_zr[first:stop], c_n[first:stop])
            g_slopes = Slopes.of(g_before, g_zr[first:stop], g_n[first:stop])
            dc_zr, dc_n = new(count, 1, windows, 2 * controlled), new(count, 1, windows, controlled)
            dg_zr, dg_n = new(count, 1, windows, 2 * generated), new(count, 1, windows, generated)
            d_read, d_posterior = new(count, windows, factors), new(count, windows, 2 * inputs)
            for t in reversed(range(first, stop)):
                at = t - first
                d_f = d_read[at]
                d_f.copy_(d_next)
                if outer[0] is not None:
                    d_f += outer[0][t]
                d_output = d_f @ weights.factors
                d_g[0].add_(d_output) if kept_states is None else d_g[0].addcmul_(d_output, kept_states[t])
                slopes = Slopes(*(slope[at] for slope in g_slopes))
                d_g, d_u = backward(d_g, slopes, g_zr[t], generator, dg_zr[at], dg_n[at])
                assert d_u is not None
                d_sample = d_u[0] if outer[3] is None else d_u[0] + outer[3][t]
                d_mean, d_log = d_posterior[at, :, :inputs], d_posterior[at, :, inputs:]
                d_mean.copy_(d_sample) if outer[1] is None else torch.add(d_sample, outer[1][t], out=d_mean)
                d_log.zero_() if outer[2] is None else d_log.copy_(outer[2][t])
                if spread is not None:
                    d_log.addcmul_(d_sample, spread[t], value=0.5)
                d_c[0].addmm_(d_posterior[at], to_inputs)
                slopes = Slopes(*(slope[at] for slope in c_slopes))
                d_c, d_f = backward(d_c, slopes, c_zr[t], controller, dc_zr[at], dc_n[at])
                assert d_f is not None
                d_next = d_f[0] if kept_factors is None else d_f[0] * kept_factors[t]
            block = slice(first, stop)
            d_shown = accumulate(
                Parts(dc_zr.flatten(0, 2), dc_n.flatten(0, 2)),
                multiplied(fc[block, 0], c_zr[block, 0], factors),
                codes[block],
                Parts.of(grads.controller),
                Parts.of(grads.codes),
                grads.controller_bias,
                half,
                None if d_codes is None else weights.codes,
            )
            accumulate(
                Parts(dg_zr.flatten(0, 2), dg_n.flatten(0, 2)),
                multiplied(ug[block, 0], g_zr[block, 0], inputs),
                None if external is None else external[block],
                Parts.of(grads.generator),
                Parts.of(grads.external),
                grads.generator_bias,
                half,
                None,
            )
            if d_codes is not None and d_shown is not None:
                d_codes[block] = d_shown.view(count, windows, -1)
            d_posterior = d_posterior.flatten(0, 1)
            c_after = fc[first + 1 : stop + 1, 0, :, factors:].flatten(0, 1)
            grads.inputs.add_(product(c_after.t(), d_posterior, half))
            grads.inputs_bias.add_(d_posterior.sum(0))
            output = ug[first + 1 : stop + 1, 0, :, inputs:]
            output = output if kept_states is None else output * kept_states[first:stop]
            grads.factors.add_(product(d_read.flatten(0, 1).t(), output.flatten(0, 1), half))
        # The first bin saw the factors of the initial state.
        grads.factors.addmm_(d_next.t(), ug[0, 0, :, inputs:])
        d_g[0].addmm_(d_next, weights.factors)
        return d_codes, None, None, d_c[0], d_g[0], None, None, None, *grads


def multiplied(vh: Tensor, zr: Tensor, entering: int) -> Parts:
    """What the recurrent weights are multiplied with: [v, h] and [v, r h], given `entering` numbers v."""
    hidden = vh.shape[-1] - entering
    return Parts(vh, torch.cat([vh[..., :entering], vh[..., entering:] * zr[..., hidden:]], -1))
