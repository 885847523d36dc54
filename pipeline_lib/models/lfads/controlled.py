"""Controller and generator of LFADS over whole windows, as one operation with a hand-written gradient.

In bin t, with the factors of the bin before, ::

    c_t = GRU([codes_t, dropout(f_{t-1})], c_{t-1})
    (m_t, v_t) = c_t W_u + b_u,   u_t = m_t + exp(v_t / 2) noise_t
    g_t = GRU([u_t, external_t], g_{t-1}),   f_t = dropout(g_t) W_f^T

Time comes first: T bins, B windows, C codes, E external inputs, U inferred inputs, F factors, K controller units,
G generator units. In the kernels members of an ensemble, where there are any, come before all of these: M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline_lib.models.lfads.cell import Gates, Parts, Room, backward, bins_of, blocks, forward, stacked, storage
from pipeline_lib.models.lfads.products import plus_product, product
from pipeline_lib.models.lfads.sequence import accumulate, project
from pipeline_lib.training.members import over_members


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
    given = codes, external, noise, controller_start, generator_start, kept_factors, kept_states, half, *weights
    return Decoded(*over_members(_Decode.apply, *given))


def each_bin(x: Tensor | None, bins: int) -> Sequence[Tensor | None]:
    """Views of the bins of `x` [M, T, B, ...]; None for each of them where there is no `x`."""
    return (None,) * bins if x is None else x.unbind(-3)


class Stored(NamedTuple):
    """What the gradient needs of a network: gates `zr` and candidates `n` of each bin, and what goes into its cell
    before and after the reset, `vh` and `vrh`, which have a bin more; of the last there is only the state in `vh`."""

    zr: Tensor
    n: Tensor
    vh: Tensor
    vrh: Tensor

    @classmethod
    def of(cls, start: Tensor, entering: int, bins: int, dtype: torch.dtype) -> Stored:
        """Room for a network that begins in the state `start` [M, B, H], and the numbers that enter."""
        *members, windows, hidden = start.shape
        sizes = (bins, 2 * hidden), (bins, hidden), (bins + 1, entering + hidden), (bins + 1, entering + hidden)
        stored = cls(*(start.new_empty(*members, length, windows, width, dtype=dtype) for length, width in sizes))
        stored.vh[..., 0, :, entering:] = start
        return stored


@dataclass(frozen=True)
class Cells:
    """What is stored of a network with one direction, bin by bin: views. In the place of directions are members."""

    gates: Sequence[Gates]
    vh: Sequence[Tensor]
    vrh: Sequence[Tensor]
    v: Sequence[Sequence[Tensor]]
    """The first columns of both."""
    h: Sequence[Tensor]
    """The others of `vh`: states before each bin, and after the last."""
    rh: Sequence[Tensor]
    """The others of `vrh`."""

    @classmethod
    def of(cls, stored: Stored, entering: int) -> Cells:
        """Given how many columns are what enters."""
        vh, vrh = stored.vh, stored.vrh
        v = [bins_of(each[..., :entering]) for each in (vh, vrh)]
        h, rh = (bins_of(each[..., entering:]) for each in (vh, vrh))
        return cls(Gates.bins(stored.zr, stored.n), bins_of(vh), bins_of(vrh), v, h, rh)

    def forward(self, t: int, entering: Tensor, state: Tensor, weights: Parts, room: Room) -> Tensor:
        """The state after bin t, given what enters [M, B, K] and the state before, as `cell.forward`."""
        for each in self.v:
            each[t].copy_(entering)
        return forward(self.gates[t], self.vh[t], self.vrh[t], self.rh[t], state, weights, room, self.h[t + 1])


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
        *members, bins, windows, _ = codes.shape
        dtype, new = storage(half, generator_start), generator_start.new_empty
        inputs, factors = weights.inputs.shape[-1] // 2, weights.factors.shape[-2]
        controlled = Stored.of(controller_start, factors, bins, dtype)
        generated = Stored.of(generator_start, inputs, bins, dtype)
        posterior, read, sample = (new(*members, bins, windows, width) for width in (2 * inputs, factors, inputs))
        spread = None if noise is None else torch.empty_like(noise)
        controller, generator = (
            Parts.of(stacked(each, 2)).prepared(dtype) for each in (weights.controller, weights.generator)
        )
        into_codes, into_external, c_bias, g_bias = (
            Parts.of(each).prepared(dtype)
            for each in (weights.codes, weights.external, weights.controller_bias, weights.generator_bias)
        )
        known = (codes, into_codes, c_bias, controlled), (external, into_external, g_bias, generated)
        c, g = stacked(controller_start, 2), stacked(generator_start, 2)
        c_room, g_room = Room.like(c), Room.like(g)
        to_factors = weights.factors.mT.contiguous()
        last = generator_start @ to_factors
        c_at, g_at = Cells.of(controlled, factors), Cells.of(generated, inputs)
        posterior_at, sample_at, read_at = (each.unbind(-3) for each in (posterior, sample, read))
        mean_at, log_at = (each.unbind(-3) for each in posterior.split(inputs, -1))
        noise_at, spread_at, factors_kept, states_kept = (
            each_bin(each, bins) for each in (noise, spread, kept_factors, kept_states)
        )
        width = 3 * (c.shape[-1] + g.shape[-1]) * windows * len(c)
        for first, stop in blocks(bins, 4 * width, codes.device):  # short: p is needed at once
            block = ..., slice(first, stop), slice(None), slice(None)
            for x, weight, bias, stored in known:
                shown = None if x is None else x[block]
                project(shown, weight, bias, Parts(stored.zr[block], stored.n[block]), half)
            for t in range(first, stop):
                kept = factors_kept[t]
                c = c_at.forward(t, last if kept is None else last * kept, c, controller, c_room)
                plus_product(weights.inputs_bias, c.view_as(controller_start), weights.inputs, out=posterior_at[t])
                drawn, spread_t, noise_t = sample_at[t], spread_at[t], noise_at[t]
                drawn.copy_(mean_at[t])
                if noise_t is not None and spread_t is not None:
                    drawn += torch.exp(0.5 * log_at[t], out=spread_t).mul_(noise_t)
                g = g_at.forward(t, drawn, g, generator, g_room)
                kept = states_kept[t]
                output = g.view_as(generator_start)
                last = torch.matmul(output if kept is None else output * kept, to_factors, out=read_at[t])
        outer = codes, external, spread, kept_factors, kept_states
        ctx.save_for_backward(*outer, *controlled, *generated, *weights)
        ctx.half = half
        ctx.set_materialize_grads(False)
        return read, posterior[..., :inputs], posterior[..., inputs:], sample

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        codes, external, spread, kept_factors, kept_states, *given = ctx.saved_tensors
        controlled, generated, weights = Stored(*given[:4]), Stored(*given[4:8]), Weights(*given[8:])
        half = ctx.half
        *members, bins, windows, _ = codes.shape
        factors, inputs = weights.factors.shape[-2], weights.inputs.shape[-1] // 2
        new = weights.factors.new_empty
        controller, generator = (
            Parts.of(stacked(each, 2)).transposed(controlled.n.dtype)
            for each in (weights.controller, weights.generator)
        )
        to_inputs = weights.inputs.mT.contiguous()
        d_codes = torch.empty_like(codes) if ctx.needs_input_grad[0] else None
        grads = Weights(*(torch.zeros_like(weight) for weight in weights))
        c_room, g_room = (
            Room.like(stacked(new(*members, windows, each.n.shape[-1]), 2), entering)
            for each, entering in ((controlled, factors), (generated, inputs))
        )
        d_f, d_c = c_room.d_vh.view(*members, windows, -1).tensor_split([factors], -1)
        d_u, d_g = g_room.d_vh.view(*members, windows, -1).tensor_split([inputs], -1)
        d_next = new(*members, windows, factors).zero_()
        c_at, g_at = Cells.of(controlled, factors), Cells.of(generated, inputs)
        drawn_at, spread_at, factors_kept, states_kept = (
            each_bin(each, bins) for each in (outer[3], spread, kept_factors, kept_states)
        )
        width = 3 * (c_room.h.shape[-1] + g_room.h.shape[-1]) * windows * len(c_room.h)
        for first, stop in reversed(list(blocks(bins, width, codes.device))):
            block, after = ((..., slice(first + k, stop + k), slice(None), slice(None)) for k in range(2))
            count = stop - first
            d_c_gates, d_g_gates = (
                Parts(torch.empty_like(each.zr[block]), torch.empty_like(each.n[block]))
                for each in (controlled, generated)
            )
            shape = *members, count, windows
            d_read = new(*shape, factors).zero_() if outer[0] is None else outer[0][block].clone()
            d_means = [new(*shape, inputs).zero_() if each is None else each[block] for each in outer[1:3]]
            d_posterior = torch.cat(d_means, -1)
            d_read_at, d_posterior_at = d_read.unbind(-3), d_posterior.unbind(-3)
            dc_at, dg_at = Gates.bins(*d_c_gates), Gates.bins(*d_g_gates)
            d_mean_at, d_log_at = (each.unbind(-3) for each in d_posterior.split(inputs, -1))
            for t in reversed(range(first, stop)):
                at, d_drawn, spread_t = t - first, drawn_at[t], spread_at[t]
                d_output = d_read_at[at].add_(d_next) @ weights.factors
                kept = states_kept[t]
                d_g.add_(d_output) if kept is None else d_g.addcmul_(d_output, kept)
                backward(g_at.h[t], g_at.gates[t], generator, g_room, dg_at[at])
                d_sample = d_u if d_drawn is None else d_u + d_drawn
                d_mean_at[at].add_(d_sample)
                if spread_t is not None:
                    d_log_at[at].addcmul_(d_sample, spread_t, value=0.5)
                plus_product(d_c, d_posterior_at[at], to_inputs, out=d_c)
                backward(c_at.h[t], c_at.gates[t], controller, c_room, dc_at[at])
                kept = factors_kept[t]
                d_next = d_f if kept is None else d_f * kept
            d_shown = accumulate(
                d_c_gates,
                Parts(controlled.vh[block], controlled.vrh[block]),
                codes[block],
                Parts.of(grads.controller),
                Parts.of(grads.codes),
                grads.controller_bias,
                half,
                None if d_codes is None else weights.codes,
            )
            accumulate(
                d_g_gates,
                Parts(generated.vh[block], generated.vrh[block]),
                None if external is None else external[block],
                Parts.of(grads.generator),
                Parts.of(grads.external),
                grads.generator_bias,
                half,
                None,
            )
            if d_codes is not None and d_shown is not None:
                d_codes[block] = d_shown.unflatten(-2, (count, windows))
            d_posterior = d_posterior.flatten(-3, -2)
            c_after = controlled.vh[after][..., factors:].flatten(-3, -2)
            grads.inputs.add_(product(c_after.mT, d_posterior, half))
            grads.inputs_bias.add_(d_posterior.sum(-2))
            output = generated.vh[after][..., inputs:]
            if kept_states is not None:
                output = output.to(kept_states.dtype) * kept_states[block]
            grads.factors.add_(product(d_read.flatten(-3, -2).mT, output.flatten(-3, -2), half))
        # The first bin saw the factors of the initial state.
        before = generated.vh[..., 0, :, inputs:].to(d_next.dtype)
        plus_product(grads.factors, d_next.mT, before, out=grads.factors)
        plus_product(d_g, d_next, weights.factors, out=d_g)
        return d_codes, None, None, d_c, d_g, None, None, None, *grads
