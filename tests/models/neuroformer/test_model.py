"""The Neuroformer as a model: from trains and a split to scores, tables and couplings; no leak; what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer import report
from pipeline_lib.models.neuroformer.connectivity import cross_correlation, probed_couplings
from pipeline_lib.models.neuroformer.likelihood import score_rows, window_sums
from pipeline_lib.models.neuroformer.model import NeuroformerModel, _longer
from pipeline_lib.models.neuroformer.report import decoding_table, generated_table
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.recording import Recording
from pipeline_lib.training.run import Run
from tests.models.neuroformer.small import batch, network, poisson, with_settings
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort
from tests.training.test_engine import same

HERE = with_settings(window=0.1, past=0.1, rollouts=1, probes=2)
NO_FORWARD = replace(SPLITS, forward=0.0)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    """Two sessions of different size, trials of different length, held-out units."""
    made = [recording("one", 0, units=9, trials=30), recording("two", 1, units=12, trials=30)]
    for each in made:
        each.trials["stop"] = each.trials["start"] + np.linspace(0.4, 1.2, 30)
    windows = replace(WINDOWS, after=None)
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("ragged"), windows, NO_FORWARD, made))


@pytest.fixture(scope="module")
def model(ragged: FitData, tmp_path_factory: pytest.TempPathFactory) -> NeuroformerModel:
    model = NeuroformerModel(replace(HERE, dropout=0.1, rollouts=2), 3)
    model.fit(replace(ragged, fitting=True), Run(tmp_path_factory.mktemp("run")))
    return model


def test_a_saved_model_is_the_fitted_one(ragged: FitData, model: NeuroformerModel) -> None:
    copy = NeuroformerModel(model.config, 0)
    copy.load_state(model.state())
    samples = ragged.samples("one", "validation")
    rates = model.predict(ragged, "one", samples)
    assert rates.shape == (len(samples), samples["bins"].max(), 9)
    assert np.array_equal(copy.predict(ragged, "one", samples), rates)
    alone = model.predict(ragged, "one", samples.iloc[[1]])[0]
    assert np.allclose(alone, rates[1, : len(alone)], atol=1e-6)
    assert {name.split("/")[0] for name in model.state() if "/" in name} == {"one", "two"}


def test_tables_say_what_the_model_knows(
    ragged: FitData, model: NeuroformerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(report, "generated_table", lambda *each: asked.append(each[2:]) or generated_table(*each))
    tables = model.tables(ragged)
    assert asked == [("test", 2, 3)]  # rollouts and seed
    scores = tables["scores"].query("metric == 'token_bits_per_spike'")
    assert len(scores) == 8 and scores["value"].notna().all() and (scores["ci_low"] < scores["ci_high"]).all()
    counts, seen = (each[:, 5:, ragged.heldin("two")] for each in ragged.read("two", "train"))
    with torch.inference_mode():
        sums = window_sums(model.network, list(model.batches(ragged, "two", "test")))
    expected = [row["value"] for row in score_rows(sums, counts.sum((0, 1)) / seen.sum((0, 1)))]
    assert scores.query("session == 'two' and split == 'test'")["value"].tolist() == pytest.approx(expected)
    tokens = tables["tokens"].set_index(["session", "split"])
    heldin = ragged.heldin("two")
    assert tokens.loc[("two", "test"), "spikes"] == ragged.counts("two", "test")[:, 5:, heldin].sum()
    assert (tokens["cut"] == 0).all()
    generated = tables["generated"]
    assert set(generated["session"]) == {"one", "two"} and len(generated) > 100
    assert set(generated["rollout"]) == {0, 1}
    for session in ("one", "two"):
        own = generated[generated["session"] == session]
        assert set(own["unit"]) == set(ragged.heldin(session))
        assert (own["bin"] < ragged.split.samples.loc[own["sample"], "bins"].to_numpy()).all()
    attended = tables["attention"].query("session == 'one'")
    assert len(attended) == 81 and attended["attention"].mean() == pytest.approx(1, abs=0.5)
    (counts, mask), heldin = ragged.read("one", "train"), ragged.heldin("one")
    known = attended.pivot(index="sender", columns="receiver", values="cross_correlation").to_numpy()
    assert np.allclose(known[np.ix_(heldin, heldin)], cross_correlation(counts[..., heldin], mask[..., heldin], 5))
    spikes = attended.pivot(index="sender", columns="receiver", values="sender_spikes").to_numpy()
    assert np.array_equal(spikes, np.repeat(counts.sum((0, 1))[:, None], 9, 1))
    assert np.isnan(known[ragged.heldout("one")]).all() and np.isnan(known[:, ragged.heldout("one")]).all()


def test_couplings_are_those_of_heldin_senders(ragged: FitData, model: NeuroformerModel) -> None:
    couplings = model.couplings("two")
    assert couplings is not None and couplings.filters.shape == (12, 12, 5) and couplings.bin_size == 20
    unknown = np.isnan(couplings.filters).all((1, 2))
    assert np.array_equal(np.flatnonzero(unknown), ragged.heldout("two"))
    assert np.allclose(couplings.strength[~unknown], couplings.filters[~unknown].sum(2), atol=1e-5)
    assert np.array_equal(couplings.filters, probed_couplings(model.network, "two", 2, seed=3), equal_nan=True)


def test_every_rollout_and_every_batch_is_drawn_by_itself(ragged: FitData, model: NeuroformerModel) -> None:
    """The same windows twice, in two batches."""
    samples = ragged.samples("one", "test").sort_values("bins").iloc[-1:]
    again = pd.concat([samples, samples.set_index(samples.index + 999)])
    twice = SimpleNamespace(sessions=["one"], heldin=ragged.heldin, samples=lambda *_: again)
    batches = [next(model.batches(ragged, "one", samples)) for _ in range(2)]
    doubled = SimpleNamespace(network=model.network, batches=lambda *_: iter(batches))
    table, other = (generated_table(doubled, twice, "test", 2, seed) for seed in (0, 1))
    assert not table.equals(other)
    table["sample"], table["batch"] = table["sample"] % 999, table["sample"] // 999
    drawn = [own.drop(columns=["rollout", "batch"]) for _, own in table.groupby(["rollout", "batch"])]
    assert len({own.to_csv(index=False) for own in drawn}) == len(drawn) == 4


def test_nothing_that_was_recorded_in_a_window_changes_what_is_written() -> None:
    """By a network for which the past matters."""
    samples, made = pd.DataFrame(index=[7, 9]), network(spread=0.5)
    data = SimpleNamespace(sessions=["one"], heldin=lambda _: np.arange(6), samples=lambda *_: samples)
    history, recorded = poisson(2, 10), (np.zeros((2, 25, 6)), poisson(2, 25, rate=0.3))
    batches = [batch(np.concatenate([history, each], axis=1)) for each in recorded]
    models = [SimpleNamespace(network=made, batches=lambda *_, each=each: iter([each])) for each in batches]
    tables = [generated_table(each, data, "test", 1, 0) for each in models]
    assert tables[0].equals(tables[1]) and tables[0]["bin"].max() > 15


def test_every_spike_that_was_written_is_a_row(
    ragged: FitData, model: NeuroformerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, heldin = ragged.samples("two", "test"), ragged.heldin("two")
    counts = np.random.default_rng(0).poisson(0.4, (len(samples), 5 + samples["bins"].max(), len(heldin)))
    monkeypatch.setattr(report, "generate", lambda *_: torch.as_tensor(counts))
    table = generated_table(model, replace(ragged, trains={"two": ragged.trains["two"]}), "test", 1, 0)
    found = np.zeros_like(counts)
    unit = np.searchsorted(heldin, table["unit"])
    np.add.at(found, (samples.index.get_indexer(table["sample"]), 5 + table["bin"], unit), 1)
    assert np.array_equal(found[:, 5:], counts[:, 5:]) and counts.max() > 2


def test_independent_heads_are_fitted_and_scored_like_the_others(ragged: FitData, tmp_path: Path) -> None:
    model = NeuroformerModel(replace(HERE, compat=True), 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path))
    copy = NeuroformerModel(model.config, 0)
    copy.load_state(model.state())
    tables = copy.tables(ragged)
    bits = tables["scores"].query("metric == 'token_bits_per_spike' and null == 'train mean' and split == 'test'")
    assert len(bits) == 2 and (bits["value"] < -0.2).all() and len(tables["generated"])
    assert np.isfinite(copy.predict(ragged, "one", ragged.samples("one", "test"))).all()
    assert copy.couplings("two") is not None


def test_a_limit_is_counted_and_takes_the_likelihood_away(ragged: FitData, tmp_path: Path) -> None:
    model = NeuroformerModel(replace(HERE, limit=3, rollouts=0, probes=0, steps=2), 0)
    model.fit(replace(ragged, fitting=True), Run(tmp_path))
    tables = model.tables(ragged)
    assert (tables["tokens"]["cut"] > 0).all() and len(tables["scores"]) == 0


def test_a_share_of_the_windows_is_part_of_a_larger_share(ragged: FitData) -> None:
    shares = {
        fraction: set(NeuroformerModel(replace(HERE, fraction=fraction), 3)._share(ragged).split.samples.index)
        for fraction in (0.2, 0.5, 1.0)
    }
    assert shares[0.2] < shares[0.5] < shares[1.0]
    other = NeuroformerModel(replace(HERE, fraction=0.2), 4)._share(ragged)
    assert set(other.split.samples.index) != shares[0.2]
    kept = ragged.split.samples.loc[sorted(shares[0.2])]
    assert (kept["split"] == "test").sum() == (ragged.split.samples["split"] == "test").sum()
    assert (kept["split"] == "train").sum() == sum(
        round(0.2 * len(ragged.samples(session, "train"))) for session in ragged.sessions
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"past": 0.2}, "past"),
        ({"past": 0.12}, "past"),  # a bin more than the history
        ({"window": 0.05}, "window"),
        ({"frames": 2}, "stimulus"),
        ({"signals": ("running/speed",)}, "running/speed"),
        ({"decode": {"eye/x": "regression"}}, "eye/x"),
    ],
)
def test_what_cannot_be_is_refused(ragged: FitData, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NeuroformerModel(replace(HERE, **changes), 0).fit(replace(ragged, fitting=True), Run(tmp_path))


def test_a_window_that_was_not_wholly_observed_has_rates_and_unseen_units_their_mean(tmp_path: Path) -> None:
    """A gap in every trial, and a unit that comes back in the middle of a window."""
    made = recording(trials=20)
    start = made.trials["start"].to_numpy()
    gaps = np.stack([start + 0.43, start + 0.66], 1)
    outside = (made.spike_times[:, None] < gaps[:, 0]) | (made.spike_times[:, None] >= gaps[:, 1])
    away = (made.spike_units == 1) & (made.spike_times % 1.5 < 0.24)
    keep = outside.all(1) & ~away
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    made.observed = np.stack([np.append(0.0, gaps[:, 1]), np.append(gaps[:, 0], made.duration)], 1)
    made.unit_intervals = pd.DataFrame({"unit": 1, "start": start + 0.24, "stop": start + 1.5})
    data = open_cohort(*write_cohort(tmp_path, splits=NO_FORWARD, made=[made]))
    model = NeuroformerModel(HERE, 0)
    model.fit(replace(data, fitting=True), Run(tmp_path / "run"))
    rates = model.predict(data, "small0", data.samples("small0", "test"))
    assert np.isfinite(rates).all() and (rates > 0).all()
    unit, expected = data.heldin("small0"), model.network.head("small0").expected.numpy()
    assert 1 in unit
    np.testing.assert_array_equal(rates[:, 12:15, 1], np.full((len(rates), 3), expected[unit == 1]))
    np.testing.assert_array_equal(rates[:, 22:25, unit], np.broadcast_to(expected, (len(rates), 3, len(unit))))


def running() -> Recording:
    """Trials of different length, and how fast the animal runs."""
    made = recording(trials=24)
    made.trials["stop"] = made.trials["start"] + np.linspace(0.4, 1.2, 24)
    time = np.arange(0, made.duration, 0.05)
    speed, angle = 3 * np.sin(9 * time), np.cos(3 * time)
    return replace(made, signals={"running": pd.DataFrame({"time": time, "speed": speed, "angle": angle})})


@pytest.mark.parametrize("changes", [{}, {"signals": ("running/speed",), "decode": {"running/angle": "regression"}}])
def test_weights_are_the_same_bytes_resident_or_streamed(tmp_path: Path, changes: dict) -> None:
    made = running()
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, after=None), NO_FORWARD, [made]), fitting=True)
    states = []
    for budget in (2**40, 0):
        model = NeuroformerModel(replace(HERE, **changes), 0)
        model.fit(data, Run(tmp_path / f"run{budget}", memory_budget=budget))
        states.append(model.state())
    assert same(*states)
    if model.config.decode:  # read out of what lies in a trial
        bins = data.samples("small0", "train")["bins"].sort_index()
        table, _ = decoding_table(model, data, ("train",))
        assert table.groupby("sample").size().tolist() == (-(-bins // 5)).tolist()


def test_signals_after_the_end_of_a_trial_are_not_looked_at(tmp_path: Path) -> None:
    """Not to standardise them, and however long the others of its batch are: they change no prediction of a trial."""
    data = open_cohort(*write_cohort(tmp_path, replace(WINDOWS, after=None), NO_FORWARD, [running()]))
    model = NeuroformerModel(replace(HERE, signals=("running/speed",)), 0)
    model.fit(replace(data, fitting=True), Run(tmp_path / "run"))
    train = data.samples("small0", "train")
    speed = model.inputs(data, "small0", train)["signals"][..., 0]
    speed = speed[np.arange(speed.shape[1]) < 5 + train["bins"].to_numpy()[:, None]]
    scale = model.network.head("small0").signal_scale[:, 0].numpy()
    np.testing.assert_allclose(scale, [np.nanmean(speed), np.nanstd(speed)], rtol=1e-3)
    samples = data.samples("small0", "test").sort_values("bins")
    together = model.predict(data, "small0", samples)
    for number, bins in enumerate(samples["bins"]):
        alone = model.predict(data, "small0", samples.iloc[[number]])[0]
        np.testing.assert_allclose(alone, together[number, :bins], atol=1e-6)


def test_a_sample_of_fewer_windows_has_no_features_of_the_others() -> None:
    longer = _longer(np.ones((2, 3, 4)), 5)
    assert longer.shape == (2, 5, 4) and (longer[:, :3] == 1).all() and np.isnan(longer[:, 3:]).all()


def test_a_fit_to_heldout_units_alone_needs_some() -> None:
    layout = Layout(20.0, 60, 5, 0, 3, {"one": 6}, {"one": list(range(6))}, {"one": [""] * 6})
    with pytest.raises(InputError, match=r"loss_terms: found heldout; .* no unit of session one is held out"):
        NeuroformerModel(replace(HERE, loss_terms=("heldout",)), 0).build(layout)


def test_forward_bins_are_refused(tmp_path: Path) -> None:
    data = open_cohort(*write_cohort(tmp_path))
    with pytest.raises(InputError, match=r"splits\.forward"):
        NeuroformerModel(HERE, 0).fit(replace(data, fitting=True), Run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "heads": 4}, "multiple"),
        ({"contrastive": ("spikes", "frames")}, "contrastive"),
        ({"loss_terms": ("nothing",)}, "loss_terms"),
        ({"loss_terms": ("id",), "select": "time"}, "select"),
        ({"signals": ("speed",)}, "running/speed"),
        ({"objectives": ("decode:running/speed",)}, "objectives"),
        ({"fraction": 0.0}, "fraction"),
        ({"window": float("inf")}, "window"),
    ],
)
def test_settings_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config(**changes)
