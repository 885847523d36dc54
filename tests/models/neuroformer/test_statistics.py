"""Statistics of generated spikes: of spikes drawn from the same law they agree, of others they do not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.neuroformer.report import decoding_table, generated_table
from pipeline_lib.models.neuroformer.statistics import generated_statistics, statistics_scores
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from tests.small_cohort import open_cohort, recording, write_cohort

WINDOWS = WindowSettings(bin_size=10, mode="trials", after=0.8, history=0.1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> FitData:
    splits = SplitSettings(fractions=(0.4, 0.1, 0.5), heldout_units=2)
    made = [recording("one", 0, units=8, trials=120)]
    return open_cohort(*write_cohort(tmp_path_factory.mktemp("cohort"), WINDOWS, splits, made))


def as_generated(data: FitData, counts: np.ndarray, rollout: int = 0) -> pd.DataFrame:
    """Counts of held-in units [S, T, N] in the place of the test windows."""
    sample, bin_, unit = np.nonzero(counts)
    times = counts[sample, bin_, unit]
    index = data.samples("one", "test").index.to_numpy()
    columns = {"sample": index[sample], "bin": bin_, "unit": data.heldin("one")[unit]}
    table = pd.DataFrame({name: np.repeat(values, times) for name, values in columns.items()})
    return table.assign(session="one", rollout=rollout)


def alone(counts: np.ndarray, inside: np.ndarray, **columns: object) -> SimpleNamespace:
    """A session of these counts [S, T, N], in bins of 10 ms, all of its parts the same."""
    samples = pd.DataFrame({"trial": -1, "condition": ""} | columns, index=range(len(counts)))
    return SimpleNamespace(
        sessions=["one"],
        samples=lambda *_: samples,
        heldin=lambda _: np.arange(counts.shape[2]),
        read=lambda *_: (counts, inside),
        split=SimpleNamespace(history_bins=0, bin_size=10.0),
    )


def correlations_of(counts: np.ndarray, inside: np.ndarray) -> pd.Series:
    data = alone(counts, inside)
    table = generated_statistics(data, as_generated(data, counts), "test")
    return table.loc[table["kind"] == "correlation", "x"]


def scores_of(data: FitData, generated: pd.DataFrame) -> dict[str, float]:
    rows = statistics_scores(generated_statistics(data, generated, "test"), "test")
    return {row["metric"]: row["value"] for row in rows}


def test_what_was_recorded_agrees_with_itself(cohort: FitData) -> None:
    true = cohort.counts("one", "test")[:, 10:, cohort.heldin("one")]
    twice = pd.concat([as_generated(cohort, true, rollout) for rollout in (0, 1)])
    found = scores_of(cohort, twice)
    for name in ("generated_rate_r", "generated_correlation_r", "generated_psth_r"):
        assert found[name] == pytest.approx(1), name
    assert found["generated_interval_distance"] == 0 and found["train_psth_r"] < 1
    statistics = generated_statistics(cohort, twice, "test")
    rates = statistics[statistics["kind"] == "rate"]
    assert np.allclose(rates["x"], true.sum((0, 1)) / (len(true) * 0.8)) and np.allclose(rates["y"], rates["x"])


def test_shuffled_spikes_lose_what_was_shuffled(cohort: FitData) -> None:
    """Bins in random order: rates stay, intervals and mean responses go."""
    true = cohort.counts("one", "test")[:, 10:, cohort.heldin("one")]
    order = np.random.default_rng(0).permuted(np.broadcast_to(np.arange(80)[:, None], (len(true), 80, 1)), axis=1)
    found = scores_of(cohort, as_generated(cohort, np.take_along_axis(true, order, 1)))
    assert found["generated_rate_r"] == pytest.approx(1)
    assert abs(found["generated_psth_r"]) < 0.3


def test_rates_and_intervals_by_hand(cohort: FitData) -> None:
    """Two rollouts, one of them nearly silent; an interval lies between bins with spikes of a unit in a window."""
    true = cohort.counts("one", "test")[:, 10:, cohort.heldin("one")]
    few = np.zeros_like(true)
    few[:, [3, 20, 70], 1] = 2
    generated = pd.concat([as_generated(cohort, true[::-1]), as_generated(cohort, few, 1)])
    table = generated_statistics(cohort, generated, "test")
    seconds = len(true) * 0.8
    rates = table[table["kind"] == "rate"]
    assert np.allclose(rates["x"], true.sum((0, 1)) / seconds)
    assert np.allclose(rates["y"], (true.sum((0, 1)) + few.sum((0, 1))) / seconds / 2)
    for source, all_counts in (("recorded", [true]), ("generated", [true, few])):
        found = [
            gap
            for counts in all_counts
            for window in counts
            for unit in window.T
            for gap in np.diff(np.flatnonzero(unit))
        ]
        own = table[(table["kind"] == "interval") & (table["source"] == source)]
        shares = [(np.array(found) * 10 <= milliseconds + 0.5).mean() for milliseconds in own["x"]]
        assert np.allclose(own["y"], shares) and own["x"].min() == 10 and own["x"].max() == 1000
    scores = {row["metric"]: row["value"] for row in statistics_scores(table, "test")}
    curves = [
        table[(table["kind"] == "interval") & (table["source"] == each)]["y"] for each in ("recorded", "generated")
    ]
    expected = np.abs(curves[0].to_numpy() - curves[1].to_numpy()).max()
    assert scores["generated_interval_distance"] == pytest.approx(expected) and expected > 0


def test_what_was_written_where_nothing_was_recorded_does_not_count(cohort: FitData) -> None:
    samples, heldin = cohort.samples("one", "test"), cohort.heldin("one")
    true, mask = (each.copy() for each in cohort.read("one", "test"))
    mask[:, 10 + 40 :] = False

    def read(session: str, part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        return (true * mask, mask) if part.index.equals(samples.index) else cohort.read(session, part)

    data = SimpleNamespace(
        sessions=["one"], samples=cohort.samples, heldin=lambda _: heldin, split=cohort.split, read=read
    )
    table = generated_statistics(data, as_generated(cohort, true[:, 10:, heldin]), "test")
    rates = table[table["kind"] == "rate"]
    assert np.allclose(rates["y"], true[:, 10:50, heldin].sum((0, 1)) / (len(samples) * 0.4))


def test_trials_that_end_early_correlate_nobody() -> None:
    """Independent units in trials of 0.2 to 2 s; one of them is never recorded."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2, (60, 200, 5))
    inside = np.broadcast_to(np.arange(200)[:, None] < np.linspace(20, 200, 60)[:, None, None], counts.shape).copy()
    inside[..., 3] = False
    counts *= inside
    data = alone(counts, inside)
    table = generated_statistics(data, as_generated(data, counts), "test")
    pairs, rates = (table[table["kind"] == kind] for kind in ("correlation", "rate"))
    assert len(pairs) == 6 and np.abs(pairs["x"]).max() < 0.15 and np.allclose(pairs["x"], pairs["y"])
    assert len(rates) == 4 and np.allclose(rates["x"], 20, rtol=0.05)


