"""Fits that no seed changes: a copy is what fitting the other seed would have given."""

import json
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file, sha256_tree
from pipeline_lib.models.registry import load_model, model_names
from pipeline_lib.training.copy import copy_fit
from pipeline_lib.training.fit import fit, load_fit
from tests.small_cohort import recording, write_cohort

RANDOM = {"lfads", "ndt", "glm_transformer", "neuroformer"}
TELLS_TIMES = "run.json"


def contents(folder: Path) -> dict[str, str]:
    """Hashes of what a fit publishes, without what tells times."""
    entries = [each for each in folder.iterdir() if each.name[0] != "." and each.name != TELLS_TIMES]
    return {each.name: (sha256_tree if each.is_dir() else sha256_file)(each) for each in entries}


def test_deep_models_are_random_and_the_others_are_not() -> None:
    assert {name for name in model_names() if load_model(name).random} == RANDOM


@pytest.mark.parametrize("model", sorted(set(model_names()) - RANDOM))
def test_a_copy_is_the_fit_of_the_other_seed(tmp_path: Path, model: str) -> None:
    """Byte for byte, so that nothing in the model depends on the seed, which `random = False` promises."""
    cohort = write_cohort(tmp_path / "cohort", made=[recording(trials=30)])
    settings = {"strength": 0.1} if model == "glm" else {}
    for seed in (0, 7):
        fit(*cohort, model, model, settings, seed, tmp_path / f"seed{seed}", code="some")
    (tmp_path / "seed0/.manifest.made_with.json").touch()
    copy_fit(tmp_path / "seed0", [7, 3], [tmp_path / "copy7", tmp_path / "copy3"])
    assert contents(tmp_path / "copy7") == contents(tmp_path / "seed7") != contents(tmp_path / "seed0")
    assert not (tmp_path / "copy7/.manifest.made_with.json").exists(), "of that fit alone"
    before = (tmp_path / "copy7/manifest.json").stat().st_mtime_ns
    fit(*cohort, model, model, settings, 7, tmp_path / "copy7", code="some")
    assert (tmp_path / "copy7/manifest.json").stat().st_mtime_ns == before, "found made, as any fit of seed 7"
    assert load_fit(tmp_path / "copy3").seed == 3
    run = json.loads((tmp_path / "copy3" / TELLS_TIMES).read_text())
    assert (run["seed"], run["copy_of_seed"]) == (3, 0)


def test_what_is_no_fit_or_has_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a finished fit"):
        copy_fit(tmp_path, [1], [tmp_path / "copy"])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"1 given"):
        copy_fit(tmp_path, [1, 2], [tmp_path / "copy"])
    assert not (tmp_path / "copy").exists()


def test_tables_of_an_earlier_fit_do_not_stay(tmp_path: Path) -> None:
    """Only some models and settings write tables; what is scored must be of the fit that is there."""
    cohort = write_cohort(tmp_path / "cohort", made=[recording(trials=30)])
    stale = [tmp_path / seed / "tables" / "scores.parquet" for seed in ("seed0", "seed1")]
    for table in stale:
        table.parent.mkdir(parents=True)
        table.write_text("of an earlier fit")
    fit(*cohort, "mean_rate", "mean_rate", {}, 0, tmp_path / "seed0", code="some")
    copy_fit(tmp_path / "seed0", [1], [tmp_path / "seed1"])
    assert not any(table.parent.exists() for table in stale)
