"""Frames, signals and what is read out: aligned, never of the future, and worth something."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.clock import to_seconds
from pipeline_lib.errors import InputError
from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer.generation import generate
from pipeline_lib.models.neuroformer.modalities import Contrast
from pipeline_lib.models.neuroformer.model import NeuroformerModel
from pipeline_lib.models.neuroformer.report import _decoding_scores, weighted_r
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.neuroformer.signals import as_classes, classes_of, read_frames, read_signals
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.stimulus import Stimulus
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains

TASKS = Config(
    window=0.1,
    past=0.2,
    width=16,
    heads=2,
    steps=3,
    warmup=1,
    evaluate_every=1,
    batch=4,
    frames=2,
    signals=("gaze/x",),
    decode={"running/speed": "regression", "state/moving": "classification"},
    contrastive=("spikes", "frames", "signals"),
    contrastive_width=8,
    probes=0,
)


@pytest.fixture(scope="module")
def film() -> FitData:
    recording = simulate("video", {"units": 10, "duration": 60.0, "targets": 4}, 0, "film")
    recording.signals["state"]["moving"] = 3.0 + 4 * recording.signals["state"]["moving"]  # no number of a class
    trains = Trains.from_recording(recording)
    windows = WindowSettings(bin_size=10, mode="continuous", length=0.5, history=0.2)
    split = make_split([trains], windows, SplitSettings(block=3.0, fractions=(0.6, 0.2, 0.2)), "film")
    return FitData({"film": trains}, split)


@pytest.fixture(scope="module")
def model(film: FitData, tmp_path_factory: pytest.TempPathFactory) -> NeuroformerModel:
    made = NeuroformerModel(TASKS, 0)
    made.fit(replace(film, fitting=True), Run(tmp_path_factory.mktemp("run")))
    with torch.no_grad():
        for name, weight in made.network.named_parameters():
            if "ln" not in name and "norm" not in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    return made


def test_signals_are_read_where_they_are_known() -> None:
    table = pd.DataFrame({"time": [0.0, 1.0, 1.5, 9.0], "v": [0.0, 2.0, np.nan, 4.0]})
    trains = Trains("x", np.zeros(1), np.zeros(1), 1, 1, np.zeros((1, 2)), None, {"signals/s": table})
    times = np.array([[-0.1, 0.0, 0.25], [1.0, 3.0, 9.0]])
    linear, stepped = (read_signals(trains, ["s/v"], times, [step])[..., 0] for step in (False, True))
    assert np.allclose(linear, [[np.nan, 0, 0.5], [2, np.nan, 4]], equal_nan=True)
    assert np.allclose(stepped, [[np.nan, 0, 0], [2, np.nan, 4]], equal_nan=True)
    labels = as_classes(np.array([[3.0, 7.0, 5.0, np.nan]]).T, {0: np.array([3, 7])})
    assert np.allclose(labels[:, 0], [0, 1, np.nan, np.nan], equal_nan=True)


def test_a_label_has_two_classes_to_a_hundred() -> None:
    times = np.arange(120.0)
    table = pd.DataFrame({"time": times, "two": times % 2, "one": 0 * times, "many": times.clip(max=100)})
    trains = Trains("x", np.zeros(1), np.zeros(1), 1, 1, np.zeros((1, 2)), None, {"signals/s": table})
    assert classes_of(trains, "s/two", times).tolist() == [0, 1]
    assert len(classes_of(trains, "s/many", times[:100])) == 100
    for name, number in (("one", 1), ("many", 101)):
        with pytest.raises(InputError, match=f"{number} different values"):
            classes_of(trains, f"s/{name}", times)


def test_the_frame_of_a_moment_is_the_one_on_the_screen() -> None:
    frames = np.arange(3, dtype=np.uint8)[:, None, None].repeat(4, 1)
    stimulus = Stimulus(frames, np.array([1.0, 2.0, 3.0]), np.array([2, 0, 1], np.int32))
    shown = read_frames(stimulus, np.array([0.5, 1.0, 1.999, 2.0, 9.0]))
    assert shown[:, 0, 0].tolist() == [128, 2, 2, 0, 1]


def test_a_frame_that_begins_with_a_bin_is_on_the_screen_in_it() -> None:
    """Of 20 frames a second every fourth has an onset that is a rounding error after the start of its bin."""
    frames, number = np.arange(100, dtype=np.uint8)[:, None, None], np.arange(100)
    stimulus = Stimulus(frames, number * 0.05, number.astype(np.int32))
    assert read_frames(stimulus, to_seconds(number * 5000))[:, 0, 0].tolist() == number.tolist()


def test_signals_are_those_of_the_middle_of_a_bin_frames_those_of_the_start_of_a_step(
    film: FitData, model: NeuroformerModel
) -> None:
    """20 bins of 10 ms before each sample and 50 in it; a frame every 5 bins, and one from before all of them."""
    samples, trains = film.samples("film", "test"), film.trains["film"]
    found = model.inputs(film, "film", samples)
    start = to_seconds(samples["start_tick"].to_numpy())[:, None]
    middle = start + (np.arange(-20, 50) + 0.5) * 0.01
    for values, name in ((found["signals"][..., 0], "gaze/x"), (found["targets"][..., 0], "running/speed")):
        table, column = trains.signals[name.split("/")[0]], name.split("/")[1]
        expected = np.interp(middle, table["time"], table[column])
        known = np.isfinite(values)
        assert known.mean() > 0.9 and np.allclose(values[known], expected[known], atol=1e-4)
    state, label = trains.signals["state"], found["targets"][..., 1]
    last = np.searchsorted(state["time"], middle, side="right") - 1  # a label holds until the next
    known = (middle >= state["time"].min()) & (middle <= state["time"].max())
    assert np.array_equal(label[known], state["moving"].to_numpy()[last[known]] == 7) and known.mean() > 0.9
    assert trains.stimulus is not None
    expected = read_frames(trains.stimulus, start - 0.2 + np.arange(-1, 14) * 0.05)
    assert np.array_equal(found["frames"], expected) and len(np.unique(expected[:, :, 0, 0])) > 1


@torch.inference_mode()
def test_nothing_of_the_future_is_seen(film: FitData, model: NeuroformerModel) -> None:
    """Windows of 0.1 s from bin 20 on: what comes after the end of a window changes none of its rates."""
    batch = next(model.batches(film, "film", "test"))
    before = model.network.rates(batch)
    for name, per_bin in (("frames", 5), ("signals", 1)):
        values = batch.inputs[name]
        kept = values.clone()
        end = 40  # of the second window
        first = -(-end // per_bin) + (model.config.frames - 1 if name == "frames" else 0)
        values[:, first:] = 200 if name == "frames" else 9
        after = model.network.rates(batch)
        assert torch.allclose(after[:, :end], before[:, :end], atol=1e-5), name
        assert not torch.allclose(after[:, end:], before[:, end:], atol=1e-3), name
        values.copy_(kept)


@torch.inference_mode()
def test_what_is_written_sees_its_own_frames(film: FitData, model: NeuroformerModel) -> None:
    """Frames from the fourth window on are others: what was written before stays, what comes then does not."""
    batch = next(model.batches(film, "film", "test"))
    greedy = Sampling(temperature=0, most=30)
    other = replace(batch, inputs=batch.inputs | {"frames": batch.inputs["frames"].clone()})
    other.inputs["frames"][:, 10 + 1 :] = 230  # of step 10 on: bin 50, where window 4 starts
    for true_past in (False, True):
        one, changed = (generate(model.network, each, greedy, 0, true_past)[:, 20:] for each in (batch, other))
        assert torch.equal(one[:, :30], changed[:, :30]) and not torch.equal(one[:, 30:], changed[:, 30:])


@torch.inference_mode()
def test_the_value_of_a_signal_and_the_place_of_a_frame_matter(film: FitData, model: NeuroformerModel) -> None:
    """Both are lost in the public code: a layer norm over one number, positions that are overwritten."""
    batch = next(model.batches(film, "film", "test"))
    before = model.network.rates(batch)
    batch.inputs["signals"] += 1
    assert (model.network.rates(batch) - before).abs().max() > 1e-3
    batch.inputs["signals"] -= 1
    frames = batch.inputs["frames"]
    batch.inputs["frames"] = frames.roll(8, 3)  # whole patches change places
    assert (model.network.rates(batch) - before).abs().max() > 1e-3
    batch.inputs["signals"][:] = torch.nan
    assert bool(model.network.rates(batch).isfinite().all())


@torch.inference_mode()
def test_features_have_not_seen_each_other(film: FitData, model: NeuroformerModel) -> None:
    batch = next(model.batches(film, "film", "test"))
    network = model.network

    def features() -> dict[str, torch.Tensor]:
        return network.read(batch, network.windows(batch)).features

    before = features()
    batch.inputs["frames"] = 255 - batch.inputs["frames"]
    after = features()
    assert torch.equal(after["spikes"], before["spikes"]) and torch.equal(after["signals"], before["signals"])
    assert not torch.allclose(after["frames"], before["frames"], atol=1e-3)


def test_the_contrastive_loss_is_symmetric_and_its_temperature_learns() -> None:
    torch.manual_seed(0)
    contrast = Contrast(("spikes", "frames"), 6, 4, 0.5)
    pooled = {name: torch.randn(9, 6) for name in ("spikes", "frames")}
    kept = torch.ones(9, dtype=torch.bool)
    loss = contrast(pooled, kept)
    swapped = Contrast(("frames", "spikes"), 6, 4, 0.5)
    swapped.load_state_dict(contrast.state_dict())
    assert torch.allclose(swapped(pooled, kept), loss) and contrast.features(pooled)["spikes"].shape == (9, 4)
    loss.backward()
    assert contrast.log_temperature.grad is not None and contrast.log_temperature.grad != 0
    one = contrast.features(pooled)["spikes"]
    together, apart = (
        torch.nn.functional.cross_entropy(one @ other.T / 0.1, torch.arange(9)) for other in (one, one.roll(1, 0))
    )
    assert together < apart


def test_what_is_read_out_is_aligned_and_scored(film: FitData, model: NeuroformerModel) -> None:
    tables = model.tables(film)
    table = tables["decoding"]
    assert len(table) == 2 * 5 * (len(film.samples("film", "test")) + len(film.samples("film", "validation")))
    speed = table[table["variable"] == "running/speed"]
    begin = to_seconds(film.split.samples.loc[speed["sample"], "start_tick"].to_numpy())
    assert np.allclose(speed["time"] - begin, np.tile([0.05, 0.15, 0.25, 0.35, 0.45], len(speed) // 5))
    signal = film.trains["film"].signals["running"]
    expected = np.interp(speed["time"], signal["time"], signal["speed"])
    known = speed["true"].notna()
    assert known.mean() > 0.9 and np.abs(expected - speed["true"])[known].max() < 1.5
    assert np.corrcoef(expected[known], speed["true"][known])[0, 1] > 0.99
    moving = table[table["variable"] == "state/moving"]
    assert set(moving["true"].dropna()) == {3.0, 7.0} and set(moving["predicted"]) <= {3.0, 7.0}
    scores = tables["scores"].set_index(["split", "metric"])["value"]
    test = speed[(speed["split"] == "test") & known]
    error = ((test["true"] - test["predicted"]) ** 2).sum() / ((test["true"] - test["true"].mean()) ** 2).sum()
    assert scores[("test", "decoding_r2 running/speed")] == pytest.approx(1 - error)
    assert 0 <= scores[("test", "decoding_balanced_accuracy state/moving")] <= 1
    extras = model.extras(film, "film", film.samples("film", "test"))
    assert extras["feature_frames"].shape == (len(film.samples("film", "test")), 5, 8)
    assert np.allclose(np.linalg.norm(extras["feature_spikes"], axis=2), 1, atol=1e-5)


@torch.inference_mode()
def test_what_is_read_from_adds_up_spikes_and_no_padding(film: FitData, model: NeuroformerModel) -> None:
    network = model.network
    samples = film.samples("film", "test")

    def features(rows: pd.DataFrame, more: int = 0) -> torch.Tensor:
        batch = next(model.batches(film, "film", rows))
        batch.counts[:, 22, 4] += more
        windows = network.windows(batch)
        return network.window_features(network.head("film"), windows, network.read(batch, windows))

    together = features(samples)
    assert torch.allclose(features(samples.iloc[3:4]), together[15:20], atol=1e-4)
    width = model.config.width
    evidence = slice(width, 2 * width)
    steps = [features(samples, more)[::5, evidence] - together[::5, evidence] for more in (1, 2, 4)]
    assert steps[0].abs().min(1).values.max() > 0
    assert torch.allclose(steps[1], 2 * steps[0], atol=1e-3) and torch.allclose(steps[2], 4 * steps[0], atol=1e-3)


def test_a_weighted_correlation_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.standard_normal(50), rng.standard_normal(50)
    weights = np.ones((1, 50))
    assert weighted_r(true, predicted, weights)[0] == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    twice = np.where(np.arange(50) < 20, 2.0, 1.0)[None]
    rows = np.r_[np.arange(20), np.arange(50)]
    assert weighted_r(true, predicted, twice)[0] == pytest.approx(np.corrcoef(true[rows], predicted[rows])[0, 1])
    for value in (0.1, 0.7, 3.3):  # whose squares are rounded
        constants = np.full((2, 50), value)
        assert np.isnan(weighted_r(true, constants[0], twice)) and np.isnan(weighted_r(constants[1], true, twice))


def test_windows_of_a_sample_are_resampled_together() -> None:
    """Three windows that say the same are no more evidence than one of them."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal(30)
    columns = {"true": true, "predicted": true + rng.standard_normal(30), "sample": np.arange(30)}
    table = pd.DataFrame(columns).assign(session="film", split="test", variable="running/speed")
    one, three = (_decoding_scores(each, {"running/speed": "regression"}) for each in (table, pd.concat([table] * 3)))
    limits = ["value", "ci_low", "ci_high", "n"]
    assert np.allclose(one[limits], three[limits]) and (one["ci_low"] < one["ci_high"]).all() and len(one) == 2


