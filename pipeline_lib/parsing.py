"""Content of files and options into typed definitions, and one clear line where it does not fit."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline_lib.errors import InputError, suggest


def parse(kind: Any, content: Any, where: str) -> Any:
    """`content` as an instance of the definition `kind`; InputError in one line, naming `where`, if it does not fit."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _explain(error, kind, where) from None


def _explain(error: ValidationError, kind: Any, where: str) -> InputError:
    """The first complaint of pydantic as one line; an InputError from a settings class passes as it is."""
    first = error.errors()[0]
    if isinstance(first.get("ctx", {}).get("error"), InputError):
        inner = first["ctx"]["error"]
        return InputError(where, inner.field, inner.found, inner.accepted)
    key = ".".join(str(part) for part in first["loc"]) or "content"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return InputError(where, key, "an unknown key", suggest(str(first["loc"][-1]), _keys(kind, first["loc"][:-1])))
    if first["type"] == "missing":
        return InputError(where, key, "nothing", "this key is required")
    return InputError(where, key, repr(first["input"]), first["msg"].lower())


def _keys(kind: Any, location: tuple[int | str, ...]) -> list[str]:
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
