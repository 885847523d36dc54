"""What happens to a run on a bad day: killed again and again, started twice, a clock that jumps, a broken recording."""

import html
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.arguments import read_mapping
from pipeline_lib.evaluation.evaluate import COLUMNS
from pipeline_lib.plan import resolve
from tests.workflow.project import SHEET, SMALL, Project

DAY = 86_400


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_run_once_more(finished: Project, project: Project) -> None:
    """Moments are drawn so that early ones hit the start and late ones every kind of job."""
    chance, killed = random.Random(10), 0
    while killed < 20:
        # Snakemake's own lock would only say that the run before was killed.
        process = project.start("--nolock", output=subprocess.PIPE)
        try:
            said, _ = process.communicate(timeout=chance.uniform(1, 12))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        else:  # done before it could be killed: from the beginning
            assert process.returncode == 0, said[-3000:]
            shutil.rmtree(project.folder / "results")
    result = project.snakemake("--nolock")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert project.made() == finished.made()


def test_a_session_sheet_that_is_edited_while_a_run_goes_on_changes_nothing_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is put in has nothing to draw yet; one that is taken out would be missing beside its scores."""
    planned = project.snakemake("--dry-run", "--printshellcmds").stdout
    told = re.findall(r"pipeline_lib (collect|figure) .*--config (?:'([^']*)'|(\S+))", planned)
    assert {verb for verb, *_ in told} == {"collect", "figure"}
    monkeypatch.chdir(project.folder)
    project.write_sheet(SHEET + "more\tallen\tsimulated:pair\t\n")
    assert {*resolve(read_mapping("config/config.yaml")).sessions} == {"pair", "more"}
    for _, text, file in told:
        assert {*resolve(read_mapping(text or file)).sessions} == {"pair"}


JOBS = """

rule edit:
    output: touch("edited")
    shell: "printf 'session\\tsource\\tlocation\\nother\\tallen\\tsimulated:pair\\n' > config/sessions.tsv"


rule job:
    input: "edited"
    output: "told.json"
    run: Path(output[0]).write_text(json.dumps(list(PLAN.sessions)))
"""


def test_jobs_that_read_the_workflow_anew_take_the_sheet_as_it_was(project: Project) -> None:
    """As a cluster's do, and here those with Python of their own in a rule."""
    with (project.folder / "workflow/Snakefile").open("a") as file:
        file.write(JOBS)
    project.write_config(SMALL | {"cohorts": {}, "windows": SMALL["cohorts"]["pair"]["windows"]})
    result = project.snakemake("told.json")
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((project.folder / "told.json").read_text()) == ["pair"]
    assert "other" in (project.folder / "config/sessions.tsv").read_text()


def test_a_second_run_in_the_same_folder_says_so_and_harms_nothing(project: Project) -> None:
    locks = project.folder / ".snakemake/locks"
    first = project.start("data", output=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (locks.is_dir() and any(each.stat().st_size for each in locks.iterdir())):
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # else it might be done before the second has started
    second = project.snakemake("data")
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=180)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert first.returncode == 0, said[-3000:]
    assert project.verb("verify", "results/trains/pair").returncode == 0
    assert project.planned("data") == {}


def test_a_clock_that_jumps_makes_nothing_again(copy_of_finished: Project) -> None:
    """Times of change as of a clock that was years ahead, then years behind: contents decide."""
    chance = random.Random(3)
    for folder in ("results", "data"):
        for path in sorted((copy_of_finished.folder / folder).rglob("*")):
            moment = time.time() + chance.uniform(-3000, 3000) * DAY
            os.utime(path, (moment, moment), follow_symlinks=False)
    assert copy_of_finished.planned() == {}


@pytest.mark.slow
def test_a_broken_session_stops_no_other_and_is_named_in_the_report(copy_of_finished: Project) -> None:
    project, simulations = copy_of_finished, SMALL["simulations"]
    project.write_config(
        SMALL
        | {
            "seeds": [0, 1],
            "simulations": simulations | {"broken": simulations["pair"] | {"seed": 5}},
            "cohorts": SMALL["cohorts"] | {"broken": SMALL["cohorts"]["pair"]},
        }
    )
    project.write_sheet(SHEET + "broken\tallen\tsimulated:broken\t\n")
    assert project.snakemake("results/simulated/broken/simulation.json").returncode == 0
    recording = next((project.folder / "results/simulated/broken").rglob("*.nwb"))
    recording.write_bytes(recording.read_bytes()[:5000])
    result = project.snakemake()
    assert result.returncode != 0
    scores = pd.read_parquet(project.folder / "results/scores/pair/metrics.parquet")
    cells = set(zip(scores["model"], scores["seed"], strict=True))
    assert cells == {(model, seed) for model in SMALL["models"] for seed in (0, 1)}
    log = (project.folder / "results/logs/record/broken.log").read_text()
    assert [line for line in log.splitlines() if line.startswith("error:")] and "Traceback" not in log
    assert not (project.folder / "results/recordings/broken/recording.json").exists()
    report = html.unescape((project.folder / "results/report_unfinished.html").read_text())
    assert log.splitlines()[-1] in report
    assert {"record", "collect", "report_page"} <= project.planned().keys()  # what failed is not taken for done
    listed = project.verb("list").stdout
    assert next(line.split()[2:] for line in listed.splitlines() if line.startswith("broken")) == ["-", "-"]


FAILING = """
from dataclasses import dataclass

from pipeline_lib.errors import InputError
from pipeline_lib.models.mean_rate import MODEL as MeanRate


class Failing(MeanRate):
    def fit(self, data, run):
        raise InputError("failing", "weights", "none", "some")


MODEL = Failing
"""


def test_a_run_without_any_score_is_reported_too(project: Project) -> None:
    """One session cannot be recorded, the only model fails in the other."""
    broken = project.folder / "results/simulated/broken"
    broken.mkdir(parents=True)
    (broken / "simulation.json").write_text('{"location": "lost.nwb"}')
    (project.folder / "data").mkdir()
    np.savez(project.folder / "data/mine.npz", time=np.arange(0.05, 60, 0.1), unit=np.arange(600) % 5)
    project.write_sheet(
        "session\tsource\tlocation\toptions\nmine\ttables\tmine.npz\t\nbroken\tallen\tsimulated:broken\t\n"
    )
    (project.folder / "config/models/failing.py").write_text(FAILING)
    (project.folder / "config/models/failing.yaml").write_text("implementation: config/models/failing.py\n")
    windows = {"bin_size": 10, "mode": "continuous", "length": 1.0}
    own = {"models": ["failing"], "figures": ["score_table"], "windows": windows, "splits": {"block": 4.0}}
    project.write_config(own | {"sessions": SMALL["sessions"], "simulations": {"broken": SMALL["simulations"]["pair"]}})
    result = project.snakemake()
    assert result.returncode != 0
    assert "results/report_unfinished.html" in result.stderr, result.stderr[-3000:]
    report = html.unescape((project.folder / "results/report_unfinished.html").read_text())
    for log in ("record/broken", "fit/mine/failing/seed0"):
        (error,) = (project.folder / f"results/logs/{log}.log").read_text().splitlines()
        assert 0 < report.index(error) < report.index("No fit has been scored yet."), log
    assert report.index("Fit</b> of mine") < report.index("Trains</b> of broken"), "what failed, then what waits for it"
    scores = pd.read_parquet(project.folder / "results/metrics_unfinished.parquet")
    assert len(scores) == 0 and list(scores.columns) == COLUMNS
