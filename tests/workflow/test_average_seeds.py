"""Rates averaged over seeds: a cell of the workflow like any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from tests.workflow.project import SMALL, Project
from tests.workflow.test_reruns import DOWNSTREAM

DRAWING = """
from pipeline_lib.models.mean_rate import MeanRate


class Drawing(MeanRate):
    random = True

    def predict(self, data, session, samples):
        return (1 + self.seed) * super().predict(data, session, samples)


MODEL = Drawing
"""
"""Every seed of this model expects another multiple of the mean."""
AVERAGED = SMALL | {"models": ["mean_rate", "drawing"], "seeds": [0, 2], "average_seeds": ["drawing"], "figures": []}


def test_a_cell_more_of_a_model_with_several_seeds(copy_of_finished: Project) -> None:
    folder = copy_of_finished.folder
    (folder / "drawing.py").write_text(DRAWING)
    (folder / "config/models/drawing.yaml").write_text("implementation: drawing.py\n")
    copy_of_finished.write_config(AVERAGED | {"evaluation": {"resamples": 0, "decoding": {"go": {"choice": "go"}}}})
    jobs = copy_of_finished.planned("scores")
    assert jobs["average"] == jobs["average_training"] == jobs["evaluate_average"] == 1 and jobs["predict"] == 4
    copy_of_finished.write_config(AVERAGED)
    alone = "results/scores/pair/drawing/mean/metrics.parquet"
    result = copy_of_finished.snakemake(alone, "results/metrics.parquet")
    assert result.returncode == 0, result.stderr[-3000:]
    table = pd.read_parquet(folder / "results/metrics.parquet")
    assert set(table["model"]) == {"mean_rate", "drawing", "drawing:mean"}
    made = pd.read_parquet(folder / alone)
    assert set(made["model"]) == {"drawing:mean"} and made["seed"].isna().all() and len(made)
    rates = {
        name: zarr.open_group(str(folder / f"results/fits/pair/{name}/predictions.zarr"), mode="r")["pair/rates"][:]
        for name in ("mean_rate/seed0", "drawing/mean")
    }
    np.testing.assert_allclose(rates["drawing/mean"], 2 * rates["mean_rate/seed0"], rtol=1e-6)
    told = json.loads((folder / "results/fits/pair/drawing/mean/manifest.json").read_text())
    assert list(told["mean_of"]) == ["seed0", "seed2"]
    assert copy_of_finished.planned("results/metrics.parquet", alone) == {}
    shutil.rmtree(folder / "results/fits/pair/drawing/mean")
    assert copy_of_finished.planned()["average"] == 1
    assert copy_of_finished.planned("fits") == {"average": 1, "fits": 1}
    copy_of_finished.write_config(AVERAGED | {"seeds": [0, 2, 7], "models": ["drawing"]})
    jobs = copy_of_finished.planned("results/metrics.parquet")
    assert set(jobs) - DOWNSTREAM == {"fit", "average", "evaluate"} and set(jobs.values()) == {1}


def test_what_of_an_average_is_missing_is_reported(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write_config(AVERAGED | {"models": ["glm"], "average_seeds": ["glm"]})
    (tmp_path / "results/logs/average/pair/glm").mkdir(parents=True)
    (tmp_path / "results/logs/average/pair/glm/mean.log").write_text("error: no space left\n")
    config = str(tmp_path / "config/config.yaml")
    made = project.verb("report", "--results", "results", "--config", f"@{config}", "--out", "report.html")
    assert made.returncode == 0, made.stderr
    page = (tmp_path / "report.html").read_text()
    assert "no space left" in page and "pair, glm" in page
