"""Reading weights that public code has published."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.errors import InputError


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name of a file that torch saved: a state dict, or a checkpoint that holds it as `state_dict`.

    Nothing but tensors is read, so that a file can run no code of its own.

    Raises
    ------
    InputError : not such a file, or one that needs more unpickled.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is not one makes the reader raise
        raise InputError(path, "file", str(error).splitlines()[0], "a state dict of tensors saved by torch") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
