"""Figures of the Neuroformer, from the tables that a fit of the pipeline writes."""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pipeline_lib.figures import FIGURES, NothingToDrawError
from pipeline_lib.figures.contrastive_latents import neighbour_r2
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.training.fit import fit
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split
from tests.figures.test_figure_drawing import assert_readable
from tests.small_cohort import write_cohort

NAMES = ("generation", "behaviour_traces", "contrastive_latents", "attention_connectivity")
SETTINGS = {
    "window": 0.1,
    "past": 0.1,
    "width": 16,
    "heads": 2,
    "steps": 4,
    "warmup": 1,
    "evaluate_every": 4,
    "batch": 4,
    "frames": 1,
    "decode": {"running/speed": "regression", "state/moving": "classification"},
    "contrastive": ("spikes", "frames"),
    "probes": 2,
    "rollouts": 1,
}


@dataclass
class Fitted:
    paths: dict
    tables: dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    directory = tmp_path_factory.mktemp("film")
    made = simulate("video", {"units": 12, "duration": 90.0, "targets": 4}, 0, "film")
    made.units["unit_id"] = [f"cell {row}" for row in range(12)]
    windows = WindowSettings(bin_size=10, mode="continuous", length=0.5, history=0.1)
    stores, split = write_cohort(directory, windows, SplitSettings(block=3.0, fractions=(0.6, 0.2, 0.2)), [made])
    out = directory / "fits" / "cohort" / "neuroformer" / "seed0"
    fit(stores, split, "neuroformer", "neuroformer", SETTINGS, 0, out)
    tables = {path.stem: pd.read_parquet(path) for path in (out / "tables").glob("*.parquet")}
    recording = directory / "recordings" / "film"
    return Fitted({"trains": stores[0], "split": split, "recording": recording, "fits": [out]}, tables)


def table_of(name: str, fitted: Fitted) -> pd.DataFrame:
    return FIGURES[name].load().data(**{need: fitted.paths[need] for need in FIGURES[name].needs})


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_readable_and_can_be_drawn_again(name: str, fitted: Fitted) -> None:
    table = table_of(name, fitted)
    assert_readable(FIGURES[name].load().draw(table))
    text = table.to_csv(index=False, float_format="%.6g")
    FIGURES[name].load().draw(pd.read_csv(io.StringIO(text)))


def test_generated_and_recorded_rates_are_those_of_the_test_windows(fitted: Fitted) -> None:
    table = table_of("generation", fitted)
    rates = table[table["kind"] == "rate"]
    spikes, tokens = fitted.tables["generated"], fitted.tables["tokens"].set_index("split")
    seconds = tokens.loc["test", "samples"] * 0.5
    assert np.allclose(rates["y"].to_numpy() * seconds, np.bincount(spikes["unit"], minlength=12))
    assert rates["x"].sum() * seconds == pytest.approx(tokens.loc["test", "spikes"])
    for _, curve in table[table["kind"] == "interval"].groupby("source"):
        assert curve["x"].is_monotonic_increasing and (curve["y"].diff().dropna() >= 0).all()
        assert curve["y"].iloc[-1] == 1 and curve["y"].iloc[0] < 0.5


def test_traces_carry_the_scores_of_the_fit(fitted: Fitted) -> None:
    table = table_of("behaviour_traces", fitted)
    scores = fitted.tables["scores"].query("split == 'test'").set_index("metric")["value"]
    speed = table[table["variable"] == "running/speed"].iloc[0]
    assert speed["r2"] == scores["decoding_r2 running/speed"] and speed["r"] == scores["decoding_r running/speed"]
    moving = table[table["variable"] == "state/moving"].iloc[0]
    assert moving["accuracy"] == scores["decoding_balanced_accuracy state/moving"] and np.isnan(moving["r2"])
    strips = FIGURES["behaviour_traces"].load().draw(table).axes[1]
    heights = [np.concatenate([path.vertices[:, 1] for path in each.get_paths()]) for each in strips.collections]
    assert heights[0].min() >= 1 and heights[1].max() < 1, "measured labels above those read out, neither hides any"
    measured = table.loc[table["variable"] == "state/moving", "true"].dropna()
    assert heights[0].max() == pytest.approx(1.8 if measured.nunique() > 1 else 1.0)


