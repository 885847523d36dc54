"""What the next session on a GPU runs (`benchmarks/results/ndt.md`) finds its packages: the machine has no way out."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.test_environment import REPOSITORY

THERE = {"accelerate", "hypothesis", "numpy", "psutil", "pytest", "scipy", "torch", "yaml"}
"""Of what that machine has, what is imported."""
OWN = {"pipeline_lib", "tests", "benchmarks"}


def statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run as the file is imported."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from statements([each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)])


def imported(file: Path) -> Iterator[str]:
    """Modules, and what may be one: "tests.small_cohort.recording"."""
    for node in statements(ast.parse(file.read_text()).body):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def files_of(module: str) -> Iterator[Path]:
    """Of a module of ours and of the packages around it."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = REPOSITORY.joinpath(*parts[:length])
        yield from (each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file())


def test_what_runs_there_imports_what_the_machine_has_or_the_plan_takes_along() -> None:
    plan = (REPOSITORY / "benchmarks" / "results" / "ndt.md").read_text().partition("### The next GPU session")[2]
    wheels = re.search(r"-d \.whl \$\(grep -E '\^\(([^)]*)\)==' constraints\.txt\)", plan)[1].split("|")
    tested = [path for room in ("models/ndt", "training") for path in (REPOSITORY / "tests" / room).glob("*.py")]
    assert all(str(folder) in plan for folder in ("tests/models/ndt", "tests/training"))
    timed = [REPOSITORY / name for name in set(re.findall(r"benchmarks/\w+\.py", plan))]
    fixtures = REPOSITORY / "tests" / "servers" / "fixtures.py"  # a plugin that tests/conftest.py names
    hooks = [REPOSITORY / folder / "conftest.py" for folder in (".", "tests", "tests/training")]
    todo, seen, found = [*tested, *timed, *hooks, fixtures], set(), set()
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in imported(file):
            room = module.partition(".")[0]
            if room in OWN:
                todo += files_of(module)
            elif room not in sys.stdlib_module_names:
                found.add(room)
    assert {"pydantic", "zarr", "google_crc32c"} < found, "the walk through our modules has lost its way"
    assert found <= THERE | {name.replace("-", "_") for name in wheels}
