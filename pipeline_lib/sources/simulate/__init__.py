"""Simulators: recordings whose rates, latents or couplings are known, so that recovery can be measured.

    from pipeline_lib.sources.simulate import simulate
    recording = simulate("eif", {"trials": 200}, seed=0, session="two_areas")

Checking settings imports no table library: a workflow checks every session before any job starts.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.parsing import parse
from pipeline_lib.sources.simulate.settings import SimulatorSettings

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording


def simulate(name: str, settings: dict[str, Any], seed: int, session: str) -> "Recording":
    """One session made by the simulator `name`; the same settings and seed give the same spikes.

    Raises
    ------
    InputError : no such simulator, an unknown setting (the nearest known one is named) or a value out of range.

    Examples
    --------
    >>> session = simulate("glm", {"units": 4, "duration": 5}, seed=0, session="demo")
    >>> len(session.units), sorted(session.truth.arrays)[:2]
    (4, ['coupling', 'coupling_filters'])
    """
    if seed < 0:
        raise InputError("config", "seed", seed, "a whole number from 0 on")
    recording: Recording = _module(name).simulate(check_settings(name, settings), seed, session)
    return recording


def check_settings(name: str, settings: dict[str, Any]) -> SimulatorSettings:
    """The settings of the simulator `name`, complete and checked; raises InputError as `simulate` does."""
    checked: SimulatorSettings = parse(_module(name).Settings, settings, f"simulator {name}")
    return checked


def citation(name: str) -> str:
    """The paper that a simulator follows."""
    return str(_module(name).Settings.CITATION)


def _module(name: str) -> ModuleType:
    # Imported by name, not by a computed name: the workflow hashes the code that a simulation runs through.
    from pipeline_lib.sources.simulate import chaotic_rnn, eif, glm, glm_factors, lorenz, video

    every = (chaotic_rnn, eif, glm, glm_factors, lorenz, video)
    modules = {module.__name__.rpartition(".")[2]: module for module in every}
    if name not in modules:
        raise InputError("config", "simulator", repr(name), suggest(str(name), list(modules)))
    return modules[name]
