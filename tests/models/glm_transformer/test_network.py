"""The network against the model written out term by term, and what it must not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.bases.lags import raised_cosines
from pipeline_lib.errors import InputError
from pipeline_lib.models.glm_transformer.bases import time_splines
from pipeline_lib.models.glm_transformer.filters import filter_series, filter_units
from pipeline_lib.models.glm_transformer.network import GLMTransformer
from pipeline_lib.models.glm_transformer.published import translated
from pipeline_lib.models.glm_transformer.readout import area_filters, unit_filters
from pipeline_lib.models.glm_transformer.settings import Config
from pipeline_lib.models.glm_transformer.variational import sinusoids
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from tests.models.glm_transformer.plain import PlainGLMTransformer, bsplines, cosines

SIZES = [3, 5]
UNITS = sum(SIZES)
BINS, HISTORY, WINDOWS = 40, 12, 5
CONFIG = Config(
    factors=2,
    splines=6,
    latents=3,
    width=16,
    hidden=32,
    smoothness=3.0,
    sparsity=0.01,
    coupling_peak=0.010,
    history_basis=2,
    history_peak=0.003,
)


def pair(seed: int = 0, **settings: object) -> tuple[PlainGLMTransformer, GLMTransformer]:
    """The model written out and ours with the same weights, float64."""
    torch.manual_seed(seed)
    config = replace(CONFIG, **settings)
    public = config.compat
    plain = PlainGLMTransformer({"s": SIZES}, BINS, HISTORY, rank=config.rank, public=public).double().train()
    population = ["V1"] * SIZES[0] + ["V2"] * SIZES[1]
    layout = Layout(2.0, BINS + HISTORY, HISTORY, 0, 1, {"s": UNITS}, {"s": list(range(UNITS))}, {"s": population})
    torch.set_default_dtype(torch.float64)
    try:
        network = GLMTransformer(config, layout).train()
    finally:
        torch.set_default_dtype(torch.float32)
    network.load_state_dict(ours_of(plain.state_dict(), public), strict=False)
    return plain, network


def ours_of(state: dict[str, torch.Tensor], public: bool) -> dict[str, torch.Tensor]:
    """A published state dict under our names; the response belongs to the session unless `public`."""
    made = translated(state, {"s": SIZES})
    if not public:
        made["sessions.s.response"] = made.pop("response")
    return made


def windows(seed: int = 1, count: int = WINDOWS) -> Batch:
    torch.manual_seed(seed)
    counts = torch.poisson(torch.full((count, BINS + HISTORY, UNITS), 0.3)).to(torch.uint8)
    ones = torch.ones_like(counts, dtype=torch.bool)
    return Batch("s", counts, ones, ones, torch.full((count,), BINS + HISTORY), HISTORY)


def rows(batch: Batch, chosen: slice) -> Batch:
    parts = {name: getattr(batch, name)[chosen] for name in ("counts", "observed", "visible", "bins")}
    return replace(batch, **parts)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_losses_and_gradients_are_those_of_the_model_written_out(compat: bool, rank: int) -> None:
    plain, network = pair(compat=compat, rank=rank)
    batch = windows()
    theirs = plain.losses(batch.counts.permute(1, 2, 0).double(), "s", CONFIG.smoothness, CONFIG.sparsity, 1.0)
    ours = network(batch, 0)
    assert ours.keys() == theirs.keys()
    for name, loss in theirs.items():
        assert ours[name].item() == pytest.approx(loss.item(), rel=1e-8, abs=1e-12), name
    sum(theirs.values()).backward()
    sum(ours.values()).backward()
    wanted = ours_of(
        {name: weight.grad for name, weight in plain.named_parameters()}
        | {"positional_encoding.pe": plain.positional_encoding.pe},
        compat,
    )
    checked = 0
    for name, weight in network.named_parameters():
        scale = wanted[name].abs().max().item()
        assert torch.allclose(weight.grad, wanted[name], atol=1e-8 * scale, rtol=1e-8), name
        checked += 1
    assert checked == len(wanted) - 1


def test_bases_are_those_of_the_description() -> None:
    for (number, peak, stretch), lags in {(3, 5, 0.5): 19, (3, 7, 0.5): 27, (2, 1.5, 1.0): 10}.items():
        basis = raised_cosines(number, peak, stretch)
        assert basis.shape == (lags, number)
        assert torch.allclose(torch.as_tensor(basis), cosines(number, peak, stretch), atol=1e-12)
    for bins, number in ((250, 20), (37, 3)):
        assert torch.allclose(torch.as_tensor(time_splines(bins, number)), bsplines(bins, number), atol=1e-12)


def test_positions_are_waves_that_grow_longer_by_a_thousand() -> None:
    token, width = np.arange(7)[:, None], 6
    angle = token / 1000 ** (np.arange(0, width, 2) / width)
    expected = np.stack([np.sin(angle), np.cos(angle)], 2).reshape(7, width)
    assert torch.allclose(sinusoids(7, width), torch.as_tensor(expected, dtype=torch.float32), atol=1e-6)


@pytest.mark.parametrize(("bins", "number"), [(5, 20), (2, 3), (1, 3)])
def test_windows_of_too_few_bins_are_refused(bins: int, number: int) -> None:
    """A spline that is 0 in every bin, or no second difference: nothing but NaN would come of it."""
    with pytest.raises(InputError, match=f"splines: found {number}; accepted: fewer, .* {bins} bins"):
        time_splines(bins, number)


def test_where_nothing_was_observed_nothing_is_lost() -> None:
    _, network = pair()
    batch = windows()
    assert network(replace(batch, observed=torch.zeros_like(batch.observed)), None)["nll"] == 0


@pytest.mark.parametrize(("history", "bins"), [(0, 6), (2, 6), (9, 6), (0, 3), (1, 1)])
def test_filters_are_sums_over_the_past(history: int, bins: int) -> None:
    torch.manual_seed(0)
    counts = torch.poisson(torch.full((2, history + bins, 3), 0.7)).double()
    kernels = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(2, bins, 3, dtype=torch.float64)
    for t in range(bins):
        for lag in range(4):
            if history + t - 1 - lag >= 0:
                expected[:, t] += kernels[lag].detach() * counts[:, history + t - 1 - lag]
    assert torch.allclose(filter_units(counts, kernels, history), expected)
    assert torch.allclose(filter_series(counts, kernels, history), expected)
    assert torch.autograd.gradcheck(lambda k: filter_units(counts, k, history), (kernels,))


def test_a_prediction_depends_on_its_own_trial_alone() -> None:
    _, network = pair()
    batch = windows()
    with torch.inference_mode():
        network.eval()
        together = network.rates(batch)
        alone = torch.cat([network.rates(rows(batch, slice(row, row + 1))) for row in range(WINDOWS)])
        assert torch.allclose(together, alone, rtol=1e-10)
        others = replace(batch, counts=batch.counts.clone())
        others.counts[1:] = 3
        assert torch.allclose(network.rates(others)[0], together[0], rtol=1e-10)
        # ... which the public code does not keep:
        public = pair(compat=True)[1].eval()
        assert not torch.allclose(public.rates(others)[0], public.rates(batch)[0], rtol=1e-6)


def test_hidden_counts_change_nothing() -> None:
    _, network = pair()
    batch = windows()
    visible = batch.visible.clone()
    visible[:, :, 4] = False  # a held-out unit
    visible[:, -6:] = False  # bins to forecast
    other = batch.counts.clone()
    other[~visible] = 5
    with torch.inference_mode():
        shown = network.eval().rates(replace(batch, visible=visible))
        assert torch.equal(shown, network.rates(replace(batch, visible=visible, counts=other)))
        assert not torch.allclose(shown, network.rates(batch))


@pytest.mark.parametrize("encoder", ["transformer", "gru"])
def test_a_shorter_window_is_encoded_without_its_padding(encoder: str) -> None:
    _, network = pair(encoder=encoder)
    batch = windows()
    short = 20
    cut = slice(0, HISTORY + short)
    parts = {name: getattr(batch, name)[:, cut] for name in ("counts", "observed", "visible")}
    alone = replace(batch, **parts, bins=torch.full((WINDOWS,), HISTORY + short))
    padded = replace(batch, bins=torch.tensor([HISTORY + short] + [HISTORY + BINS] * (WINDOWS - 1)))
    inside = torch.arange(BINS + HISTORY) < padded.bins[:, None]
    padded = replace(padded, counts=batch.counts * inside[:, :, None], visible=batch.visible & inside[:, :, None])
    with torch.inference_mode():
        network.eval()
        assert torch.allclose(network.rates(padded)[0, cut], network.rates(alone)[0], rtol=1e-10)


def test_unit_filters_say_what_a_spike_does() -> None:
    _, network = pair(rank=2)
    network.terms = frozenset({"coupling", "history"})
    silent = windows(count=1)
    silent = replace(silent, counts=torch.zeros_like(silent.counts))
    filters = unit_filters(network.eval(), "s")
    with torch.inference_mode():
        rest = network.rates(silent)[0, HISTORY:].log()
        for sender in (0, 6):
            spike = silent.counts.clone()
            spike[0, HISTORY + 5, sender] = 1
            change = network.rates(replace(silent, counts=spike))[0, HISTORY:].log() - rest
            expected = torch.as_tensor(filters[sender]).T.double()
            assert torch.allclose(change[6 : 6 + len(expected)], expected, atol=1e-6)
            assert change[:6].abs().max() < 1e-12
    area, head = area_filters(network, "s"), network.head("s")
    weights = head.send[1, 1] * head.receive[6, 0]  # of each factor: unit 1 of the first population to 6 of the second
    pair_filter = (torch.as_tensor(area[0, 1]) * weights[:, None]).sum(0)
    assert torch.allclose(torch.as_tensor(filters[1, 6, : area.shape[3]]).double(), pair_filter, atol=1e-6)
    longer = GLMTransformer(replace(CONFIG, coupling_peak=0.003, history_peak=0.010), layout())
    kernels = longer.history_kernels(longer.head("s"))
    assert unit_filters(longer, "s").shape[2] == len(kernels) > len(longer.coupling_basis)
    network.terms = frozenset({"coupling"})
    own = unit_filters(network, "s")[6, 6]
    expected = (torch.as_tensor(area[1, 1]) * (head.send[6, 1] * head.receive[6, 1])[:, None]).sum(0)
    assert torch.allclose(torch.as_tensor(own[: area.shape[3]]).double(), expected, atol=1e-6)


def test_normalised_loadings_predict_the_same() -> None:
    _, network = pair(rank=2)
    batch, head = windows(), network.head("s")
    with torch.inference_mode():
        before = network.eval().rates(batch)
        head.normalise()
        assert torch.allclose(network.rates(batch), before, rtol=1e-10)
        sending = head.send[:3]
        assert torch.allclose(sending.square().sum(0), torch.ones(2, 2, dtype=torch.float64))
        assert (sending.mean(0) > 0).all()


def test_switches_leave_terms_out() -> None:
    batch = windows()
    for settings, parts in (
        ({"coupling": "none"}, {"background", "history"}),
        ({"history": "none"}, {"background", "coupling"}),
        ({"background": "invariant"}, {"background", "coupling", "history"}),
        ({"background": "gain", "coupling": "none", "history": "none"}, {"background"}),
    ):
        network = GLMTransformer(replace(CONFIG, **settings), layout())
        assert network.components(batch).keys() == parts
    between = GLMTransformer(replace(CONFIG, coupling="between"), layout())
    filters = unit_filters(between, "s")
    filters[range(UNITS), range(UNITS)] = 0
    assert (filters[:3, :3] == 0).all() and (filters[3:, 3:] == 0).all()
    assert (filters[:3, 3:] != 0).any() and (filters[3:, :3] != 0).any()


def layout() -> Layout:
    population = ["V1"] * SIZES[0] + ["V2"] * SIZES[1]
    return Layout(2.0, BINS + HISTORY, HISTORY, 0, 1, {"s": UNITS}, {"s": list(range(UNITS))}, {"s": population})


def test_recurrent_layers_hear_all_of_a_trial_and_of_no_other() -> None:
    _, network = pair(encoder="gru")
    batch = windows()
    last = batch.counts.clone()
    last[0, -1] += 3
    with torch.inference_mode():
        before = network.eval().encode(batch)[0]
        after = network.encode(replace(batch, counts=last))[0]
        alone = network.encode(rows(batch, slice(1, 2)))[0]
    assert (after[0] != before[0]).all() and torch.equal(after[1:], before[1:])
    assert torch.allclose(alone[0], before[1], rtol=1e-10)


def test_a_sampled_latent_is_drawn_in_training_alone() -> None:
    _, network = pair(sample_latent=True)
    batch = windows()
    with torch.no_grad():
        draws = [network(batch, 0)["nll"].item() for _ in range(2)]
        means = [network(batch, None)["nll"].item() for _ in range(2)]
        assert draws[0] != draws[1] and means[0] == means[1]
        network.posterior.to_latent.bias[3:] = -60.0  # a posterior without spread
        network.posterior.to_latent.weight[3:] = 0.0
        assert network(batch, 0)["nll"].item() == pytest.approx(network(batch, None)["nll"].item(), rel=1e-9)


def test_a_gain_scales_the_units_of_a_lively_trial() -> None:
    network = GLMTransformer(replace(CONFIG, background="gain", coupling="none", history="none"), layout())
    head, batch = network.head("s"), windows()
    head.start_at(torch.full((UNITS,), 0.3))
    with torch.no_grad():
        head.gain[:] = torch.arange(UNITS)
        log_rates = network.components(batch)["background"] - torch.tensor(0.3).log()
    spikes = batch.counts[:, HISTORY:, : SIZES[0]].sum((1, 2))
    activity = ((spikes + 1) / (0.3 * SIZES[0] * BINS + 1)).log()
    assert torch.allclose(log_rates[:, 0, 2], 2 * activity, atol=1e-5)
    assert torch.allclose(log_rates[:, -1, 0], torch.zeros(WINDOWS), atol=1e-5)


def test_a_gain_compares_with_the_usual_in_what_was_seen() -> None:
    """Of a window that ends early, or whose last bins are to be forecast, or that lacks a unit."""
    network = GLMTransformer(replace(CONFIG, background="gain", coupling="none", history="none"), layout())
    head, batch = network.head("s"), windows()
    head.start_at(torch.full((UNITS,), 0.3))
    batch.visible[:, HISTORY + 5 :] = False
    batch.visible[:, :, 0] = False
    with torch.no_grad():
        head.gain[:] = 1
        log_rates = network.components(batch)["background"] - torch.tensor(0.3).log()
    spikes = batch.counts[:, HISTORY : HISTORY + 5, 1 : SIZES[0]].sum((1, 2))
    activity = ((spikes + 1) / (0.3 * (SIZES[0] - 1) * 5 + 1)).log()
    assert torch.allclose(log_rates[:, 0, 2], activity, atol=1e-5)
