"""`list`: what is done, runs, has failed or stopped on its way, and is missing."""

import contextlib
import json
from pathlib import Path

import pytest

from pipeline_lib.files import LOCK, exclusive
from pipeline_lib.overview import overview
from pipeline_lib.plan import resolve
from pipeline_lib.training.run import FitError, Run


@pytest.mark.parametrize("said", ["running", "stopped", "failed"])
def test_a_fit_whose_process_is_gone_does_not_run(tmp_path: Path, said: str) -> None:
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\nday1\ttables\tspikes.csv\n")
    config = {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "results": str(tmp_path / "results")}
    plan = resolve(config | {"models": ["glm", "ndt", "psth"]})
    glm, ndt = (tmp_path / f"results/fits/day1/{model}/seed0" for model in ("glm", "ndt"))
    glm.mkdir(parents=True)
    (glm / "manifest.json").touch()
    run = Run(ndt, "key", {"cohort": "day1", "model": "ndt", "seed": 0})
    run.progress(1, 2, 0.5)
    if said == "failed":
        with pytest.raises(FitError), run.stopping():
            raise FitError("the loss is nan")
    with exclusive(ndt / LOCK) if said == "running" else contextlib.nullcontext():
        lines = overview(plan).splitlines()
    assert lines[-3].split() == ["day1", "1", "done", said, "-"]
    assert lines[-1] == "1 of 3 fits done"


def test_what_stopped_of_a_seed_that_was_taken_out_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\nday1\ttables\tspikes.csv\n")
    config = {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "results": str(tmp_path / "results")}
    fit = tmp_path / "results/fits/day1/ndt/seed3"
    Run(fit, "key", {"cohort": "day1", "model": "ndt", "seed": "3, 4"}).progress(1, 2, 0.5)
    for seeds, said in (([0, 3], "stopped"), ([0], "-")):
        line = overview(resolve(config | {"models": ["ndt"], "seeds": seeds})).splitlines()[-3]
        assert line.split()[-1] == said


def test_every_stage_and_every_seed_counts(tmp_path: Path) -> None:
    """A cohort without a model has an empty cell; a fit of another machine that is silent may still run."""
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    rows = "".join(f"day{number}\ttables\tspikes.csv\n" for number in (1, 2))
    (tmp_path / "sheet.tsv").write_text(f"session\tsource\tlocation\n{rows}")
    config = {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "results": str(tmp_path / "results")}
    averaged = "fits/day1/glm/mean/manifest.json"
    made_fits = "fits/day1/glm/seed0/manifest.json", "fits/day1/psth/seed0/none"
    for made in ("recordings/day1/recording.json", *made_fits, averaged):
        (tmp_path / "results" / made).parent.mkdir(parents=True)
        (tmp_path / "results" / made).touch()
    fit = tmp_path / "results/fits/day2/psth/seed1"
    Run(fit, "key", {"cohort": "day2", "model": "psth", "seed": 1}).progress(1, 2, 0.5)
    told = fit / ".resume/progress.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"host": "elsewhere", "updated": 0.0}))
    plan = resolve(config | {"models": ["glm", "psth"], "seeds": [0, 1], "cohorts": {"day2": {"models": ["psth"]}}})
    assert [line.split() for line in overview(plan).splitlines()] == [
        ["session", "source", "recording", "trains"],
        ["day1", "tables", "done", "-"],
        ["day2", "tables", "-", "-"],
        [],
        ["cohort", "sessions", "glm", "psth"],
        ["day1", "1", "1/2,", "mean", "0/2"],
        ["day2", "1", "running"],
        [],
        ["1", "of", "6", "fits", "done"],
    ]
