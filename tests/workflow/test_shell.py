"""Folders of the configuration go through a shell: what they are called must not matter to it."""

import pytest

from tests.workflow.project import SMALL, Project

RESULTS, DATA = "the results; touch evil", "the 'data' $(touch evil)"


@pytest.mark.slow
def test_folders_with_spaces_and_signs_of_the_shell(project: Project) -> None:
    project.write_config(SMALL | {"results": RESULTS, "data": DATA, "models": ["mean_rate"]})
    result = project.snakemake("fits")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (project.folder / RESULTS / "fits/pair/mean_rate/seed0/manifest.json").is_file()
    assert (project.folder / RESULTS / "simulated/pair/simulation.json").is_file()
    assert not list(project.folder.rglob("evil"))
