"""The larger models begin with a map of their files, each of which needs those above it only: so it is."""

import ast
import re
from pathlib import Path

import pytest

import pipeline_lib

MODELS = Path(pipeline_lib.__file__).parent / "models"


@pytest.mark.parametrize("name", ["glm", "glm_transformer", "neuroformer"])
def test_a_map_names_every_file_after_what_it_needs(name):
    folder = MODELS / name
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    lines = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*)  +\S", text, re.MULTILINE)
    order = [file for line in lines for file in line.split(", ")]
    assert sorted(order) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    for place, file in enumerate(order):
        # What is imported with a module; what a function imports for itself need not lie above.
        for node in ast.parse((folder / f"{file}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith(f"pipeline_lib.models.{name}"):
                own = node.module.split(".")[3:] or [alias.name for alias in node.names]
                assert set(own) <= set(order[:place]), f"{file} needs {own}"
