"""A Python file of the user's, imported: a model or a source that is not of this package."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def running(path: Path, accepted: str) -> Iterator[None]:
    """Tell whatever the code of a file raises as one line that names its own; files that are not there go through.

    Raises
    ------
    InputError : its code has failed; the cause is the error itself.

    Examples
    --------
    >>> with running(Path("lab.py"), "a recording"):
    ...     {}["side"]
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: lab.py: code: found KeyError: 'side'; accepted: a recording
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
        found = f"{type(error).__name__}: {error}"
        raise InputError(path, f"line {own[-1]}" if own else "code", found, accepted) from error