@pytest.mark.parametrize(("name", "panel"), [("behaviour_traces", "Speed"), ("generation", "Share not longer")])
def test_measured_and_modelled_curves_differ_in_print_without_colours(name: str, panel: str, fitted: Fitted) -> None:
    figure = FIGURES[name].load().draw(table_of(name, fitted))
    axes = next(each for each in figure.findobj(Axes) if each.get_ylabel().startswith(panel))
    measured, modelled = (
        1 - (line.get_alpha() or 1) * (1 - to_rgb(line.get_color()) @ np.array([0.2126, 0.7152, 0.0722]))
        for line in axes.lines[:2]
    )
    assert measured - modelled > 0.3, "grey behind, dark before"


def test_attention_is_scored_against_the_true_couplings(fitted: Fitted) -> None:
    table = table_of("attention_connectivity", fitted)
    sources = list(table["source"].unique())
    assert sources[:2] == ["Truth", "Cross-correlation"] and len(sources) == 4
    areas = table.groupby("source")["auc"].first()
    assert np.isnan(areas["Truth"]) and areas.drop("Truth").between(0, 1).all()
    matrix = {source: rows.sort_values(["sender", "receiver"])["value"] for source, rows in table.groupby("source")}
    true, score = (matrix[name].to_numpy().reshape(12, 12) for name in ("Truth", "Cross-correlation"))
    coupled = score[true != 0][:, None]
    apart = score[(true == 0) & ~np.eye(12, dtype=bool)]
    wins = (coupled > apart).mean() + 0.5 * (coupled == apart).mean()
    assert areas["Cross-correlation"] == pytest.approx(wins)


def test_tables_behind_rows_of_units_name_them_as_their_source_does(fitted: Fitted) -> None:
    names = pd.read_parquet(fitted.paths["recording"] / "units.parquet")["unit_id"].to_numpy(str)
    pairs = table_of("attention_connectivity", fitted)
    for end in ("sender", "receiver"):
        assert pairs[f"{end}_unit_id"].tolist() == names[pairs[end]].tolist()
    generated = table_of("generation", fitted)
    spikes = generated["kind"] == "spike"
    assert generated.loc[spikes, "unit_id"].tolist() == names[generated.loc[spikes, "y"].astype(int)].tolist()
    assert spikes.any() and generated.loc[~spikes, "unit_id"].isna().all()


@pytest.mark.parametrize("name", ("generation", "behaviour_traces", "contrastive_latents"))
def test_a_session_without_test_windows_has_nothing_to_draw(name: str, fitted: Fitted, tmp_path: Path) -> None:
    split = Split.read(fitted.paths["split"])
    split.samples = split.samples[split.samples["split"] != "test"]
    split.write(tmp_path / "split.parquet")
    fit = Path(shutil.copytree(fitted.paths["fits"][0], tmp_path / "cohort" / "neuroformer" / "seed0"))
    decoding = fitted.tables["decoding"]
    decoding[decoding["split"] != "test"].to_parquet(fit / "tables" / "decoding.parquet")
    paths = fitted.paths | {"split": tmp_path / "split.parquet", "fits": [fit]}
    with pytest.raises(NothingToDrawError, match="no window in the test part"):
        FIGURES[name].load().data(**{need: paths[need] for need in FIGURES[name].needs})


def test_a_single_window_and_many_variables_are_traced(fitted: Fitted, tmp_path: Path) -> None:
    fit = Path(shutil.copytree(fitted.paths["fits"][0], tmp_path / "cohort" / "neuroformer" / "seed0"))
    decoding = fitted.tables["decoding"].query("split == 'test' and variable == 'running/speed'").head(1)
    every = pd.concat([decoding.assign(variable=f"signal/{number}") for number in range(10)])
    every.to_parquet(fit / "tables" / "decoding.parquet")
    table = FIGURES["behaviour_traces"].load().data(fitted.paths["trains"], [fit])
    assert table["time"].tolist() == [0.0] * 10
    figure = FIGURES["behaviour_traces"].load().draw(table)
    assert [len(axes.lines) for axes in figure.axes] == [2] * 10


