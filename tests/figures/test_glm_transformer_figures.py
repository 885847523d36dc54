"""Figures of the GLM-Transformer: a fit that knows the truth is drawn as one, and what is missing is said."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.figures import (
    NothingToDrawError,
    glm_transformer_ablation,
    glm_transformer_areas,
    glm_transformer_components,
    glm_transformer_false_coupling,
    glm_transformer_recovery,
)
from pipeline_lib.figures.glm_transformer_fit import matched
from pipeline_lib.recording import Recording
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains, convert
from pipeline_lib.yaml_text import read_yaml

WINDOWS = WindowSettings(bin_size=2.0, align="stimulus_onset", after=0.5, history=0.1)


class Made:
    """A recording, its split, and a fit of it that tests fill in."""

    def __init__(self, directory: Path, simulator: str, settings: dict) -> None:
        self.made: Recording = simulate(simulator, settings, 0, "sim")
        self.recording, self.split = directory / "recording", directory / "split.parquet"
        self.made.write(self.recording)
        convert(self.recording, directory / "trains")
        make_split([Trains.open(directory / "trains")], WINDOWS, SplitSettings(), "sim").write(self.split)
        self.samples = Split.read(self.split).part("sim", "test")
        self.fit = directory / "sim" / "glm_transformer" / "seed0"
        (self.fit / "tables").mkdir(parents=True)
        root = zarr.create_group(str(self.fit / "predictions.zarr"), attributes={"bin_size": 2.0})
        self.group = root.create_group("sim")
        self.group.create_array("sample", data=self.samples.index.to_numpy())

    def true(self, name: str) -> np.ndarray:
        """A true array in the test windows."""
        return window_means(self.made.truth, name, self.samples["start_tick"].to_numpy(), 250, 200)

    def table(self, name: str, columns: dict) -> None:
        pd.DataFrame({"session": "sim", **columns}).to_parquet(self.fit / "tables" / f"{name}.parquet")

    def couplings(self, kernel: np.ndarray) -> None:
        """Tables of four couplings, all with this filter; that from the first to the second population significant."""
        areas = ["area1", "area2"]
        pairs = [(sender, receiver) for sender in areas for receiver in areas]
        lags = np.arange(1, len(kernel) + 1) * 2.0
        names = {"sender": [i for i, _ in pairs], "receiver": [j for _, j in pairs], "factor": 0}
        self.table("area_couplings", names | {"q": [0.5, 0.01, 0.5, 0.5]})
        repeated = {key: np.repeat(value, len(lags)) for key, value in names.items() if key != "factor"}
        self.table("area_filters", repeated | {"factor": 0, "lag": np.tile(lags, 4), "value": np.tile(kernel, 4)})


@pytest.fixture(scope="module")
def factors(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A fit that has recovered everything, its background factors mixed."""
    made = Made(tmp_path_factory.mktemp("factors"), "glm_factors", {"neurons_per_area": 5, "trials": 20, "coupled": 2})
    truth = made.made.truth.arrays
    made.couplings(truth["coupling_kernel"])
    coupling = truth["coupling"]
    send, receive = coupling.sum(1), coupling.sum(0)
    made.table(
        "loadings",
        {"send_area2_0": send / np.linalg.norm(send), "receive_area1_0": receive / np.linalg.norm(receive)},
    )
    history = truth["history_filters"]
    lags = np.arange(1, history.shape[1] + 1) * 2.0
    units = {"unit_id": np.repeat(np.arange(10), len(lags)), "lag": np.tile(lags, 10)}
    made.table("history_filters", units | {"value": history.ravel()})
    latents = made.true("latents")
    mixing = np.kron(np.eye(2), [[0.3, 1.0], [-0.7, 0.4]])
    made.group.create_array("latents", data=(latents @ mixing + 0.5).astype(np.float32))
    passed = np.zeros((len(latents), 250, 4), np.float32)
    passed[:, :, 1] = made.true("coupling_factor")[..., 0]
    extras = made.group.create_group("extras")
    extras.create_array("coupling_factors", data=passed)
    extras.create_array("latent_mean", data=latents[:, ::50].reshape(len(latents), -1).astype(np.float32))
    return made


