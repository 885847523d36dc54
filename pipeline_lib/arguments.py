"""Arguments that several verbs of the command line take."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_lib.files import atomic_file

Verb = Callable[[str, Callable[[argparse.Namespace], int | None], str], argparse.ArgumentParser]
"""Adds a verb to the command line: its name, what it calls, and what it does."""
LONGEST = 100_000
"""Bytes of one argument: Linux refuses a command with one of 131,072."""
SHEETS = "TRAINYARD_SHEETS"
"""Variable of the environment that names to the jobs of a run the copy of each session sheet."""


def as_argument(content: dict[str, Any]) -> str:
    """What `read_mapping` reads as `content`: JSON, or, where that is too long, a file that holds it."""
    text = json.dumps(content)
    return text if len(text) <= LONGEST else f"@{kept(text.encode(), '.json')}"


def kept(content: bytes, suffix: str) -> Path:
    """A file of this content, for the jobs of a run: nobody edits it while they wait."""
    file = Path(".snakemake") / f"trainyard_{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    if not file.is_file():
        with atomic_file(file) as part:
            part.write_bytes(content)
    return file


def keep_sheet(sheet: str) -> Path:
    """A copy of a session sheet for the jobs of a run; those that plan anew find it by `sheet_of_run`."""
    copy = kept(Path(sheet).read_bytes(), ".tsv")
    os.environ[SHEETS] = json.dumps(_copies() | {sheet: str(copy)})
    return copy


def sheet_of_run(sheet: str) -> str:
    """The copy of a session sheet that the run of this job began with; the sheet itself where there is none here."""
    copy = _copies().get(str(Path(sheet).expanduser()), sheet)  # as the configuration spells it out
    return copy if Path(copy).is_file() else sheet


def _copies() -> dict[str, str]:
    return dict(json.loads(os.environ.get(SHEETS, "{}")))


def read_mapping(text: str) -> dict[str, Any]:
    """A mapping given on the command line: JSON or YAML, inline or as @FILE; a YAML file by its path, too.

    JSON, which the rules write, is not read as YAML: YAML takes 1e-05 for text, and a sign beyond the first 65,536 of
    Unicode for two.

    Raises
    ------
    ArgumentTypeError : no mapping, or a file that cannot be read.
    """
    import yaml

    from pipeline_lib.yaml_text import parse_yaml

    if text.endswith((".yaml", ".yml")) and Path(text).is_file():  # as `list` and `check` take it
        text = f"@{text}"
    try:
        text = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        try:
            content = json.loads(text)
        except ValueError:
            content = parse_yaml(text)
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise argparse.ArgumentTypeError(" ".join(str(error).split())) from None
    content = content or {}
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping")
    return content


def mapping(verb: argparse.ArgumentParser, flag: str, summary: str) -> None:
    """An option that is a mapping; empty unless given."""
    verb.add_argument(flag, type=read_mapping, default={}, metavar="MAPPING", help=f"{summary}; JSON, YAML or @FILE")


def path(verb: argparse.ArgumentParser, flag: str, summary: str, **more: Any) -> None:
    """A path that must be given."""
    verb.add_argument(flag, type=Path, help=summary, required=True, **more)


def folder(verb: argparse.ArgumentParser, flag: str, summary: str, **more: Any) -> None:
    """A folder that must be given: itself, or by the JSON file in it that declares it complete, as rules know it."""
    verb.add_argument(flag, type=_folder, help=summary, **({"required": True} | more))


def _folder(text: str) -> Path:
    return Path(text).parent if text.endswith(".json") else Path(text)
