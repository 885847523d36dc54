"""A name for what the code does, whatever its comments say.

Snakemake holds `code_id` of a rule's modules among the rule's parameters, so that a fit is made again when the code it
runs through has changed, and not when a comment, a docstring or a blank line has.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pipeline_lib
from pipeline_lib.errors import InputError
from pipeline_lib.files import write_json

REMEMBERED = Path(".snakemake") / "trainyard_code.json"
PACKAGE = pipeline_lib.__name__
ROOT = Path(pipeline_lib.__file__).parent


def code_id(modules: Iterable[str | Path]) -> str:
    """Hash the syntax trees of modules and of all the package's modules that they import, directly or not.

    Imports inside functions count; imports for type checkers only (``if TYPE_CHECKING:``) do not. The package's own
    ``__init__`` is left out: it holds the version, and a release should not make every fit again.

    Parameters
    ----------
    modules : dotted names in this package ("pipeline_lib.training.fit"), or paths of Python files. Models are imported
        by computed names, so a model must be among them: `model_source` of the registry gives its name or path.

    Returns
    -------
    64 hexadecimal digits, the same in every directory and (as far as their grammars agree) Python version.

    Raises
    ------
    InputError : no such module, or a file that is not Python.
    """
    return _code_id(tuple(modules))


@cache
def _code_id(modules: tuple[str | Path, ...]) -> str:
    """Asked for every job of a workflow: once a process is enough, and an edit during a run should not split it."""
    files: dict[str, Path] = {}
    waiting = []
    known, read = _remembered(), len(_READ)
    for module in modules:
        if isinstance(module, Path):
            files[module.name] = module  # not its path: the same file elsewhere is the same code
            waiting += _file_content(module, module.stem).imports
        elif _file(module) is None:
            raise InputError(ROOT, "module", module, "a module of the package, or a Path")
        else:
            waiting.append(module)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in files or name == PACKAGE:
            continue
        files[name] = path
        waiting += _file_content(path, name).imports
        waiting.append(name.rpartition(".")[0])  # importing a.b runs a/__init__.py
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {_file_content(path, name).meaning}\n".encode())
    if len(_READ) > read and REMEMBERED.parent.is_dir():
        with suppress(OSError):
            write_json(REMEMBERED, known | _READ)
    return digest.hexdigest()


class _Content(NamedTuple):
    """What a file does and what it imports, as of its size and time of change."""

    size: int
    changed: int
    meaning: str
    imports: list[str]


_READ: dict[str, _Content] = {}
"""What this process has parsed."""


@cache
def _remembered() -> dict[str, list[Any]]:
    """What earlier processes have parsed: a second of every start of the workflow, and of each of its cluster jobs."""
    try:
        return dict(json.loads(REMEMBERED.read_text()))
    except (OSError, ValueError):
        return {}


@cache
def _file_content(path: Path, name: str) -> _Content:
    status, key = path.stat(), f"{name} {path.absolute()}"
    size, changed, *content = _remembered().get(key, [0, 0])
    if (size, changed) != (status.st_size, status.st_mtime_ns) or len(content) != 2:
        content = [_meaning(path), _imports(path, name)]
        _READ[key] = _Content(status.st_size, status.st_mtime_ns, *content)
    return _Content(status.st_size, status.st_mtime_ns, *content)


def _file(module: str) -> Path | None:
    """The file of a dotted name, or None for what is no module of this package (a function, another package)."""
    package, *rest = module.split(".")
    if package != PACKAGE:
        return None
    path = ROOT.joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))  # which may begin with a mark, or say how it is encoded
    except SyntaxError as error:
        raise InputError(path, f"line {error.lineno}", error.msg, "Python") from None


def _imports(path: Path, name: str) -> list[str]:
    """Dotted names that a file may import from the package, some of which are functions and not modules."""
    names = []
    for node in _run_time_nodes(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".") + ["__init__"] * (path.name == "__init__.py")
                base = ".".join([*parents[: -node.level], *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [found for found in names if found.split(".")[0] == PACKAGE]


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _meaning(path: Path) -> str:
    """Hash of one file's syntax tree without docstrings."""
    parts: list[str] = []
    _collect(_tree(path), parts)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _collect(node: object, parts: list[str]) -> None:
    """Append the tree's node types, field names and values, in order; empty fields and bare strings are left out.

    `ast.dump` would do, but it writes fields that other Python versions do not have.
    """
    if isinstance(node, ast.AST):
        parts.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                value = [item for item in value if not _is_bare_string(item)]
            if value is not None and value != []:
                parts.append(field)
                _collect(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        for item in node:
            _collect(item, parts)
        parts.append("]")
    else:
        parts.append(f"{type(node).__name__}:{node!r}")


def _is_bare_string(node: object) -> bool:
    """A string that stands alone as a statement: the docstring of a module, class, function or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