def test_a_perfect_fit_recovers_everything(factors: Made) -> None:
    table = glm_transformer_recovery.data(factors.recording, factors.split, [factors.fit])
    scores = table[table["source"] == "correlation"].set_index("item")["value"]
    assert scores.index.tolist() == ["filter", "loading", "coupling_factor", *["factor"] * 4, "history"]
    assert np.allclose(scores, 1, atol=1e-5)
    assert np.allclose(table.loc[table["source"] == "error", "value"], 0, atol=1e-4)
    factors_of = table[(table["item"] == "factor") & (table["source"] == "correlation")]["x"]
    assert factors_of.tolist() == [0, 1, 2, 3], "one of the sending population is shown"
    assert table.loc[(table["item"] == "factor") & (table["source"] == "fit"), "x"].iloc[0] == 1.0, "bins' centres, ms"
    curves = table[table["source"].isin(["fit", "truth"])]
    fit, truth = (curves[curves["source"] == source].sort_values(["item", "x"]) for source in ("fit", "truth"))
    assert np.allclose(fit["value"], truth["value"], atol=1e-4)
    assert len(glm_transformer_recovery.draw(table).axes) == 5


def test_a_filter_is_nothing_beyond_its_end_and_errors_do_not_cancel() -> None:
    lags = np.array([2.0, 4.0, 6.0, 8.0])
    short = glm_transformer_recovery._compared("filter", lags[:2], np.array([1.0, 0.5]), lags, np.array([1, 0.5, 0, 0]))
    scores = {rows["source"].iloc[0]: rows["value"].iloc[0] for rows in short[2:]}
    assert scores == {"correlation": pytest.approx(1), "error": pytest.approx(0)}
    off = glm_transformer_recovery._compared("filter", lags, np.array([1.0, 0, 1, 0]), lags, np.array([0.0, 1, 0, 1]))
    assert off[3]["value"].item() == pytest.approx(1)


def test_a_coupling_that_was_dropped_is_said_to_be(factors: Made) -> None:
    path = factors.fit / "tables" / "area_filters.parquet"
    whole = pd.read_parquet(path)
    try:
        whole[whole["sender"] == "area2"].to_parquet(path)
        table = glm_transformer_recovery.data(factors.recording, factors.split, [factors.fit])
    finally:
        whole.to_parquet(path)
    own = table[table["item"] == "filter"]
    assert (own.loc[own["source"] == "fit", "value"] == 0).all()
    titles = [axes.get_title(loc="left") for axes in glm_transformer_recovery.draw(table).axes]
    assert "not found, RMSE 0." in titles[0] and "r = 1.00" in titles[1]


