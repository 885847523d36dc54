"""Captions of figures, read from the text of their modules: who only wants words need not load matplotlib."""

import ast
import functools
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def caption_of(module: str) -> str:
    """`CAPTION` of a module of this package, with the numbers that it takes from constants.

    Raises
    ------
    AttributeError : it has none, or one that is made of more than constants.

    >>> caption_of("glm_basis")[:19]
    'Basis functions of '
    """
    return str(constant(f"{PACKAGE.name}.figures.{module}", "CAPTION"))


def constant(module: str, name: str) -> Any:
    """What a module's text gives to `name`, or imports by it: a plain value, or what is made of such values.

    >>> constant("pipeline_lib.figures.decoding", "MOST_BARS")  # which `points` says
    12
    """
    for statement in _tree(module).body:
        match statement:
            case ast.ImportFrom(module=str(source), names=names) if any(each.name == name for each in names):
                return constant(source, name)
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return _value(module, value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                given = dict(zip(map(ast.unparse, targets), values, strict=True))
                if name in given:
                    return _value(module, given[name])
    raise AttributeError(f"{module} has no {name} that is a plain value")


def _value(module: str, expression: ast.expr) -> Any:
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    code = compile(ast.Expression(expression), module, "eval")
    return eval(code, {"__builtins__": {}}, {name: constant(module, name) for name in names})


@functools.cache
def _tree(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def last_change() -> float:
    """When any module was last written, in seconds: a caption may take a number from each."""
    return max(file.stat().st_mtime for file in PACKAGE.rglob("*.py"))
