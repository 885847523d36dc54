"""What happens to a run on a bad day: killed again and again, started twice, a clock that jumps, a broken recording."""

import html
import os
import random
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

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


def test_a_second_run_in_the_same_folder_says_so_and_harms_nothing(project: Project) -> None:
    locks = project.folder / ".snakemake/locks"
    first = project.start("data", output=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (locks.is_dir() and any(locks.iterdir())):
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
    assert project.snakemake("data/simulated/broken/simulation.json").returncode == 0
    recording = next((project.folder / "data/simulated/broken").rglob("*.nwb"))
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