def test_fine_tuning_starts_from_other_weights_and_leaves_the_frozen_ones(film: FitData, tmp_path: Path) -> None:
    """Pretrained on spikes alone; then frozen but for a new read-out, which alone is trained and chosen by."""
    from pipeline_lib.training.run import write_arrays

    spikes = replace(TASKS, frames=0, signals=(), contrastive=(), decode={})
    first = NeuroformerModel(spikes, 0)
    first.fit(replace(film, fitting=True), Run(tmp_path / "first"))
    write_arrays(tmp_path / "first.safetensors", first.state())
    term = "decode:running/speed"
    tuned = replace(
        spikes,
        decode={"running/speed": "regression"},
        loss_terms=(term,),
        select=term,
        initial=str(tmp_path / "first.safetensors"),
        freeze=("state.*", "fusion.*", "*/unit.weight"),
        fraction=0.5,
    )
    second = NeuroformerModel(tuned, 1)
    run = Run(tmp_path / "second")
    second.fit(replace(film, fitting=True), run)
    before, after = first.state(), second.state()
    moved = {name for name in before if name in after and not np.array_equal(before[name], after[name])}
    assert not any(name.startswith(("state.", "fusion.")) or name.endswith("unit.weight") for name in moved)
    assert any(name.startswith("state_last.") for name in moved)
    assert all("validation_loss" in row for row in run.rows)


