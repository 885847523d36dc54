"""What a result was made with, kept beside it.

Snakemake remembers of each file with which settings, code and inputs it was made, by its path, in `.snakemake` in the
folder that a run starts in. That stays behind where results are moved or copied. So the same is kept in the folder of
the result: of ``results/fits/day1/glm/seed0/manifest.json`` in ``.manifest.made_with.json``. Files that differ in their
endings alone (PNG, PDF and CSV of a figure) are made by one job, and share one.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline_lib.files import sha256_file

HERE = "{results}"
"""Stands for the folder of results, which may be called otherwise when it is read."""
NOT_SET = "not set"
OF_FILE, ALONE = "sha256", (".json", ".parquet")
"""The hash of the file itself stands in what is kept of it, where it shares that with no other file."""
REPLACED = "replaced since by something that this workflow did not make"
"""Stands for the parameters of a file that is no longer the one of which this is kept."""
HASH = re.compile("[0-9a-f]{64}")
"""Of code, or of a file."""


def told(settings: Any) -> str:
    """Settings as a parameter of a job. Their order in a file is no reason to make anything again."""
    return json.dumps(settings, sort_keys=True, default=str)


def beside(file: str | Path) -> Path:
    """Where it is kept what a file was made with."""
    path = Path(file)
    return path.with_name(f".{path.stem}.made_with.json")


def write_made_with(file: str | Path, record: Mapping[str, Any], results: str) -> None:
    """Keep Snakemake's record of a file beside it, whole or not at all.

    It is not waited for the disk, as for results: a record that is lost is one that Snakemake still has.
    """
    path = beside(file)
    part = path.with_name(f"{path.name}.part")
    content = _of_folder(record, results, HERE)
    if Path(file).suffix in ALONE:
        content[OF_FILE] = sha256_file(file)
    try:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_made_with(file: str | Path, results: str) -> dict[str, Any] | None:
    """Snakemake's record of a file, as it is kept beside it; None where there is none, or none that can be read.

    Of a file that somebody has replaced, by a verb of the command line or another's result, the parameters are
    `REPLACED`: nothing agrees with that, and it is made anew.
    """
    try:
        record = _of_folder(json.loads(beside(file).read_text()), HERE, results)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    known = record.pop(OF_FILE, None)
    if known and Path(file).is_file() and sha256_file(file) != known:
        record["params"] = [repr(REPLACED)]
    return record if isinstance(record.get("params"), list) else None


def _of_folder(record: Mapping[str, Any], before: str, now: str) -> dict[str, Any]:
    """A record of results in a folder that was called otherwise; inputs are sorted, as Snakemake compares them."""

    def moved(file: str) -> str:
        return now + file.removeprefix(before) if file.startswith(f"{before}/") else file

    sums = (record.get("input_checksums") or {}).items()
    names = {"input": sorted(map(moved, record.get("input") or []))}
    return {**record, **names, "input_checksums": {moved(file): sha for file, sha in sums}}


def unpacked(parameter: str) -> Any:
    """A parameter of a job, of which Snakemake records the `repr`; what is JSON in it is read, too.

    >>> unpacked("{'settings': '{\\"strength\\": 0.1}', 'code': 'ab12'}")
    {'settings': {'strength': 0.1}, 'code': 'ab12'}
    """
    with suppress(ValueError, SyntaxError):
        return _parsed(ast.literal_eval(parameter))
    return parameter


def _parsed(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _parsed(each) for name, each in value.items()}
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def difference(before: Iterable[str], now: Iterable[str]) -> str:
    """What differs between the parameters of a job as Snakemake records them, in a line.

    >>> difference(["'{\\"strength\\": 0.1, \\"folds\\": 5}'"], ["'{\\"strength\\": 0.2, \\"folds\\": 5}'"])
    'strength: 0.1, now 0.2'
    """
    if repr(REPLACED) in before:
        return REPLACED
    old, new = _flat(before), _flat(now)
    pairs = {name: (old.get(name, NOT_SET), new.get(name, NOT_SET)) for name in {**old, **new}}
    return "; ".join(f"{name}: {_short(a)}, now {_short(b)}" for name, (a, b) in pairs.items() if a != b)


def _flat(parameters: Iterable[str]) -> dict[str, str]:
    """Values as texts, by their names with dots between; what has no name is of "code" or of "parameters"."""
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, each in value.items():
                add(f"{name}.{key}" if name else key, each)
        elif HASH.fullmatch(str(value)):
            flat[name or "code"] = str(value)[:12]
        elif name:
            flat[name] = "null" if value is None else str(value)
        else:
            nameless.append(str(value))

    nameless: list[str] = []
    for parameter in sorted(parameters):
        add("", unpacked(parameter))
    return flat | ({"parameters": ", ".join(nameless)} if nameless else {})


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
