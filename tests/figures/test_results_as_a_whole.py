"""Figures of all results: pairs of models, scores against data, cost."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import NothingToDrawError, model_comparison, score_scaling, score_table, speed
from pipeline_lib.figures.paired import sign_flip_p
from pipeline_lib.figures.palette import FAINT
from pipeline_lib.trains.splits import Split
from tests.figures.made_up_results import Results, made_up_metrics
from tests.figures.test_figure_drawing import assert_readable, words


def test_differences_pair_sessions(several: Results) -> None:
    table = model_comparison.data(several.metrics)
    metrics = pd.read_parquet(several.metrics)
    chosen = metrics.query("metric == 'bits_per_spike' and aggregation == 'pooled' and null == 'evaluated mean'")
    grid = chosen[chosen["units"] == "heldin"].groupby(["session", "model"])["value"].mean().unstack()
    own = table[(table["kind"] == "difference") & (table["units"] == "heldin")]
    assert len(own) == 6
    row = own[(own["model"] == "glm") & (own["other"] == "psth")].iloc[0]
    differences = (grid["glm"] - grid["psth"]).to_numpy()
    assert row["value"] == pytest.approx(differences.mean()) and row["n"] == 3
    assert row["p"] == pytest.approx(sign_flip_p(differences)) == 0.25
    assert (own["p_holm"] >= own["p"]).all() and own["ci_low"].isna().all(), "three sessions give no interval"


def test_a_session_in_several_cohorts_counts_once(tmp_path: Path) -> None:
    table = pd.concat([made_up_metrics(f"s{k}", k) for k in range(7)])
    twice = table[table["session"] == "s0"].assign(cohort="joint", value=lambda rows: rows["value"] + 5)
    pd.concat([table, twice]).to_parquet(tmp_path / "metrics.parquet")
    found = model_comparison.data(tmp_path / "metrics.parquet")
    pairs = found[found["kind"] == "difference"]
    assert set(pairs["n"]) == {7}
    alone = tmp_path / "alone.parquet"
    table.to_parquet(alone)
    other = model_comparison.data(alone)
    assert np.allclose(pairs["value"], other.loc[other["kind"] == "difference", "value"]), "a shared offset is no skill"


def test_models_are_compared_in_cohorts_that_have_both(tmp_path: Path) -> None:
    """A model that is also in easier cohorts is no better for it."""
    table = pd.concat([made_up_metrics(f"s{k}", k) for k in range(6)])
    table = table[table["model"].isin(["glm", "psth"])].assign(value=0.1)
    easier = table[table["model"] == "glm"].assign(cohort="joint", value=0.5)
    pd.concat([table, easier]).to_parquet(tmp_path / "metrics.parquet")
    found = model_comparison.data(tmp_path / "metrics.parquet")
    pairs = found[found["kind"] == "difference"]
    assert set(pairs["n"]) == {6} and np.allclose(pairs["value"], 0) and (pairs["p"] == 1).all()
    assert np.allclose(found.loc[found["kind"] == "score", "value"], 0.1)
    apart = pd.concat([table[table["model"] == "psth"], easier])
    apart.to_parquet(tmp_path / "apart.parquet")
    found = model_comparison.data(tmp_path / "apart.parquet")
    assert set(found["kind"]) == {"score"}, "there is nothing to pair"
    assert_readable(model_comparison.draw(found))


def test_a_pair_that_no_session_has_is_not_taken_for_equal(tmp_path: Path) -> None:
    """Without a mark its cell is as white as that of two models between which nothing differs."""
    table = pd.concat([made_up_metrics(f"s{k}", k) for k in range(3)])
    table = table[(table["model"] != "psth") | (table["session"] == "s0")]
    table = table[(table["model"] != "glm") | (table["session"] != "s0")]
    table.to_parquet(tmp_path / "metrics.parquet")
    figure = model_comparison.draw(model_comparison.data(tmp_path / "metrics.parquet"))
    assert_readable(figure)
    assert [text for text, _ in words(figure)].count("\N{EN DASH}") == 2, "of held-in and of held-out units"


def test_stars_stand_where_chance_is_unlikely(tmp_path: Path) -> None:
    table = pd.concat([made_up_metrics(f"s{k}", k) for k in range(12)])
    table.to_parquet(tmp_path / "metrics.parquet")
    found = model_comparison.data(tmp_path / "metrics.parquet")
    figure = model_comparison.draw(found)
    assert_readable(figure)
    stars = [text for text, _ in words(figure) if text.endswith("*")]
    assert len(stars) == (found["p_holm"] < 0.05).sum() == 12
    one = table[table["model"] == "glm"]
    one.to_parquet(tmp_path / "one.parquet")
    with pytest.raises(NothingToDrawError, match="two models"):
        model_comparison.data(tmp_path / "one.parquet")


def test_scores_stand_at_the_inputs_and_the_training_time(several: Results) -> None:
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    assert set(table["session"]) == {"small", "middle", "large"}
    sizes = table.drop_duplicates("session").set_index("session")
    for path in paths["split"]:
        split = Split.read(path)
        (session,) = split.sessions
        assert sizes.loc[session, "units"] == {"small": 12, "middle": 20, "large": 30}[session] - len(
            split.heldout[session]
        )
        train = (split.samples["split"] == "train").sum()
        assert sizes.loc[session, "minutes"] == pytest.approx(train * 1.0 / 60)
    with pytest.raises(NothingToDrawError, match="as many units"):
        score_scaling.data(paths["metrics"], paths["trains"], paths["split"][:1])


def test_a_session_of_two_cohorts_stands_at_the_time_that_trained_each(several: Results, tmp_path: Path) -> None:
    paths = several.of("all")
    whole = Split.read(next(path for path in paths["split"] if path.stem == "small"))
    half = Split.read(next(path for path in paths["split"] if path.stem == "small"))
    train = half.samples.index[half.samples["split"] == "train"]
    half.samples, half.cohort = half.samples.drop(train[::2]), "half"
    half.write(tmp_path / "half.parquet")
    table = pd.read_parquet(paths["metrics"])
    scores = table[table["session"] == "small"].assign(cohort="half")
    pd.concat([table, scores]).to_parquet(tmp_path / "metrics.parquet")
    found = score_scaling.data(
        tmp_path / "metrics.parquet", paths["trains"], [*paths["split"], tmp_path / "half.parquet"]
    )
    own = found.query("session == 'small' and model == 'glm' and scored == 'heldin'").set_index("cohort")["minutes"]
    seconds = {split.cohort: (split.samples["split"] == "train").sum() for split in (whole, half)}
    assert own.to_dict() == pytest.approx({cohort: windows / 60 for cohort, windows in seconds.items()})


def test_cohorts_of_one_session_are_joined_by_a_curve(several: Results) -> None:
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    half = table[table["session"] == "large"].assign(cohort="large_half", minutes=lambda rows: rows["minutes"] / 2)
    figure = score_scaling.draw(pd.concat([table, half]))
    assert_readable(figure)
    lines = [
        line for axes in figure.axes for line in axes.lines if line.get_color() != FAINT and line.get_marker() == "None"
    ]
    assert len(lines) == 2 * 4, "four models, held-in and held-out, against time"


def test_no_curve_joins_a_session_alone_and_together_with_another(several: Results) -> None:
    """Fitted together, both stand at the minutes of both: not what more data of its own does to either."""
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    pair = table[table["session"].isin(["small", "large"])]
    figure = score_scaling.draw(pd.concat([table, pair.assign(cohort="pair", minutes=9.0)]))
    coloured = [[line for line in axes.lines if line.get_color() != FAINT] for axes in figure.axes]
    assert not [line for lines in coloured for line in lines if line.get_marker() == "None"]
    assert [max(np.concatenate([line.get_xdata() for line in lines])) for lines in coloured[1::2]] == [9, 9]


def test_a_scaling_curve_joins_only_cohorts_that_differ_in_one_thing(several: Results) -> None:
    """Of one session: half of the data with all units, and all data with half of the units."""
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    own = table[(table["session"] == "large") & (table["model"] == "glm") & (table["scored"] == "heldin")]
    own = own.assign(cohort="whole", units=24, minutes=1.0, value=0.5)
    less = own.assign(cohort="less", minutes=0.5, value=0.3)
    fewer = own.assign(cohort="fewer", units=12, value=0.1)
    figure = score_scaling.draw(pd.concat([own, less, fewer]))
    curves = [
        [
            line.get_xydata().tolist()
            for line in axes.lines
            if line.get_marker() == "None" and len(line.get_xdata()) == 2
        ]
        for axes in figure.axes
    ]
    over_units, over_time = (next(line for line in each if line[0][1] > 0) for each in curves)
    assert over_units == [[12, 0.1], [24, 0.5]] and over_time == [[0.5, 0.3], [1.0, 0.5]]


def test_cost_is_that_of_the_fits_and_of_what_snakemake_measured(several: Results) -> None:
    paths = several.of("all")
    table = speed.data(paths["fits"], paths["benchmarks"])
    fits = table[table["stage"] == "fit"]
    assert len(fits) == 15 and set(fits["wall"]) == {12.5} and set(fits["cpu"]) == {9.75}
    convert = table[table["stage"] == "convert"]
    assert len(convert) == 3 and set(convert["cpu"]) == {0.75} and set(convert["memory"]) == {140.5}
    kept = speed.data(paths["fits"], paths["benchmarks"], ["small", "large"])
    assert set(kept.loc[kept["stage"] != "fit", "job"]) == {"small", "large"}, "the folder keeps what a run once had"
    with pytest.raises(NothingToDrawError):
        speed.data([], several.directory / "nothing")


def test_fits_count_once_and_jobs_by_their_last_measurement(several: Results, tmp_path: Path) -> None:
    paths = several.of("all")
    folder = Path(shutil.copytree(paths["benchmarks"], tmp_path / "benchmarks"))
    (folder / "fit" / "small" / "glm").mkdir(parents=True)
    shutil.copy(folder / "convert" / "small.tsv", folder / "fit" / "small" / "glm" / "seed0.tsv")
    with (folder / "convert" / "small.tsv").open("a") as file:
        file.write("40.0\t0:00:40\t99.0\t-\n")  # made again
    table = speed.data(paths["fits"], folder)
    assert (table["stage"] == "fit").sum() == 15 and set(table.loc[table["stage"] == "fit", "wall"]) == {12.5}
    again = table[(table["stage"] == "convert") & (table["job"] == "small")].iloc[0]
    assert again["wall"] == 40.0 and again["memory"] == 99.0 and np.isnan(again["cpu"])


def test_a_fit_that_was_copied_for_another_seed_cost_nothing(several: Results, tmp_path: Path) -> None:
    fits = []
    for seed in range(2):
        fits.append(tmp_path / f"small/glm/seed{seed}")
        shutil.copytree(several.of("all")["fits"][0], fits[-1])
    about = json.loads((fits[1] / "run.json").read_text())
    (fits[1] / "run.json").write_text(json.dumps(about | {"copy_of_seed": 0, "wall_seconds": 0.003}))
    assert speed.data(fits, tmp_path)["wall"].tolist() == [12.5]


def test_what_a_gpu_did_stands_beside_time_and_memory(several: Results, tmp_path: Path) -> None:
    paths = several.of("all")
    assert len(speed.draw(speed.data(paths["fits"], paths["benchmarks"])).axes) == 3, "no empty panel without a GPU"
    fits = []
    for fit in paths["fits"]:
        fits.append(tmp_path / fit.relative_to(several.directory))
        shutil.copytree(fit, fits[-1], ignore=shutil.ignore_patterns("predictions.zarr"))
        about = json.loads((fit / "run.json").read_text())
        if fit.parent.name == "glm":
            about |= {"device": "cuda", "gpu_peak_memory_mb": 5000.0, "gpu_use_percent": 87.5}
        (fits[-1] / "run.json").write_text(json.dumps(about))
    table = speed.data(fits, paths["benchmarks"])
    assert set(table.loc[table["model"] == "glm", "gpu_use"]) == {87.5}
    assert table.loc[table["model"] != "glm", "gpu_use"].isna().all()
    figure = speed.draw(table)
    texts = [text for text, _ in words(figure)]
    assert "58.5, GPU" in texts and "2.2" in texts and "GPU at work (%)" in texts
    assert figure.axes[3].get_xlim() == (0, 100)
    for panel, marker, value in ((1, "D", 5000.0), (3, "o", 87.5)):
        drawn = [line.get_xdata().tolist() for line in figure.axes[panel].lines if line.get_marker() == marker]
        assert [points for points in drawn if points and max(points) == value] == [[value] * 6]


def with_averages(metrics: Path, out: Path) -> Path:
    """Scores as they are, and those of rates averaged over the seeds of the GLM, which are better."""
    table = pd.read_parquet(metrics)
    rows = table[(table["model"] == "glm") & (table["seed"] == 0)]
    rows = rows.assign(model="glm:mean", value=rows["value"] + 0.1, seed=pd.Series(pd.NA, rows.index, dtype="Int64"))
    pd.concat([table, rows]).to_parquet(out)
    return out


@pytest.mark.parametrize("figure", [score_table, model_comparison, score_scaling])
def test_averaged_rates_are_a_model_of_their_own_and_no_seed_more(
    several: Results, tmp_path: Path, figure: ModuleType
) -> None:
    paths = {name: several.of("all")[name] for name in ("trains", "split")} if figure is score_scaling else {}
    before = figure.data(metrics=several.metrics, **paths)
    found = figure.data(metrics=with_averages(several.metrics, tmp_path / "metrics.parquet"), **paths)
    assert any("GLM, rates averaged" in " ".join(text.split()) for text, _ in words(figure.draw(found)))
    averaged = found.reindex(columns=["model", "other"]).eq("glm:mean").any(axis=1)
    pd.testing.assert_frame_equal(found[~averaged].reset_index(drop=True), before, check_dtype=False)
    assert averaged.any()


def test_averages_over_seeds_make_no_test_of_fits_stricter(tmp_path: Path) -> None:
    """With eight sessions p is 1/128 at the least: six pairs can stay below 0.05, ten of whatever kind cannot."""
    pd.concat([made_up_metrics(f"s{k}", k) for k in range(8)]).to_parquet(tmp_path / "metrics.parquet")
    before = model_comparison.data(tmp_path / "metrics.parquet")
    found = model_comparison.data(with_averages(tmp_path / "metrics.parquet", tmp_path / "more.parquet"))
    averaged = found[["model", "other"]].eq("glm:mean").any(axis=1)
    fits = found[~averaged].reset_index(drop=True)
    pd.testing.assert_frame_equal(fits, before, check_dtype=False)
    assert (fits["p_holm"] < 0.05).sum() == 12
    for units in ("heldin", "heldout"):
        own = found[averaged & (found["kind"] == "difference") & (found["units"] == units)].sort_values("p")
        steps = np.maximum.accumulate(own["p"].to_numpy() * np.arange(len(own), 0, -1)).clip(max=1)
        np.testing.assert_allclose(own["p_holm"], steps)


def test_averaged_rates_are_one_point_behind_their_model(several: Results, tmp_path: Path) -> None:
    figure = score_table.draw(score_table.data(with_averages(several.metrics, tmp_path / "metrics.parquet")))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names.count("GLM, rates averaged") == 3
    assert all(names[place - 1] == "GLM" for place, name in enumerate(names) if name == "GLM, rates averaged")
    assert_readable(figure)
