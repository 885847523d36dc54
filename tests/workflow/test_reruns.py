"""What runs again when something changes: only what the change can touch."""

import shutil
from pathlib import Path

import yaml

from pipeline_lib.figures import FIGURES
from tests.workflow.project import SHEET, SMALL, Project

DOWNSTREAM = {"collect", "report_page", "figure", "figures_of_session", "figures_of_cohort", "all"}


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_a_second_run_has_nothing_to_do(finished: Project) -> None:
    result = finished.snakemake()
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr


def test_a_figure_that_was_deleted_is_drawn_again(copy_of_finished: Project) -> None:
    pictures = sorted((copy_of_finished.folder / "results/figures/pair").glob("*.png"))
    pictures[-1].unlink()
    jobs = copy_of_finished.planned()
    assert set(jobs) & {"figures_of_session", "figures_of_cohort"} and "fit" not in jobs


def test_a_fit_or_store_that_was_deleted_is_made_again(copy_of_finished: Project) -> None:
    """Although the report, all that is made of them, is there."""
    results = copy_of_finished.folder / "results"
    shutil.rmtree(results / "fits/pair/glm/seed0")
    assert copy_of_finished.planned()["fit"] == 1
    shutil.rmtree(results / "trains/pair")
    assert copy_of_finished.planned()["convert"] == 1


def test_a_comment_reruns_nothing(copy_of_finished: Project) -> None:
    library = copy_of_finished.folder / "pipeline_lib"
    for path in library.rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    _edit(library / "models/mean_rate.py", '"""Every bin of a unit', '"""Each bin of a unit')
    assert copy_of_finished.planned() == {}


def test_the_order_of_settings_reruns_nothing_but_the_report(copy_of_finished: Project) -> None:
    pair = SMALL["simulations"]["pair"]
    turned = {"pair": pair | {"settings": dict(sorted(pair["settings"].items(), reverse=True))}}
    config = yaml.safe_dump(SMALL | {"simulations": turned, "figures": [*reversed(FIGURES)]}, sort_keys=False)
    (copy_of_finished.folder / "config/config.yaml").write_text(config)
    assert copy_of_finished.planned().keys() <= {"report_page", "all"}


def test_the_block_of_one_model_reruns_its_fits_only(copy_of_finished: Project) -> None:
    models = {"mean_rate": {}, "glm": {"strength": 0.123}}
    copy_of_finished.write_config(SMALL | {"models": models})
    jobs = copy_of_finished.planned()
    assert jobs["fit"] == jobs["evaluate"] == 1
    assert set(jobs) - DOWNSTREAM == {"fit", "evaluate"}
    listed = copy_of_finished.snakemake("--dry-run", "fits")
    assert "model=glm" in listed.stdout + listed.stderr
    assert "model=mean_rate" not in listed.stdout + listed.stderr


def test_the_code_of_one_model_reruns_its_fits_only(copy_of_finished: Project) -> None:
    source = copy_of_finished.folder / "pipeline_lib/models/mean_rate.py"
    _edit(source, "mask.sum(axis=(0, 1), dtype=np.float64)", "mask.sum(axis=(0, 1), dtype=np.float64) + 0.0")
    listed = copy_of_finished.snakemake("--dry-run", "fits")
    assert "model=mean_rate" in listed.stdout + listed.stderr
    assert "model=glm" not in listed.stdout + listed.stderr


def test_a_fit_below_what_is_made_anew_is_not(copy_of_finished: Project) -> None:
    """Counts beside the events are in the store, which is written again: the fits read the events, and are the same."""
    fits = copy_of_finished.folder / "results/fits/pair"
    before = {path: path.read_bytes() for path in fits.rglob("run.json")}  # it says when
    assert len(before) == 2
    copy_of_finished.write_config(SMALL | {"counts": [20]})
    result = copy_of_finished.snakemake("fits")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "rule convert" in result.stderr and "rule fit" in result.stderr
    assert {path: path.read_bytes() for path in fits.rglob("run.json")} == before
    assert all(path.with_name("manifest.json").is_file() for path in before)