def test_correlations_are_of_bins_in_which_all_units_were_recorded_whole() -> None:
    """A unit that came late, windows that end within 50 ms; of two such bins there are correlations, of one none."""
    rng = np.random.default_rng(0)
    counts, inside = rng.poisson(0.5, (20, 40, 3)), np.ones((20, 40, 3), dtype=bool)
    inside[:10, :, 2] = inside[15:, 22:] = False
    counts *= inside
    whole = counts[10:].reshape(10, 8, 5, 3).sum(2)
    rows = np.concatenate([whole[:5].reshape(-1, 3), whole[5:, :4].reshape(-1, 3)])
    pairs = correlations_of(counts, inside)
    assert np.allclose(pairs, np.corrcoef(rows.T)[np.triu_indices(3, 1)]) and len(pairs) == 3
    few = np.zeros((1, 10, 2), dtype=int)
    few[0, [0, 1, 2, 6], [1, 1, 0, 0]] = [1, 2, 1, 5]
    known = np.ones(few.shape, dtype=bool)
    assert correlations_of(few, known).tolist() == pytest.approx([-1])
    assert not len(correlations_of(few[:, :9], known[:, :9]))


def test_times_are_the_same_in_bins_of_any_size() -> None:
    """Of 25 ms: correlations in pairs of them, intervals up to a second; windows of no trial have no mean response."""
    counts = np.random.default_rng(0).poisson(0.4, (10, 60, 3))
    data = alone(counts, np.ones(counts.shape, dtype=bool))
    data.split.bin_size = 25.0
    table = generated_statistics(data, as_generated(data, counts), "test")
    pairs = np.corrcoef(counts.reshape(300, 2, 3).sum(1).T)[np.triu_indices(3, 1)]
    assert np.allclose(table.loc[table["kind"] == "correlation", "x"], pairs)
    interval = table[table["kind"] == "interval"]
    assert interval["x"].min() == 25 and interval["x"].max() == 1000
    assert np.allclose(table.loc[table["kind"] == "rate", "x"], counts.sum((0, 1)) / 15)
    assert "psth" not in set(table["kind"])


