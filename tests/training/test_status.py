"""The table of running fits."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.files import LOCK, exclusive
from pipeline_lib.training.run import Run
from pipeline_lib.training.status import duration, format_statuses, statuses, watch


def progress(results: Path, cohort: str, model: str, seed: int, **changes: object) -> None:
    """A fit that has shown its progress once, as if by another process or at another time."""
    out = results / "fits" / cohort / model / f"seed{seed}"
    Run(out, "key", {"cohort": cohort, "model": model, "seed": seed}).progress(120, 1000, 0.25)
    file = out / ".resume" / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_running_dead_and_silent(tmp_path: Path) -> None:
    now = time.time()
    progress(tmp_path, "b", "glm", 0, started=now, updated=now + 100, seconds_left=3760.0)
    progress(tmp_path, "a", "lfads", 10)
    progress(tmp_path, "a", "lfads", 2, host="elsewhere", updated=now - 3500)
    progress(tmp_path, "a", "ndt", 0, host="elsewhere")
    progress(tmp_path, "a", "ndt", 1, host="elsewhere", updated=now - 3500)
    progress(tmp_path, "a", "psth", 0)
    (tmp_path / "fits" / "a" / "mean_rate" / "seed0").mkdir(parents=True)
    Run(tmp_path / "fits/a/lfads/seed10", "key").checkpoint({"w": np.ones(2)}, force=True)
    half = tmp_path / "fits/a/psth/seed0/.resume/.first.here.1.part.safetensors"
    half.write_bytes(b"killed while it saved")
    with exclusive(tmp_path / "fits/b/glm/seed0" / LOCK), exclusive(tmp_path / "fits/a/ndt/seed1" / LOCK):
        found = statuses(tmp_path)
    assert [(fit.cohort, fit.model, fit.seed, fit.state) for fit in found] == [
        ("a", "lfads", "2", "silent"),
        ("a", "lfads", "10", "dead"),
        ("a", "ndt", "0", "running"),
        ("a", "ndt", "1", "running"),  # a lock that is seen tells more than silence
        ("a", "psth", "0", "dead"),
        ("b", "glm", "0", "running"),
    ]
    assert {fit.state for fit in statuses(tmp_path) if fit.cohort == "b"} == {"dead"}  # its process let go of the lock
    lines = format_statuses(found, now + 160).splitlines()  # a minute after fit b was heard of
    assert lines[0].split()[:5] == ["cohort", "model", "seed", "step", "loss"]
    assert lines[6].split() == ["b", "glm", "0", "120/1000", "0.25", "1", "min", "40", "s", "1", "h", "01", "min"]
    assert "silent for 1 h 01 min" in lines[1] and "dead: the next run goes on from its checkpoint" in lines[2]
    assert "dead: the next run starts it again" in lines[5]


def test_a_fit_that_failed_says_why(tmp_path: Path) -> None:
    """The next run would resume it, and fail as before."""
    run = Run(tmp_path / "fits/a/ndt/seed0", "key", {"cohort": "a", "model": "ndt", "seed": 0})
    with pytest.raises(RuntimeError), run.stopping():
        run.progress(3, 10, 0.5)
        run.checkpoint({"w": np.ones(2)}, force=True)
        raise RuntimeError("loss is nan\nand so on")
    (found,) = statuses(tmp_path)
    assert (found.state, found.step, found.note) == ("failed", 3, "loss is nan")
    assert format_statuses([found]).endswith("failed: loss is nan")
    again = Run(tmp_path / "fits/a/ndt/seed0", "key")
    with pytest.raises(OSError), again.stopping():
        raise OSError  # before it has said anything
    assert [(fit.step, fit.note) for fit in statuses(tmp_path)] == [(0, "OSError")]
    again.progress(4, 10, 0.5)
    assert [fit.state for fit in statuses(tmp_path)] == ["dead"]


def test_a_clock_that_was_set_back_gives_no_times_below_zero(tmp_path: Path) -> None:
    now = time.time()
    progress(tmp_path, "a", "ndt", 0, started=now, updated=now - 3600)
    assert "-" not in format_statuses(statuses(tmp_path), now - 3600).replace(" - ", "")


def test_seeds_that_train_together_are_a_line(tmp_path: Path) -> None:
    labels = {"cohort": "a", "model": "ndt", "seed": "0, 1, 2"}
    Run(tmp_path / "fits/a/ndt/seed0", "key", labels).progress(7, 10, 0.5)
    assert [(fit.model, fit.seed, fit.step) for fit in statuses(tmp_path)] == [("ndt", "0, 1, 2", 7)]


def test_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch(tmp_path)
    assert capsys.readouterr().out == "no fit is running\n"
    watch(tmp_path / "resluts")
    assert capsys.readouterr().out == f"no fit is running: there is no folder {tmp_path / 'resluts'}\n"


def test_half_written_and_unknown_values(tmp_path: Path) -> None:
    progress(tmp_path, "a", "glm", 0, total=None, loss=None, seconds_left=None)
    progress(tmp_path, "a", "ndt", 0)
    (tmp_path / "fits" / "a" / "ndt" / "seed0" / ".resume" / "progress.json").write_text("{")
    assert format_statuses(statuses(tmp_path)).splitlines()[1].split()[:5] == ["a", "glm", "0", "120", "-"]


def test_durations() -> None:
    assert [duration(each) for each in (0.4, 59, 60, 3599, 3600, 90000)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min",
    ]  # fmt: skip
