"""All fits of a cohort in one table."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.cohort import Scoring, evaluate_fits
from pipeline_lib.evaluation.evaluate import evaluate
from tests.small_cohort import write_fits

MODELS, SEEDS = ("mean_rate", "psth"), (0, 1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_fits(tmp_path / "results", MODELS, SEEDS)
    return tmp_path / "results"


def scoring(results: Path) -> Scoring:
    return Scoring([results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"], 20)


def test_one_table_holds_what_each_fit_scores_alone(results: Path) -> None:
    fits = [results / f"fits/small/{model}/seed{seed}" for model in MODELS for seed in SEEDS]
    evaluate_fits(scoring(results), fits, [], results / "all.parquet")
    table = pd.read_parquet(results / "all.parquet")
    data = [results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"]
    for model in MODELS:
        for seed in SEEDS:
            made, out = results / f"fits/small/{model}/seed{seed}", results / "one.parquet"
            evaluate(made, *data, out, "cohort", model, seed, resamples=20)
            alone = pd.read_parquet(out)
            found = table[(table["model"] == model) & (table["seed"] == seed)]
            keys = ["split", "units", "metric", "null", "aggregation"]
            pd.testing.assert_frame_equal(*(each.sort_values(keys, ignore_index=True) for each in (found, alone)))
    assert len(table) == 4 * len(alone)


def test_a_fit_that_is_not_there_leaves_no_table(results: Path) -> None:
    (results / "fits/small/psth/seed1/manifest.json").unlink()
    fits = [results / f"fits/small/psth/seed{seed}" for seed in SEEDS]
    with pytest.raises(InputError, match=r"seed1.*a finished fit"):
        evaluate_fits(scoring(results), fits, [], results / "all.parquet")
    assert not (results / "all.parquet").exists()
