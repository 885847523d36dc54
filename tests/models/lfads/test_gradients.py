"""The loss of LFADS and its gradients against plain loops that torch differentiates, over options drawn at random."""

import random
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, Poisson, kl_divergence

from pipeline_lib.models.lfads import cell, network
from pipeline_lib.models.lfads.controlled import Weights
from pipeline_lib.models.lfads.network import LEAST_VARIANCE, LFADS, SIGNALS
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from pipeline_lib.training.schedule import ramp
from tests.models.lfads import plain

STEP = 3
OPTIONS: dict[str, list[Any]] = {
    "initial_encoder": [1, 4],
    "initial_conditions": [1, 3],
    "initial_segment": [0.0, 0.0, 0.04, 1.0],
    "inferred_inputs": [0, 1, 2],
    "input_encoder": [1, 3],
    "input_lag": [0, 1, 2, 5],
    "controller": [1, 4],
    "generator": [1, 5],
    "factors": [1, 3],
    "signals": [(), ("a",), ("a", "b")],
    "read_in": [None, 2],
    "observation": ["poisson", "poisson", "gaussian"],
    "dropout": [0.0, 0.3],
    "input_dropout": [0.0, 0.2],
    "coordinated_dropout": [0.0, 0.4],
    "pass_rate": [0.0, 0.3, 1.0],
    "sample_validation": [0.0, 0.2],
    "kl_initial": [0.0, 2.5],
    "kl_inputs": [0.0, 1.0],
    "kl_ramp": [(0, 0), (0, 5)],
    "l2_ramp": [(0, 0), (2, 5)],
    "l2_generator": [0.0, 3.0],
    "l2_controller": [0.0, 3.0],
    "l2_encoders": [0.0, 2.0],
}
conceal = network.conceal


@pytest.fixture(autouse=True)
def precise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64, in what the encoders are shown, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)

    def exactly(*given: Any) -> Any:
        *first, _, sparse = given
        return conceal(*first, torch.float64, sparse)

    monkeypatch.setattr(network, "conceal", lambda *given: exactly(*given) if len(given) == 9 else conceal(*given))
    yield
    torch.set_default_dtype(before)


def made_up(choose: random.Random) -> tuple[LFADS, Batch]:
    """A network with some options, and windows of any length, history, gaps, held-out units and bins to forecast."""
    config = Config(**{name: choose.choice(values) for name, values in OPTIONS.items()})
    length, windows, units = choose.choice([1, 2, 5, 9]), choose.choice([1, 2, 4]), choose.choice([1, 3, 6])
    history = choose.choice([0, 1]) if length > 2 else 0
    forward = choose.choice([0, 1]) if length > 2 else 0
    heldin = sorted(choose.sample(range(units), max(units - choose.choice([0, 1]), 1)))
    model = LFADS(config, Layout(20.0, length, history, forward, 3, {"s": units}, {"s": heldin}, {"s": ["A"] * units}))
    model.double().train()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
        model.head("s").mean.copy_(torch.rand(units) + 0.1)
    bins = torch.full((windows,), length)
    ragged = choose.choice([True, False])
    if ragged:
        bins[1:] = torch.randint(history + forward + 1, length + 1, (windows - 1,))
    bin = torch.arange(length)
    observed = (torch.rand(windows, length, units) < choose.choice([0.8, 2.0])) & (bin < bins[:, None])[..., None]
    shown = torch.zeros(units, dtype=torch.bool).index_fill_(0, torch.tensor(heldin), True)
    visible = observed & shown & (bin < bins[:, None] - forward)[..., None]
    counts = (torch.poisson(torch.full(observed.shape, choose.choice([0.2, 1.5]))) * observed).to(torch.uint8)
    inputs = {}
    if config.signals:
        values = torch.randn(windows, length, len(config.signals))
        inputs[SIGNALS] = values.masked_fill(torch.rand_like(values) < 0.2, torch.nan)
    if config.sample_validation:
        inputs["sample_validation"] = (torch.rand(observed.shape) < 0.2) & shown
    return model, Batch("s", counts, observed, visible, bins, history, inputs, ragged)


