"""A Python file of the user's, imported: a model or a source that is not of this package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from pipeline_lib.errors import InputError


def import_file(path: Path, kind: str) -> ModuleType:
    """The module of a file; `kind` ("model", "source") is part of its name, so that two files of one name are two.

    Raises
    ------
    InputError : no such file, or one that cannot be imported.

    Examples
    --------
    >>> _ = Path("lab.py").write_text("WHO = 'us'")
    >>> import_file(Path("lab.py"), "source").WHO
    'us'
    """
    if not path.is_file():
        raise InputError(kind, "file", f"no file {path}", f"the Python file of a {kind}")
    name = f"trainyard_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(path, "file", "not importable", "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise InputError(path, "import", str(error), "a Python file that imports") from error
    return module
