"""Content of files and options into typed definitions, and one clear line where it does not fit."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline_lib.errors import InputError, suggest

WORDS = {
    "dict_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text (in quotes, where YAML takes it for something else)",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "missing": "this key is required",
}
"""What is accepted, by the type of pydantic's complaint, for who writes YAML; its own words where there are none."""

Location = tuple[int | str, ...]


def parse(kind: Any, content: Any, where: str) -> Any:
    """`content` as an instance of the definition `kind`; InputError in one line, naming `where`, if it does not fit."""
    if is_dataclass(kind) and isinstance(content, dict):  # of which pydantic passes over what it does not know
        names = [field.name for field in fields(kind)]
        for key in content:
            if key not in names:
                raise InputError(where, str(key), "an unknown key", suggest(str(key), names))
    try:
        made = TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _explain(error, kind, content, where) from None
    with_numbers(content, made, where)
    return made


def with_numbers(content: Any, made: Any, where: str, *place: int | str) -> Any:
    """`content`, with the numbers that `made` of it (see `parse`) has in the place of texts, as YAML leaves of 1e-3.

    So one number is one setting, however it is written. InputError where `content` has `true` in the place of a number,
    which Python takes for 1, or what is no number (nan), with which no comparison holds.
    """
    if isinstance(made, float) and math.isnan(made):
        raise InputError(where, ".".join(map(str, place)) or "content", content, "a number")
    if isinstance(made, int | float) and isinstance(content, str | bool) and not isinstance(made, bool):
        if isinstance(content, str):
            return made
        raise InputError(where, ".".join(map(str, place)) or "content", content, "a number")
    if isinstance(content, dict):
        of = made.get if isinstance(made, dict) else lambda key: getattr(made, str(key), None)
        return {key: with_numbers(each, of(key), where, *place, key) for key, each in content.items()}
    if isinstance(content, list | tuple) and isinstance(made, list | tuple):
        pairs = enumerate(zip(content, made, strict=False))
        return [with_numbers(each, own, where, *place, index) for index, (each, own) in pairs]
    return content


def _explain(error: ValidationError, kind: Any, content: Any, where: str) -> InputError:
    """One complaint of pydantic as one line: of what may be several things, what stands deepest in the content."""
    complaints = error.errors()
    top = [each for each in complaints if each["loc"][:1] == complaints[0]["loc"][:1]]
    first = max(top, key=lambda each: len(_place(each, content)))
    place = _place(first, content)
    key = ".".join(map(str, place))
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        # A settings class names its field, and often where it stands.
        whole = ".".join(map(str, place if inner.field in place else (*place, inner.field)))
        field = inner.field if "." in inner.field else whole
        return InputError(where, field, inner.found, inner.accepted)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return InputError(where, key, "an unknown key", suggest(str(first["loc"][-1]), _keys(kind, first["loc"][:-1])))
    found = "nothing" if first["type"] == "missing" else repr(first["input"])
    accepted = [_words(each) for each in top if _place(each, content) == place]
    return InputError(where, key or "content", found, " or ".join(dict.fromkeys(accepted)))


def _words(complaint: Any) -> str:
    text = complaint["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return WORDS.get(complaint["type"], text)


def _place(complaint: Any, content: Any) -> Location:
    """Where it stands in the content: pydantic also names the definition it tried, where there are several."""
    place: list[int | str] = []
    for part in complaint["loc"]:
        there = _holds(content, part)
        if there:
            content = content[part]
        if there or (complaint["type"] == "missing" and part == complaint["loc"][-1]):
            place.append(part)
    return tuple(place)


def _holds(content: Any, part: int | str) -> bool:
    if isinstance(content, dict):
        return part in content
    return isinstance(content, list | tuple) and part in range(len(content))


def _keys(kind: Any, location: Location) -> list[str]:
    """Known keys of the definition at `location` inside `kind`, looked up in its JSON schema."""
    schema = TypeAdapter(kind).json_schema()
    node = schema
    for part in location:
        node = _dereference(node, schema)
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_dereference(node, schema).get("properties", {}))


def _dereference(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
