"""The NDT as a model: no leak, sessions of any shape, and rates that come out right."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.ndt.layers import Dropout, Layer, ScaleNorm
from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.network import SPARE_COUNTS, initialise, reach, sinusoids
from pipeline_lib.models.ndt.published import load_published
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.registry import check_config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch, Windows
from pipeline_lib.training.run import Run, write_arrays
from tests.models.leaks import HIDDEN, check_heldout_counts_of_other_parts, check_hidden_counts, check_other_windows
from tests.models.ndt import small
from tests.models.ndt.plain import PlainNDT, SinusoidPosition
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

SMALL = Config(layers=2, hidden=16, steps=4, warmup=1, evaluate_every=2, batch=8)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions of different size, trials of different length, three populations, held-out units, forward bins."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=30)]
    for each in made:
        each.trials["stop"] = each.trials["start"] + np.linspace(0.4, 1.2, 30)
        each.units["population"] = [f"area{row % 3}" for row in range(len(each.units))]
    windows = replace(WINDOWS, after=None)
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("ragged"), windows, SPLITS, made))


@pytest.fixture(scope="module")
def model(ragged: FitData, tmp_path_factory: pytest.TempPathFactory) -> NDT:
    model = NDT(replace(SMALL, read_in=10), 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path_factory.mktemp("run")))
    return model


def test_the_shipped_settings_are_the_defaults() -> None:
    text = (Path(__file__).parents[3] / "config" / "models" / "ndt.yaml").read_text()
    settings = yaml.safe_load(text)
    assert settings.pop("implementation") == "ndt"
    assert list(settings) and set(settings) == {field.name for field in fields(Config)}
    assert check_config("ndt", settings) == Config()


# No leak


def test_other_windows_change_no_prediction(ragged: FitData, model: NDT) -> None:
    check_other_windows(model, ragged, "two")


@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_counts_change_no_prediction(ragged: FitData, model: NDT, hidden: str) -> None:
    check_hidden_counts(model.network, Windows(ragged, "two", "train"), ragged, "two", hidden)


def test_heldout_counts_of_other_parts_do_not_touch_the_fit(tmp_path: Path) -> None:
    check_heldout_counts_of_other_parts(lambda: NDT(SMALL, 0), tmp_path)


# Shapes


def test_a_saved_model_is_the_fitted_one(ragged: FitData, model: NDT) -> None:
    copy = NDT(model.config, 0)
    copy.load_state(model.state())
    samples = ragged.samples("one", "validation")
    rates = model.predict(ragged, "one", samples)
    assert np.array_equal(copy.predict(ragged, "one", samples), rates)
    latents, last = model.latents(ragged, "one", samples), model.network.head("one").last
    with torch.inference_mode():
        read = last(torch.as_tensor(latents)).exp().numpy()
    inside = np.arange(rates.shape[1]) < samples["bins"].to_numpy()[:, None]
    assert latents.shape == (*rates.shape[:2], 10) and np.allclose(read[inside], rates[inside], atol=1e-6)
    assert {name.split("/")[0] for name in model.state() if "/" in name} == {"one", "two"}


@pytest.mark.parametrize(
    "settings",
    [
        {"embedding": 0, "read_in": None},
        {"embedding": 3, "read_in": 10, "heads": 4},
        {"position": "sinusoid", "final_norm": "scale", "norm": "post", "activation": "gelu"},
        {"context_backward": None, "context_forward": 0.0, "decoder_hidden": 5, "log_rates": False},
        {"masking": ("timestep", "neuron", "causal", "intra_region", "inter_region", "element"), "mask_span": 4},
        {"compat": True, "mask_token_ratio": 0.5, "precision": "bfloat16"},
    ],
    ids=["identity", "odd width", "post-norm", "causal", "all modes", "compat"],
)
def test_every_variant_fits_and_predicts(ragged: FitData, tmp_path: Path, settings: dict) -> None:
    model, run = NDT(replace(SMALL, **settings), 0), Run(tmp_path)
    model.fit(replace(ragged, fitting=True), run)
    samples = ragged.samples("one", "test")
    rates = model.predict(ragged, "one", samples)
    assert rates.shape == (len(samples), samples["bins"].max(), 9)
    assert np.isfinite(rates).all() and (rates >= 0).all()
    assert np.isfinite([row["validation_loss"] for row in run.rows]).all()
    assert model.sees == ("held-in units, past and present" if settings.get("context_forward") == 0 else NDT.sees)


def test_a_session_of_larger_counts_starts_from_the_table_of_another(ragged: FitData, tmp_path: Path) -> None:
    settings = replace(SMALL, embedding=2, read_in=10)
    first = NDT(settings, 0)
    first.fit(replace(ragged, fitting=True), Run(tmp_path / "first"))
    write_arrays(tmp_path / "model.safetensors", first.state())
    busy = recording("one", 0, units=9, trials=30)
    busy.units["population"] = [f"area{row % 3}" for row in range(9)]  # by which units are held out
    order = np.argsort(times := np.concatenate([busy.spike_times + 0.001 * k for k in range(9)]), kind="stable")
    busy.spike_times, busy.spike_units = times[order], np.tile(busy.spike_units, 9)[order]
    busy.duration = busy.observed[-1, 1] = 60.0
    data = open_cohort(*write_cohort(tmp_path / "busy", replace(WINDOWS, after=1.2), made=[busy]))
    second = NDT(replace(settings, initial=str(tmp_path / "model.safetensors"), freeze=("*/table.*",)), 0)
    second.fit(replace(data, fitting=True), Run(tmp_path / "second"))
    assert data.counts("one", "train").max() > first.layout.most + SPARE_COUNTS
    assert np.array_equal(second.state()["one/table.weight"], first.state()["one/table.weight"])
    assert np.isfinite(second.predict(data, "one", data.samples("one", "test"))).all()


def test_nothing_ahead_of_a_causal_context_is_seen(ragged: FitData) -> None:
    model = NDT(replace(SMALL, context_forward=0.0), 0)
    model.layout = Layout.of(ragged, 5)
    network = model.build(model.layout).eval()
    counts = torch.poisson(torch.ones(2, 60, 9)).to(torch.uint8)
    changed = counts.clone()
    changed[:, 31:] = 0
    with torch.inference_mode():
        first, second = network.outputs("one", counts), network.outputs("one", changed)
    assert torch.allclose(first[:, :31], second[:, :31], atol=1e-6)
    assert not torch.allclose(first[:, 31:], second[:, 31:])


def test_bins_past_the_end_of_a_window_do_not_touch_its_loss() -> None:
    network = small.network(small.SILENT)
    torch.manual_seed(2)
    window = network.prepare(small.windows(ragged=True), 0).windows(slice(1, 2))
    last = int(window.bins)
    inputs = {name: value[:, :, :last] for name, value in window.inputs.items()}
    tensors = {name: getattr(window, name)[:, :last] for name in ("counts", "observed", "visible")}
    cut = replace(window, **tensors, inputs=inputs, ragged=False)
    assert last < small.BINS
    torch.testing.assert_close(network.loss(window), network.loss(cut), rtol=1e-5, atol=1e-6)


def test_without_positions_shifted_spikes_shift_the_rates(ragged: FitData) -> None:
    """Bins whose whole context, of 2 layers of 8 and 4 bins, is inside both windows."""
    for position, shifts in (("none", True), ("learned", False)):
        model = NDT(replace(SMALL, position=position), 0)
        network = model.build(Layout.of(ragged, 5)).eval()
        counts = torch.poisson(torch.ones(2, 60, 9)).to(torch.uint8)
        with torch.inference_mode():
            rates, later = network.outputs("one", counts[:, :50]), network.outputs("one", counts[:, 10:])
        assert torch.allclose(rates[:, 26:42], later[:, 16:32], atol=1e-5) == shifts


def test_masked_predictions_see_what_their_mode_allows(
    ragged: FitData, model: NDT, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ragged.samples("two", "test")
    everything = model.predict(ragged, "two", samples)
    heldin, heldout = ragged.heldin("two"), ragged.heldout("two")
    for mode in ("leave_one_out", "intra_region", "inter_region"):
        rates = model.predict_masked(ragged, "two", samples, mode)
        inside = np.arange(rates.shape[1]) < samples["bins"].to_numpy()[:, None]
        assert np.isfinite(rates[:, :, heldin][inside]).all() and np.isnan(rates[:, :, heldout]).all()
        assert not np.allclose(rates[:, :, heldin][inside], everything[:, :, heldin][inside])
    bins = int(samples["bins"].min())
    monkeypatch.setattr("pipeline_lib.models.torch_model.PREDICTED", 2)  # some are then shorter than the longest of all
    forecast = model.predict_masked(ragged, "two", samples, "causal", bins=8)
    known = np.isfinite(forecast).all(axis=2)
    assert (known.sum(axis=1) == 8).all() and known[samples["bins"].argmin(), bins - 8 : bins].all()


def test_masked_predictions_are_published_where_they_are_asked_for(ragged: FitData, model: NDT) -> None:
    samples = ragged.samples("two", "test")
    assert model.extras(ragged, "two", samples) == {}
    asking = NDT(replace(model.config, predict_masked=("leave_one_out", "inter_region")), 0)
    asking.load_state(model.state())
    given = asking.extras(ragged, "two", samples)
    for mode in ("leave_one_out", "inter_region"):
        np.testing.assert_array_equal(given.pop(f"rates_{mode}"), model.predict_masked(ragged, "two", samples, mode))
    assert given == {}


def test_what_it_cannot_do_is_said_in_a_line(ragged: FitData, model: NDT) -> None:
    with pytest.raises(InputError, match="masking: found"):
        Config(masking=())
    for wrong in ({"hardest_share": 0.0}, {"evaluated_ratio": -0.1}, {"mask_ratio": 0.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Config(**wrong)
    with pytest.raises(InputError, match=r"dropout: found 1\.5; accepted: from 0 to below 1"):
        Config(dropout=1.5)
    longer = ragged.samples("one", "test").assign(bins=200)
    with pytest.raises(InputError, match="bins: found 200; accepted: windows of at most 60 bins"):
        model.predict(ragged, "one", longer)


# Science


def test_the_start_is_the_mean_rate_and_layers_differ(ragged: FitData, tmp_path: Path) -> None:
    data = replace(ragged, fitting=True)
    model, public = (
        NDT(replace(SMALL, read_in=8, layers=6, steps=1, learning_rate=1e-30, compat=c), 0) for c in (False, True)
    )
    for each in (model, public):
        each.fit(data, Run(tmp_path / str(each.config.compat)))
    mean = Windows(ragged, "one", "train").mean_counts()
    assert torch.allclose(model.network.head("one").last.bias.exp(), mean)
    assert torch.allclose(public.network.head("one").last.bias, torch.zeros(9))
    first, second = (layer.attention for layer in model.network.encoder.layers[:2])
    assert not torch.equal(first.qkv.weight, second.qkv.weight)
    first, second = (layer.attention for layer in public.network.encoder.layers[:2])
    assert torch.equal(first.qkv.weight, second.qkv.weight)
    # The public code means to shrink the values and does not.
    for each, smaller in ((model, True), (public, False)):
        weight = each.network.encoder.layers[0].attention.qkv.weight.detach()
        assert (weight[16:].std() < 0.9 * weight[:8].std()) == smaller


@pytest.mark.parametrize("log_rates", [True, False])
def test_rates_start_at_the_mean_whatever_the_read_out_gives(log_rates: bool) -> None:
    network, mean = small.network(replace(small.SILENT, log_rates=log_rates)).eval(), torch.linspace(0.1, 2, 7)
    network.start_at("s0", mean)
    with torch.no_grad():
        network.head("s0").last.weight.zero_()
        rates = network.rates(small.windows(ragged=False))
    torch.testing.assert_close(rates, mean.expand_as(rates))


def test_the_loss_of_an_evaluation_is_the_mean_over_its_modes() -> None:
    network = small.network(replace(small.SILENT, masking=("timestep", "neuron", "causal"))).eval()
    torch.manual_seed(0)
    batch = network.prepare(small.windows(ragged=True), None)
    each = [
        network.loss(replace(batch, inputs={name: value[:, [mode]] for name, value in batch.inputs.items()}))
        for mode in range(3)
    ]
    losses = torch.stack([loss["masked_nll"] for loss in each])
    torch.testing.assert_close(network.loss(batch)["masked_nll"], losses.mean())
    assert losses.std() > 0.01


def test_branches_tables_and_read_outs_start_small() -> None:
    torch.manual_seed(0)
    layers = [Layer(8, 2, 16, 0.0, "relu", True) for _ in range(6)]
    before = [{name: weight.clone() for name, weight in layer.named_parameters()} for layer in layers]
    initialise(layers, Config())
    factor = 0.67 * 6**-0.25
    for layer, was in zip(layers, before, strict=True):
        now = dict(layer.named_parameters())
        for name in ("linear1.weight", "linear2.weight", "attention.out.weight"):
            torch.testing.assert_close(now[name], factor * was[name])
        values = torch.tensor([1.0] * 16 + [factor * 2**0.5] * 8)[:, None]  # queries and keys keep their size
        torch.testing.assert_close(now["attention.qkv.weight"], values * was["attention.qkv.weight"])
        assert (6 / 32) ** 0.5 * 0.9 < was["attention.qkv.weight"].abs().max() <= (6 / 32) ** 0.5  # Glorot's
        assert not was["attention.qkv.bias"].any() and not was["attention.out.bias"].any()
    head = NDT(Config(embedding=3), 0).build(Layout(5.0, 9, 0, 0, 6, {"s": 5}, {"s": list(range(5))}, {"s": ["a"] * 5}))
    assert SPARE_COUNTS == 3 and head.head("s").table.num_embeddings == 6 + 3 + 2  # as in the public code
    counts = torch.tensor([6 + SPARE_COUNTS, 6 + SPARE_COUNTS + 1, 200])  # what is larger is taken for the last
    largest = head.head("s").embed(counts.expand(1, 5, -1).mT)[0]
    torch.testing.assert_close(largest[1:], largest[:1].expand(2, -1))
    assert ScaleNorm(9).scale.item() == 3.0
    for weight in (head.head("s").table.weight, head.head("s").last.weight):
        assert 0.08 < weight.abs().max() <= 0.1


def test_a_table_may_start_on_the_logarithm_of_the_counts() -> None:
    torch.manual_seed(0)
    layout = Layout(5.0, 9, 0, 0, 6, {"s": 5}, {"s": list(range(5))}, {"s": ["a"] * 5})
    table = NDT(Config(embedding=300, embedding_init="log"), 0).build(layout).head("s").table.weight.detach().numpy()
    log = np.log(np.arange(1, 6 + SPARE_COUNTS + 2 + 1))
    away = table - (0.1 * (log - log.mean()) / np.ptp(log))[:, None]
    assert 0.0099 < np.abs(away).max() <= 0.01 + 1e-7 and abs(away.mean()) < 5e-4
    assert np.ptp(table.mean(axis=1)) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("compat", [False, True])
def test_training_may_learn_from_the_hardest_counts_alone(ragged: FitData, compat: bool) -> None:
    """The largest losses of those that are scored, divided by the number of all of them, as torch's topk finds them."""
    torch.manual_seed(0)
    config = replace(SMALL, read_in=10, hardest_share=0.3, compat=compat, dropout=0.0, dropout_embedding=0.0)
    network = NDT(replace(config, dropout_rates=0.0), 0).build(Layout.of(ragged, 5))
    counts = torch.poisson(torch.full((4, 20, 12), 0.6)).to(torch.uint8)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("two", counts, ones, ones, torch.tensor([20, 12, 20, 7]), 0)
    for share in (0.5, 0.1, 0.0):
        scored = (torch.rand(counts.shape) < share) & (torch.arange(20)[:, None] < batch.bins[:, None, None])
        logs = network.outputs("two", counts, batch.bins)
        losses = (logs.exp() - counts * logs)[scored]
        number = int(0.3 * len(losses))
        hardest = losses.topk(number).values.sum() / max(len(losses), 1)
        expected = torch.autograd.grad(hardest, network.parameters(), allow_unused=True)
        found = network.train()._loss(batch, counts, scored)
        gradients = torch.autograd.grad(found, network.parameters(), allow_unused=True)
        torch.testing.assert_close(found, hardest)
        for one, other in zip(gradients, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)
        every = hardest if compat else losses.sum() / max(len(losses), 1)
        torch.testing.assert_close(network.eval()._loss(batch, counts, scored), every)
        network.train()