def test_a_model_that_writes_nothing_is_silent() -> None:
    counts = np.zeros((3, 40, 2), dtype=int)
    counts[:, 10:12] = counts[2, 20] = 1
    data = alone(counts, np.ones(counts.shape, dtype=bool), trial=[0, 1, 2])
    table = generated_statistics(data, as_generated(data, 0 * counts), "test")
    rates, intervals = (table[table["kind"] == kind] for kind in ("rate", "interval"))
    assert rates["y"].tolist() == [0, 0] and np.allclose(rates["x"], 7 / 1.2)
    shares = {source: own.set_index("x")["y"] for source, own in intervals.groupby("source")}
    assert (shares["generated"] == 0).all()
    assert shares["recorded"][10.0] == 0.75 and shares["recorded"].index.max() == 1000 and shares["recorded"].max() == 1
    assert scores_of(data, as_generated(data, 0 * counts))["generated_interval_distance"] == 1
    silent = alone(0 * counts, np.ones(counts.shape, dtype=bool))
    assert scores_of(silent, as_generated(silent, counts))["generated_interval_distance"] == 1
    written = generated_statistics(data, as_generated(data, counts), "test")
    assert np.allclose(written.loc[written["kind"] == "psth", ["x", "y"]], 1) and (written["kind"] == "psth").sum() == 2


def test_the_mean_response_by_hand(cohort: FitData) -> None:
    """50-ms bins of all windows of a condition, and of all rollouts; conditions one after the other."""
    heldin = cohort.heldin("one")
    parts = {part: cohort.counts("one", part)[:, 10:, heldin].astype(float) for part in ("train", "test")}
    rollouts = [np.random.default_rng(seed).poisson(parts["test"]) for seed in (0, 1)]
    parts["written"] = np.mean(rollouts, axis=0)
    psths = {}
    for part, counts in parts.items():
        condition = cohort.samples("one", "test" if part == "written" else part)["condition"].to_numpy()
        coarse = counts.reshape(len(counts), 16, 5, -1).mean(2)
        psths[part] = np.concatenate([coarse[condition == name].mean(0) for name in np.unique(condition)])
    generated = pd.concat([as_generated(cohort, counts, rollout) for rollout, counts in enumerate(rollouts)])
    table = generated_statistics(cohort, generated, "test")
    for axis, part in (("x", "train"), ("y", "written")):
        expected = [np.corrcoef(psths[part][:, unit], psths["test"][:, unit])[0, 1] for unit in range(len(heldin))]
        assert np.allclose(table.loc[table["kind"] == "psth", axis], expected)
    assert len(np.unique(cohort.samples("one", "test")["condition"])) > 1


def test_a_part_without_windows_has_empty_tables() -> None:
    data = SimpleNamespace(sessions=["film"], samples=lambda *_: pd.DataFrame(), heldin=lambda _: np.arange(3))
    config = SimpleNamespace(decode={"running/speed": "regression"})
    model = SimpleNamespace(config=config, best_of=lambda term: None)
    spikes = generated_table(model, data, "test", rollouts=1, seed=0)
    read_out, scores = decoding_table(model, data, ("test",))
    statistics = generated_statistics(data, spikes, "test")
    assert spikes.columns[-1] == "unit" and read_out.columns[-1] == "predicted" and statistics.columns[-1] == "y"
    assert not len(spikes) and not len(read_out) and not len(scores) and statistics_scores(statistics, "test") == []
