"""A simulated session on disk: the files of a real layout, and simulation.json, which declares them complete."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline_lib.files import exclusive, read_json, sha256_tree, whole_directory, write_json
from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.simulate import check_settings, citation, simulate
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
        write_json(writing / SIMULATION, description)


def read_simulation(source: str, session: str, directory: Path, options: dict[str, Any]) -> Recording:
    """The recording of what `write_simulation` wrote, by the reader of its layout, saying that it was simulated.

    Raises
    ------
    InputError : see `read_source`.
    """
    about = read_json(directory / SIMULATION, "the file as it was written (simulate the session again)")
    recording = read_source(source, session, directory / about["location"], options)
    provenance = recording.provenance
    # The reader took it for data of its source; nobody should cite or license a simulation as such.
    provenance.source, provenance.source_id = "simulated", about["simulator"]
    provenance.release, provenance.licence = f"in the layout of {about['layout']}", ""
    provenance.citation = citation(about["simulator"])
    return recording