def test_every_pair_has_its_panel_and_significance(factors: Made) -> None:
    table = glm_transformer_areas.data(factors.recording, factors.split, [factors.fit])
    filters = table[table["kind"] == "filter"]
    assert filters.groupby(["sender", "receiver"])["value"].first().to_dict()[("area1", "area2")] == 0.01
    trials = table[table["kind"] == "trial"]
    assert len(trials) == len(factors.samples) and (trials["sender"] == "Time (s)").all()
    assert trials["value"].tolist() == pytest.approx((factors.samples["start_tick"] / 1e5).tolist())
    figure = glm_transformer_areas.draw(table)
    lines = [line for axes in figure.subfigs[0].axes for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 4 and len({line.get_color() for line in lines}) == 2


def test_pairs_without_a_test_are_not_called_insignificant(factors: Made) -> None:
    """Tokens of one bin say nothing of timing: q is missing, which is no result."""
    table = glm_transformer_areas.data(factors.recording, factors.split, [factors.fit])
    untested = table.assign(value=table["value"].mask(table["kind"] == "filter"))
    keys = [glm_transformer_areas.draw(each).subfigs[0].legends[0] for each in (table, untested)]
    said = [[text.get_text() for text in key.get_texts()] for key in keys]
    assert said == [["q < 0.05", "not significant"], ["not tested"]], "nor is a colour named that no pair could have"


def test_of_many_populations_the_largest_are_shown(
    factors: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Path(shutil.copytree(factors.recording, tmp_path / "recording"))
    units = pd.read_parquet(recording / "units.parquet")
    units.loc[units.index[0], "population"] = "area2"  # six units, and four of area1
    units.to_parquet(recording / "units.parquet")
    monkeypatch.setattr(glm_transformer_areas, "MOST", 1)
    table = glm_transformer_areas.data(recording, factors.split, [factors.fit])
    assert table.loc[table["kind"] == "area", ["sender", "value"]].to_numpy().tolist() == [["area2", 6]]
    filters = table[table["kind"] == "filter"]
    assert set(filters["sender"]) == set(filters["receiver"]) == {"area2"}


def test_trials_are_coloured_by_running_where_it_was_recorded(factors: Made) -> None:
    path = factors.recording / "signals" / "running.parquet"
    path.parent.mkdir(exist_ok=True)
    time = np.arange(0, 30, 0.01)
    running = pd.DataFrame({"time": time, "speed": 2 * time})
    labels = {}
    try:
        for unit in ({}, {"units": {"speed": "m/s"}}):
            running.attrs = unit
            running.to_parquet(path)
            table = glm_transformer_areas.data(factors.recording, factors.split, [factors.fit])
            labels |= dict.fromkeys(table.loc[table["kind"] == "trial", "sender"])
    finally:
        path.unlink()
    assert list(labels) == ["Running speed", "Running speed (m/s)"]
    middle = factors.samples["start_tick"] / 1e5 + 0.25
    assert table.loc[table["kind"] == "trial", "value"].tolist() == pytest.approx((2 * middle).tolist(), abs=1e-3)


def test_a_trial_without_running_is_not_one_at_rest(factors: Made) -> None:
    path = factors.recording / "signals" / "running.parquet"
    path.parent.mkdir(exist_ok=True)
    begin = float(factors.samples["start_tick"].iloc[1]) / 1e5 - 0.01  # of the second test window
    time = np.arange(begin, 30, 0.01)
    pd.DataFrame({"time": time, "speed": 5.0}).to_parquet(path)
    try:
        table = glm_transformer_areas.data(factors.recording, factors.split, [factors.fit])
    finally:
        path.unlink()
    speed = table.loc[table["kind"] == "trial", "value"].to_numpy()
    assert np.isnan(speed[0]) and np.allclose(speed[1:], 5.0)
    dots = glm_transformer_areas.draw(table).subfigs[1].axes[0].collections[0]
    assert len(dots.get_offsets()) == len(speed) and not np.ma.getmaskarray(dots.get_offsets()).any()


def test_parts_on_the_scale_of_the_true_inputs(tmp_path: Path) -> None:
    made = Made(tmp_path, "eif", {"neurons_per_area": 6, "trials": 12, "coupled": 3})
    made.couplings(np.ones(3))
    made.group.create_array("latents", data=np.zeros((len(made.samples), 250, 2), np.float32))
    extras = made.group.create_group("extras")
    with pytest.raises(NothingToDrawError, match="components: true"):
        glm_transformer_components.data(made.recording, made.split, [made.fit])
    for part, name, shift in (("background", "background_input", -2), ("coupling", "coupling_input", 1)):
        extras.create_array(f"log_rate_{part}", data=(3 * made.true(name) + shift).astype(np.float32))
    units = pd.read_parquet(made.recording / "units.parquet")
    units["unit_id"] = [f"cell {row}" for row in range(len(units))]
    units.to_parquet(made.recording / "units.parquet")
    table = glm_transformer_components.data(made.recording, made.split, [made.fit])
    assert table["unit_id"].tolist() == [f"cell {row}" for row in table["unit"]]
    assert np.allclose(table.loc[table["kind"] == "correlation", "value"], 1, atol=1e-5)
    curves = table[table["kind"] == "trial"]
    fit, truth = (curves.loc[curves["source"] == source, "value"].to_numpy() for source in ("fit", "truth"))
    assert np.allclose(fit, truth, atol=1e-5) and fit.std() > 0
    assert table.loc[table["kind"] == "trial", "unit"].isin([6, 7, 8]).all()
    spread = made.true("coupling_input").std(axis=(0, 1))
    dots = table[(table["kind"] == "correlation") & (table["part"] == "coupling")]["unit"]
    assert set(dots) == set(np.flatnonzero(spread > 0.1 * spread.max())) and len(dots) < len(spread)
    for part, name in (("background", "background_input"), ("coupling", "coupling_input")):
        means = table[(table["kind"] == "mean") & (table["part"] == part)]
        expected = made.true(name)[..., int(means["unit"].iloc[0])].mean(axis=0)
        for _, line in means.groupby("source"):
            assert np.allclose(line["value"], expected, atol=1e-5) and line["time"].iloc[0] == 1.0
    axes = glm_transformer_components.draw(table).axes
    assert len(axes) == 6
    heights = [np.ptp(each.get_ylim()) for each in axes]
    assert heights[3] >= heights[0] and heights[4] >= heights[1]
    with pytest.raises(NothingToDrawError, match="own form"):
        glm_transformer_recovery.data(made.recording, made.split, [made.fit])


def test_a_coupling_that_is_not_there_is_not_drawn_flat() -> None:
    time = np.linspace(0, 6, 100)
    true = {"background": np.sin(time), "coupling": np.zeros(100)}
    drawn = glm_transformer_components.stretched(
        {"background": 2 * np.sin(time) + 1, "coupling": np.cos(9 * time)}, true
    )
    assert np.corrcoef(drawn["background"], true["background"])[0, 1] == pytest.approx(1)
    assert np.ptp(drawn["coupling"]) / np.ptp(drawn["background"]) == pytest.approx(
        np.ptp(np.cos(9 * time)) / 4, rel=0.01
    )
    exact = glm_transformer_components.stretched({"background": 2 * np.sin(time), "coupling": true["coupling"]}, true)
    assert np.allclose(exact["background"], true["background"]) and (exact["coupling"] == 0).all()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("shared_input", "Shared input"),
        ("shared_input_percent", "Shared input (%)"),
        ("delay_ms", "Delay (ms)"),
        ("percent", "Percent"),
    ],
)
def test_numbered_cohorts_make_an_axis(name: str, label: str) -> None:
    rows = pd.DataFrame(
        [
            {"cohort": f"{name}_{share}", "session": "s", "model": "glm", "seed": 0, "value": share / 100}
            for share in (20, 5, 100)
        ]
    )
    axes = glm_transformer_false_coupling.draw(rows).axes[0]
    assert axes.get_xlabel() == label
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "20", "100"]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([5, 20, 100])


