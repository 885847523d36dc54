"""A search and decoding in the workflow: trials are jobs, and only what is asked for is made."""

import json

import pandas as pd
import pytest
import yaml

from tests.workflow.project import SMALL, Project

SEARCH = {
    "model": "ndt",
    "kind": "population",
    "members": 2,
    "generations": 2,
    "fixed": {"steps": 4, "read_in": 4, "layers": 1, "heads": 1, "hidden": 8, "evaluate_every": 2},
    "space": {"learning_rate": {"log_uniform": [1.0e-4, 1.0e-2]}},
}


@pytest.fixture
def searching(project: Project) -> Project:
    (project.folder / "config/searches/small.yaml").write_text(yaml.safe_dump(SEARCH))
    decoding = {"decoding": {"stimulus": {"choice": "condition"}}}
    project.write_config(
        SMALL
        | {
            "models": ["mean_rate"],
            "searches": {"small": ["pair"]},
            "evaluation": SMALL["evaluation"] | decoding,
            "figures": ["search", "decoding"],
        }
    )
    return project


def test_every_trial_is_a_job_and_readouts_get_their_predictions(searching: Project) -> None:
    jobs = searching.planned()
    assert (jobs["search_trial"], jobs["search"], jobs["predict"], jobs["figure"]) == (4, 1, 1, 2)
    assert searching.planned("searches")["search_trial"] == 4 and "fit" not in searching.planned("searches")
    searching.write_config(SMALL | {"models": ["mean_rate"]})
    assert not {"search_trial", "search", "predict"} & set(searching.planned())


def test_weights_to_start_from_are_an_input_of_every_trial(searching: Project) -> None:
    search = SEARCH | {"kind": "random", "generations": 1}
    search["fixed"] = SEARCH["fixed"] | {"initial": "before/model.safetensors"}
    (searching.folder / "config/searches/small.yaml").write_text(yaml.safe_dump(search))
    missing = searching.snakemake("searches", "-n")
    assert missing.returncode and "before/model.safetensors" in missing.stdout + missing.stderr
    (searching.folder / "before").mkdir()
    (searching.folder / "before/model.safetensors").touch()
    assert searching.planned("searches")["search_trial"] == 2


@pytest.mark.slow
def test_a_population_runs_as_jobs_and_ends_in_a_figure(searching: Project) -> None:
    result = searching.snakemake()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    folder = searching.folder / "results/searches/small/pair"
    trials = pd.read_csv(folder / "trials.csv")
    assert len(trials) == 4 and trials["score"].notna().all()
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["implementation"] == "ndt" and best["learning_rate"] in set(trials["learning_rate"])
    for generation, member in zip(trials["generation"], trials["member"], strict=True):
        score = json.loads((folder / f"generation{generation:02d}/member{member:02d}/score.json").read_text())
        row = trials[(trials["generation"] == generation) & (trials["member"] == member)].iloc[0]
        assert score["score"] == pytest.approx(row["score"])
    assert (searching.folder / "results/figures/search.png").is_file()
    scores = pd.read_parquet(searching.folder / "results/metrics.parquet")
    assert scores["metric"].eq("decoding_stimulus_balanced_accuracy").sum() == 1
    assert searching.planned() == {}
