"""Options of a source: a block of the config made into the source's frozen dataclass."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pipeline_lib.errors import InputError, suggest

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
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise InputError(f"source {source}", f"option {name}", "an unknown option", suggest(str(name), known))
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        name = str(problem["loc"][0]) if problem["loc"] else "options"
        same = [other["msg"] for other in error.errors() if other["loc"][:1] == problem["loc"][:1]]
        accepted = " or ".join(dict.fromkeys(text.removeprefix("Input should be ") for text in same))
        raise InputError(f"source {source}", f"option {name}", repr(values.get(name)), accepted) from None


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
