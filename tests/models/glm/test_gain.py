"""A gain of the trial as an input: what is the trial's own is not laid on couplings, and nothing leaks."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline_lib.models.glm.frames import lay_frames
from pipeline_lib.models.glm.gain import gain_columns, usual_activity
from pipeline_lib.models.glm.inputs import Inputs
from pipeline_lib.models.glm.settings import Config
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.models.glm.sessions import cohort, fitted

BINS, TRIALS, UNITS = 150, 200, 6
CONFIG = Config(history=0.05, n_basis=3, baseline=0, strength=1e-4)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Trials of 1.5 s, in which one gain, shared by both populations, is all that units have in common."""
    random = np.random.default_rng(0)
    gain = random.normal(0, 0.6, TRIALS)
    counts = random.poisson(0.15 * np.exp(np.repeat(gain, BINS)[:, None] * np.ones(UNITS)))
    windows = WindowSettings(bin_size=10.0, align="start", after=1.4, history=0.05)
    splits = SplitSettings(seed=1, heldout_units=1)
    fit_data, data = cohort(tmp_path_factory.mktemp("gain"), counts, windows, splits)
    return fit_data, data, gain, counts


def test_a_gain_of_the_trial_takes_what_couplings_would_be_blamed_for(session, tmp_path):
    fit_data, data, gain, _ = session
    shares, errors = {}, {}
    test = data.samples("net", "test")
    truth = np.log(0.15) + gain[test["start_tick"].to_numpy() // 150_000]
    for wanted in (False, True):
        model, _ = fitted(replace(CONFIG, trial_gain=wanted), fit_data, tmp_path / str(wanted))
        scores = model.tables(data)["scores"]
        shares[wanted] = float(scores.loc[scores["metric"] == "coupling_share", "value"].iloc[0])
        heldin = data.heldin("net")
        errors[wanted] = np.abs(np.log(model.predict(data, "net", test)[..., heldin]) - truth[:, None, None]).mean()
    assert shares[False] > 0.2
    assert abs(shares[True]) < 0.1 * shares[False]
    assert errors[True] < 0.6 * errors[False]


def test_columns_are_the_log_of_what_was_counted(session):
    fit_data, _, _, counts = session
    heldin, units = fit_data.heldin("net"), fit_data.trains["net"].units
    learned = {"splines": np.array([0]), "window": np.array([140]), "usual": usual_activity(fit_data, "net")}
    train = fit_data.samples("net", "train")
    frames = lay_frames(fit_data, train, 5, merge=True)
    inputs = Inputs(fit_data, "net", (), learned)
    columns = inputs.columns(frames, np.arange(len(frames)))
    assert inputs.names() == ["gain of A", "gain of B"]
    window, _ = frames.places(np.arange(len(frames)))
    assert not columns[window < 0].any()
    rows = frames.windows["start_tick"].to_numpy()[:, None] // 1000 + np.arange(140)
    for column, name in enumerate(("A", "B")):
        # A held-out unit is no part of any gain, though it is seen in training.
        members = np.intersect1d(heldin, np.flatnonzero(units["population"] == name))
        spikes = counts[rows][:, :, members].sum((1, 2))
        expected = np.log((spikes + 1) / (spikes.mean() + 1))
        np.testing.assert_allclose(columns[window >= 0][:, column], expected[window[window >= 0]], atol=1e-5)


def test_a_prediction_says_that_it_looks_ahead_and_depends_on_its_window_alone(session, tmp_path):
    fit_data, data, _, _ = session
    model, _ = fitted(replace(CONFIG, trial_gain=True), fit_data, tmp_path)
    assert model.sees == "held-in units, past and future"
    # A unit weighs its own population's gain, not the other's.
    weights = model.learned["net"]["coefficients"][:, 1:3]
    own = data.trains["net"].units["population"].to_numpy(str)[:, None] == ["A", "B"]
    assert (weights[~own] == 0).all() and (weights[own] > 0.3).all()
    test = data.samples("net", "test")
    together, alone = model.predict(data, "net", test), model.predict(data, "net", test.iloc[[3]])
    np.testing.assert_array_equal(together[3], alone[0])


def test_a_gain_of_a_training_window_knows_no_more_than_that_of_a_test(tmp_path):
    """Spikes in the bins to forecast, known in training, change no gain."""
    found = []
    for more in (0, 9):
        counts = np.random.default_rng(0).poisson(0.2, (BINS * 30, UNITS))
        counts.reshape(30, BINS, UNITS)[:, 135:140] += more
        splits = SplitSettings(seed=1, heldout_units=1, forward=0.05)
        windows = WindowSettings(bin_size=10.0, align="start", after=1.4)
        data, _ = cohort(tmp_path / str(more), counts, windows, splits)
        train = data.samples("net", "train")
        found.append(gain_columns(data, "net", train, np.arange(len(train)), usual_activity(data, "net")))
    np.testing.assert_array_equal(*found)
    assert found[0].std() > 0.01


def test_a_gain_is_the_same_when_windows_are_read_in_passes(session, tmp_path):
    fit_data, data, _, _ = session
    config = replace(CONFIG, trial_gain=True, dtype="float64", tolerance=1e-13)
    rates = {}
    for memory in ("fast", "stream"):
        model, _ = fitted(replace(config, memory=memory), fit_data, tmp_path / memory)
        rates[memory] = model.predict(data, "net", data.samples("net", "test"))
    np.testing.assert_allclose(rates["stream"], rates["fast"], rtol=1e-4)
