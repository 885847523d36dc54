"""The pages of docs/ run, lead somewhere, and say so where they were not run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline_lib.config import Config
from tests.docs.pages import DOCS, cells, run

REPOSITORY = DOCS.parent
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]
OPTIONAL = {"IPython"}
"""Packages that only the site needs."""


@pytest.mark.parametrize("page", [page for page in PAGES if cells(page)], ids=lambda page: page.stem)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in OPTIONAL:
        if any(f"from {package}" in cell.code for cell in cells(page)):
            pytest.importorskip(package, reason=f"{package} comes with the extra `docs`")
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_was_not_run_says_so(page: Path) -> None:
    text = page.read_text()
    skipped = [cell for cell in cells(page) if not cell.executed]
    assert len(re.findall(r"^\*Not run here", text, re.MULTILINE)) >= len(skipped)
    if page.parent.name == "how-to":
        assert cells(page) or "run when it was built" in text, "no code, and no word why"


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "README.md", REPOSITORY / "config/README.md"], ids=str)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    named = re.findall(r"`((?:config|docs|workflow|pipeline_lib|tests|benchmarks)/[\w./-]+)`", page.read_text())
    for path in named:
        if not re.search(r"SOURCE|NAME|YOURS|mine", path):
            assert any((folder / path).exists() for folder in (REPOSITORY, REPOSITORY / "tests")), path


def test_every_page_stands_in_the_contents() -> None:
    listed = (DOCS / "index.md").read_text()
    for name in NAMES:
        page = name.removesuffix(".md")
        globs = re.findall(r"^(\S+)\*$", listed, re.MULTILINE)
        assert page == "index" or re.search(rf"^{page}$", listed, re.MULTILINE) or page.startswith(tuple(globs)), page


def test_every_key_of_the_configuration_is_explained() -> None:
    text = (REPOSITORY / "config/README.md").read_text()
    for key in Config.model_fields:
        assert f"`{key}`" in text, key


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """The cells do not run here (they do above); links, references and docstrings are checked."""
    for package in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(package, reason=f"{package} comes with the extra `docs`")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "nb_execution_mode=off"]
    done = subprocess.run([*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    reference = (tmp_path / "reference/api.html").read_text()
    assert "bin_windows" in reference and ":raises" not in reference, "sections of docstrings are read as such"


def test_the_citation_and_the_catalogue_have_what_is_asked_of_them() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= set(citation)
    import pipeline_lib

    assert citation["version"] == pipeline_lib.__version__
    assert f"## {pipeline_lib.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference), reference["title"]
    catalogue = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    assert set(catalogue) == {"usage"} and "report" in catalogue["usage"]
    assert isinstance(catalogue["usage"]["software-stack-deployment"]["conda"], bool)
    for needed in ("workflow/Snakefile", "config/README.md", "LICENSE", "README.md"):
        assert (REPOSITORY / needed).is_file()
