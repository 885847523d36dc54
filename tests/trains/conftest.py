"""Small sessions with spikes the tests choose."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.trains.store import Trains, convert, write_store


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Trains]:
    """Write the spike times (s) of each unit as a store and open it."""

    def make(spike_times: Sequence[np.ndarray], duration: float, session: str = "s", **more: object) -> Trains:
        write_store(tmp_path / session, session, [np.asarray(t) for t in spike_times], duration, **more)
        return Trains.open(tmp_path / session)

    return make


@pytest.fixture
def recording() -> Recording:
    """100 s with a gap, 20 units in two populations, one of which comes and goes, 62 trials of two conditions."""
    return make_recording("s1")


@pytest.fixture
def trains(recording: Recording) -> Trains:
    """It as trains in memory."""
    return Trains.from_recording(recording)


@pytest.fixture
def converted(recording: Recording, tmp_path: Path) -> Path:
    """It as a store, with counts of two bin sizes."""
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains", bin_sizes=(5, 20))
    return tmp_path / "trains"


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    """Stores of four such sessions, s0 to s3."""
    for number in range(4):
        make_recording(f"s{number}", seed=number).write(tmp_path / "recordings" / f"s{number}")
        convert(tmp_path / "recordings" / f"s{number}", tmp_path / f"s{number}")
    return [tmp_path / f"s{number}" for number in range(4)]


def make_recording(session: str, seed: int = 0) -> Recording:
    random = np.random.default_rng(seed)
    spikes, units = 20_000, 20
    start = np.arange(2, 95, 1.5)
    trials = pd.DataFrame(
        {
            "start": start,
            "stop": start + random.uniform(0.5, 1.2, len(start)),
            "condition": random.choice(["left", "right"], len(start)),
            "go": np.where(np.arange(len(start)) % 10 == 3, np.nan, start + 0.2),
            "note": [None, "licked"] * (len(start) // 2),
            "lick_times": [[1.5, 2.5]] * len(start),
        }
    )
    return Recording(
        session=session,
        spike_times=np.sort(random.uniform(0, 100, spikes)),
        spike_units=random.integers(0, units, spikes).astype(np.int32),
        units=pd.DataFrame(
            {
                "unit_id": [f"{session}-{unit}" for unit in range(units)],
                "region": ["VISp"] * 8 + ["CA1"] * 12,
                "population": ["cortex"] * 8 + ["hippocampus"] * 12,
                "depth": random.random(units),
                "good": random.random(units) > 0.5,
            }
        ),
        trials=trials,
        duration=100.0,
        observed=np.array([[0, 50.0], [50, 80], [85, 100]]),
        provenance=Provenance("test", session),
        signals={"running": pd.DataFrame({"time": np.arange(0, 100, 0.02), "speed": np.arange(5000) * 0.02})},
        unit_intervals=pd.DataFrame({"unit": [3, 3], "start": [0.0, 30.0], "stop": [20.0, 60.0]}),
    )
