"""What a fit says of the code that it was made with."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline_lib.training.provenance import git_state


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder within a repository of one commit."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "somebody@example.org")
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("a = 1\n")
    (package.parent / ".gitignore").write_text("ignored/\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(package.parent), *command], check=True)
    return package


def dirty(package: Path) -> bool:
    state = git_state(package)
    assert state is not None and len(state["commit"]) == 40
    return state["dirty"]


def test_code_that_git_does_not_know_is_a_change(package: Path) -> None:
    other = package.parent / "models"
    (package.parent / "ignored").mkdir()
    (package.parent / "ignored" / "mine.py").write_text("a = 1\n")
    (package.parent / "recording.csv").write_text("a,b\n")
    assert not dirty(package)
    other.mkdir()
    (other / "mine.py").write_text("a = 1\n")
    assert dirty(package)


def test_a_tracked_file_that_differs_is_a_change(package: Path) -> None:
    assert not dirty(package)
    (package.parent / ".gitignore").write_text("other/\n")
    assert dirty(package)


def test_outside_of_a_repository_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "folder").mkdir()
    assert git_state(tmp_path / "folder") is None
