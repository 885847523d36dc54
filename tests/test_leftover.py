"""What is scored of a cohort when one of its fits failed."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.config import Config
from pipeline_lib.evaluation.average import average
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.leftover import available_scores
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Cohort, ModelPlan, Plan
from pipeline_lib.session_sheet import Session
from pipeline_lib.training.fit import fit
from tests.small_cohort import SPLITS, WINDOWS, write_fits

MODELS, SEEDS = ("mean_rate", "psth"), (0, 1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("project") / "results"
    write_fits(results, MODELS, SEEDS)
    return results


@pytest.fixture
def results(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "results"))


def plan(results: Path, decoding: dict[str, object] | None = None, **more: object) -> Plan:
    settings = {"sessions": "sessions.tsv", "results": str(results), "seeds": list(SEEDS)}
    config = Config(**settings, evaluation={"resamples": 20, "decoding": decoding or {}}, **more)
    models = {model: ModelPlan(model, {}) for model in MODELS}
    session = Session("small", "tables", "nowhere", None, {})
    return Plan(config, {"small": session}, {"small": Cohort("small", ("small",), WINDOWS, SPLITS, models)})


def leftover(results: Path, folder: Path) -> set[tuple[str, int]]:
    """Which fits have scores, but for a table of the whole cohort."""
    folder.mkdir()
    paths = Paths(str(results))
    found = [path for path in available_scores(plan(results), paths, folder) if path != Path(paths.scores("small"))]
    tables = [pd.read_parquet(path) for path in found]
    return {(row.model, row.seed) for table in tables for row in table.itertuples()}


def test_a_model_that_failed_does_not_take_the_scores_of_the_others(results: Path, tmp_path: Path) -> None:
    assert leftover(results, tmp_path / "a") == set(), "nothing failed: what is missing is not made yet"
    (results / "fits/small/psth/seed1/manifest.json").unlink()
    assert leftover(results, tmp_path / "b") == set(), "never begun"
    log = results / "logs/fit/small/psth/seed1.log"
    log.parent.mkdir(parents=True)
    log.write_text("FitError")
    assert leftover(results, tmp_path / "c") == {("mean_rate", 0), ("mean_rate", 1), ("psth", 0)}


def test_averages_of_the_others_are_scored_too(results: Path, tmp_path: Path) -> None:
    fits = results / "fits/small"
    average([fits / "mean_rate/seed0", fits / "mean_rate/seed1"], fits / "mean_rate/mean")
    asked = plan(results, average_seeds=["mean_rate", "psth"])
    log = results / "logs/average/small/psth/mean.log"
    for begun, models in ((False, set()), (True, {"mean_rate", "mean_rate:mean", "psth"})):
        if begun:
            log.parent.mkdir(parents=True)
            log.write_text("error: no space left")
        tables = [pd.read_parquet(path) for path in available_scores(asked, Paths(str(results)), tmp_path)]
        assert {model for table in tables for model in table["model"]} == models


def test_without_predictions_of_the_training_part_all_but_what_is_decoded_is_scored(
    results: Path, tmp_path: Path
) -> None:
    (results / "fits/small/psth/seed1/manifest.json").unlink()
    log = results / "logs/fit/small/psth/seed1.log"
    log.parent.mkdir(parents=True)
    log.write_text("FitError")
    found = []
    for name, decoding in (("plain", None), ("decoded", {"which": {"choice": "condition"}})):
        (tmp_path / name).mkdir()
        asked = plan(results, decoding)
        tables = available_scores(asked, Paths(str(results)), tmp_path / name)
        found.append(pd.concat([pd.read_parquet(table) for table in tables]))
    pd.testing.assert_frame_equal(*found)
    assert set(found[0]["model"]) == {"mean_rate", "psth"}


def test_scores_of_fits_that_have_failed_since_are_not_taken(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The last run had them all; this one made a fit anew and failed, or made it and could not score it."""
    scores, log = results / "scores/small/metrics.parquet", results / "logs/fit/small/psth/seed1.log"
    for file in (scores, log):
        file.parent.mkdir(parents=True)
        file.touch()

    def taken(name: str) -> bool:
        (tmp_path / name).mkdir()
        return scores in available_scores(plan(results), Paths(str(results)), tmp_path / name)

    assert taken("a") and leftover(results, tmp_path / "whole") == set()
    made = results / "fits/small/psth/seed1/manifest.json"
    os.utime(made, ns=(0, scores.stat().st_mtime_ns))
    assert taken("as old"), "file systems count in whole seconds, too"
    split = (results / "splits/small.parquet").rename(tmp_path / "split")
    assert not taken("without a split")
    split.rename(results / "splits/small.parquet")
    os.utime(made, ns=(0, scores.stat().st_mtime_ns + 1))
    assert not taken("b")
    made.unlink()
    assert not taken("c")
    assert leftover(results, tmp_path / "d") == {("mean_rate", 0), ("mean_rate", 1), ("psth", 0)}
    (results / "splits/small.parquet").unlink()
    capsys.readouterr()
    assert leftover(results, tmp_path / "e") == set(), "of another split"
    assert capsys.readouterr().err == "", "nor was it tried"


