"""Which figures the workflow draws: one a session of each cohort, from that session's own files."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_lib.figures import FIGURES
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve


@pytest.fixture
def files(tmp_path: Path) -> FigureFiles:
    """Sessions A and B, each a cohort, and both fitted together as "joint"."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/spikes.csv").write_text("time,unit\n")
    rows = "".join(f"{session}\ttables\tspikes.csv\t\n" for session in "AB")
    (tmp_path / "sessions.tsv").write_text("session\tsource\tlocation\toptions\n" + rows)
    config = {"sessions": str(tmp_path / "sessions.tsv"), "data": str(tmp_path / "data"), "seeds": [3, 4]}
    config |= {"models": ["mean_rate", "glm"], "cohorts": {"joint": {"sessions": ["*"]}}}
    plan = resolve(config)
    return FigureFiles(plan, Paths("out"))


def test_a_cohort_of_several_sessions_has_a_figure_of_each(files: FigureFiles) -> None:
    assert files.subjects("session") == ["A", "B"] and files.subjects("all") == [""]
    assert files.subjects("cohort") == ["A", "B", "joint/A", "joint/B"]
    assert len(set(files.stems)) == len(files.stems)
    assert {"out/figures/joint/A/psth", "out/figures/joint/B/psth", "out/figures/score_table"} <= set(files.stems)
    declared = files.declared(["psth"], "joint/B")
    assert declared["trains"] == "out/trains/B/manifest.json" and declared["split"] == "out/splits/joint.parquet"
    assert declared["fits"] == [f"out/fits/joint/{model}/seed3/manifest.json" for model in ("mean_rate", "glm")]
    assert files.declared(["psth"], "A")["split"] == "out/splits/A.parquet"


def test_a_figure_is_given_the_folders_that_declared_files_complete(files: FigureFiles) -> None:
    given = files.arguments("coupling", "joint/A")
    assert given["recording"] == "out/recordings/A"
    assert given["fits"][1] == "out/fits/joint/glm/seed3"
    assert files.arguments("score_table", "") == {"metrics": "out/metrics.parquet"}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_the_registry_gets_all_it_needs(name: str, files: FigureFiles) -> None:
    for of in files.subjects(FIGURES[name].scope):
        given = files.arguments(name, of)
        assert list(given) == list(FIGURES[name].needs)
        assert all(path for need, path in given.items() if need != "searches"), "nothing was searched here"


def test_jobs_of_the_plan_are_told_from_those_it_once_had(files: FigureFiles) -> None:
    """As `workflow/rules/*.smk` name their measurements."""
    given = files.arguments("speed", "")
    jobs = {"A", "joint", "joint/glm/seed3", "score_table", "A/figures_of_session", "joint/B/figures_of_cohort", "all"}
    assert given["benchmarks"] == "out/benchmarks" and jobs <= set(given["jobs"])
    alone = replace(files.plan, sessions={"A": files.plan.sessions["A"]}, cohorts={"A": files.plan.cohorts["A"]})
    fewer = FigureFiles(alone, files.paths).arguments("speed", "")["jobs"]
    assert "A/glm/seed4" in fewer and not any(job.startswith(("B", "joint")) for job in fewer)


def test_a_figure_of_a_model_is_drawn_where_it_is_fitted(files: FigureFiles) -> None:
    of_glm = [name for name, spec in FIGURES.items() if spec.model == "glm" and spec.scope == "cohort"]
    assert of_glm and all(f"out/figures/joint/A/{name}" in files.stems for name in of_glm)
    joint = replace(files.plan.cohorts["joint"], models={"mean_rate": files.plan.cohorts["joint"].models["mean_rate"]})
    without = FigureFiles(replace(files.plan, cohorts=files.plan.cohorts | {"joint": joint}), files.paths)
    assert not any(f"out/figures/joint/A/{name}" in without.stems for name in of_glm)
    assert f"out/figures/A/{of_glm[0]}" in without.stems and "out/figures/joint/A/psth" in without.stems


def test_a_session_that_nothing_is_fitted_to_is_drawn_all_the_same(files: FigureFiles) -> None:
    plan = replace(files.plan, cohorts={name: replace(each, models={}) for name, each in files.plan.cohorts.items()})
    unfitted = FigureFiles(plan, files.paths)
    assert [each.rule for each in unfitted.sets] == ["figures_of_session"] and unfitted.of_all == []


def test_no_figures_are_drawn_where_none_are_asked_for(files: FigureFiles) -> None:
    def asked(figures: list[str] | None) -> list[str]:
        config = files.plan.config.model_copy(update={"figures": figures})
        return FigureFiles(replace(files.plan, config=config), files.paths).stems

    assert asked([]) == [] and asked(["speed"]) == ["out/figures/speed"]
    assert asked(None) == files.stems
    assert asked([*reversed(FIGURES), "speed"]) == files.stems, "their order, and one named twice, change nothing"


def test_one_job_draws_the_figures_of_a_subject(files: FigureFiles) -> None:
    drawn = {(name, of) for each in files.sets for name in each.names for of in each.subjects}
    assert {f"out/figures/{of}/{name}" for name, of in drawn} | {f"out/figures/{name}" for name in files.of_all} == set(
        files.stems
    )
    jobs = [of for each in files.sets for of in each.subjects]
    assert len(jobs) == len(files.subjects("session")) + len(files.subjects("cohort"))
    assert [each.rule for each in files.sets] == ["figures_of_session", "figures_of_cohort"]
    joint = replace(files.plan.cohorts["joint"], models={"mean_rate": files.plan.cohorts["joint"].models["mean_rate"]})
    other = FigureFiles(replace(files.plan, cohorts=files.plan.cohorts | {"joint": joint}), files.paths)
    assert [each.subjects for each in other.sets] == [("A", "B"), ("A", "B"), ("joint/A", "joint/B")]


def test_an_object_store_is_asked_for_folders(files: FigureFiles) -> None:
    stored = FigureFiles(files.plan, Paths("out", folders=True))
    declared = stored.declared(["coupling", "psth"], "A")
    assert declared["trains"] == "out/trains/A" and declared["recording"] == "out/recordings/A"
    assert declared["split"] == "out/splits/A.parquet"
