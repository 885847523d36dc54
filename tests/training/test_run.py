"""Progress, history and checkpoints of one fit."""

import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.training import run as module
from pipeline_lib.training.run import FitError, Run, read_arrays, write_arrays


def test_arrays_come_back_and_bytes_repeat(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "session/weights": rng.standard_normal((3, 4)).T,  # not contiguous
        "bias": np.float32(2.5) * np.ones(()),
        "rows": np.arange(5),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "text": np.frombuffer(b"abc", np.uint8),
    }
    write_arrays(tmp_path / "a", arrays, {"one": 1, "two": [2]})
    write_arrays(tmp_path / "b", dict(reversed(arrays.items())), {"two": [2], "one": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, about = read_arrays(tmp_path / "a")
    assert about == {"one": 1, "two": [2]} and set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_no_room_for_a_file_is_told_as_of_every_other(tmp_path: Path) -> None:
    """The command line has a line for it, where it would print all that was being called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_arrays(tmp_path / "a", {"x": np.ones(2**14)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_history_goes_back_with_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    for step in range(4):
        run.log({"step": np.int64(step), "loss": np.float32(0.5)})
        if step == 1:
            run.checkpoint({"x": np.ones(2)})
    run.close()
    again = Run(tmp_path, "key")
    assert again.rows == []
    np.testing.assert_array_equal(again.resume()["x"], 1)
    again.log({"step": 2, "loss": 0.25, "note": "new, column"})
    expected = 'step,loss,note\n0,0.5,\n1,0.5,\n2,0.25,"new, column"\n'
    assert again.history_csv() == expected
    lines = (tmp_path / ".resume" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_a_checkpoint_needs_no_other_file(tmp_path: Path) -> None:
    """Killed, or out of disk, while the history is written anew: nothing that the checkpoint needs is lost."""
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    run.log({"step": 1, "loss": float("inf")})
    run.checkpoint({"x": np.ones(2)})
    run.close()
    (tmp_path / ".resume" / "history.jsonl").write_text("")
    again = Run(tmp_path, "key")
    np.testing.assert_array_equal(again.resume()["x"], 1)
    assert again.history_csv() == "step,loss\n1,inf\n"


def test_a_fresh_start_forgets_the_history_of_a_killed_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, "key")
    run.log({"step": 0})
    again = Run(tmp_path, "key")
    assert again.resume() is None
    again.log({"step": 10})
    assert again.history_csv() == "step\n10\n"
    assert (tmp_path / ".resume" / "history.jsonl").read_text() == '{"step": 10}\n'


def test_checkpoints_wait_for_their_time_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    run = Run(tmp_path, "key", checkpoint_seconds=60)
    made = []

    def state() -> dict[str, np.ndarray]:
        made.append(now[0])
        return {"x": np.zeros(1)}

    for seconds in (0, 30, 59, 60, 61, 119, 120):
        now[0] = 1000.0 + seconds
        run.checkpoint(state)
    assert made == [1060.0, 1120.0]
    run.checkpoint(state, force=True)
    assert len(made) == 3


def test_a_clock_that_is_set_back_stops_neither_checkpoints_nor_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = [1_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: day[0])
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    run.progress(1, 10, 1.0)
    day[0] -= 86_400
    run.progress(2, 10, 1.0)
    run.checkpoint({"x": np.full(1, 2.0)})
    shown = json.loads((tmp_path / ".resume" / "progress.json").read_text())
    assert shown["step"] == 2 and shown["seconds_left"] >= 0
    np.testing.assert_array_equal(Run(tmp_path, "key").resume()["x"], 2.0)


def test_a_state_that_is_not_finite_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    run = Run(tmp_path, "key", {"model": "glm"}, checkpoint_seconds=0)
    run.checkpoint({"w": np.ones(3)})
    with pytest.raises(FitError, match=r"w\[1\] is inf"):
        run.checkpoint({"w": np.array([0, np.inf, np.nan])})
    np.testing.assert_array_equal(Run(tmp_path, "key").resume()["w"], 1)


def test_killed_between_the_two_renames_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    run.checkpoint({"w": np.ones(3)})

    def cut(*paths: object) -> None:
        real(*paths)
        raise KeyboardInterrupt

    real = module.os.replace
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            run.checkpoint({"w": np.zeros(3)})
    np.testing.assert_array_equal(Run(tmp_path, "key").resume()["w"], 1)


def test_a_damaged_checkpoint_takes_the_place_of_no_good_one(tmp_path: Path) -> None:
    """The one before is gone back to, and there still when the next one is damaged as well."""
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    last = tmp_path / ".resume/key.safetensors"
    for value in (1.0, 2.0, 3.0):
        run.checkpoint({"w": np.full(3, value)})
        if value > 1:
            last.write_bytes(b"damaged")
            run = Run(tmp_path, "key", checkpoint_seconds=0)
            np.testing.assert_array_equal(run.resume()["w"], 1)


@pytest.mark.parametrize("what", ["history", "shape", "type"])
def test_a_checkpoint_is_read_as_it_was_written_or_not_at_all(tmp_path: Path, what: str) -> None:
    """Its header can be damaged as its numbers can: they would be read as others."""
    run = Run(tmp_path, "key", checkpoint_seconds=0)
    run.log({"step": 1})
    run.checkpoint({"w": np.ones((2, 3))})
    run.checkpoint({"w": np.full((2, 3), 2.0)})
    last = tmp_path / ".resume/key.safetensors"
    arrays, about = read_arrays(last)
    if what == "history":
        about["history"] = about["history"].replace("1", "7")
    else:
        arrays["w"] = arrays["w"].reshape(3, 2) if what == "shape" else arrays["w"].view(np.int64)
    write_arrays(last, arrays, about)
    again = Run(tmp_path, "key")
    np.testing.assert_array_equal(again.resume()["w"], np.ones((2, 3)))
    assert again.rows == [{"step": 1}]


def test_sigterm_is_as_it_was_when_the_run_has_ended(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        with Run(tmp_path, "key").stopping():
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before


def test_asked_twice_it_stops_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, "key", checkpoint_seconds=1e9)
    with run.stopping():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not run.rows  # and goes on to its next safe point
        with pytest.raises(module.Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")


def test_progress_is_throttled_and_estimates_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    run = Run(tmp_path, "key", {"cohort": "c", "model": "m", "seed": 1})
    file = tmp_path / ".resume" / "progress.json"

    def shown() -> dict:
        return json.loads(file.read_text())

    run.progress(0, None, float("nan"))
    assert shown()["loss"] is None and shown()["seconds_left"] is None and shown()["cohort"] == "c"
    now[0] = 1100.0
    run.progress(50, 100, 1.0)  # resumed at 50: the estimate may not count these steps as done now
    now[0] = 1100.5
    run.progress(55, 100, 0.5)
    assert shown()["step"] == 50
    now[0] = 1110.0
    run.progress(60, 100, 0.25, learning_rate=np.float32(0.5))
    assert shown()["step"] == 60 and shown()["seconds_left"] == 40.0 and shown()["learning_rate"] == 0.5
    now[0] = 1110.1
    run.progress(100, 100, 0.1)
    assert shown()["step"] == 100 and shown()["seconds_left"] == 0.0


def test_a_checkpoint_of_another_key_is_removed_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Run(tmp_path, "old", checkpoint_seconds=0).checkpoint({"w": np.ones(3)})
    new = Run(tmp_path, "new")
    assert len(list((tmp_path / ".resume").glob("*.safetensors"))) == 1  # a process may look without harm
    assert new.resume() is None
    assert not list((tmp_path / ".resume").glob("*.safetensors"))
    assert "checkpoint of other settings, data or code: removed" in capsys.readouterr().err
