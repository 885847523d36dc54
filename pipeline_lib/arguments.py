"""Arguments that several verbs of the command line take."""

import argparse
from pathlib import Path
from typing import Any


def read_mapping(text: str) -> dict[str, Any]:
    """A mapping given on the command line: JSON or YAML, inline or as @FILE.

    Raises
    ------
    ArgumentTypeError : no mapping, or a file that cannot be read.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(text[1:]).read_text() if text.startswith("@") else text) or {}
    except (OSError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
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