def plain_loss(model: LFADS, batch: Batch) -> dict[str, Tensor]:
    """The terms of the loss, bin by bin; random numbers are drawn in the order in which the network does."""
    config, head, segment = model.config, model.head("s"), model.segment
    windows, length, _ = batch.counts.shape
    given = batch, config, head.inputs, head.mean, model.layout.forward, segment
    shown = conceal(*given, True, torch.float64, False)
    kl_ramp, l2_ramp = (ramp(STEP, *each) for each in (config.kl_ramp, config.l2_ramp))
    x = model.drop(shown.inputs if head.read_in is None else head.read_in(shown.inputs), config.input_dropout)
    absent = torch.zeros(length, windows, dtype=torch.bool) if shown.present is None else ~shown.present

    def encoded(encoder: Any, start: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        begin = start[:, None].expand(-1, windows, -1)
        weights = encoder.input, encoder.recurrent, encoder.bias
        return plain.walk(x[part], len(x[part]), begin, absent[part], *weights)

    _, last = encoded(model.initial_encoder, model.initial_encoder_start, slice(None, segment or None))
    mean, log_variance = model.posterior(model.drop(torch.cat(list(last), 1), config.dropout)).chunk(2, 1)
    posterior = Normal(mean, (log_variance.exp() + LEAST_VARIANCE).sqrt())
    codes = torch.zeros(length, windows, 2 * config.input_encoder)
    if config.inferred_inputs and segment < length:
        states, _ = encoded(model.input_encoder, model.input_encoder_start, slice(segment, None))
        for t in range(segment, length):
            for source, way in ((t - config.input_lag, 0), (t + config.input_lag, 1)):
                if segment <= source < length:
                    state = states[way, source - segment if way == 0 else length - 1 - source]
                    columns = slice(way * config.input_encoder, (way + 1) * config.input_encoder)
                    codes[t, :, columns] = state * ~(absent[source] | absent[t])[:, None]
    noise = torch.randn(windows, config.initial_conditions + length * config.inferred_inputs)
    g = model.to_generator(mean + posterior.scale * noise[:, : config.initial_conditions])
    external = None
    if config.signals:
        external = (batch.inputs[SIGNALS].transpose(0, 1) - head.signal_mean) / head.signal_sd
        external = external.where(external.isfinite(), 0.0)
    to_factors = model.to_factors / model.to_factors.norm(dim=1, keepdim=True)
    terms = {}
    if config.inferred_inputs:
        factors, terms["kl_inputs"] = _controlled(model, batch, codes, noise, g, external, to_factors)
        terms["kl_inputs"] = terms["kl_inputs"] * kl_ramp * config.kl_inputs / windows
    else:
        weights = model.generator.input, model.generator.recurrent, model.generator.bias
        factors = (
            model.drop(plain.walk(external, length, g[None], None, *weights)[0][0], config.dropout) @ to_factors.t()
        )
    read, counts = head.read_out(factors), batch.counts.transpose(0, 1).double()
    observation = Poisson(read.exp()) if head.log_variance is None else Normal(read, (head.log_variance / 2).exp())
    terms["nll"] = -(observation.log_prob(counts) * shown.scored * shown.worth).sum() / windows
    prior = Normal(model.prior_mean, config.prior_variance**0.5)
    terms["kl_initial"] = kl_ramp * config.kl_initial * kl_divergence(posterior, prior).sum() / windows
    return terms | {"l2": l2_ramp * model._penalty()}


def _controlled(
    model: LFADS, batch: Batch, codes: Tensor, noise: Tensor, g: Tensor, external: Tensor | None, to_factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors, and the divergence of the inferred inputs from their prior, nats."""
    config, (length, windows, heard) = model.config, codes.shape
    inferred = config.inferred_inputs
    kept = [None, None]
    if config.dropout:
        kept = [
            network.dropout_mask((length, windows, n), config.dropout, g) for n in (config.factors, config.generator)
        ]
    into_c, into_g = model.controller.input[0], model.generator.input[0]
    weights = Weights(
        codes=into_c[:heard],
        controller=torch.cat([into_c[heard:], model.controller.recurrent[0]]),
        controller_bias=model.controller.bias[0],
        inputs=model.to_inputs.weight.t(),
        inputs_bias=model.to_inputs.bias,
        external=into_g[inferred:],
        generator=torch.cat([into_g[:inferred], model.generator.recurrent[0]]),
        generator_bias=model.generator.bias[0],
        factors=to_factors,
    )
    drawn = noise[:, config.initial_conditions :].view(windows, length, inferred).transpose(0, 1)
    start = model.controller_start.expand(windows, -1)
    factors, mean, log_variance, sample = plain.decode(
        model.drop(codes, model.config.dropout), external, drawn, start, g, *kept, weights
    )
    decay, variance = torch.exp(-torch.exp(-model.prior_log_time_constant)), model.prior_log_noise.exp()
    total = torch.zeros(())
    for t in range(length):
        first = Normal(torch.zeros(inferred), (variance / (1 - decay**2)).sqrt())
        prior = Normal(decay * sample[t - 1], variance.sqrt()) if t else first
        divergence = kl_divergence(Normal(mean[t], (log_variance[t] / 2).exp()), prior)
        total = total + (divergence * (t < batch.bins)[:, None]).sum()
    return factors, total


@pytest.mark.parametrize("draw", range(60))
def test_the_loss_and_its_gradients_are_those_of_plain_loops(draw: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(draw)
    torch.manual_seed(draw)
    model, batch = made_up(choose)
    monkeypatch.setattr(cell, "BLOCK", choose.choice([1, 40, 10**6]))
    made = []
    for loss in (lambda: model.loss(model.prepare(batch, STEP)), lambda: plain_loss(model, batch)):
        torch.manual_seed(draw)
        terms = loss()
        total = torch.stack(list(terms.values())).sum()
        weights = list(model.parameters())
        made.append((terms, torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)))
    (ours, gradients), (theirs, others) = made
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-9, msg=name)  # ramps are in float32
    for (name, _), gradient, other in zip(model.named_parameters(), gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-8, msg=name)


def test_every_option_is_drawn() -> None:
    assert OPTIONS.keys() <= {field.name for field in fields(Config)}
    chosen = [made_up(random.Random(draw))[0].config for draw in range(60)]
    for name, values in OPTIONS.items():
        assert {getattr(config, name) for config in chosen} == set(values), name