def test_a_new_seed_and_a_new_session_make_only_new_cells(copy_of_finished: Project) -> None:
    copy_of_finished.write_config(SMALL | {"seeds": [0, 1]})
    jobs = copy_of_finished.planned()
    # Neither model draws anything: their fits are copied.
    assert jobs["copy_fit"] == 2 and jobs["evaluate"] == 1
    assert set(jobs) - DOWNSTREAM == {"copy_fit", "evaluate"}
    assert not {"figures_of_session", "figures_of_cohort"} & set(jobs), "they show what has not changed"
    simulations = SMALL["simulations"] | {"other": SMALL["simulations"]["pair"] | {"seed": 5}}
    cohorts = SMALL["cohorts"] | {"other": SMALL["cohorts"]["pair"]}
    copy_of_finished.write_config(SMALL | {"simulations": simulations, "cohorts": cohorts})
    copy_of_finished.write_sheet(SHEET + "other\tallen\tsimulated:other\t\n")
    jobs = copy_of_finished.planned()
    assert [jobs[name] for name in ("simulate", "record", "convert", "split", "fit", "evaluate")] == [1, 1, 1, 1, 2, 1]


def test_a_recording_made_again_with_the_same_bytes_reruns_no_fit(copy_of_finished: Project) -> None:
    result = copy_of_finished.snakemake("--forcerun", "record", "--until", "convert")
    assert result.returncode == 0, result.stderr
    assert "fit" not in copy_of_finished.planned()


def test_adding_a_model_is_one_python_file_and_one_yaml(copy_of_finished: Project) -> None:
    folder = copy_of_finished.folder
    (folder / "twice.py").write_text(
        "from pipeline_lib.models.mean_rate import MeanRate\n\n\n"
        "class Twice(MeanRate):\n"
        "    def predict(self, data, session, samples):\n"
        "        return 2 * super().predict(data, session, samples)\n\n\n"
        "MODEL = Twice\n"
    )
    (folder / "config/models/twice.yaml").write_text("implementation: twice.py\n")
    copy_of_finished.write_config(SMALL | {"models": ["mean_rate", "glm", "twice"]})
    result = copy_of_finished.snakemake("results/scores/pair/twice/seed0/metrics.parquet")
    assert result.returncode == 0, result.stderr[-3000:]
    (folder / "twice.py").write_text((folder / "twice.py").read_text() + "# a comment\n")
    assert copy_of_finished.planned("fits") == {}
    _edit(folder / "twice.py", "2 *", "3 *")
    listed = copy_of_finished.snakemake("--dry-run", "fits")
    assert "model=twice" in listed.stdout + listed.stderr


def test_every_file_of_a_users_session_counts(project: Project) -> None:
    """Files that options name, and files of a folder, whatever the time of the folder itself says."""
    spikes = "time,unit\n" + "".join(f"{0.05 * k:.2f},{k % 3}\n" for k in range(1200))
    trials = "start,stop,condition\n" + "".join(f"{k},{k + 0.8},go\n" for k in range(50))
    lab, folder = project.folder / "data/lab", project.folder / "data/a folder"
    for path, text in {lab / "day1.csv": spikes, lab / "day1 trials.csv": trials}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder.mkdir()
    (folder / "spikes.csv").write_text(spikes)
    (folder / "trials.csv").write_text(trials)
    rows = ["named\ttables\tlab/day1.csv\ttrials: day1 trials.csv", "folder\ttables\ta folder\t"]
    project.write_sheet("\n".join(["session\tsource\tlocation\toptions", *rows, ""]))
    project.write_config(SMALL | {"models": ["mean_rate"], "simulations": {}, "cohorts": {}})
    wanted = [f"results/recordings/{session}/recording.json" for session in ("named", "folder")]
    assert project.snakemake(*wanted).returncode == 0
    (lab / "another day.csv").write_text(spikes)
    (folder / "notes.txt").write_text("nothing that is read")
    assert project.planned(*wanted) == {}
    with (lab / "day1 trials.csv").open("a") as file:
        file.write("55,55.8,go\n")
    assert project.planned(*wanted) == {"record": 1}
    with (folder / "trials.csv").open("a") as file:
        file.write("55,55.8,go\n")
    assert project.planned(*wanted) == {"record": 2}