def test_scores_of_before_a_change_of_settings_are_not_taken(results: Path, tmp_path: Path) -> None:
    """A run that was ended half-way: the PSTH of seed 0 is of the new settings, that of seed 1 of the old ones."""
    (results / "scores/small").mkdir(parents=True)
    (results / "scores/small/metrics.parquet").touch()  # of the run before
    asked = plan(results)
    asked.cohorts["small"].models["psth"] = ModelPlan("psth", {"smoothing": [30.0]})
    log = results / "logs/fit/small/psth/seed1.log"
    log.parent.mkdir(parents=True)
    log.touch()
    data = [results / "trains/small"], results / "splits/small.parquet"
    fit(*data, "psth", "psth", {"smoothing": [30.0]}, 0, results / "fits/small/psth/seed0")
    os.utime(results / "scores/small/metrics.parquet")  # whatever its age
    tables = [pd.read_parquet(path) for path in available_scores(asked, Paths(str(results)), tmp_path)]
    scored = {(row.model, row.seed) for table in tables for row in table.itertuples()}
    assert scored == {("mean_rate", 0), ("mean_rate", 1), ("psth", 0)}


def test_predictions_that_cannot_be_scored_are_said_and_the_rest_is(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(results / "fits/small/psth/seed0/predictions.zarr")
    shutil.rmtree(results / "fits/small/psth/seed1/predictions.zarr/small/rates")  # which nobody foresaw
    log = results / "logs/evaluate/small.log"
    log.parent.mkdir(parents=True)
    log.write_text("error")
    assert leftover(results, tmp_path / "a") == {("mean_rate", 0), ("mean_rate", 1)}
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": not scored: ")[0] for line in said] == ["small, psth, 0", "small, psth, 1"]


def test_no_more_time_than_a_minute_and_what_was_scored_alone_is_taken(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_lib.leftover.PATIENCE", -1.0)
    alone = results / "scores/small/mean_rate/seed1/metrics.parquet"
    data = [results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"]
    evaluate(results / "fits/small/mean_rate/seed1", Scoring(*data, resamples=20), alone)
    log = results / "logs/evaluate/small.log"
    log.parent.mkdir(parents=True)
    log.write_text("error")
    assert leftover(results, tmp_path / "a") == {("mean_rate", 1)}
    assert "3 finished fits are not scored yet: snakemake --cores all scores" in capsys.readouterr().err
    made = results / "fits/small/mean_rate/seed1/manifest.json"
    os.utime(made, ns=(0, alone.stat().st_mtime_ns + 1))
    assert leftover(results, tmp_path / "b") == set(), "made again since"
