"""A simulation on disk: complete or absent, the same bytes, and never taken for data of the source it imitates."""

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.files import sha256_tree
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.simulate.store import read_simulation, write_simulation

SETTINGS = {"conditions": 3, "repeats": 2, "units": 4}


@pytest.mark.parametrize(("layout", "options"), [("allen", {}), ("ibl", {"observed": "trials"}), ("tables", {})])
def test_read_back_and_named_a_simulation(tmp_path: Path, layout: str, options: dict) -> None:
    write_simulation("lorenz", SETTINGS, 3, "attractor", layout, tmp_path / "simulated")
    recording = read_simulation(layout, "attractor", tmp_path / "simulated", options)
    made = simulate("lorenz", SETTINGS, 3, "attractor")
    assert np.abs(recording.spike_times - made.spike_times).max() < 1e-5
    assert (recording.spike_units == made.spike_units).all()
    about = recording.provenance
    assert (about.source, about.source_id, about.licence) == ("simulated", "lorenz", "")
    assert "Lorenz" in about.citation


def test_the_same_settings_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_simulation("lorenz", SETTINGS, 3, "attractor", "allen", tmp_path / name)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
