"""Data flow one way, from sources to figures: no room of the package imports one that comes after it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pipeline_lib"
TOOLS = {
    "__version__",
    "errors",
    "clock",
    "files",
    "intervals",
    "parsing",
    "yaml_text",
    "signal_units",
    "own_code",
    "published",
}
"""Modules that know nothing of recordings; every room may use them."""
WORKFLOW = {"config", "plan", "paths"}
BEFORE = {
    "stimulus": set(),
    "recording": {"stimulus"},
    "bases": set(),
    "sources": {"recording", "stimulus", "bases"},
    "trains": {"recording", "stimulus"},
    # Models choose by the formulas of scores, and write scores of their own.
    "models": {"recording", "stimulus", "bases", "trains", "training", "evaluation"},
    "training": {"trains", "models"},
    "submission": {"trains", "evaluation.predictions"},
    # The null model, and the solver of readouts: neither holds tensors.
    "evaluation": {"recording", "trains", "models.mean_rate", "models.poisson_ridge"},
    "figures": {"recording", "trains", "evaluation", "sources"},
    "report": {"trains", "figures", "evaluation.settings", *WORKFLOW},
}
"""What a room may import beside the tools and itself."""
SEEING_THE_PLAN = {"figures/subjects.py"}
"""Modules that say what a workflow asks of their room."""
WITHOUT_TORCH = ("stimulus", "recording", "bases", "sources", "submission", "evaluation", "figures", "report")


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it: "torch.nn", "pipeline_lib.clock"."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "pipeline_lib":
            yield from (f"pipeline_lib.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files_of(room: str) -> list[Path]:
    return [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", BEFORE)
def test_a_room_imports_only_what_comes_before_it(room: str) -> None:
    allowed = TOOLS | BEFORE[room] | {room}
    for file in files_of(room):
        name = file.relative_to(PACKAGE).as_posix()
        for module in imports(file):
            if module.startswith("pipeline_lib."):
                inside = module.removeprefix("pipeline_lib.")
                known = allowed | (WORKFLOW if name in SEEING_THE_PLAN else set())
                assert inside.partition(".")[0] in known or inside in known, f"{name} imports {module}"


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_that_hold_no_tensors_never_import_torch(room: str) -> None:
    for file in files_of(room):
        for module in imports(file):
            assert module.partition(".")[0] != "torch", f"{file.relative_to(PACKAGE)} imports {module}"
