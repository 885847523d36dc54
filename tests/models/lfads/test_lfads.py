"""LFADS as a model: no leak, sessions of any shape, one network for several, the same bytes after a kill."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.metrics import bits_per_spike
from pipeline_lib.evaluation.sums import poisson_sums
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.lfads.concealment import HIDDEN, conceal
from pipeline_lib.models.lfads.head import Head
from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.noise import standard_normal
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.training.batches import Windows
from pipeline_lib.training.fit import fit
from pipeline_lib.training.run import Run
from tests.models.lfads.small import CONTROLLED, SMALL
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort

# Shapes


def test_a_saved_model_is_the_fitted_one(ragged: FitData, model: LFADS) -> None:
    copy = LFADS(model.config, 0)
    copy.load_state(model.state())
    samples = ragged.samples("one", "validation")
    rates = model.predict(ragged, "one", samples)
    assert np.array_equal(copy.predict(ragged, "one", samples), rates)
    assert {name.split("/")[0] for name in model.state() if "/" in name} == {"one", "two"}
    shape = rates.shape[:2]
    extras = model.extras(ragged, "one", samples)
    assert model.latents(ragged, "one", samples).shape == (*shape, 3)
    assert extras["inferred_inputs"].shape == (*shape, 2)
    past = np.arange(shape[1]) >= samples["bins"].to_numpy()[:, None]
    assert past.any() and np.array_equal(np.isnan(extras["inferred_inputs"]).all(axis=2), past)
    assert extras["initial_conditions"].shape == (len(samples), 4) and extras["initial_conditions"].std() > 0


def test_a_fit_publishes_factors_inputs_and_initial_conditions(tmp_path: Path) -> None:
    stores, split = write_cohort(tmp_path)
    config = {field.name: getattr(CONTROLLED, field.name) for field in fields(Config)} | {"sample_validation": 0.1}
    fit(stores, split, "lfads", "lfads", config, 0, tmp_path / "fit")
    written = zarr.open_group(tmp_path / "fit" / "predictions.zarr", mode="r")["small0"]
    windows, bins, _ = written["rates"].shape
    assert written["latents"].shape == (windows, bins, 3)
    assert written["extras/inferred_inputs"].shape == (windows, bins, 2)
    assert written["extras/initial_conditions"].shape == (windows, 4)
    assert pd.read_parquet(tmp_path / "fit" / "tables" / "scores.parquet")["split"].tolist() == ["train"]
    history = pd.read_csv(tmp_path / "fit" / "history.csv")
    terms = ["validation_nll", "validation_kl_initial", "validation_kl_inputs", "validation_l2"]
    assert np.allclose(history[terms].sum(axis=1), history["validation_loss"], rtol=1e-6)


def test_predictions_are_the_mean_over_posterior_samples(ragged: FitData, model: LFADS) -> None:
    samples = ragged.samples("two", "test").iloc[:3]
    batch = Windows(ragged, "two", samples, inputs=model.inputs(ragged, "two", samples)).batch(slice(None))
    network, head = model.network.eval(), model.network.head("two")
    length = batch.counts.shape[1]
    rates, inputs = [], []
    with torch.inference_mode():
        posterior = network.encode(head, conceal(batch, model.config, head.heldin, head.mean, 5, 0, drop=False))
        for draw in range(3):
            noise = standard_normal(
                0, torch.as_tensor(samples.index.to_numpy().copy()), draw, 4 + 2 * network.layout.bins
            )
            factors, inferred, _ = network.decode(head, batch, posterior, noise[:, : 4 + 2 * length])
            rates.append(head.read_out(factors).exp())
            inputs.append(inferred)
        outputs = network.outputs(batch)
    assert torch.allclose(outputs.rates, torch.stack(rates).mean(0), atol=1e-6)
    assert torch.allclose(outputs.inputs, torch.stack(inputs).mean(0), atol=1e-6)
    assert not torch.allclose(rates[0], rates[1])


def test_without_samples_rates_are_read_from_the_latents(ragged: FitData, tmp_path: Path) -> None:
    model = LFADS(SMALL, 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path))
    samples = ragged.samples("one", "test")
    factors = torch.as_tensor(model.latents(ragged, "one", samples))
    with torch.inference_mode():
        read = model.network.head("one").read_out(factors).exp().numpy()
    rates = model.predict(ragged, "one", samples)
    inside = np.arange(rates.shape[1]) < samples["bins"].to_numpy()[:, None]
    assert np.allclose(read[inside], rates[inside], atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"coordinated_dropout": 0.0, "dropout": 0.0, "alignment": False},
        {"inferred_inputs": 3, "initial_segment": 0.3, "input_lag": 2, "posterior_samples": 2},
        {"signals": ("running.speed", "running.angle"), "precision": "bfloat16"},
        {"inferred_inputs": 1, "signals": ("running.angle",), "precision": "bfloat16", "pass_rate": 0.5},
        {"observation": "gaussian", "read_in": 7},
        {"sample_validation": 0.2, "freeze": ("*/read_in.*",)},
    ],
    ids=["plain", "controlled", "driven", "controlled and driven", "gaussian", "sample validation"],
)
def test_every_variant_fits_and_predicts(ragged: FitData, tmp_path: Path, settings: dict) -> None:
    model, run = LFADS(replace(SMALL, **settings), 0), Run(tmp_path)
    model.fit(replace(ragged, fitting=True), run)
    samples = ragged.samples("one", "test")
    rates = model.predict(ragged, "one", samples)
    assert rates.shape == (len(samples), samples["bins"].max(), 9)
    assert np.isfinite(rates).all() and (rates >= 0).all()
    assert np.isfinite([row["validation_loss"] for row in run.rows]).all()
    tables = model.tables(ragged)
    assert set(tables) == ({"scores"} if "sample_validation" in settings else set())
    if tables:
        assert tables["scores"]["session"].tolist() == ["one", "two"] and np.isfinite(tables["scores"]["value"]).all()


def test_sample_validation_is_scored_at_every_evaluation(ragged: FitData, tmp_path: Path) -> None:
    """In history.csv, by counts that neither the weights nor their choice depend on."""
    states, scores = [], []
    for more in (0, 3):
        data, run = replace(ragged, fitting=True), Run(tmp_path / str(more))
        model = LFADS(replace(SMALL, sample_validation=0.2), 0)

        def read(session: str, samples: object, model: LFADS = model, more: int = more) -> tuple:
            rows = ragged.samples(session, samples) if isinstance(samples, str) else samples
            counts, mask = ragged.read(session, samples)
            kept = model._kept(ragged, session, rows) & mask & rows["split"].eq("train").to_numpy()[:, None, None]
            return counts + more * kept.astype(counts.dtype), mask

        object.__setattr__(data, "read", read)
        model.fit(data, run)
        states.append({name: value for name, value in model.state().items() if name != "layout"})
        scores.append([row["sample_validation_nll"] for row in run.rows])
    assert len(scores[0]) == 2 and np.isfinite(scores).all() and (np.array(scores[1]) > scores[0]).all()
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_sample_validation_is_the_likelihood_of_what_was_kept(ragged: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, sample_validation=0.2, steps=1, learning_rate=1e-30, average=0.0)
    data, model, run = replace(ragged, fitting=True), LFADS(config, 0), Run(tmp_path)
    model.fit(data, run)
    total, number, history = 0.0, 0, ragged.split.history_bins
    scores = model.tables(ragged)["scores"].set_index("session")["value"]  # as of a fit that is published
    for session in ragged.sessions:
        samples = ragged.samples(session, "train")
        rates = torch.as_tensor(model._apply(model.network.rates, data, session, samples)).double()
        counts, mask = (each[:, history:] for each in ragged.read(session, samples))
        kept = model._kept(data, session, samples)[:, history:] & mask
        likelihood = torch.distributions.Poisson(rates.clamp(min=1e-9)).log_prob(torch.as_tensor(counts.astype(float)))
        total, number = total - likelihood.numpy()[kept].sum(), number + kept.sum()
        bits = bits_per_spike(poisson_sums(counts, np.maximum(rates.numpy(), 1e-9), kept).total())
        assert scores[session] == pytest.approx(bits, rel=1e-5)
    assert run.rows[-1]["sample_validation_nll"] == pytest.approx(total / number, rel=1e-5)


def test_sample_validation_hides_nothing_of_validation_windows(ragged: FitData) -> None:
    """Nor are their counts scaled up in the place of some that were hidden: the loss that selects is of all of them."""
    data, model = replace(ragged, fitting=True), LFADS(replace(SMALL, sample_validation=0.5), 0)
    inputs = {part: model.inputs(data, "one", data.samples("one", part)) for part in ("train", "validation")}
    assert HIDDEN in inputs["train"] and HIDDEN not in inputs["validation"]
    batch = Windows(ragged, "one", "validation", inputs=inputs["validation"]).batch(slice(None))
    shown = conceal(batch, model.config, None, torch.zeros(9), 0, 0, drop=False).inputs
    assert torch.equal(shown, (batch.counts * batch.visible).transpose(0, 1).float())


def test_signals_are_scaled_by_what_is_inside_the_windows(ragged: FitData) -> None:
    """So the padding of a batch, which depends on its other windows, does not count."""
    windows = Windows(ragged, "one", "train")
    inside = torch.arange(windows.counts.shape[1]) < windows.bins[:, None]
    values = torch.randn(*inside.shape, 2)
    values[..., 1] = 3.0
    windows.inputs["signals"] = torch.where(inside[:, :, None], values, 100.0)
    head = Head(9, [0, 1], replace(SMALL, signals=("running", "constant")), None)
    head.start_at(windows, "signals")
    assert torch.allclose(head.signal_mean, values[inside].mean(0), atol=1e-6)
    deviation = values[inside].std(0, correction=0)
    assert torch.allclose(head.signal_sd, torch.stack([deviation[0], torch.tensor(1.0)]), atol=1e-6)


def test_a_gaussian_read_out_starts_at_the_mean_counts_with_their_variance(ragged: FitData) -> None:
    windows = Windows(ragged, "one", "train")
    head = Head(9, [0, 1], replace(SMALL, observation="gaussian"), None)
    head.start_at(windows, None)
    assert torch.equal(head.read_out.bias, windows.mean_counts())
    assert torch.allclose(head.log_variance.exp(), windows.mean_counts())


def test_a_final_fit_learns_from_the_validation_part_too(ragged: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, learn_validation=True, batch=1000)
    model, run = LFADS(config, 0), Run(tmp_path)
    model.fit(replace(ragged, fitting=True), run)
    assert not any(name.startswith("validation") for row in run.rows for name in row)
    both = pd.concat([ragged.samples("one", part) for part in ("train", "validation")])
    split = ragged.split.samples
    parts = split["split"].where(split["split"] != "validation", "train")
    same = replace(ragged, split=replace(ragged.split, samples=split.assign(split=parts)), fitting=True)
    assert torch.allclose(model.network.head("one").mean, Windows(same, "one", both.sort_index()).mean_counts())
    assert np.isfinite(model.predict(ragged, "one", ragged.samples("one", "test"))).all()


def test_a_final_fit_may_have_signals_and_keep_counts_from_itself(ragged: FitData, tmp_path: Path) -> None:
    config = replace(SMALL, learn_validation=True, signals=("running.angle",), sample_validation=0.2)
    run = Run(tmp_path)
    LFADS(config, 0).fit(replace(ragged, fitting=True), run)
    assert np.isfinite([row["sample_validation_nll"] for row in run.rows]).all()


def test_signals_drive_the_rates_and_gaps_are_their_mean(ragged: FitData, model: LFADS) -> None:
    samples = ragged.samples("two", "test")
    windows = Windows(ragged, "two", samples, inputs=model.inputs(ragged, "two", samples))
    batch = windows.batch(slice(0, 4))
    middle = samples["start_tick"].to_numpy()[0] / 1e5 - ragged.split.history_bins * 0.02 + 0.01
    assert float(batch.inputs["signals"][0, 0, 0]) == pytest.approx(np.sin(middle), abs=1e-3)
    head = model.network.head("two")
    training = ragged.samples("two", "train")
    train = model.inputs(ragged, "two", training)["signals"]
    inside = np.arange(train.shape[1]) < training["bins"].to_numpy()[:, None] + ragged.split.history_bins
    assert float(head.signal_mean) == pytest.approx(np.nanmean(train[inside]), abs=1e-5)
    with torch.inference_mode():
        unknown, mean, other = (
            model.network.eval().rates(replace(batch, inputs=batch.inputs | {"signals": values}))
            for values in (
                torch.full_like(batch.inputs["signals"], torch.nan),
                torch.full_like(batch.inputs["signals"], float(head.signal_mean)),
                torch.full_like(batch.inputs["signals"], float(head.signal_mean) + 1),
            )
        )
    assert torch.allclose(unknown, mean, atol=1e-6) and not torch.allclose(mean, other)


def test_what_it_cannot_do_is_said_in_a_line(ragged: FitData, model: LFADS, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dropout: found 1\.5; accepted: from 0 to below 1"):
        Config(dropout=1.5)
    with pytest.raises(InputError, match="signals: found running of 2 columns; accepted: one of its columns"):
        LFADS(replace(SMALL, signals=("running",)), 0).fit(replace(ragged, fitting=True), Run(tmp_path))
    longer = ragged.samples("one", "test").assign(bins=200)
    with pytest.raises(InputError, match="bins: found 200; accepted: windows of at most 60 bins"):
        model.predict(ragged, "one", longer)


# Training


class Killed(Exception):
    """Stands for SIGKILL."""


class FragileRun(Run):
    """Dies at its second safe point."""

    def checkpoint(self, state, force: bool = False) -> None:
        super().checkpoint(state, force=True)
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 2:
            raise Killed


@pytest.mark.parametrize("config", [SMALL, replace(CONTROLLED, precision="bfloat16", sample_validation=0.1)])
def test_killed_the_fit_ends_in_the_same_bytes(ragged: FitData, tmp_path: Path, config: Config) -> None:
    data = replace(ragged, fitting=True)
    undisturbed = LFADS(config, 2)
    undisturbed.fit(data, Run(tmp_path / "one"))
    with pytest.raises(Killed):
        LFADS(config, 2).fit(data, FragileRun(tmp_path / "two"))
    resumed = LFADS(config, 2)
    resumed.fit(data, Run(tmp_path / "two"))
    first, second = undisturbed.state(), resumed.state()
    assert first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_the_start_is_the_mean_rate_and_factors_have_unit_rows(ragged: FitData, tmp_path: Path) -> None:
    model = LFADS(replace(SMALL, steps=1, learning_rate=1e-30, alignment=False), 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path))
    mean = Windows(ragged, "one", "train").mean_counts()
    assert torch.allclose(model.network.head("one").read_out.bias.exp(), mean)
    network = model.network
    states, _ = network.generator(None, 5, torch.eye(9)[None, :4], None)
    weights = network.to_factors / network.to_factors.norm(dim=1, keepdim=True)
    batch = Windows(ragged, "one", "train").batch(slice(0, 4))
    posterior = replace(network.encode(network.head("one"), _shown(network, batch)), mean=torch.zeros(4, 4))
    factors, _, _ = network.eval().decode(network.head("one"), batch, posterior, None)
    start = network.to_generator(torch.zeros(4, 4))
    states, _ = network.generator(None, factors.shape[0], start[None], None)
    assert torch.allclose(factors, states[0] @ weights.t(), atol=1e-6)


@pytest.mark.parametrize("observation", ["poisson", "gaussian"])
def test_no_rate_is_below_nothing(ragged: FitData, model: LFADS, observation: str) -> None:
    """A Gaussian mean can be, and is then a rate of 0: nearest of those that there are."""
    network = LFADS(replace(SMALL, observation=observation, read_in=4), 0).build(model.layout).eval()
    read_out = network.head("one").read_out
    with torch.no_grad():
        read_out.weight.zero_()
        read_out.bias.copy_(torch.linspace(-1, 1, 9))
        rates = network.rates(Windows(ragged, "one", "train").batch(slice(0, 4)))
    expected = read_out.bias.exp() if observation == "poisson" else read_out.bias.clamp(min=0)
    torch.testing.assert_close(rates, expected.expand_as(rates))


def test_priors_and_states_start_as_the_paper_has_them(ragged: FitData, model: LFADS) -> None:
    network = LFADS(CONTROLLED, 0).build(model.layout)
    assert torch.allclose(network.prior_log_time_constant.exp(), torch.full((2,), 10.0))  # bins
    assert torch.allclose(network.prior_log_noise.exp(), torch.full((2,), 0.1))
    zero = ("initial_encoder_start", "input_encoder_start", "controller_start", "prior_mean")
    assert not any(getattr(network, name).any() for name in zero)
    assert {*zero, "prior_log_noise", "prior_log_time_constant"} <= dict(network.named_parameters()).keys()
    batch = Windows(ragged, "one", "train").batch(slice(0, 4))
    with torch.no_grad():
        network.posterior.bias.copy_(torch.tensor([0.0] * 4 + [-100.0] * 2 + [0.0] * 2))
        network.posterior.weight.zero_()
    posterior = network.encode(network.head("one"), _shown(network, batch))
    assert torch.allclose(posterior.log_variance.exp(), torch.tensor([1e-4, 1e-4, 1.0001, 1.0001]).expand(4, -1))


def _shown(network: torch.nn.Module, batch: object):
    return conceal(batch, network.config, network.head("one").inputs, network.head("one").mean, 0, 0, drop=False)


def test_what_a_search_may_hide_does_not_change_what_evaluations_hide(ragged: FitData, model: LFADS) -> None:
    """Else the share of units that is hidden least wins, as that of single counts would."""
    batch = Windows(ragged, "one", "train").batch(slice(0, 8))
    losses, steps = [], []
    for hidden in ({}, {"coordinated_dropout": 0.6}, {"pass_rate": 0.5}, {"hide_units": 0.5}):
        torch.manual_seed(0)
        config = replace(CONTROLLED, read_in=4, evaluated_dropout=0.2, **hidden)
        network = LFADS(config, 0).build(model.layout).eval()
        losses.append(network(batch)["nll"].item())
        torch.manual_seed(0)
        steps.append(network(batch, 5)["nll"].item())
    assert len(set(losses)) == 1 and len(set(steps)) == 4


def test_ramps_and_penalties_weigh_their_terms(ragged: FitData, model: LFADS) -> None:
    network = LFADS(replace(CONTROLLED, read_in=4, l2_generator=3.0, l2_controller=0.0, l2_encoders=0.5), 0).build(
        model.layout
    )
    batch = Windows(ragged, "one", "train").batch(slice(0, 4))
    made = []
    for step in (0, 2, 4):
        torch.manual_seed(0)
        made.append({name: value.item() for name, value in network(batch, step).items()})
    for name in ("kl_initial", "kl_inputs", "l2"):
        assert made[0][name] == 0 and made[1][name] == pytest.approx(made[2][name] / 2)
    assert made[0]["nll"] == made[2]["nll"]
    # An evaluation has them at their full weights, whatever the step.
    network.eval()
    ended, evaluated = ((torch.manual_seed(0), network(batch, step))[1] for step in (99, None))
    assert evaluated["kl_initial"] == ended["kl_initial"] > 0 and evaluated["l2"] == ended["l2"] > 0
    assert evaluated["kl_inputs"] > 0
    weights = [(3.0, network.generator), (0.5, network.initial_encoder), (0.5, network.input_encoder)]
    squares = sum(scale * 0.5 * each.recurrent.square().sum().item() for scale, each in weights)
    assert made[2]["l2"] == pytest.approx(squares / sum(each.recurrent.numel() for _, each in weights))


def test_it_learns_trials_better_than_their_average(tmp_path: Path) -> None:
    """Bits a spike of held-out units in test trials, against the mean of the trial's condition."""
    made = recording(units=30, trials=150)
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, history=0.0), replace(SPLITS, forward=0.0), [made]))
    config = Config(
        steps=150, batch=45, warmup=10, initial_encoder=24, initial_conditions=12, generator=24, factors=4,
        evaluate_every=50, kl_ramp=(0, 50), average=0.9,
    )  # fmt: skip
    model = LFADS(config, 0)
    model.fit(replace(data, fitting=True), Run(tmp_path / "run"))
    samples = data.samples("small0", "test")
    counts = data.trains["small0"]
    from pipeline_lib.trains.binning import bin_windows

    counts = bin_windows(counts, samples["start_tick"].to_numpy(), 50, data.split.bin_ticks)
    heldout = data.heldout("small0")
    rates = model.predict(data, "small0", samples)
    train = data.samples("small0", "train")
    average = np.stack([
        data.counts("small0", train[train["condition"] == condition]).mean(axis=0) for condition in samples["condition"]
    ])  # fmt: skip
    from pipeline_lib.models.gaussian import smooth

    average = smooth(average.astype(np.float32), np.ones(average.shape, bool), 2.0) + 1e-3
    scores = [
        float(bits_per_spike(poisson_sums(counts[..., heldout], each[..., heldout]).total())[0])
        for each in (rates, average)
    ]
    assert scores[0] > scores[1] + 0.01 and scores[0] > 0.1, scores
