"""Projects to run the workflow in."""

import shutil
from pathlib import Path

import pytest

from tests.workflow.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose whole workflow has run once."""
    project = Project(tmp_path_factory.mktemp("finished"))
    result = project.snakemake()
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return project


@pytest.fixture
def copy_of_finished(finished: Project, tmp_path: Path) -> Project:
    """The same, for a test that changes something. Times of files are kept: Snakemake goes by them."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    project = object.__new__(Project)
    project.folder = tmp_path
    return project
