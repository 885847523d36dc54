"""Seeds of a model that the configuration wants trained as one: a job, and fits like any other."""

import json
from pathlib import Path

import pytest

from tests.workflow.project import SMALL, Project

NDT = {"ensemble": True, "layers": 1, "hidden": 8, "read_in": 6, "steps": 6, "warmup": 1, "evaluate_every": 3}
ENSEMBLE = SMALL | {"models": {"mean_rate": {}, "ndt": NDT}, "seeds": [0, 1, 4]}


def test_a_job_for_all_seeds_of_the_models_that_ask_for_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write_config(ENSEMBLE)
    jobs = project.planned("fits")
    assert jobs["fit_ensemble"] == jobs["fit"] == jobs["copy_fit"] == 1
    # A single seed is an ordinary fit.
    project.write_config(ENSEMBLE | {"seeds": [0]})
    jobs = project.planned("fits")
    assert not {"fit_ensemble", "copy_fit"} & set(jobs) and jobs["fit"] == 2
    project.write_config(ENSEMBLE | {"models": {"mean_rate": {"ensemble": True}}})
    result = project.snakemake("--dry-run")
    assert result.returncode != 0
    said = "models.mean_rate: model: found mean_rate; accepted: one whose seeds train together: lfads, ndt"
    assert said in result.stderr


@pytest.mark.slow
def test_what_follows_takes_the_fits_as_they_are(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write_config(ENSEMBLE)
    scores = [f"results/scores/pair/ndt/seed{seed}/metrics.parquet" for seed in (0, 1, 4)]
    result = project.snakemake(*scores)
    assert result.returncode == 0, result.stderr
    manifests = [tmp_path / f"results/fits/pair/ndt/seed{seed}/manifest.json" for seed in (0, 1, 4)]
    assert [json.loads(path.read_text())["seed"] for path in manifests] == [0, 1, 4]
    assert project.planned(*scores) == {}
    source = tmp_path / "pipeline_lib/training/ensemble.py"
    source.write_text(source.read_text() + "# a comment\n")
    assert project.planned(*scores) == {}
    source.write_text(source.read_text() + "CHANGED = 1\n")
    assert project.planned(*scores)["fit_ensemble"] == 1
