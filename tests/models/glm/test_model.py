"""The coupled GLM through the pipeline's contract: splits, held-out units, forecasts, restarts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm import MODEL
from pipeline_lib.models.glm.frames import lay_frames, read_blocks, read_frames
from pipeline_lib.models.glm.inference import false_discovery_rate
from pipeline_lib.models.glm.settings import Config
from pipeline_lib.training.run import Run
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.models.glm.networks import dense_design, simulate_network
from tests.models.glm.sessions import BIN, BLOCKS, CONFIG, CONTINUOUS, cohort, fitted


def bits_per_spike(rates: np.ndarray, counts: np.ndarray, null: np.ndarray) -> np.ndarray:
    likelihood = (counts * np.log(rates) - rates).sum((0, 1))
    return (likelihood - (counts * np.log(null) - null).sum((0, 1))) / counts.sum((0, 1)) / np.log(2)


def test_it_predicts_unseen_windows_and_finds_the_network(tmp_path, continuous):
    fit_data, data = continuous
    network = simulate_network(units=10, bins=15_000, seed=3)
    model, run = fitted(replace(CONFIG, strength="auto"), fit_data, tmp_path)
    test = data.samples("net", "test")
    rates = model.predict(data, "net", test).astype(np.float64)
    rows = test["start_tick"].to_numpy()[:, None] // 1000 + np.arange(100)
    gain = bits_per_spike(
        rates, network.counts[rows].astype(float), np.broadcast_to(network.counts.mean(0), rates.shape)
    )
    heldin, heldout = data.heldin("net"), data.heldout("net")
    assert len(heldout) == 2 and gain[heldin].mean() > 0.15 and gain[heldout].mean() > -0.01
    # The rates of the simulation are what a held-in unit's prediction should be.
    truth = network.rates[rows][..., heldin]
    assert np.corrcoef(rates[..., heldin].ravel(), truth.ravel())[0, 1] > 0.88
    couplings = model.couplings("net")
    assert couplings.bin_size == 10.0 and couplings.filters.shape == (10, 10, 30)
    assert np.isnan(couplings.filters[heldout]).all() and np.isfinite(couplings.filters[heldin]).all()
    strengths = [row["strength"] for row in run.rows if row.get("stage") == "path"]
    assert strengths == sorted(strengths, reverse=True) and len(strengths) > 3
    units = [row for row in run.rows if row.get("stage") == "unit"]
    assert len(units) == 10 and all(row["status"] == "converged" and row["decrement"] < 1e-9 for row in units)


def test_merging_windows_changes_nothing_but_speed(tmp_path, continuous):
    fit_data, _ = continuous
    learned = fitted(CONFIG, fit_data, tmp_path)[0].learned["net"]
    model = MODEL(CONFIG, 0)
    train = fit_data.samples("net", "train")
    merged, frames = model.read(fit_data, "net", train, learned, merge=True)
    single, _ = model.read(fit_data, "net", train, learned, merge=False)
    assert len(merged.segments) < len(single.segments) == len(train)
    assert (merged.segments[:, 1] - merged.segments[:, 0]).sum() == train["bins"].sum()
    # The same scored bins, in the order of time.
    scored = np.concatenate([np.asarray(single.counts)[start:stop] for start, stop in single.segments])
    np.testing.assert_array_equal(np.asarray(merged.counts)[merged.scored()], scored)
    window, position = frames.places(np.arange(len(frames)))
    number = frames.windows["number"].to_numpy()[window[window >= 0]]
    np.testing.assert_array_equal(number, np.repeat(np.arange(len(train)), 100))
    np.testing.assert_array_equal(position[window >= 0], np.tile(np.arange(100), len(train)))
    ticks = frames.ticks(np.flatnonzero(window >= 0))
    np.testing.assert_array_equal(ticks[::100], np.sort(train["start_tick"]))


def test_what_training_reads_is_scored_in_no_other_part(tmp_path, network_counts):
    """Also by filters that reach over the gap between parts, from windows that touch."""
    windows, splits = replace(CONTINUOUS, history=0.1), replace(BLOCKS, block=3.0)
    data, _ = cohort(tmp_path / "recorded", network_counts[:6000], windows, splits)
    counts = network_counts[:6000].copy()
    others = data.split.samples.query("split != 'train'")
    for start, bins in zip(others["start_tick"] // 1000, others["bins"], strict=True):
        counts[start : start + bins] += 1
    changed, _ = cohort(tmp_path / "changed", counts, windows, splits)
    train, lead = data.samples("net", "train"), 150
    frames = lay_frames(data, train, lead, merge=True)
    assert len(others) > 5 and 2 < len(frames.segments) < len(train)
    shuffled = lay_frames(data, train.sample(frac=1, random_state=0), lead, merge=True)
    np.testing.assert_array_equal(shuffled.segments, frames.segments)
    assert shuffled.windows["start_tick"].tolist() == frames.windows["start_tick"].tolist()
    for one, other in zip(read_frames(data, "net", frames), read_frames(changed, "net", frames), strict=True):
        np.testing.assert_array_equal(one, other)
    places = frames.segments[:, 0] - lead, lead + 100
    for one, other in zip(
        read_blocks(data, "net", frames, *places), read_blocks(changed, "net", frames, *places), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_windows_that_overlap_are_kept_apart(tmp_path, network_counts):
    """Trials of 1.5 s back to back, read for 1.6: each has the bins of its own, those shared are read twice."""
    windows = WindowSettings(bin_size=10.0, align="start", after=1.6)
    data, _ = cohort(tmp_path, network_counts[:6000], windows, SplitSettings(scheme="blocks", block=10.0))
    train = data.samples("net", "train")
    assert (np.diff(np.sort(train["start_tick"])) == 150_000).any()
    frames = lay_frames(data, train, 10, merge=True)
    assert len(frames.segments) == len(train) and len(frames) == 170 * len(train)
    counts, _ = read_frames(data, "net", frames)
    for start, (first, stop) in zip(np.sort(train["start_tick"]) // 1000, frames.segments, strict=True):
        np.testing.assert_array_equal(counts[first:stop], network_counts[start : start + 160])


def test_a_window_is_predicted_from_its_own_past_alone(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(CONFIG, fit_data, tmp_path)
    test = data.samples("net", "test")
    together = model.predict(data, "net", test)
    np.testing.assert_array_equal(model.predict(data, "net", test.iloc[::-1])[::-1], together)
    np.testing.assert_allclose(model.predict(data, "net", test.iloc[4:5])[0], together[4], rtol=1e-6)


def test_windows_unlike_those_that_were_fitted_are_refused(tmp_path, continuous, network_counts):
    """In other bins, filters would have other lags: rates of the right shape that mean nothing."""
    model, _ = fitted(replace(CONFIG, strength=1e-2), continuous[0], tmp_path / "run")
    data = continuous[1]
    wider = replace(data.split, bin_size=20.0)
    with pytest.raises(InputError, match="bin_size: found 20 ms; accepted: 10 ms, as in the fit"):
        model.predict(replace(data, split=wider), "net", data.samples("net", "test"))
    fewer = cohort(tmp_path, network_counts[:, :6], CONTINUOUS, BLOCKS)[1]
    with pytest.raises(InputError, match="units: found 6; accepted: 10, as in the fit"):
        model.predict(fewer, "net", fewer.samples("net", "test"))
    with pytest.raises(InputError, match="session: found day2; accepted: a session it was fitted to: net"):
        model.predict(data, "day2", data.samples("net", "test"))


def test_state_is_all_there_is(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(CONFIG, fit_data, tmp_path)
    other = MODEL(CONFIG, 1)
    other.load_state(model.state())
    test = data.samples("net", "test")
    np.testing.assert_array_equal(other.predict(data, "net", test), model.predict(data, "net", test))
    assert all(name.startswith("net/") for name in model.state())


class Killed(Exception):
    pass


class MortalRun(Run):
    """A run that dies after some passes; every pass leaves a checkpoint."""

    lives = 0

    def checkpoint(self, state, force=False):
        super().checkpoint(state, force=True)
        self.lives -= 1
        if self.lives == 0:
            self.close()
            raise Killed


@pytest.mark.parametrize(
    "changes", [{"strength": "auto"}, {"strength": 1e-4}, {"strength": 1e-3, "regulariser": "group_lasso"}]
)
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path, continuous, changes):
    fit_data, _ = continuous
    config = replace(CONFIG, **changes)
    undisturbed, run = fitted(config, fit_data, tmp_path / "undisturbed")
    passes = sum(row["passes"] for row in run.rows if "passes" in row)
    for lives in (1, passes // 3, passes - 2):
        directory, model = tmp_path / f"killed{lives}", MODEL(config, 0)
        mortal = MortalRun(directory)
        mortal.lives = lives
        with pytest.raises(Killed):
            model.fit(fit_data, mortal)
        resumed, second = fitted(config, fit_data, directory)
        assert second.history_csv() == run.history_csv()
        for name, value in undisturbed.state().items():
            assert resumed.state()[name].tobytes() == value.tobytes(), name


def test_a_heldout_unit_is_nobodys_input(tmp_path, network_counts):
    changed = network_counts.copy()
    predictions = []
    for number in range(2):
        fit_data, data = cohort(tmp_path / str(number), changed, CONTINUOUS, BLOCKS)
        model, _ = fitted(CONFIG, fit_data, tmp_path / f"run{number}")
        predictions.append(model.predict(data, "net", data.samples("net", "test"))[..., data.heldin("net")])
        changed[:, data.heldout("net")] = np.random.default_rng(number).poisson(
            0.3, changed[:, data.heldout("net")].shape
        )
    np.testing.assert_allclose(predictions[0], predictions[1], rtol=1e-4)


def test_forecast_bins_use_the_forecast_and_nothing_recorded(tmp_path, network_counts):
    forward = replace(BLOCKS, forward=0.2)
    fit_data, data = cohort(tmp_path, network_counts, CONTINUOUS, forward)
    model, _ = fitted(CONFIG, fit_data, tmp_path / "run")
    test = data.samples("net", "test")
    assert (data.mask("net", test)[:, -20:].any(axis=(1, 2)) == 0).all()
    rates = model.predict(data, "net", test)
    # By hand, one window: the expected counts of the forecast are its own history.
    window = test.iloc[:1]
    learned = model.learned["net"]
    counts = data.counts("net", window)[0].astype(np.float64)
    heldin = data.heldin("net")
    filters = np.nan_to_num(model.couplings("net").filters.astype(np.float64))
    for step in range(20):
        bin_ = 30 + 80 + step
        past = counts[bin_ - 30 : bin_][::-1]
        eta = learned["coefficients"][:, 0] + np.einsum("ki,ijk->j", past[:, heldin], filters[heldin])
        np.testing.assert_allclose(rates[0, 80 + step], np.exp(eta), rtol=1e-4)
        counts[bin_] = np.exp(eta)
    # Training windows are forecast as well, whatever else is predicted with them.
    train = data.samples("net", "train").iloc[:2]
    mixed = model.predict(data, "net", pd.concat([train, test]))
    np.testing.assert_allclose(mixed, np.concatenate([model.predict(data, "net", train), rates]), rtol=1e-6)


def test_trials_have_a_baseline_and_signals_are_inputs(tmp_path, network_counts):
    random = np.random.default_rng(0)
    time = np.arange(len(network_counts)) * BIN
    bump = np.exp(-0.5 * ((time % 1.5 - 0.7) / 0.1) ** 2)
    counts = network_counts.copy()
    counts[:, 0] = random.poisson(0.05 * np.exp(2.5 * bump))  # locked to the trial
    counts[:, 1] = random.poisson(0.1 * np.exp(0.8 * np.sin(time + BIN / 2)))  # follows speed.forward
    windows = WindowSettings(bin_size=10.0, align="start", after=1.4)
    fit_data, data = cohort(tmp_path, counts, windows, SplitSettings(seed=2))
    config = Config(history=0.1, strength=1e-3, signals=("speed.forward", "speed.turn"))
    model, run = fitted(config, fit_data, tmp_path / "run")
    notes = " ".join(row["note"] for row in run.rows if row.get("stage") == "note")
    assert "windows give 0 bins of history, filters have 10" in notes
    assert "speed" in model.sees
    test = data.samples("net", "test")
    rates = model.predict(data, "net", test)
    rows = test["start_tick"].to_numpy()[:, None] // 1000 + np.arange(140)
    assert np.corrcoef(rates[..., 0].mean(0), np.exp(2.5 * bump[rows[0]]))[0, 1] > 0.95
    assert np.corrcoef(np.log(rates[..., 1].ravel()), np.sin(time[rows]).ravel())[0, 1] > 0.9
    with pytest.raises(InputError, match=r"signals: found 'speed.back'; accepted: one of speed.forward, speed.turn"):
        fitted(replace(config, signals=("speed.back",)), fit_data, tmp_path / "other")


@pytest.mark.parametrize("coupling", ["within", "between", "none"])
def test_couplings_that_are_not_allowed_are_zero(tmp_path, continuous, coupling):
    fit_data, data = continuous
    model, _ = fitted(replace(CONFIG, coupling=coupling, inference=True), fit_data, tmp_path)
    allowed, p = model.learned["net"]["allowed"], model.learned["net"]["p"]
    assert (p[~allowed] == 1).all() and (p[allowed] < 1).all()
    table = model.coupling_table("net", data.trains["net"].units)
    np.testing.assert_array_equal(table["p"].isna(), ~table["allowed"])
    tested = table[table["allowed"]]  # a unit's own history is no part of the family
    np.testing.assert_array_equal(tested["q"], false_discovery_rate(tested["p"].to_numpy()))
    filters = model.couplings("net").filters[data.heldin("net")]
    assert (filters[~allowed] == 0).all() and (filters[allowed] != 0).any(axis=1).all()


def test_group_lasso_by_validation_leaves_true_couplings(tmp_path, continuous):
    fit_data, data = continuous
    model, run = fitted(replace(CONFIG, regulariser="group_lasso", strength="auto"), fit_data, tmp_path)
    rows = [row for row in run.rows if row.get("stage") == "path"]
    assert rows[0]["validation_log_likelihood"] < max(row["validation_log_likelihood"] for row in rows)
    heldin = data.heldin("net")
    size = np.linalg.norm(model.couplings("net").filters[heldin][:, heldin], axis=2)
    network = simulate_network(units=10, bins=15_000, seed=3)
    truth, other = network.connected[heldin][:, heldin], ~np.eye(len(heldin), dtype=bool)
    # Validation favours too many small couplings over too few: the true ones are the large ones.
    assert np.sort(size[other])[-int((truth & other).sum()) :].min() <= size[truth & other].min() * 1.5
    assert np.median(size[truth & other]) > 5 * np.median(size[~truth & other])


def test_a_silent_unit_does_not_stop_the_others(tmp_path, network_counts):
    counts = network_counts.copy()
    counts[:, 4] = 0
    counts[40, 4] = 1
    fit_data, data = cohort(tmp_path, counts, CONTINUOUS, replace(BLOCKS, heldout_units=0))
    model, run = fitted(CONFIG, fit_data, tmp_path / "run")
    assert np.isfinite(model.predict(data, "net", data.samples("net", "test"))).all()
    statuses = [row["status"] for row in run.rows if row.get("stage") == "unit"]
    assert statuses.count("converged") >= 9


def test_discoveries_are_the_true_couplings(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(replace(CONFIG, inference=True, strength=1e-5), fit_data, tmp_path)
    table = model.coupling_table("net", data.trains["net"].units)
    network, heldin = simulate_network(units=10, bins=15_000, seed=3), data.heldin("net")
    assert len(table) == len(heldin) * 9
    sender, receiver = (table[name].str[1:].astype(int).to_numpy() for name in ("sender", "receiver"))
    truth, found = network.connected[sender, receiver], (table["q"] < 0.05).to_numpy()
    between = np.isin(receiver, heldin)
    assert found[truth & between].mean() > 0.85 and found[~truth & between].mean() < 0.1
    filters = model.tables(data)["filters"]
    senders, allowed = model.learned["net"]["senders"], model.learned["net"]["allowed"]
    pairs = [(row, unit) for row in range(len(senders)) for unit in range(10) if allowed[row, unit]]
    assert (filters["sender"].astype(str)[::30] == [f"u{senders[row]}" for row, _ in pairs]).all()
    expected = np.concatenate([model.learned["net"]["filter_errors"][pair] for pair in pairs])
    np.testing.assert_array_equal(filters["error"], expected)
    errors = model.learned["net"]["standard_errors"]
    assert errors.shape == model.learned["net"]["coefficients"].shape and (errors > 0).all()


def test_tables_show_what_the_fit_saw_and_found(tmp_path, continuous):
    fit_data, data = continuous
    model, _ = fitted(replace(CONFIG, signals=("speed",)), fit_data, tmp_path)
    tables, learned = model.tables(data), model.learned["net"]
    first = data.samples("net", "train").sort_values("start_tick").iloc[:1]
    columns = dense_design(model.read(data, "net", first, learned, merge=False)[0])[0][:, 1 : 3 + 5 * 5]
    shown = tables["inputs"].set_index(["time", "column"])["value"].unstack()
    np.testing.assert_allclose(shown[tables["inputs"]["column"].unique()], columns, atol=1e-6)
    np.testing.assert_allclose(shown.index, first["start_tick"].iloc[0] / 1e5 + np.arange(100) * BIN)
    kernel = tables["basis"].pivot(index="lag", columns="function", values="value")
    np.testing.assert_array_equal(kernel, learned["kernel"])
    lags = (np.arange(30) + 1) * 10.0
    np.testing.assert_array_equal(kernel.index, lags)
    filters, found = tables["filters"], model.couplings("net").filters
    sender, receiver = (filters[name].astype(str).str[1:].astype(int) for name in ("sender", "receiver"))
    lag = np.rint(filters["lag"] / 10).astype(int) - 1
    np.testing.assert_array_equal(filters["value"], found[sender, receiver, lag])
    np.testing.assert_array_equal(filters["lag"], np.tile(lags, len(data.heldin("net")) * 10))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("history", 0.0),
        ("n_basis", 1),
        ("strength", -1.0),
        ("strength", "much"),
        ("link", "logistic"),
        ("baseline", 2),
        ("tolerance", 0.0),
        ("dispersion", 0.0),
        ("ratio", 0.0),
        ("max_iterations", 0),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(InputError) as error:
        Config(**{field: value})
    assert error.value.field == field
