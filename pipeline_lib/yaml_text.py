"""YAML as a person writes it: plain data, each key text and once, and one clear line where it cannot be read."""

from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.errors import InputError

MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"


class _PlainKeys(yaml.SafeLoader):
    """YAML lets a key stand twice, and the first is lost without a word; and of `no` and `1` it makes no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag not in (MERGE, TEXT):
                raise yaml.MarkedYAMLError(problem="a key that is no text without quotes", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} a second time", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What a text says. Raises yaml.YAMLError, RecursionError or ValueError."""
    loader = _PlainKeys(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml(path: Path | str) -> Any:
    """What a file says; InputError where there is none, or it cannot be read."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        found = "a folder" if isinstance(error, IsADirectoryError) else "no such file"
        raise InputError(path, "file", found, "a configuration file, such as config/config.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        found = " ".join(str(error).split()).replace('in "<unicode string>", line', "in line")  # PyYAML's name for text
        raise InputError(path, "YAML", found[:300], "readable YAML") from None