def test_weights_that_tell_other_classes_apart_are_refused(
    model: NeuroformerModel, film: FitData, tmp_path: Path
) -> None:
    """As many of them: shapes fit."""
    from pipeline_lib.training.run import write_arrays

    path = tmp_path / "initial.safetensors"
    given, tuned = model.state(), NeuroformerModel(replace(TASKS, steps=1, initial=str(path)), 0)
    about = json.loads(given["about"].tobytes())
    assert about["classes"] == {"film": {"state/moving": [3.0, 7.0]}}
    about["classes"]["film"]["state/moving"] = [3.0, 8.0]
    write_arrays(path, given | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with pytest.raises(InputError, match=r"classes of state/moving: found \[3.0, 8.0\]; accepted: \[3.0, 7.0\]"):
        tuned.fit(replace(film, fitting=True), Run(tmp_path / "run"))
    write_arrays(path, given)
    tuned.fit(replace(film, fitting=True), Run(tmp_path / "run"))


def test_weights_are_kept_by_the_term_that_is_named(film: FitData, tmp_path: Path) -> None:
    """Two objectives of one training: each keeps the weights of the evaluation at which its own term was lowest."""
    settings = replace(TASKS, frames=0, signals=(), contrastive=(), steps=12, learning_rate=0.03, average=0.0)
    for term in ("time", "decode:running/speed"):
        model, run = NeuroformerModel(replace(settings, select=term), 0), Run(tmp_path / term.replace("/", "_"))
        model.fit(replace(film, fitting=True), run)
        lowest = min(row[f"validation_{term}"] for row in run.rows)
        with torch.inference_mode():
            batches = list(model.batches(film, "film", "validation"))
            found = sum(float(model.network(batch)[term]) * len(batch.counts) for batch in batches)
        assert found / sum(len(batch.counts) for batch in batches) == pytest.approx(lowest, abs=1e-5)


def test_each_objective_has_its_own_best_weights(film: FitData, tmp_path: Path) -> None:
    """One training keeps those of every term; they are in the file, and a variable is read out with its own."""
    terms = ("time", "decode:running/speed", "decode:state/moving")
    settings = replace(
        TASKS, frames=0, signals=(), contrastive=(), steps=14, learning_rate=0.03, average=0.0, objectives=terms
    )
    model, run = NeuroformerModel(settings, 0), Run(tmp_path)
    model.fit(replace(film, fitting=True), run)
    copy = NeuroformerModel(settings, 0)
    copy.load_state(model.state())
    steps = {term: min(run.rows, key=lambda row: row[f"validation_{term}"])["step"] for term in terms}
    assert len(set(steps.values())) > 1
    batches = list(model.batches(film, "film", "validation"))
    windows = sum(len(batch.counts) for batch in batches)
    for term in terms:
        with torch.inference_mode():
            found = sum(float(copy.best_of(term)(batch)[term]) * len(batch.counts) for batch in batches) / windows
        assert found == pytest.approx(min(row[f"validation_{term}"] for row in run.rows), abs=1e-5), term
    table = copy.tables(film)["decoding"].query("variable == 'running/speed' and split == 'validation'")
    with torch.inference_mode():
        own, other = (
            torch.cat([copy.best_of(term).decoded(batch)["running/speed"] for batch in batches])
            for term in (terms[1], "time")
        )
    assert np.allclose(table["predicted"], own, atol=1e-5)
    assert not np.allclose(own, other, atol=1e-3)


class Killed(Exception):
    """What ends a run in the middle."""


class ShortRun(Run):
    """Saves after every step, and ends after `steps` of them."""

    def __init__(self, directory: Path, steps: int) -> None:
        super().__init__(directory, checkpoint_seconds=0.0)
        self.left = steps

    def checkpoint(self, *args: object, **kwargs: object) -> None:
        super().checkpoint(*args, **kwargs)  # type: ignore[arg-type]
        self.left -= 1
        if not self.left:
            raise Killed


def test_a_killed_training_goes_on_to_the_same_bytes(film: FitData, tmp_path: Path) -> None:
    """With dropout, windows cut at random bins, frames, signals, a contrastive loss and read-outs."""
    settings = replace(TASKS, steps=5, evaluate_every=2, dropout=0.2, objectives=("time", "decode:running/speed"))
    data = replace(film, fitting=True)
    whole = NeuroformerModel(settings, 0)
    whole.fit(data, Run(tmp_path / "whole"))
    first = ShortRun(tmp_path / "killed", 3)
    with pytest.raises(Killed):
        NeuroformerModel(settings, 0).fit(data, first)
    first.close()
    again = NeuroformerModel(settings, 0)
    torch.rand(7)  # what another process did with its generators is no matter
    again.fit(data, Run(tmp_path / "killed"))
    assert all(np.array_equal(value, again.state()[name]) for name, value in whole.state().items())
