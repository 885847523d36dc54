"""Fits that start from the weights of another: pretraining on a cohort, then a session of its own."""

import json
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import SHEET, SMALL, Project

NDT = {"layers": 1, "hidden": 8, "read_in": 6, "steps": 6, "warmup": 1, "evaluate_every": 3}
WEIGHTS = "results/fits/both/ndt/seed0/model.safetensors"
TUNED = "results/fits/pair/ndt/seed0/manifest.json"


@pytest.fixture
def tuning(tmp_path: Path) -> Project:
    """A cohort of two sessions, and one of its sessions fitted from the weights of the cohort."""
    project = Project(tmp_path)
    project.write_sheet(SHEET + "other\tallen\tsimulated:other\t\n")
    cohort = SMALL["cohorts"]["pair"]
    tuned = {"model_settings": {"ndt": NDT | {"initial": WEIGHTS, "freeze": ["encoder.*"]}}}
    project.write_config(
        SMALL
        | {"models": {"ndt": NDT}}
        | {"simulations": SMALL["simulations"] | {"other": SMALL["simulations"]["pair"] | {"seed": 5}}}
        | {"cohorts": {"pair": cohort | tuned, "both": cohort | {"sessions": ["pair", "other"]}}}
    )
    return project


def test_the_fit_that_makes_the_weights_comes_first(tuning: Project) -> None:
    jobs = tuning.planned(TUNED)
    assert jobs["fit"] == jobs["split"] == jobs["record"] == 2


def test_weights_from_elsewhere_must_be_there(tuning: Project) -> None:
    elsewhere, config = "lab/model.safetensors", tuning.folder / "config/config.yaml"
    config.write_text(config.read_text().replace(WEIGHTS, elsewhere))
    result = tuning.snakemake("--dry-run", TUNED)
    assert result.returncode != 0 and elsewhere in result.stdout + result.stderr
    (tuning.folder / "lab").mkdir()
    (tuning.folder / elsewhere).touch()
    assert tuning.planned(TUNED)["fit"] == 1


@pytest.mark.slow
def test_other_weights_are_another_fit(tuning: Project) -> None:
    result = tuning.snakemake(TUNED)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tuning.folder / TUNED).read_text())
    assert tuning.planned(TUNED) == {}
    config = yaml.safe_load((tuning.folder / "config/config.yaml").read_text())
    config["cohorts"]["both"]["model_settings"] = {"ndt": {"steps": 7}}
    tuning.write_config(config)
    assert tuning.planned(TUNED) == {"fit": 2}
    assert tuning.snakemake(TUNED).returncode == 0
    assert json.loads((tuning.folder / TUNED).read_text())["initial"] != manifest["initial"]
