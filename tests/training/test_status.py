"""The table of running fits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_lib.training.run import Run
from pipeline_lib.training.status import duration, format_statuses, statuses, watch


def progress(results: Path, cohort: str, model: str, seed: int, **changes: object) -> None:
    """A fit that has shown its progress once, as if by another process or at another time."""
    out = results / "fits" / cohort / model / f"seed{seed}"
    Run(out, "key", {"cohort": cohort, "model": model, "seed": seed}).progress(120, 1000, 0.25)
    file = out / ".resume" / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_running_dead_and_silent(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    now = time.time()
    progress(tmp_path, "b", "glm", 0, started=now, updated=now + 100, seconds_left=3700.0)
    progress(tmp_path, "a", "lfads", 10, pid=ended.pid)
    progress(tmp_path, "a", "lfads", 2, host="elsewhere", updated=now - 3500)
    progress(tmp_path, "a", "ndt", 0, host="elsewhere")
    # Its number was given to a process that started after the fit did: this one.
    progress(tmp_path, "a", "psth", 0, started=now - 1e6)
    (tmp_path / "fits" / "a" / "mean_rate" / "seed0").mkdir(parents=True)
    found = statuses(tmp_path)
    assert [(fit.cohort, fit.model, fit.seed, fit.state) for fit in found] == [
        ("a", "lfads", "2", "silent"),
        ("a", "lfads", "10", "dead"),
        ("a", "ndt", "0", "running"),
        ("a", "psth", "0", "dead"),
        ("b", "glm", "0", "running"),
    ]
    lines = format_statuses(found, now + 100).splitlines()
    assert lines[0].split()[:5] == ["cohort", "model", "seed", "step", "loss"]
    assert lines[5].split() == ["b", "glm", "0", "120/1000", "0.25", "1", "min", "40", "s", "1", "h", "01", "min"]
    assert "silent for 1 h 00 min" in lines[1] and "dead; the next run resumes it" in lines[2]


def test_seeds_that_train_together_are_a_line(tmp_path: Path) -> None:
    labels = {"cohort": "a", "model": "ndt", "seed": "0, 1, 2"}
    Run(tmp_path / "fits/a/ndt", "key", labels).progress(7, 10, 0.5)
    assert [(fit.model, fit.seed, fit.step) for fit in statuses(tmp_path)] == [("ndt", "0, 1, 2", 7)]


def test_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch(tmp_path)
    assert capsys.readouterr().out == "no fit is running\n"


def test_half_written_and_unknown_values(tmp_path: Path) -> None:
    progress(tmp_path, "a", "glm", 0, total=None, loss=None, seconds_left=None)
    progress(tmp_path, "a", "ndt", 0)
    (tmp_path / "fits" / "a" / "ndt" / "seed0" / ".resume" / "progress.json").write_text("{")
    assert format_statuses(statuses(tmp_path)).splitlines()[1].split()[:5] == ["a", "glm", "0", "120", "-"]


def test_durations() -> None:
    assert [duration(each) for each in (0.4, 59, 60, 3599, 3600, 90000)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min",
    ]  # fmt: skip
