"""Examples in docstrings give what they say."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pipeline_lib"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^\s*>>> (?!.*SKIP)", path.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.attempted and not found.failed


def test_pytest_runs_them_without_leaving_files(tmp_path: Path) -> None:
    where = ["-c", str(PACKAGE.parent / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *where, "--doctest-modules"]
    done = subprocess.run([*command, str(PACKAGE / "recording.py")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout
    assert not list(tmp_path.iterdir()), "written where it was run"


def documented() -> list[str]:
    """Functions and classes of the API reference, by their full names."""
    text = (PACKAGE.parent / "docs/reference/api.md").read_text()
    names = re.findall(r"auto(?:function|class):: (\S+)", text)
    for module, members in re.findall(r"automodule:: (\S+)\n +:members:(.*)", text):
        own = importlib.import_module(module)
        listed = [name.strip() for name in members.split(",") if name.strip()]
        public = [name for name, found in vars(own).items() if name[0] != "_" and _defined_in(found, module)]
        names += [f"{module}.{name}" for name in listed or public]
    return sorted(names)


def _defined_in(found: object, module: str) -> bool:
    return (inspect.isfunction(found) or inspect.isclass(found)) and found.__module__ == module


def test_everything_in_the_reference_has_an_example() -> None:
    names = documented()
    assert len(names) > 50
    for name in names:
        module, _, own = name.rpartition(".")
        found = getattr(importlib.import_module(module), own)
        assert ">>>" in (found.__doc__ or ""), name
