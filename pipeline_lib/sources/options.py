"""Options of a source: a block of the config made into the source's frozen dataclass."""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pipeline_lib.errors import InputError
from pipeline_lib.parsing import parse

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][\w+.-]*", re.ASCII)
"""What becomes part of a path: a signal's name is that of its file."""

Names = str | tuple[str, ...]
"""One name or several."""


def parse_options(source: str, kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass `kind` filled with `values`, converted to its field types.

    Raises
    ------
    InputError : an unknown option (with the nearest known one), or a value its field does not accept.
    """
    try:
        made: T = parse(kind, values, f"source {source}")
    except InputError as error:
        field = f"option {error.field.removeprefix('option ')}"
        raise InputError(error.where, field, error.found, error.accepted) from None
    return made


def check_names(names: Iterable[str], where: str, field: str) -> None:
    """Raise InputError for a name that would not do as that of a file."""
    for name in names:
        if not NAME.fullmatch(name):
            accepted = "letters, digits, '_', '-', '+' and '.', beginning with a letter or digit"
            raise InputError(where, field, repr(name), accepted)


def as_tuple(names: Names | None) -> tuple[str, ...]:
    """`names` as a tuple; None is the empty one."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)
