"""The three lists of dependencies say the same."""

import json
import re
import site
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch", "ONE-api": "ONE-api", "snakemake": "snakemake-minimal"}


def _parse(requirement: str) -> tuple[str, str]:
    name, bounds = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", requirement).groups()
    return name.lower().replace("_", "-"), bounds.replace(" ", "")


def _project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", ["environment.yml", "workflow/envs/main.yaml"])
def test_conda_environments_have_the_ranges_of_pyproject(name: str) -> None:
    content = yaml.safe_load((REPOSITORY / name).read_text())
    conda, pip = [], []
    for entry in content["dependencies"]:
        (pip.extend(entry["pip"]) if isinstance(entry, dict) else conda.append(entry))
    found = dict(_parse(entry) for entry in conda + pip if not entry.startswith(("-e", "pip")))
    python = found.pop("python")
    expected = {}
    for requirement in _project()["dependencies"]:
        name, bounds = _parse(requirement)
        original = (
            next(each for each in CONDA_NAMES if each.lower() == name) if name in map(str.lower, CONDA_NAMES) else name
        )
        expected[CONDA_NAMES.get(original, name).lower()] = bounds
    assert found == expected
    assert python == _project()["requires-python"].replace(" ", "")


def test_constraints_satisfy_pyproject_and_pin_every_dependency() -> None:
    from packaging.requirements import Requirement

    pins = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    project = _project()
    extras = [requirement for group in project["optional-dependencies"].values() for requirement in group]
    for requirement in map(Requirement, project["dependencies"] + extras):
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert pinned in requirement.specifier, f"{requirement} against {pinned}"


def test_editors_and_type_checkers_find_an_editable_install() -> None:
    """They follow the paths of .pth files, and run no code that stands there."""
    folders = site.getsitepackages()
    told = [
        json.loads(each.read_text("direct_url.json") or "{}") for each in distributions(name="trainyard", path=folders)
    ]
    editable = [each["url"] for each in told if each.get("dir_info", {}).get("editable")]
    if not editable:
        pytest.skip("not an editable install")
    files = [file for folder in folders for file in Path(folder).glob("*.pth")]
    assert unquote(urlparse(editable[0]).path) in {line for file in files for line in file.read_text().splitlines()}


def test_import_is_light() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'zarr', 'h5py', 'scipy'}"
    script = f"import sys, pipeline_lib, pipeline_lib.plan; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_path_of_a_machine_in_tracked_files() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        return
    pattern = re.compile(r"/(?:home|Users|opt|root|work)/[a-z]")
    for name in listed.stdout.split():
        if Path(name).suffix in {".py", ".smk", ".yaml", ".yml", ".md", ".toml", ".txt", ".tsv"}:
            text = (REPOSITORY / name).read_text(encoding="utf-8")
            assert not pattern.search(text), name
