"""Ways through the code lead through all of it: maps of folders, and the page of the documentation."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pipeline_lib"
ROOMS = ("sources", "trains", "models", "training", "evaluation")
MODELS = ("models/glm", "models/glm_transformer", "models/lfads", "models/neuroformer")


@pytest.mark.parametrize("room", ROOMS + MODELS)
def test_a_map_names_every_file_after_what_it_needs(room):
    folder, inside = PACKAGE / room, f"pipeline_lib.{room.replace('/', '.')}."
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    lines = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)  +\S", text, re.MULTILINE)
    order = [file for line in lines for file in line.split(", ")]
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert sorted(order) == sorted(files)
    for place, file in enumerate(order):
        # What is imported with a module; what a function imports for itself need not lie above.
        for node in ast.parse((folder / f"{file}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(inside):
                names = [f"{node.module}.{alias.name}".removeprefix(inside) for alias in node.names]
                own = {name.partition(".")[0] for name in names} & files
                assert own <= set(order[:place]), f"{file} needs {own}"


def test_the_page_names_rooms_and_files_that_are_there_and_all_of_them():
    page = (PACKAGE.parent / "docs/reference/code.md").read_text()
    named = {name.strip("/") for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", page) if not name.startswith("results/")}
    places = (PACKAGE, PACKAGE / "models", PACKAGE / "models/ndt", PACKAGE.parent)
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms <= named