def test_the_axis_of_the_papers_figure_is_what_its_simulations_share() -> None:
    """It said "correlation", which is the root of that share."""
    config = read_yaml(Path(__file__).parents[2] / "config/runs/glm_transformer_false_coupling.yaml")
    cohorts, ticks, label = glm_transformer_false_coupling._axis(config["cohorts"])
    assert label == "Shared background (%)"
    for cohort, tick in zip(cohorts, ticks, strict=True):
        made = [config["simulations"][name]["settings"] for name in config["cohorts"][cohort]["sessions"]]
        assert {settings["shared_background"] for settings in made} == {int(tick) / 100}


def test_false_coupling_by_cohort_and_model(tmp_path: Path) -> None:
    rows = [
        {
            "cohort": cohort,
            "session": "s",
            "model": model,
            "seed": seed,
            "split": split,
            "metric": metric,
            "value": 0.1 if split == "test" else 0.9,
        }
        for cohort in ("r0", "r4")
        for model in ("glm", "glm_transformer")
        for seed in (0, 1)
        for split in ("test", "validation")
        for metric in ("coupling_share", "bits_per_spike")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "metrics.parquet")
    table = glm_transformer_false_coupling.data(tmp_path / "metrics.parquet")
    assert len(table) == 8
    axes = glm_transformer_false_coupling.draw(table).axes[0]
    assert [round(bar.get_height()) for bar in axes.patches] == [10] * 4
    pd.DataFrame(rows[1::2]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(NothingToDrawError):
        glm_transformer_false_coupling.data(tmp_path / "none.parquet")


def test_ablations_are_compared_with_the_whole_model_of_their_session(tmp_path: Path) -> None:
    scores = {("full", "a"): 0.5, ("no_coupling", "a"): 0.4, ("full", "b"): 0.2, ("no_coupling", "b"): 0.25}
    scores |= {("gain", "a"): 0.6, ("elsewhere", "c"): 9.0}
    fixed = {"split": "test", "aggregation": "pooled", "null": "evaluated mean", "metric": "bits_per_spike"}
    rows = [
        {"cohort": cohort, "session": session, "seed": seed, "model": model, "units": units, **fixed}
        | {"value": value + 0.01 * seed + (model == "psth") - 3 * (units == "heldout")}
        for (cohort, session), value in scores.items()
        for seed in (0, 1)
        for model in ("glm_transformer", "psth")
        for units in ("heldin", "heldout")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "metrics.parquet")
    table = glm_transformer_ablation.data(tmp_path / "metrics.parquet")
    assert table["cohort"].drop_duplicates().tolist() == ["gain", "full", "no_coupling"]
    means = table.groupby(["cohort", "session"])["difference"].mean()
    assert means["no_coupling", "a"] == pytest.approx(-0.1) and means["no_coupling", "b"] == pytest.approx(0.05)
    assert table.loc[table["cohort"] == "full", "difference"].tolist() == pytest.approx([-0.005, 0.005] * 2)
    axes = glm_transformer_ablation.draw(table).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gain", "full", "no coupling"]
    pd.DataFrame(rows[2:]).query("cohort != 'full'").to_parquet(tmp_path / "none.parquet")
    with pytest.raises(NothingToDrawError):
        glm_transformer_ablation.data(tmp_path / "none.parquet")


def test_a_constant_matches_nothing() -> None:
    curve, correlation = matched(np.full(5, 2.0), np.arange(5.0))
    assert np.isnan(correlation) and (curve == 2.0).all()
    curve, correlation = matched(-np.arange(5.0), np.arange(5.0))
    assert correlation == pytest.approx(-1) and np.allclose(curve, np.arange(5.0))


def test_a_session_without_test_windows_has_nothing_to_draw(factors: Made, tmp_path: Path) -> None:
    split = Split.read(factors.split)
    split.samples = split.samples[split.samples["split"] != "test"]
    split.write(tmp_path / "split.parquet")
    with pytest.raises(NothingToDrawError, match="no window in the test part"):
        glm_transformer_recovery.data(factors.recording, tmp_path / "split.parquet", [factors.fit])
