"""The shipped profiles: every line says why it stands there, and Snakemake knows every option."""

from pathlib import Path

import pytest
import yaml

from tests.workflow.project import REPOSITORY

PROFILES = REPOSITORY / "workflow/profiles"
FILES = sorted(PROFILES.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[str(file.relative_to(PROFILES)) for file in FILES])
def test_every_line_has_its_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        assert "# " in line or before.startswith("# "), line


@pytest.mark.parametrize("path", PROFILES.glob("*/profile*.yaml"), ids=lambda path: path.parent.name)
def test_every_key_is_an_option(path: Path) -> None:
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser([])
    known = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    keys = set(yaml.safe_load(path.read_text()))
    ours = {key for key in keys if not key.startswith("slurm-")}
    assert ours <= known | {"init-seconds-before-status-checks"}, ours - known
