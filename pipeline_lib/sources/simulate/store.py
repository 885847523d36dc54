"""A simulated session on disk: the files of a real layout, and simulation.json, which declares them complete."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline_lib.files import exclusive, sha256_tree, whole_directory
from pipeline_lib.sources.simulate import check_settings, simulate
from pipeline_lib.sources.simulate.layouts import write_layout

SIMULATION = "simulation.json"
_FILES = "session"


def write_simulation(
    simulator: str, settings: dict[str, Any], seed: int, name: str, layout: str, directory: Path | str
) -> None:
    """Simulate the session `name` and write it into `directory` in a layout.

    Raises
    ------
    InputError : see `simulate` and `write_layout`.
    """
    directory = Path(directory)
    recording = simulate(simulator, settings, seed, name)
    with exclusive(directory / ".lock"), whole_directory(directory, final=SIMULATION) as writing:
        location = write_layout(recording, writing / _FILES, layout)
        description = {
            "simulator": simulator,
            "settings": asdict(check_settings(simulator, settings)),
            "seed": seed,
            "layout": layout,
            "location": location.relative_to(writing).as_posix(),
            "content": sha256_tree(writing / _FILES),
        }
        (writing / SIMULATION).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")


def simulated_location(location: Path) -> Path:
    """Where the reader of the layout finds the session, if `location` holds a simulation; else `location` itself."""
    path = location / SIMULATION
    return location / json.loads(path.read_text())["location"] if path.is_file() else location
