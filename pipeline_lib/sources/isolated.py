"""Environments of their own, for programs that cannot live beside the rest (AllenSDK needs numpy below 1.24).

An environment is made by uv from a list of exact versions with hashes, once, in a folder named by that list's content;
a wrong hash, or one that is missing, ends the installation.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.files import exclusive

PYTHON = "3.11"


def environment(requirements: Path, folder: Path) -> Path:
    """The interpreter of the environment that `requirements` lists, made below `folder` if it is not there yet.

    Raises
    ------
    InputError : it cannot be made; the last line of uv says why.
    """
    if not requirements.is_file():
        raise InputError(requirements, "file", "no such file", "a list of requirements with hashes")
    name = f"{requirements.name.partition('.')[0]}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    place = folder / name
    python, done = place / "bin/python", place / "complete"
    if done.exists():
        return python
    with exclusive(folder / f".{name}.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            _uv("venv", "--quiet", "--python", PYTHON, place)
            _uv("pip", "sync", "--quiet", "--require-hashes", "--python", python, requirements)
            done.touch()
    return python


def _uv(*arguments: object) -> None:
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if result.returncode:
        lines = [" ".join(line.split()) for line in result.stderr.splitlines() if line.strip()]
        accepted = "packages that can be installed (uv's settings, such as UV_OFFLINE and its index, are the user's)"
        raise InputError("environment", str(arguments[0]), "; ".join(lines)[:400] or result.returncode, accepted)


def clean_environment() -> dict[str, str]:
    """The environment variables without those that would let this interpreter's packages in."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run_watched(command: Sequence[object], folder: Path, stall: float) -> subprocess.CompletedProcess:
    """Run a program that writes into `folder`; end it when nothing there has grown for `stall` seconds.

    Raises
    ------
    TimeoutError : it was ended.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    before, since = -1, time.monotonic()
    while True:
        try:
            output, errors = process.communicate(timeout=min(1.0, stall / 4))
            return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
        except subprocess.TimeoutExpired:
            here = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if here != before:
                before, since = here, time.monotonic()
            elif time.monotonic() - since > stall:
                process.kill()
                process.communicate()
                raise TimeoutError from None
