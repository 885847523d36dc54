"""Rates averaged over the seeds of a model: what is written, what it scores, and what is refused."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.__main__ import main
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.average import average
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.files import sha256_file, sha256_tree, write_json
from tests.evaluation.made_up_fit import name_fit
from tests.small_cohort import declare, write_fits

SEEDS = (0, 1, 4)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds that differ, with predictions of a kind that has no mean; some that were masked are missing."""
    results = tmp_path_factory.mktemp("project") / "results"
    write_fits(results, ["mean_rate"], SEEDS)
    random = np.random.default_rng(0)
    for seed in SEEDS:
        group = zarr.open_group(str(results / f"fits/small/mean_rate/seed{seed}/predictions.zarr/small"))
        rates = group["rates"][:] * random.lognormal(0, 0.5, group["rates"].shape).astype(np.float32)
        group["rates"][:] = rates
        rates[-1, -7:] = np.nan
        rates[0, seed] = np.nan  # of one seed alone: then there is no mean of all
        group.create_array("extras/rates_leave_one_out", data=rates / 2, chunks=(5, *rates.shape[1:]))
        group.create_array("extras/attention", data=rates[:, :, 0])
        group.create_array("latents", data=rates[:, :, :2])
        couplings = group.create_group("couplings", attributes={"bin_size": 20.0})
        for name in ("strength", "filters"):
            couplings.create_array(name, data=np.eye(rates.shape[2]))
        declare(results / f"fits/small/mean_rate/seed{seed}")
    return results


@pytest.fixture
def results(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "results"))


def seeds_of(results: Path) -> list[Path]:
    return [results / f"fits/small/mean_rate/seed{seed}" for seed in SEEDS]


def mean_of(folders: list[Path], name: str) -> np.ndarray:
    each = [zarr.open_group(str(folder / "predictions.zarr"), mode="r")[f"small/{name}"][:] for folder in folders]
    return np.mean(np.stack(each).astype(np.float64), axis=0).astype(np.float32)


def test_rates_are_the_mean_over_seeds_and_nothing_else_is_there(results: Path) -> None:
    out = results / "fits/small/mean_rate/mean"
    average(seeds_of(results), out)
    first, made = (zarr.open_group(str(at / "predictions.zarr"), mode="r") for at in (seeds_of(results)[0], out))
    members = sorted(name for name, _ in made["small"].members(max_depth=None))
    assert members == ["extras", "extras/rates_leave_one_out", "rates", "sample"]
    for name in ("rates", "extras/rates_leave_one_out"):
        np.testing.assert_array_equal(made[f"small/{name}"][:], mean_of(seeds_of(results), name))
    masked = made["small/extras/rates_leave_one_out"][:]
    assert np.isnan(masked[-1, -7:]).all() and np.isnan(masked[0, list(SEEDS)]).all()
    for name in ("rates", "sample"):
        own, like = made[f"small/{name}"], first[f"small/{name}"]
        assert (own.dtype, own.chunks, own.compressors) == (like.dtype, like.chunks, like.compressors)
    np.testing.assert_array_equal(made["small/sample"][:], first["small/sample"][:])


def test_it_says_what_it_is_the_mean_of_and_is_the_same_each_time(results: Path) -> None:
    out = results / "fits/small/mean_rate/mean"
    seeds = [str(fit / "manifest.json") for fit in seeds_of(results)]  # as rules name folders
    assert main(["average", "--fit", *seeds, "--out", str(out / "manifest.json")]) == 0
    told = json.loads((out / "manifest.json").read_text())
    fits = {
        f"seed{seed}": sha256_file(fit / "manifest.json") for seed, fit in zip(SEEDS, seeds_of(results), strict=True)
    }
    assert (told["cohort"], told["model"], told["seed"], told["mean_of"]) == ("cohort", "mean_rate:mean", None, fits)
    assert told["sha256"] == {"predictions.zarr": sha256_tree(out / "predictions.zarr")}
    attributes = dict(zarr.open_group(str(out / "predictions.zarr"), mode="r").attrs)
    told_of = zarr.open_group(str(seeds_of(results)[0] / "predictions.zarr"), mode="r").attrs
    assert attributes["mean_of"] == fits and attributes["sees"] == told_of["sees"]
    average(seeds_of(results), out)
    assert json.loads((out / "manifest.json").read_text()) == told


