"""`make audit`, a part of `make lint`, with stand-ins for the program that asks the database of vulnerabilities."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NO_ANSWER = """exit 1"""
STRANGER = """echo '{"dependencies": [{"name": "numpy", "skip_reason": "not found"}]}'"""
NOTHING_FOUND = """case "$*" in *json) echo '{"dependencies": [{"name": "numpy", "vulns": []}]}';; esac"""
FOUND = NOTHING_FOUND.replace(
    "esac", "*) echo 'Found 1 known vulnerability in 1 package'; echo 'torch 2.0 PYSEC-0 2.1'; exit 1;; esac"
)


def audit(folder: Path, program: str, target: str = "audit") -> subprocess.CompletedProcess[str]:
    """`make` with an environment in which `uv` is this program and everything else is as installed."""
    (folder / "bin").mkdir()
    for name in ("ruff", "mypy", "snakefmt", "snakemake"):
        (folder / f"bin/{name}").write_text("#!/bin/sh\n")
    (folder / "bin/uv").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "bin/.ready").touch()
    for file in (folder / "bin").iterdir():
        file.chmod(0o755)
    command = ["make", "--no-print-directory", target, f"VENV={folder}"]
    # A `make test` around this one hands its own variables on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("program", [NO_ANSWER, STRANGER], ids=["no answer", "a mirror without advisories"])
def test_a_database_out_of_reach_is_one_line_and_no_failure(tmp_path: Path, program: str) -> None:
    result = audit(tmp_path, program)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "dependencies not audited: the database of vulnerabilities cannot be reached\n"
    assert result.stderr == ""


def test_a_database_that_knows_nothing_bad_passes(tmp_path: Path) -> None:
    result = audit(tmp_path, NOTHING_FOUND)
    assert result.returncode == 0, result.stderr
    assert "not audited" not in result.stdout


@pytest.mark.parametrize("target", ["audit", "lint"])
def test_a_finding_fails_and_is_shown(tmp_path: Path, target: str) -> None:
    result = audit(tmp_path, FOUND, target)
    assert result.returncode != 0
    assert "torch 2.0 PYSEC-0 2.1" in result.stdout


def test_every_pin_is_audited(tmp_path: Path) -> None:
    result = audit(tmp_path, f'{NOTHING_FOUND}\necho "$*" >> {tmp_path}/asked')
    assert result.returncode == 0, result.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 2 and asked[0].endswith("-f json") and asked[1].endswith("-r constraints.txt")
