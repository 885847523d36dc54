"""Results that were moved, copied, or put in the place of others: what they were made with is beside them."""

import os
import random
import shutil

import pytest
import yaml

from pipeline_lib.made_with import REPLACED, beside
from tests.workflow.project import SMALL, Project
from tests.workflow.test_reruns import DOWNSTREAM

GLM = {"models": {"mean_rate": {}, "glm": {"strength": 0.123}}}


@pytest.fixture
def moved(copy_of_finished: Project) -> Project:
    """The project without what Snakemake remembers of it."""
    shutil.rmtree(copy_of_finished.folder / ".snakemake")
    return copy_of_finished


@pytest.fixture
def copied(moved: Project) -> Project:
    """The same with files of any time, as `cp -r` leaves them."""
    draw = random.Random(0)
    for path in (moved.folder / "results").rglob("*"):
        os.utime(path, (moment := 1.7e9 + draw.random() * 1e6, moment))
    return moved


def test_nothing_is_made_again_of_results_that_are_copied(copied: Project) -> None:
    """Also of another version of the code that differs in comments."""
    source = copied.folder / "pipeline_lib/models/glm/model.py"
    source.write_text(source.read_text() + "\n# a comment\n")
    listed = copied.snakemake("--dry-run")
    assert "Nothing to be done" in listed.stdout + listed.stderr
    assert "missing provenance" not in listed.stdout + listed.stderr


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (GLM, "fit"),
        ({"cohorts": {"pair": SMALL["cohorts"]["pair"] | {"splits": {"seed": 3}}}}, "split fit"),
        ({"sources": {"allen": {"max_isi_violations": 0.4}}}, "record convert split fit"),
        ({"evaluation": {"resamples": 60}}, ""),
        ({"simulations": {"pair": SMALL["simulations"]["pair"] | {"seed": 4}}}, "simulate record convert split fit"),
    ],
    ids=["model", "cohort", "session", "scores", "simulation"],
)
def test_a_setting_changed_after_a_move_makes_what_it_touches(moved: Project, change: dict, jobs: str) -> None:
    moved.write_config(SMALL | change)
    planned = moved.planned()
    assert set(planned) - DOWNSTREAM == {*jobs.split(), "evaluate"}
    assert planned.get("fit") == {"": None, "fit": 1}.get(jobs, 2)


def test_a_setting_that_is_taken_out_counts_too(moved: Project) -> None:
    block = moved.folder / "config/models/glm.yaml"
    settings = yaml.safe_load(block.read_text())
    settings.pop("folds")
    block.write_text(yaml.safe_dump(settings))
    assert moved.planned("fits") == {"fit": 1, "fits": 1}


def test_the_folder_may_be_called_otherwise(moved: Project) -> None:
    (moved.folder / "results").rename(moved.folder / "of march")
    moved.write_config(SMALL | {"results": "of march"})
    assert moved.planned().keys() <= {"report_page", "all"}
    moved.write_config(SMALL | GLM | {"results": "of march"})
    assert moved.planned("fits") == {"fit": 1, "fits": 1}


def test_results_put_in_the_place_of_others_are_judged_by_what_they_are(copy_of_finished: Project) -> None:
    """Although Snakemake remembers others of this path."""
    told = beside(copy_of_finished.folder / "results/fits/pair/glm/seed0/manifest.json")
    text = told.read_text()
    assert text.count("auto") > 1
    told.write_text(text.replace("auto", "otherwise", 1))
    assert copy_of_finished.planned("fits") == {"fit": 1, "fits": 1}


def test_a_fit_that_somebody_made_by_hand_is_made_anew(copy_of_finished: Project) -> None:
    """With other settings, into the folder of the results: the next run scored it, whatever the list said."""
    folder = "results/fits/pair/mean_rate/seed0"
    data = ["--trains", "results/trains/pair", "--split", "results/splits/pair.parquet", "--out", folder]
    assert copy_of_finished.verb("fit", "--model", "psth", *data).returncode == 0
    assert "1 of 2 fits done" in copy_of_finished.verb("list").stdout
    listed = copy_of_finished.snakemake("--dry-run", "fits")
    assert f"execution: {REPLACED}" in listed.stdout + listed.stderr


def test_what_is_taken_as_it_is_stays(moved: Project) -> None:
    moved.write_config(SMALL | GLM)
    assert moved.snakemake("--touch", "--forceall").returncode == 0
    assert moved.planned() == {}
    shutil.rmtree(moved.folder / ".snakemake")
    assert moved.planned() == {}


def test_a_file_that_says_nothing_is_as_none(copy_of_finished: Project) -> None:
    """Damaged, or of another version: a line says so, and what to type."""
    shutil.rmtree(copy_of_finished.folder / ".snakemake")
    folder = copy_of_finished.folder / "results/fits/pair"
    beside(folder / "glm/seed0/manifest.json").write_text('{"input": [')
    beside(folder / "mean_rate/seed0/manifest.json").write_text('{"input": 3, "params": {}}')
    listed = copy_of_finished.snakemake("--dry-run", "fits")
    assert listed.returncode == 0, listed.stderr
    assert "2 jobs have missing provenance" in listed.stdout + listed.stderr
    (note,) = [line for line in listed.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: results/fits/pair/") and "snakemake --touch --forceall" in note


def test_of_what_is_still_to_be_made_nothing_is_said(project: Project) -> None:
    """A first run, and one that goes on where another was killed."""
    listed = project.snakemake("--dry-run")
    assert listed.returncode == 0 and "does not say" not in listed.stderr, listed.stderr


def test_the_reason_names_what_differs(moved: Project) -> None:
    moved.write_config(SMALL | GLM)
    listed = moved.snakemake("--dry-run", "fits")
    said = [line for line in (listed.stdout + listed.stderr).splitlines() if "Params have changed" in line]
    assert [line.split("execution: ")[1] for line in said] == ["settings.strength: auto, now 0.123"]


def test_a_job_that_failed_leaves_no_word_of_what_was_there(copy_of_finished: Project) -> None:
    folder = copy_of_finished.folder
    told = beside(folder / "results/trains/pair/manifest.json")
    assert told.is_file()
    recording = folder / "results/recordings/pair"
    (recording / "units.parquet").write_bytes(b"")
    assert copy_of_finished.snakemake("--forcerun", "convert", "--until", "convert").returncode != 0
    assert not told.exists()
