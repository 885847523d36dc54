"""Open sessions: as many as memory allows, whoever asks."""

import threading
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains import sessions as module
from pipeline_lib.trains.sessions import Sessions
from pipeline_lib.trains.store import Trains

EVENTS = 6 * 20_000
"""Bytes of a session's events."""


def test_the_least_recently_used_goes_first(directories: list[Path]) -> None:
    sessions = Sessions(directories, lambda trains: trains.session, 3 * EVENTS)
    assert list(sessions) == ["s0", "s1", "s2", "s3"] and not sessions.fit and sessions.resident == []
    for session in ("s0", "s1", "s2", "s0", "s3"):
        assert sessions[session] == session
    assert sessions.resident == ["s2", "s0", "s3"]
    assert Sessions(directories, lambda trains: trains, 4 * EVENTS).fit


def test_two_stay_whatever_the_budget(directories: list[Path]) -> None:
    sessions = Sessions(directories, lambda trains: trains, 0)
    first = sessions["s0"]
    sessions.prefetch("s1").result()
    assert sessions["s0"] is first
    sessions["s2"]
    assert sessions.resident == ["s0", "s2"]


def test_each_is_opened_once_by_however_many_threads(directories: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], Trains.open
    monkeypatch.setattr(module.Trains, "open", lambda path: opened.append(path.name) or real(path))
    sessions, found = Sessions(directories, lambda trains: trains), []
    threads = [threading.Thread(target=lambda: found.append(sessions["s1"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["s1"] and len(found) == 8 and all(each is found[0] for each in found)


def test_what_cannot_be_opened_says_so_each_time(directories: list[Path]) -> None:
    sessions = Sessions(directories, lambda trains: trains)
    manifest = (directories[0] / "manifest.json").read_bytes()
    (directories[0] / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=r"manifest\.json"):
            sessions["s0"]
    (directories[0] / "manifest.json").write_bytes(manifest)
    assert sessions["s0"].session == "s0"
    with pytest.raises(KeyError):
        sessions["s9"]
