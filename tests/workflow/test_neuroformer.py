"""The Neuroformer beside a GLM through the whole workflow: its own scores and figures stand with the others'."""

import pandas as pd
import pytest

from tests.workflow.project import SMALL, Project

FIGURES = ["score_table", "generation", "attention_connectivity", "coupling", "training_curves"]


@pytest.mark.slow
def test_from_simulation_to_report(project: Project) -> None:
    settings = {"neurons_per_area": 6, "coupled": 2, "trials": 60}
    windows = {"bin_size": 5, "align": "stimulus_onset", "after": 0.4, "history": 0.1}
    tiny = {"past": 0.1, "width": 16, "heads": 2, "steps": 20, "warmup": 5, "evaluate_every": 10, "rollouts": 1}
    project.write_config(
        SMALL
        | {
            "models": ["mean_rate", "glm", "neuroformer"],
            "figures": FIGURES,
            "simulations": {"pair": {"simulator": "eif", "layout": "allen", "settings": settings}},
            "cohorts": {"pair": {"windows": windows, "model_settings": {"neuroformer": tiny}}},
        }
    )
    result = project.snakemake()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    results = project.folder / "results"
    scores = pd.read_parquet(results / "metrics.parquet").query("model == 'neuroformer' and split == 'test'")
    assert {"generated_rate_r", "generated_psth_r"} <= set(scores["metric"]) and scores["sees"].nunique() == 1
    pooled = scores.query("aggregation == 'pooled' and null == 'train mean' and units == 'heldin'")
    bits = pooled.set_index("metric")["value"]
    assert bits["token_bits_per_spike"] > -0.5 and abs(bits["token_bits_per_spike"] - bits["bits_per_spike"]) < 0.2
    for name in FIGURES:
        assert list(results.rglob(f"{name}.png")), name
    report = (results / "report.html").read_text()
    assert "Neuroformer" in report and "generation" in report
    assert project.planned() == {}