def test_it_scores_what_the_mean_scores_and_is_no_seed_more(results: Path) -> None:
    average(seeds_of(results), results / "mean")
    where = [results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"]
    scoring = Scoring(*where, resamples=20, few_shot=[2])
    evaluate([*seeds_of(results), results / "mean"], scoring, results / "all.parquet")
    table = pd.read_parquet(results / "all.parquet")
    by_hand = Path(shutil.copytree(seeds_of(results)[0], results / "by_hand"))
    group = zarr.open_group(str(by_hand / "predictions.zarr/small"))
    for name in ("rates", "extras/rates_leave_one_out"):
        group[name][:] = mean_of(seeds_of(results), name)
    evaluate(name_fit(by_hand, "mean_rate:mean"), Scoring(*where, resamples=20), results / "one.parquet")
    keys = ["split", "units", "metric", "null", "aggregation"]
    found, expected = (
        each.drop(columns="seed").sort_values(keys, ignore_index=True)
        for each in (table[table["seed"].isna()], pd.read_parquet(results / "one.parquet"))
    )
    pd.testing.assert_frame_equal(found, expected)
    assert {"bits_per_spike", "leave_one_out_bits_per_spike"} <= set(found["metric"])
    alone = table[table["model"] == "mean_rate"]
    few_shot = alone["metric"].str.startswith("few_shot")
    assert few_shot.any(), "of latents, of which there is no mean"
    assert sorted(alone["seed"].unique()) == [*SEEDS] and set(table["model"]) == {"mean_rate", "mean_rate:mean"}


def test_without_an_average_seeds_are_whole_numbers(results: Path) -> None:
    scoring = Scoring([results / "trains/small"], results / "splits/small.parquet", [results / "recordings/small"], 0)
    evaluate(seeds_of(results), scoring, results / "all.parquet")
    assert pd.read_parquet(results / "all.parquet")["seed"].dtype == "int64"


def test_further_predictions_are_averaged_too(results: Path) -> None:
    """What readouts are fitted to: its manifest names no model."""
    folders = [Path(shutil.copytree(fit, results / "train" / fit.name)) for fit in seeds_of(results)]
    for folder in folders:
        write_json(folder / "manifest.json", {"fit": folder.name, "parts": ["train"], "sha256": {}})
    average(folders, results / "train/mean")
    told = json.loads((results / "train/mean/manifest.json").read_text())
    assert told["parts"] == ["train"] and "model" not in told and list(told["mean_of"]) == ["seed0", "seed1", "seed4"]
    made = zarr.open_group(str(results / "train/mean/predictions.zarr"), mode="r")
    np.testing.assert_array_equal(made["small/rates"][:], mean_of(folders, "rates"))


def test_what_are_no_seeds_of_a_model_is_refused_and_nothing_written(results: Path) -> None:
    first, second, third = seeds_of(results)
    for folders in ([first], [first, second, first]):
        with pytest.raises(InputError, match="at least two seeds of a model, each once"):
            average(folders, results / "mean")
    told = json.loads((second / "manifest.json").read_text())
    for name, other in (("model", "glm"), ("split", "0" * 64), ("config", {"some": 1})):
        write_json(second / "manifest.json", told | {name: other})
        with pytest.raises(InputError, match=f"seed1: {name}: found"):
            average([first, second], results / "mean")
    (second / "manifest.json").unlink()
    with pytest.raises(InputError, match="a finished fit"):
        average([first, second], results / "mean")
    store = zarr.open_group(str(third / "predictions.zarr"))
    for name in ("sees", "bin_size"):
        before, store.attrs[name] = store.attrs[name], "other"
        declare(third)
        with pytest.raises(InputError, match=f"{name}: found other"):
            average([first, third], results / "mean")
        store.attrs[name] = before
    group = store["small"]
    group["rates"][0, 0, 0] = 9.0  # other than when its manifest was written
    with pytest.raises(InputError, match=r"predictions\.zarr: .*hash"):
        average([first, third], results / "mean")
    group["sample"][:] = group["sample"][:][::-1]
    declare(third)
    with pytest.raises(InputError, match="other windows than another seed's"):
        average([first, third], results / "mean")
    del group["extras"]["rates_leave_one_out"]
    declare(third)
    with pytest.raises(InputError, match="extras/rates_leave_one_out: found None"):
        average([first, third], results / "mean")
    assert not (results / "mean/manifest.json").exists() and not (results / "mean/predictions.zarr").exists()


def test_a_submission_may_be_of_the_mean(results: Path) -> None:
    average(seeds_of(results), results / "mean")
    written = {}
    for fit in (*seeds_of(results), results / "mean"):
        data = ["--trains", results / "trains/small", "--split", results / "splits/small.parquet"]
        arguments = ["export", "nlb", "--fit", fit, *data, "--out", results / "submission.h5"]
        assert main([str(each) for each in arguments]) == 0
        with h5py.File(results / "submission.h5") as file:
            written[fit.name] = {name: array[:] for name, array in file["small"].items()}
    assert "eval_rates_heldout" in written["mean"]
    for name, rates in written["mean"].items():
        each = np.stack([written[fit.name][name] for fit in seeds_of(results)])
        np.testing.assert_array_equal(rates, each.mean(axis=0, dtype=np.float64).astype(np.float32))
