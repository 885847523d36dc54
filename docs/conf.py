"""The site: pages in MyST Markdown, executed as notebooks. `make docs` builds it into docs/_build/html."""

import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pipeline_lib

project = "Trainyard"
author = copyright = "The Trainyard authors"
version = release = pipeline_lib.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Links to files of the repository, which are not pages; cells that were not run know no language; words of a docstring
# that several classes have as an attribute.
suppress_warnings = ["myst.xref_missing", "myst-nb.lexer", "ref.python"]

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"
logging.getLogger("traitlets").setLevel(logging.WARNING)  # else every page says that it is executed
# A figure that ends a cell is drawn, and nothing is said of how kernels are spoken to: they read this from a profile of
# their own.
profile = Path(tempfile.mkdtemp()) / "profile_default"
profile.mkdir()
faces = ["Helvetica", "Arial", "Liberation Sans", "Nimbus Sans", "DejaVu Sans"]  # as pipeline_lib.figures.style
(profile / "ipython_kernel_config.py").write_text(
    f'c.IPKernelApp.matplotlib = "inline"\nc.IPKernelApp.log_level = {logging.ERROR}\n'
    f'c.InlineBackend.rc = {{"font.sans-serif": {faces}}}\n'
)
os.environ["IPYTHONDIR"] = str(profile.parent)

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["pages.css"]
html_title = "Trainyard"
html_show_sphinx = False

SECTION, UNDERLINE = re.compile(r"(Parameters|Attributes|Raises)$"), re.compile(r"-{3,}$")
ENTRY = re.compile(r"(\w[\w, ]*) : (.*)$")


def entries(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Write `name : what it is` of a section as numpydoc has it, where what follows a colon is a type.

    So it is in the first line of what is said of an attribute: there a dash takes the colon's place.
    """
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " \u2013 ")
    written: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        if line and not line[0].isspace():
            inside = inside and not (number + 1 < len(lines) and UNDERLINE.match(lines[number + 1]))
            inside = inside or bool(number and UNDERLINE.match(line) and SECTION.match(lines[number - 1]))
        entry = ENTRY.match(line) if inside else None
        written += [entry.group(1), f"    {entry.group(2)}"] if entry else [line]
    lines[:] = written


def setup(app: Any) -> None:
    """Before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", entries, priority=400)
