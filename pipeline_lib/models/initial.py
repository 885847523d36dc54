"""Weights of another fit that a training starts from: which can be, and when they learned from what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.errors import InputError
from pipeline_lib.intervals import merged, overlap_any
from pipeline_lib.published import require_undamaged
from pipeline_lib.training.run import read_arrays

if TYPE_CHECKING:
    from pipeline_lib.models.contract import FitData
    from pipeline_lib.models.torch_model import Layout
    from pipeline_lib.training.run import State

TRAINED_ON = "/trained_on"
"""In a model's state, after a session: when it learned from that, int64 [intervals, 2], start and stop in ticks."""


def read_initial(path: str) -> State:
    """The state of a finished fit of a network; InputError for anything else."""
    accepted = "model.safetensors of a finished fit"
    if not Path(path).is_file():
        raise InputError("config", "initial", path, accepted)
    from safetensors import SafetensorError

    require_undamaged(Path(path).parent, Path(path).name)
    try:
        state, _ = read_arrays(path)
    except SafetensorError as error:
        raise InputError(path, "file", str(error), accepted) from None
    if "layout" not in state:
        raise InputError(path, "layout", "nothing", accepted)
    return state


def check_data(path: str, given: State, before: Layout, layout: Layout, data: FitData) -> None:
    """Refuse weights `given` for data of layout `before` that mean something else for `data` of `layout`, or that
    learned from what is to be tested.

    Raises
    ------
    InputError : other bins, other held-in units of a session that both have, or test windows that were learned from.
    """
    if before.bin_size != layout.bin_size:
        raise InputError(path, "bin_size", f"{before.bin_size:g} ms", f"a fit in bins of {layout.bin_size:g} ms")
    for session in before.heldin.keys() & layout.heldin.keys():
        if before.heldin[session] != layout.heldin[session]:
            accepted = "a fit with the same ones: weights of inputs go by their order"
            raise InputError(path, "held-in units", f"others of session {session}", accepted)
    for session in data.sessions:
        learned = given.get(f"{session}{TRAINED_ON}", np.empty((0, 2), np.int64))
        begin, end = _times(data, session, "test").T
        seen = overlap_any(begin, end, learned).sum()
        if seen:
            accepted = "a fit that did not learn from them: the same `splits`, with the same seed"
            raise InputError(path, "trained on", f"{seen} test windows of session {session}", accepted)


def weights_of(path: str, given: State, shapes: Mapping[str, tuple[int, ...]], shared: Iterable[str]) -> State:
    """Of `given` those weights that a network has too.

    Parameters
    ----------
    path : of the file, for messages.
    given : the state of a fit.
    shapes : of the network's weights, by their names in a state.
    shared : names of those that belong to no session, all of which must be given.

    Raises
    ------
    InputError : one is missing, or of another shape.
    """
    for name in shared:
        if name not in given:
            raise InputError(path, name, "nothing", "a fit of the same model and settings")
    taken = {name: given[name] for name in shapes if name in given}
    for name, value in taken.items():
        if value.shape != shapes[name]:
            accepted = f"shape {shapes[name]}: the same settings, bins and units"
            raise InputError(path, name, f"shape {value.shape}", accepted)
    return taken


def times_of(state: State) -> State:
    """Of a state, when its weights learned from each session."""
    return {name: value for name, value in state.items() if name.endswith(TRAINED_ON)}


def trained_on(data: FitData, initial: State) -> State:
    """When the training windows of each session lie, and those that the `initial` weights learned from."""
    before = times_of(initial)
    now = {f"{session}{TRAINED_ON}": _times(data, session, "train") for session in data.sessions}
    return before | {name: merged(np.concatenate([times, before.get(name, times[:0])])) for name, times in now.items()}


def _times(data: FitData, session: str, part: str) -> np.ndarray:
    """Start and stop of the windows of a part [windows, 2], ticks, without their history."""
    samples = data.split.part(session, part)
    start = samples["start_tick"].to_numpy(np.int64)
    return np.stack([start, start + samples["bins"].to_numpy(np.int64) * data.split.bin_ticks], axis=1)