def test_couplings_of_many_models_stand_beside_each_other(fitted: Fitted) -> None:
    table = table_of("attention_connectivity", fitted)
    one = table[table["source"] == "Truth"]
    more = [one.assign(source=f"Couplings of model {number}") for number in range(6)]
    figure = FIGURES["attention_connectivity"].load().draw(pd.concat([table, *more]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert sum(title.startswith("Couplings of model") for title in titles) == 6


@pytest.mark.parametrize(("name", "axis"), [("generation", "y"), ("attention_connectivity", "x")])
def test_units_are_numbered_by_whole_numbers(name: str, axis: str, fitted: Fitted) -> None:
    """Of sixteen units an axis would else have ticks at 2.5 and 7.5."""
    axes = FIGURES[name].load().draw(table_of(name, fitted)).axes[0]
    ticks = getattr(axes, f"{axis}axis").get_major_locator().tick_values(0, 1)
    assert len(ticks) > 1 and (ticks == ticks.round()).all()


def test_what_neighbours_tell_of_behaviour_stands_above_the_features(fitted: Fitted) -> None:
    table = table_of("contrastive_latents", fitted)
    axes = FIGURES["contrastive_latents"].load().draw(table).axes
    for place, (feature, rows) in enumerate(table.groupby("feature", sort=False)):
        told = f"{rows['r2'].iloc[0]:.2f}".replace("-", "\N{MINUS SIGN}")
        assert f"{feature.capitalize()} (" in axes[place].get_title(loc="left")
        assert f"R² {told}" in axes[place].get_title(loc="left")


def test_windows_have_the_colour_of_the_signal_that_was_drawn_together_with_spikes(
    fitted: Fitted, tmp_path: Path
) -> None:
    fit = Path(shutil.copytree(fitted.paths["fits"][0], tmp_path / "cohort" / "neuroformer" / "seed0"))
    settings = yaml.safe_load((fit / "config.yaml").read_text())
    given = settings | {"signals": ["running/speed"], "contrastive": ["spikes", "signals"]}
    (fit / "config.yaml").write_text(yaml.safe_dump(given))
    table = FIGURES["contrastive_latents"].load().data(fitted.paths["trains"], fitted.paths["split"], [fit])
    running = pd.read_parquet(fitted.paths["recording"] / "signals" / "running.parquet")
    start = Split.read(fitted.paths["split"]).part("film", "test")["start_tick"].to_numpy() * 1e-5
    middle = (start[:, None] + np.arange(5) * 0.1 + 0.05).ravel()
    expected = np.interp(middle, running["time"], running["speed"])
    for _, rows in table.groupby("feature"):
        assert np.allclose(np.sort(rows["value"]), np.sort(expected), atol=1e-4)
    assert set(table["variable"]) == {"running/speed"}


@pytest.mark.parametrize(("unit", "label"), [("cm/s", "speed (cm/s)"), ("", "speed")])
def test_axes_of_behaviour_name_the_unit_of_the_signal(
    fitted: Fitted, unit: str, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unit:
        monkeypatch.setattr("pipeline_lib.trains.store.keep_units", lambda *_: None)
    for name, axis in (("behaviour_traces", 0), ("contrastive_latents", -1)):
        table = pd.read_csv(io.StringIO(table_of(name, fitted).to_csv(index=False)))
        axes = FIGURES[name].load().draw(table).axes
        assert axes[axis].get_ylabel() in (label.capitalize(), f"Running: {label}")
    assert (
        FIGURES["behaviour_traces"].load().draw(table_of("behaviour_traces", fitted)).axes[1].get_ylabel() == "Moving"
    )


def test_windows_of_unknown_behaviour_are_dots_all_the_same(fitted: Fitted, tmp_path: Path) -> None:
    fit = Path(shutil.copytree(fitted.paths["fits"][0], tmp_path / "cohort" / "neuroformer" / "seed0"))
    (fit / "tables" / "decoding.parquet").unlink()
    table = FIGURES["contrastive_latents"].load().data(fitted.paths["trains"], fitted.paths["split"], [fit])
    assert table["value"].isna().all()
    for axes, (_, rows) in zip(
        FIGURES["contrastive_latents"].load().draw(table).axes, table.groupby("feature", sort=False), strict=True
    ):
        offsets = axes.collections[0].get_offsets()
        assert len(offsets) == len(rows) and not np.ma.getmaskarray(offsets).any()


def test_spikes_stand_in_the_rows_of_their_units_where_some_are_held_out(fitted: Fitted, tmp_path: Path) -> None:
    split = Split.read(fitted.paths["split"])
    split.heldout["film"] = np.array([3])
    split.samples.loc[split.part("film", "test").index[0], "bins"] = 20  # of 50: it ends after 0.2 s
    split.write(tmp_path / "split.parquet")
    fit = Path(shutil.copytree(fitted.paths["fits"][0], tmp_path / "cohort" / "neuroformer" / "seed0"))
    written = fitted.tables["generated"].query("unit != 3")
    pd.concat([written, written.assign(rollout=1)]).to_parquet(fit / "tables" / "generated.parquet")
    module = FIGURES["generation"].load()
    table = module.data(fitted.paths["trains"], tmp_path / "split.parquet", [fit])
    for source in ("recorded", "generated"):
        spikes = table[(table["kind"] == "spike") & (table["source"] == source)]
        assert 3 not in set(spikes["y"]) and spikes["y"].max() == 11
        assert source == "generated" or not spikes["x"].between(0.2, 0.499).any()
    own = table[(table["kind"] == "spike") & (table["source"] == "generated")]
    first = split.part("film", "test").index[:16]  # 8 s
    shown = written[(written["rollout"] == 0) & written["sample"].isin(first)]
    assert own.groupby("y").size().to_dict() == shown.groupby("unit").size().to_dict()
    one = table[(table["kind"] != "correlation") & ~((table["kind"] == "rate") & (table["x"] > 0)) | (table.index == 0)]
    assert not any("nan" in text.get_text() for axes in module.draw(one).axes for text in axes.texts)


def test_neighbours_tell_what_parts_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=600), "y": rng.normal(size=600), "sample": np.repeat(np.arange(150), 4)})
    noise = rng.normal(size=600)
    side = np.sign(table["x"])
    half = table.assign(x=table["x"] + 9 * side, value=side + noise)  # half its variance, less the noise of 20
    assert neighbour_r2(half) == pytest.approx(0.475, abs=0.06)
    assert -0.15 < neighbour_r2(table.assign(value=noise)) < 0.03
    alike = table.iloc[np.repeat(np.arange(0, 600, 4), 4)].assign(value=np.repeat(noise[:150], 4))
    assert neighbour_r2(alike) < 0.03, "windows of the same sample say nothing"
    assert np.isnan(neighbour_r2(table.assign(value=1.0))) and np.isnan(neighbour_r2(half.head(20)))


def test_the_curve_of_fine_tuning_tells_pretrained_from_scratch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fits = []
    for seed, (fraction, initial) in enumerate((f, i) for f in (0.05, 0.2, 1.0) for i in (None, "weights")):
        folder = tmp_path / "fits" / "film" / "neuroformer" / f"seed{seed}"
        (folder / "tables").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"fraction": fraction, "initial": initial}))
        rows = [
            {"session": "film", "split": split, "metric": metric, "value": rng.random(), "null": null}
            for split in ("validation", "test")
            for metric, null in (
                ("token_bits_per_spike", "train mean"),
                ("token_bits_per_spike", "evaluated mean"),
                ("decoding_r2 running/speed", ""),
                ("decoding_r running/speed", ""),
            )
        ]
        pd.DataFrame(rows).to_parquet(folder / "tables" / "scores.parquet")
        fits.append(folder)
    module = FIGURES["finetuning"].load()
    table = module.data(fits)
    assert len(table) == 6 * 2 and table.groupby("start")["fraction"].nunique().tolist() == [3, 3]
    assert_readable(module.draw(table))
    with pytest.raises(NothingToDrawError, match="fraction"):
        module.data(fits[:2])
