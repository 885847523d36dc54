"""The site: pages in MyST Markdown, executed as notebooks. `make docs` builds it into docs/_build/html."""

import os
import tempfile
from pathlib import Path

import pipeline_lib

project = "Trainyard"
author = copyright = "The Trainyard authors"
version = release = pipeline_lib.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Links to files of the repository, which are not pages; cells that were not run know no language; words of a docstring
# that several classes have as an attribute.
suppress_warnings = ["myst.xref_missing", "myst-nb.lexer", "ref.python"]

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"
# A figure that ends a cell is drawn: the kernels read this from a profile of their own.
profile = Path(tempfile.mkdtemp()) / "profile_default"
profile.mkdir()
(profile / "ipython_kernel_config.py").write_text('c.IPKernelApp.matplotlib = "inline"\n')
os.environ["IPYTHONDIR"] = str(profile.parent)

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Trainyard"
html_show_sphinx = False
