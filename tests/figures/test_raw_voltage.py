"""The raw voltage figure: what it shows is what the snippet and the recording hold."""

from pathlib import Path

import numpy as np

from pipeline_lib.figures.raw_voltage import data, draw
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.sources.voltage import Snippet


def test_voltage_and_spikes_of_the_same_time(tmp_path: Path) -> None:
    recording = simulate("eif", {"neurons_per_area": 4, "coupled": 2, "trials": 20}, 0, "pair")
    recording.units["probe"] = ["probe00", "probe01"] * (len(recording.units) // 2)
    recording.units["depth"] = np.arange(len(recording.units))[::-1] * 20.0
    recording.write(tmp_path / "recording")
    voltage = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32) + np.arange(16, dtype=np.float32)
    Snippet(voltage, 2.0, 300.0, "probe00", "ap").write(tmp_path / "snippet.npz")
    table = data(tmp_path / "recording", tmp_path / "snippet.npz")
    own = np.flatnonzero(recording.units["probe"] == "probe00")
    times, units = recording.spike_times, recording.spike_units
    expected = times[(times >= 2) & (times < 3) & np.isin(units, own)]
    spikes = table[table["kind"] == "spike"]
    assert np.array_equal(spikes["time"], expected)
    assert set(spikes["row"]) <= set(range(len(own)))
    picture = table[table["kind"] == "voltage"]
    assert len(picture) == voltage.size
    assert np.allclose(np.median(picture.pivot(index="time", columns="row", values="value"), axis=1), 0, atol=1e-6)
    assert len(draw(table).axes) == 3
