"""What belongs to a session: how it starts, and that it goes by the population of a unit, not by its place."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pipeline_lib.models.glm_transformer.model import GLMTransformerModel
from pipeline_lib.models.glm_transformer.network import GLMTransformer, weight_group
from pipeline_lib.models.glm_transformer.session import Session
from tests.models.glm_transformer.test_network import BINS, CONFIG, HISTORY, UNITS, layout, pair, windows


def made(units: list[int], **settings: object) -> Session:
    """A session of so many units in the first, second .. population, of three that there are."""
    torch.manual_seed(0)
    names = [name for name, count in zip("abc", units, strict=True) for _ in range(count)]
    return Session(names, ["a", "b", "c"], replace(CONFIG, **settings))


def test_units_may_stand_in_any_order() -> None:
    _, network = pair()
    order = torch.tensor([4, 0, 6, 3, 1, 7, 2, 5])
    names = layout().population["s"]
    mixed = [names[unit] for unit in order]
    torch.set_default_dtype(torch.float64)
    try:
        other = GLMTransformer(CONFIG, replace(layout(), population={"s": mixed})).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    state = network.state_dict()
    for name in ("embed", "readout", "bias", "send", "receive"):
        state[f"sessions.s.{name}"] = state[f"sessions.s.{name}"][order]
    state["sessions.s.history"] = state["sessions.s.history"][:, order]
    other.load_state_dict(state)
    batch = windows()
    parts = {name: getattr(batch, name)[:, :, order] for name in ("counts", "observed", "visible")}
    with torch.inference_mode():
        expected = network.eval().rates(batch)[:, :, order]
        assert torch.allclose(other.rates(replace(batch, **parts)), expected, rtol=1e-10)


def test_weights_start_at_sizes_that_do_not_depend_on_how_many_units_there_are() -> None:
    for units in ([400, 100, 0], [40, 900, 0]):
        session = made(units, rank=2)
        for area, count in enumerate(units[:2]):
            own = session.area == area
            assert session.embed[own].abs().max().item() == pytest.approx(1 / math.sqrt(count), rel=0.02)
            for weights in (session.send, session.receive):
                assert weights[own].square().sum(0).mean().item() == pytest.approx(0.1**2 / 2, rel=0.3)
        assert made(units, coupling_basis=400).shape.std().item() == pytest.approx(0.1, rel=0.05)
        together = made(units, area_specific=False)
        assert together.embed.abs().max().item() == pytest.approx(1 / math.sqrt(sum(units)), rel=0.02)
        assert (session.history == -1).all()


def test_every_trial_starts_with_the_same_background_nearly() -> None:
    torch.manual_seed(0)
    network = GLMTransformer(CONFIG, layout()).eval()
    network.head("s").start_at(torch.full((UNITS,), 0.3))
    with torch.inference_mode():
        background = network.components(windows())["background"]
    assert (background - math.log(0.3)).abs().max() < 0.05 and background.std(0).max() > 0


def test_populations_that_a_session_lacks_are_not_coupled() -> None:
    session = made([3, 0, 2])
    assert session.coupled.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert made([3, 0, 2], coupling="between").coupled.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert not made([3, 0, 2], coupling="none").coupled.any()


def test_the_penalty_is_on_couplings_that_there_are() -> None:
    """The public code counts the weights of the others, too."""
    session = made([3, 2, 0], coupling="between")
    send, receive = session.send.norm(dim=2), session.receive.norm(dim=2)
    pairs = {(0, 1): 0.0, (1, 0): 0.0, (0, 0): 0.0, (1, 1): 0.0}
    units = [slice(0, 3), slice(3, 5)]
    for i, j in pairs:
        pairs[i, j] = send[units[i], j].mean().item() + receive[units[j], i].mean().item()
    between = pairs[0, 1] + pairs[1, 0]
    assert session.sparsity(everywhere=False).item() == pytest.approx(between, rel=1e-5)
    # To a population without units the others have weights as well.
    absent = sum(each[own, 2].mean().item() for each in (send, receive) for own in units)
    assert session.sparsity(everywhere=True).item() == pytest.approx(sum(pairs.values()) + absent, rel=1e-5)


@pytest.mark.parametrize("compat", [False, True])
def test_the_penalty_of_a_fit_is_that_of_the_code_it_follows(compat: bool) -> None:
    network = GLMTransformer(replace(CONFIG, coupling="between", compat=compat), layout())
    head = network.head("s")
    sums = [head.sparsity(everywhere=each).item() for each in (False, True)]
    loss = network(windows(), 0)["sparsity"].item()
    assert loss == pytest.approx(CONFIG.sparsity * sums[compat], rel=1e-6) and sums[1] > 1.1 * sums[0]


@pytest.mark.parametrize("compat", [False, True])
def test_the_public_code_takes_a_small_input_for_none(compat: bool) -> None:
    _, network = pair(compat=compat)
    head, batch = network.head("s"), windows()
    with torch.no_grad():
        head.shape.fill_(1e-7)
        passed = network.coupling_factors("s", network.inputs(batch), HISTORY)
    assert bool(passed.any()) is not compat


def test_recurrent_layers_alone_do_not_vectorise() -> None:
    assert GLMTransformer(CONFIG, layout()).vectorises
    assert not GLMTransformer(replace(CONFIG, encoder="gru"), layout()).vectorises


def test_log_rates_are_never_in_half_precision() -> None:
    torch.manual_seed(0)
    network = GLMTransformer(CONFIG, layout()).eval()
    with torch.inference_mode():
        losses = network.loss(windows())
        with torch.autocast("cpu", torch.bfloat16):
            assert all(torch.equal(loss, losses[name]) for name, loss in network.loss(windows()).items())


def test_loadings_that_are_zero_stay_so() -> None:
    session = made([3, 2, 0])
    with torch.no_grad():
        session.send[:3, 1] = session.receive[3:, 0] = 0
    session.normalise()
    assert all(bool(each.isfinite().all()) for each in (session.send, session.receive, session.shape))
    assert not session.send[:3, 1].any() and session.send[:3, 0].norm().item() == pytest.approx(1, rel=1e-5)


def test_only_the_encoder_learns_at_a_rate_of_its_own() -> None:
    network = GLMTransformer(replace(CONFIG, encoder_rate=0.3), layout())
    paces = {name: network.pace(name) for name, _ in network.named_parameters()}
    encoder = ("posterior.", "sessions.s.embed")
    assert all(pace == (0.3 if name.startswith(encoder) else 1.0) for name, pace in paces.items())
    assert {weight_group(name) for name in paces if name.startswith(encoder)} == {"encoder"}


def test_a_token_is_the_nearest_number_of_bins_and_at_least_one() -> None:
    for token, bins in ((0.020, 10), (0.0232, 12), (0.0001, 1)):
        assert GLMTransformer(replace(CONFIG, token=token), layout()).token_bins == bins


def test_the_weight_of_the_divergence_can_be_set() -> None:
    losses = [pair(kl_weight=weight)[1](windows(), 0)["kl"].item() for weight in (1.0, 0.3)]
    assert losses[1] == pytest.approx(0.3 * losses[0], rel=1e-6) and losses[0] > 0


def test_what_is_not_in_use_is_not_penalised() -> None:
    _, network = pair()
    always = {"nll", "smoothness"}
    for terms, more in ((set(), set()), ({"trials"}, {"kl"}), ({"trials", "coupling"}, {"kl", "sparsity"})):
        network.terms = frozenset(terms)
        assert network(windows(), 0).keys() == always | more


def test_latents_are_the_factors_of_the_background() -> None:
    _, network = pair()
    head, batch = network.head("s"), windows()
    with torch.inference_mode():
        latents = network.eval().latents(batch)
        background = network.components(batch)["background"]
    assert latents.shape == (len(batch.counts), HISTORY + BINS, 4) and not latents[:, :HISTORY].any()
    expected = latents[:, HISTORY:] @ head.loadings() + head.bias
    assert torch.allclose(background, expected.expand_as(background), atol=1e-12)


def test_a_drawn_latent_has_the_posteriors_spread() -> None:
    _, network = pair(sample_latent=True)
    batch = network.prepare(windows(), 0)
    noise = batch.inputs["latent_noise"]
    with torch.no_grad():
        mean, log_variance = network.encode(batch)
        assert noise.shape == mean.shape and log_variance.abs().max() > 0.01
        drawn = mean + noise * torch.exp(log_variance).sqrt()
        made = torch.stack([decoder(drawn[:, area]) for area, decoder in enumerate(network.decoders)], 1)
        assert torch.allclose(network.factors(batch)[1], made @ network.splines.T, atol=1e-12)


def test_published_biases_count_twice_once_trials_vary() -> None:
    _, network = pair(compat=True)
    batch, bias = windows(), network.head("s").bias
    with torch.no_grad():
        for terms, times in ((frozenset(), 1), (frozenset({"trials"}), 2)):
            network.terms = terms
            factors = network.latents(batch)[:, HISTORY:] @ network.head("s").loadings()
            assert torch.allclose(network.components(batch)["background"], factors + times * bias, atol=1e-12)


@pytest.mark.parametrize("compat", [False, True])
def test_a_coupling_that_was_dropped_passes_nothing_on(compat: bool) -> None:
    _, network = pair(compat=compat)
    batch, head = windows(), network.head("s")
    head.coupled[0, 1] = 0
    with torch.no_grad():
        passed = network.coupling_factors("s", network.inputs(batch), HISTORY).unflatten(2, (2, 2, -1))
    assert (passed[:, :, 0, 1] == 0).all() and (passed[:, :, 1, 0] != 0).any() and (passed[:, :, 1, 1] != 0).any()


@pytest.mark.parametrize("compat", [False, True])
def test_units_start_at_their_mean_rates_but_not_as_published(compat: bool) -> None:
    _, network = pair(compat=compat)
    model, mean = GLMTransformerModel(network.config, seed=0), torch.full((UNITS,), 0.2, dtype=torch.float64)
    model.network, before = network, network.head("s").bias.detach().clone()
    model.initialise({"s": SimpleNamespace(mean_counts=lambda: mean)})  # type: ignore[dict-item]
    assert torch.equal(network.head("s").bias, before if compat else mean.log())


@pytest.mark.parametrize("encoder", ["transformer", "gru"])
def test_dropout_and_half_precision_are_for_training(encoder: str) -> None:
    torch.manual_seed(0)
    batch = windows()
    for settings in ({"dropout": 0.5}, {"precision": "bfloat16"}):
        network = GLMTransformer(replace(CONFIG, encoder=encoder, **settings), layout())
        with torch.inference_mode():
            calm = [network.eval().encode(batch)[0] for _ in range(2)]
            network.config = CONFIG if "precision" in settings else network.config
            assert torch.equal(*calm) and torch.equal(network.encode(batch)[0], calm[0])
            network.config = replace(CONFIG, encoder=encoder, **settings)
            assert not torch.allclose(network.train().encode(batch)[0], calm[0], atol=1e-5)
