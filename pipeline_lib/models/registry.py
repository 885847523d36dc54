"""Models by name: a module of this package, or a user's own Python file, with an attribute ``MODEL``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.own_code import import_file

if TYPE_CHECKING:
    from pipeline_lib.models.contract import Model

PACKAGE = "pipeline_lib.models"
FOLDER = Path(__file__).parent
DECLARATION = re.compile(r"^MODEL\b\s*[:=]", re.MULTILINE)


def model_names() -> list[str]:
    """Names of the models of this package, sorted. Files are read, not imported: torch stays away."""
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("*/__init__.py")]
    declaring = [file for file in files if DECLARATION.search(file.read_text())]
    return sorted(file.parent.name if file.stem == "__init__" else file.stem for file in declaring)


def model_source(implementation: str) -> str | Path:
    """The dotted module name of a registered model, or the path of a user's model file.

    Raises
    ------
    InputError : neither a registered model nor an existing Python file.
    """
    if implementation.endswith(".py"):
        path = Path(implementation).expanduser()
        if not path.is_file():
            raise InputError("model", "implementation", f"no file {path}", "the Python file of a model")
        return path
    if implementation not in model_names():
        accepted = suggest(implementation, model_names()) + " (or the path of a Python file)"
        raise InputError("model", "implementation", repr(implementation), accepted)
    return f"{PACKAGE}.{implementation}"


def load_model(implementation: str) -> type[Model]:
    """The class of a model, given its name in this package or the path of a Python file.

    Raises
    ------
    InputError : no such model, a file that cannot be imported, or one whose `MODEL` does not follow the contract.
    """
    from pipeline_lib.models.contract import Model

    source = model_source(implementation)
    module = import_file(source, "model") if isinstance(source, Path) else importlib.import_module(source)
    model = getattr(module, "MODEL", None)
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise InputError(source, "MODEL", model, "a subclass of pipeline_lib.models.contract.Model")
    lacking = [name for name in ("Config", "sees") if not hasattr(model, name)]
    if lacking:
        raise InputError(source, f"MODEL.{lacking[0]}", "nothing", "see pipeline_lib.models.contract.Model")
    if missing := sorted(getattr(model, "__abstractmethods__", ())):
        found = f"{model.__name__} without {', '.join(missing)}"
        raise InputError(source, "MODEL", found, "a class with all that pipeline_lib.models.contract.Model asks for")
    return model


def check_config(implementation: str, settings: dict[str, Any], where: str | None = None) -> Any:
    """The model's `Config` made of `settings`; what they leave out takes its default.

    Parameters
    ----------
    implementation : as for `load_model`.
    settings : hyper-parameters by name, as read from YAML.
    where : what an error names as the place of the mistake; default: the model.

    Raises
    ------
    InputError : an unknown key (the nearest known one is suggested), a wrong type, or a value that makes no sense.
    """
    from pipeline_lib.parsing import parse

    return parse(load_model(implementation).Config, settings, where or f"model {implementation}")