def test_sinusoids_are_those_of_the_formula() -> None:
    assert torch.allclose(sinusoids(20, 12), SinusoidPosition(20, 12).pe[:, 0], atol=1e-5)
    assert sinusoids(20, 7).shape == (20, 7)


def test_a_context_is_the_whole_bins_in_it() -> None:
    layout = Layout(20.0, 9, 0, 0, 6, {"s": 5}, {"s": list(range(5))}, {"s": ["a"] * 5})
    assert [reach(seconds, layout) for seconds in (0.0, 0.019, 0.02, 0.035, 0.06, 0.29, None)] == [
        0,
        0,
        1,
        1,
        3,
        14,
        None,
    ]
    assert reach(4.02, layout) == 201  # 4.02 x 1000 / 20 is 200.999...


def test_dropout_keeps_the_mean_and_the_share() -> None:
    torch.manual_seed(0)
    x = torch.ones(501, 803)
    for probability in (0.1, 0.5, 0.013):
        dropped = Dropout(probability)(x)
        assert float((dropped == 0).float().mean()) == pytest.approx(probability, abs=0.002)
        assert torch.unique(dropped).tolist() == pytest.approx([0.0, 1 / (1 - probability)])
        columns, rows = (dropped == 0).float().mean(0), (dropped == 0).float().mean(1)
        assert columns.std() < 0.03 and rows.std() < 0.03
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert Dropout(0.5)(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_are_those_of_the_plain_network(ragged: FitData, tmp_path: Path) -> None:
    """Loss and gradient of a step without dropout, against a second implementation."""
    torch.manual_seed(3)
    plain = PlainNDT(units=9, bins=20, layers=2, hidden=16, dropout=0, dropout_embedding=0, dropout_rates=0)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    zero = {"dropout": 0.0, "dropout_embedding": 0.0, "dropout_rates": 0.0}
    network = load_published(tmp_path / "weights.pth", Config(**zero), session="two").network
    counts = torch.poisson(torch.full((4, 20, 9), 0.6)).to(torch.uint8)
    target = torch.rand(4, 20, 1) < 0.25
    shown = counts.masked_fill(target, 0)
    output = plain(shown)
    chosen = target.expand_as(counts)
    loss = (output[chosen].exp() - counts[chosen] * output[chosen]).mean()
    loss.backward()
    ones = torch.ones_like(chosen)
    batch = Batch("two", counts, ones, ones, torch.full((4,), 20), 0)
    with torch.no_grad():  # an output below zero is a rate of zero where outputs are rates
        linear = load_published(tmp_path / "weights.pth", Config(log_rates=False, **zero), session="two").network
        rates = output[chosen].relu()
        expected = (rates - counts[chosen] * (rates + 1e-8).log()).mean()
        assert linear._loss(batch, shown, chosen).item() == pytest.approx(expected.item(), abs=1e-4)
    ours = network._loss(batch, shown, chosen)
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), abs=1e-6)
    ours = network.encoder.layers[0].attention.qkv.weight.grad
    theirs = plain.transformer_encoder.layers[0].self_attn.in_proj_weight.grad
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(network.head("two").table.weight.grad, plain.embedder[0].weight.grad, atol=1e-5)
