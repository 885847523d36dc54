"""Inputs that are not counts: signals through bases, events, baselines of conditions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.bases import BSpline, CyclicBSpline, RaisedCosineLog
from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.frames import lay_frames
from pipeline_lib.models.glm.inputs import Inputs, learn, learn_conditions, signal_values
from pipeline_lib.models.glm.settings import Config, Signal
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.models.glm.sessions import BIN, BLOCKS, CONTINUOUS, cohort, fitted, recording_of

SECONDS = np.arange(0, 150, BIN)
TRIALS = WindowSettings(bin_size=10.0, align="start", after=1.4)


@pytest.fixture(scope="module")
def session(tmp_path_factory, network_counts):
    """Trials in two conditions with a go cue, and a signal that is an angle; unit 0 to 3 follow one thing each."""
    random = np.random.default_rng(0)
    recording = recording_of(network_counts)
    starts = recording.trials["start"].to_numpy()
    cue = starts + random.uniform(0.2, 0.8, len(starts))
    condition = np.where(np.arange(len(starts)) % 3 == 0, "right", "left")
    angle = np.cumsum(0.05 * random.normal(size=len(SECONDS))) % 1.0
    elapsed = (SECONDS + BIN / 2) % 1.5
    trial = np.minimum((SECONDS // 1.5).astype(int), len(starts) - 1)
    after_cue = SECONDS + BIN / 2 - cue[trial]
    rates = np.full((len(SECONDS), 4), 0.1)
    rates[:, 0] *= np.exp(2.5 * np.exp(-0.5 * ((elapsed - 0.7) / 0.1) ** 2) * (condition[trial] == "right"))
    rates[:, 1] *= np.exp(2 * np.cos(2 * np.pi * (angle - 0.3)))
    rates[:, 2] *= np.exp(2 * np.exp(-0.5 * ((after_cue - 0.15) / 0.05) ** 2))
    counts = network_counts.copy()
    counts[:, :4] = random.poisson(rates)
    recording = recording_of(counts)
    recording.trials = recording.trials.assign(condition=condition, cue=cue)
    recording.signals["heading"] = pd.DataFrame({"time": SECONDS + BIN / 2, "angle": angle})
    fit_data, data = cohort(tmp_path_factory.mktemp("inputs"), recording, TRIALS, SplitSettings(seed=2))
    return fit_data, data, rates


SIGNALS = (
    "speed.forward",
    Signal("heading.angle", basis="cyclic_bspline", n=8),
    Signal("trials.cue", history=0.4, n_history=6),
)
CONFIG = Config(history=0.1, strength=1e-3, coupling="none", condition_baselines=True, signals=SIGNALS)


def test_each_unit_is_explained_by_what_drives_it(session, tmp_path):
    fit_data, data, truth = session
    model, _ = fitted(CONFIG, fit_data, tmp_path)
    test = data.samples("net", "test")
    rates = model.predict(data, "net", test)
    rows = test["start_tick"].to_numpy()[:, None] // 1000 + np.arange(140)
    for unit in range(3):
        found, expected = np.log(rates[..., unit]).ravel(), np.log(truth[rows, unit]).ravel()
        assert np.corrcoef(found, expected)[0, 1] > 0.85, unit
    assert "the trial's condition" in model.sees and "heading.angle" in model.sees
    # Without a baseline of its own, a condition's response is lost in the mean.
    shared, _ = fitted(replace(CONFIG, condition_baselines=False), fit_data, tmp_path / "shared")
    right = (test["condition"] == "right").to_numpy()
    peaks = {
        name: each.predict(data, "net", test)[right, 65:75, 0].mean()
        for name, each in {"own": model, "shared": shared}.items()
    }
    assert peaks["own"] > 1.4 * peaks["shared"]


def test_columns_are_what_their_names_say(session):
    fit_data, _, _ = session
    train = fit_data.samples("net", "train")
    layout = lay_frames(fit_data, train, 10, merge=True)
    signals = CONFIG.inputs
    learned = {"splines": np.array([0]), "window": np.array([140])} | learn(fit_data, "net", signals, layout)
    inputs = Inputs(fit_data, "net", signals, learned)
    frames = np.arange(len(layout))
    columns, names = inputs.columns(layout, frames), inputs.names()
    assert columns.shape == (len(frames), len(names)) == (len(frames), 1 + 8 + 6)
    assert names[0] == "speed.forward" and names[1] == "heading.angle, value 0" and names[9] == "trials.cue, lag 0"
    window, _ = layout.places(frames)
    assert (columns[window < 0] == 0).all()
    scored = window >= 0
    time = layout.ticks(frames)[scored] / 1e5 + BIN / 2
    forward = np.interp(time, SECONDS, np.sin(SECONDS))
    np.testing.assert_allclose(columns[scored, 0], (forward - forward.mean()) / forward.std(), atol=1e-5)
    angle = fit_data.trains["net"].signals["heading"]["angle"].to_numpy()[np.rint(time / BIN - 0.5).astype(int)]
    s = (angle - angle.min()) / (angle.max() - angle.min())
    np.testing.assert_allclose(columns[scored, 1:9], CyclicBSpline(8).evaluate(s), atol=1e-4)
    # Events: the kernel's row k where an event fell k bins ago.
    cue = fit_data.trains["net"].trials["cue"].to_numpy()
    kernel = RaisedCosineLog(6).kernel(40)
    ago = np.floor(time / BIN).astype(int)[:, None] - np.floor(cue / BIN + 1e-6).astype(int)
    expected = np.zeros((scored.sum(), 6))
    row, event = np.nonzero((ago >= 0) & (ago < 40))
    np.add.at(expected, row, kernel[ago[row, event]])
    np.testing.assert_allclose(columns[scored, 9:], expected, atol=1e-5)


def test_a_condition_that_training_has_not_seen_is_the_mean_of_all(session):
    fit_data, data, _ = session
    learned = {"splines": np.array([6]), "window": np.array([140])}
    learned["conditions"] = learn_conditions(fit_data.samples("net", "train"))
    test = data.samples("net", "test").iloc[:1]

    def columns(condition: str) -> np.ndarray:
        layout = lay_frames(data, test.assign(condition=condition), 10, merge=False)
        return Inputs(data, "net", (), learned).columns(layout, np.arange(len(layout)))

    known = [columns(name) for name in ("left", "right")]
    assert known[0].shape == (150, 11) and not np.array_equal(*known) and not known[0][:, 5:].any()
    middles = (np.arange(140) + 0.5) / 140
    np.testing.assert_allclose(known[1][10:], BSpline(6).evaluate(middles)[:, [*range(1, 6), *range(6)]], atol=1e-6)
    names = Inputs(data, "net", (), learned).names()
    assert (names[0], names[5], names[-1]) == ("baseline[1]", "baseline[0], right", "baseline[5], right")
    np.testing.assert_allclose(columns("new"), np.mean(known, axis=0), atol=1e-7)


def test_a_history_of_a_signal_is_its_past_not_its_future(session):
    fit_data, _, _ = session
    layout = lay_frames(fit_data, fit_data.samples("net", "train"), 0, merge=True)
    signal = (Signal("speed.turn", history=0.05, n_history=5),)
    learned = {"splines": np.array([0]), "window": np.array([140])} | learn(fit_data, "net", signal, layout)
    columns = Inputs(fit_data, "net", signal, learned).columns(layout, np.arange(len(layout)))
    time = layout.ticks(np.arange(len(layout))) / 1e5 + BIN / 2
    mean, scale = learned["signal0_mean"], learned["signal0_scale"]
    for lag in range(5):  # five functions over five bins: the identity
        past = np.interp(time - lag * BIN, SECONDS, np.cos(SECONDS), left=np.nan)
        known = np.isfinite(past)
        np.testing.assert_allclose(columns[known, lag], (past[known] - mean) / scale, atol=1e-5)


def test_new_values_take_the_bounds_of_training_and_gaps_the_mean(session):
    fit_data, _, _ = session
    layout = lay_frames(fit_data, fit_data.samples("net", "train"), 0, merge=True)
    signal = (Signal("speed.forward", basis="bspline", n=5),)
    learned = {"splines": np.array([0]), "window": np.array([140])} | learn(fit_data, "net", signal, layout)
    learned |= {"signal0_low": np.array([-0.5]), "signal0_high": np.array([0.5])}
    frames = np.arange(1000)
    found = Inputs(fit_data, "net", signal, learned).columns(layout, frames)
    time = layout.ticks(frames) / 1e5 + BIN / 2
    s = np.clip(np.interp(time, SECONDS, np.sin(SECONDS)), -0.5, 0.5) + 0.5
    np.testing.assert_allclose(found, BSpline(5).evaluate(s)[:, 1:], atol=1e-5)


def test_a_gap_in_a_signal_is_noted_and_filled(tmp_path, network_counts):
    recording = recording_of(network_counts)
    recording.signals["speed"].loc[2000:9000, "forward"] = np.nan
    recording.signals["speed"].loc[500:502, "forward"] = np.nan  # so few are bridged
    recording.signals["late"] = pd.DataFrame({"time": SECONDS[7500:], "value": 2 + np.sin(SECONDS[7500:])})
    recording.signals["still"] = pd.DataFrame({"time": SECONDS, "value": 2.0})
    fit_data, data = cohort(tmp_path, recording, CONTINUOUS, BLOCKS)
    signals = ("late", "speed.forward", Signal("late", basis="bspline"), Signal("still", basis="bspline", n=5))
    config = Config(history=0.1, strength=1e-3, signals=signals)
    model, run = fitted(config, fit_data, tmp_path / "run")
    notes = [row["note"] for row in run.rows if row["stage"] == "note"]
    assert any("signals missing in a share [0.5" in note for note in notes)
    assert np.isfinite(signal_values(data, "net", "speed.forward", np.arange(490_000, 510_000, 1000))).all()
    layout, learned = lay_frames(data, data.samples("net", "test"), 0, merge=True), model.learned["net"]
    columns = Inputs(data, "net", config.inputs, learned).columns(layout, np.arange(len(layout)))
    missing = layout.ticks(np.arange(len(layout))) < 74 * 100_000
    assert missing.any() and (columns[missing, 0] == 0).all() and 0.8 < columns[~missing, 0].std() < 1.2
    np.testing.assert_allclose((learned["signal2_low"], learned["signal2_high"]), [[1], [3]], atol=0.01)
    splines = BSpline(6).evaluate((learned["signal2_mean"] - 1) / 2)[:, 1:]
    np.testing.assert_allclose(columns[missing, 2:7], np.tile(splines, (missing.sum(), 1)), atol=0.01)
    assert np.isfinite(model.predict(data, "net", data.samples("net", "test"))).all()


@pytest.mark.parametrize("after", [0.205, 0.2], ids=["in a bin", "where a bin begins"])
def test_events_may_be_missing_and_in_any_order(tmp_path, network_counts, after):
    recording = recording_of(network_counts[:6000])
    cue = recording.trials["start"].to_numpy()[::-1] + after
    cue[2] = np.nan
    recording.trials = recording.trials.assign(cue=cue)
    data, _ = cohort(tmp_path, recording, CONTINUOUS, BLOCKS)
    expected = np.zeros(6000)
    expected[np.floor(cue[np.isfinite(cue)] / BIN + 1e-6).astype(int)] = 1
    np.testing.assert_array_equal(signal_values(data, "net", "trials.cue", np.arange(6000) * 1000)[:, 0], expected)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        ({"name": "trials.cue"}, "trials.cue: history: found 0.0"),
        ({"name": "x", "n_history": 1}, "n_history: found 1"),
        ({"name": "x", "basis": "bspline", "n": 3}, "n: found 3"),
        ({"name": ""}, "name: found"),
    ],
)
def test_bad_signals_are_named(signal, message):
    with pytest.raises(InputError, match=message):
        Signal(**signal)


def test_unknown_events_and_baselines_are_named(session, tmp_path):
    fit_data, _, _ = session
    accepted = r"a column of times: trials\.start, trials\.stop, trials\.cue"
    with pytest.raises(InputError, match=rf"signals: found 'trials\.go'; accepted: {accepted}"):
        fitted(replace(CONFIG, signals=(Signal("trials.go", history=0.2),)), fit_data, tmp_path)
