"""All fits of a cohort in one table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.training.predict import predict
from tests.small_cohort import declare, write_fits

MODELS, SEEDS = ("mean_rate", "psth"), (0, 1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_fits(tmp_path / "results", MODELS, SEEDS)
    return tmp_path / "results"


def scoring(results: Path) -> Scoring:
    data = [results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"]
    return Scoring(*data, resamples=20, few_shot=(3,))


def test_one_table_holds_what_each_fit_scores_alone(results: Path) -> None:
    fits = [results / f"fits/small/{model}/seed{seed}" for model in MODELS for seed in SEEDS]
    evaluate(fits, scoring(results), results / "all.parquet")
    table = pd.read_parquet(results / "all.parquet")
    for model in MODELS:
        for seed in SEEDS:
            made, out = results / f"fits/small/{model}/seed{seed}", results / "one.parquet"
            evaluate(made, scoring(results), out)
            alone = pd.read_parquet(out)
            found = table[(table["model"] == model) & (table["seed"] == seed)]
            keys = ["split", "units", "metric", "null", "aggregation"]
            pd.testing.assert_frame_equal(*(each.sort_values(keys, ignore_index=True) for each in (found, alone)))
    assert len(table) == 4 * len(alone) and alone["metric"].str.startswith("few_shot_3").any()
    evaluate(fits[::-1], scoring(results), results / "again.parquet")
    assert (results / "again.parquet").read_bytes() == (results / "all.parquet").read_bytes()


def test_each_fit_is_decoded_by_what_it_predicts_itself_of_the_training_part(results: Path) -> None:
    """In other coordinates than those of another seed."""
    fits = [results / f"fits/small/psth/seed{seed}" for seed in SEEDS]
    training = [results / f"training/seed{seed}" for seed in SEEDS]
    for fit, train, order in zip(fits, training, (slice(None), slice(None, None, -1)), strict=True):
        predict(fit, [results / "trains/small"], results / "splits/small.parquet", train, parts=["train"])
        for folder in (fit, train):
            rates = zarr.open_group(str(folder / "predictions.zarr"))["small/rates"]
            rates[:] = rates[:][:, :, order]
            declare(folder)
    made = replace(scoring(results), decoding={"which": Target(choice="condition")})
    evaluate(fits, made, results / "all.parquet", training)
    found = pd.read_parquet(results / "all.parquet").query("metric.str.startswith('decoding')")
    assert found["value"].tolist() == [1.0, 1.0]


def test_a_fit_that_is_not_there_leaves_no_table(results: Path) -> None:
    (results / "fits/small/psth/seed1/manifest.json").unlink()
    fits = [results / f"fits/small/psth/seed{seed}" for seed in SEEDS]
    with pytest.raises(InputError, match=r"seed1.*a finished fit"):
        evaluate(fits, scoring(results), results / "all.parquet")
    assert not (results / "all.parquet").exists()
